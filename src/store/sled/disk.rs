use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ::sled::{Batch, Config, Db, IVec};
use uuid::Uuid;

use super::check;
use crate::lock::FileLock;
use crate::private_file::refuse_link;
use crate::store::StoreError;
use crate::store::engine::{
    Changes, Descriptors, Disk, LOCK, MARK, Mark, Order, Place, Seal, Visit, Whereabouts, check_kind,
    check_known, check_there, create_dir, io_error, keep_private, place, put_off, read_seal, replaced,
    sync_dir, take_directory, unreadable,
};
use crate::threads;

/// So many batches are written before the seal is renewed.
const SEAL_EVERY: u64 = 256;
/// So many changes are handed to sled at once at most, but for the last batch among them.
const PENDING: usize = 10_000;
/// So many bytes of room, and so many times those of a batch, are left to sled: for its buffers, and
/// for what it writes anew to make room.
const ROOM: u64 = 8 << 20;
const FOLD: u64 = 8;
/// So many threads sled may start while it opens a database.
const THREADS: usize = 10;
/// What the names of sled's snapshots begin with.
const SNAPSHOT: &str = "snap.";
/// Where sled puts what is too large for its log.
pub(super) const BLOBS: &str = "blobs";

/// A directory for sled.
#[derive(Debug, Clone)]
pub(super) struct SledPlace {
    pub path: PathBuf,
    /// In bytes.
    pub cache: u64,
}

impl Place for SledPlace {
    type Disk = SledDisk;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<SledDisk, StoreError> {
        create_dir(&self.path)?;
        self.open_as(None)
    }

    fn reopen(&self, identity: Uuid) -> Result<SledDisk, StoreError> {
        self.open_as(Some(identity))
    }
}

impl SledPlace {
    /// Opens the store `expected`; any, or a new one, unless one is.
    fn open_as(&self, expected: Option<Uuid>) -> Result<SledDisk, StoreError> {
        let path = &self.path;
        let expect_there = || expected.map_or(Ok(()), |_| check_there(path, &[check::DATA, check::CONF]));
        expect_there()?;
        check_kind(path, check::DATA)?;
        for file in [check::DATA, check::CONF].map(|name| path.join(name)) {
            refuse_link(&file).map_err(|error| io_error(&file, "open", error))?;
        }
        let lock = take_directory(path)?;
        let seal = read_seal(path)?;
        if let Some(expected) = expected {
            check_known(path, expected, seal.and_then(|seal| seal.store))?;
        }
        // Without its threads sled waits for ever, or panics as over damaged files.
        threads::probe(THREADS).map_err(|(given, error)| StoreError::Unavailable {
            reason: format!(
                "sled in {} needs {THREADS} threads, and the system gives {given}: {error}",
                path.display()
            ),
            source: Some(Arc::new(error)),
        })?;
        let known = check::examine(path, self.cache, seal, expected)?;
        create_dir(&path.join(BLOBS))?;
        if !known {
            expect_there()?;
            if expected.is_some() {
                return Err(replaced(path, "an empty store is there"));
            }
        }
        let db = try_open(path, self.cache)?;
        let batch = match mark(&db)? {
            Found::Batch(batch) => batch,
            _ if known => return Err(unreadable(path, "its data was lost while it was opened")),
            _ => 0,
        };
        // Some systems sync only files that may be written to.
        let file = OpenOptions::new().read(true).write(true).open(path.join(check::DATA));
        let file = file.map_err(|error| io_error(path, "open", error))?;
        let last = let_go_elsewhere(db.clone());
        let mut disk = SledDisk {
            db,
            file,
            path: path.clone(),
            pending: RefCell::default(),
            batch,
            sealed: batch,
            seal: seal.unwrap_or(Seal::of(batch, None)),
            whereabouts: Whereabouts::note(path, &[check::DATA, LOCK])?,
            synced_blobs: HashSet::new(),
            _last: last,
            _released: Released(path.join(check::DATA)),
            _lock: lock,
        };
        if !known {
            [check::DATA, check::CONF]
                .iter()
                .try_for_each(|file| keep_private(&path.join(file)))
                .map_err(|error| io_error(path, "make files private in", error))?;
            disk.apply(vec![(MARK.to_vec(), Some(Mark::encoded(1)?))])?;
        }
        // A first start may have been killed before it had written one.
        if seal.is_none() {
            disk.sync_conf().map_err(|error| io_error(path, "sync", error))?;
            disk.seal()?;
        }
        // sled makes files, and nobody else makes sure of their names.
        sync_dir(path).map_err(|error| io_error(path, "sync", error))?;
        Ok(disk)
    }
}

/// sled, made to keep its word.
#[derive(Debug)]
pub(super) struct SledDisk {
    db: Db,
    /// sled's data file once more: sled itself never syncs it when it is asked to.
    file: File,
    path: PathBuf,
    /// What is applied and not handed to sled yet: one batch of sled costs as much as dozens of
    /// changes in it.
    pending: RefCell<Changes>,
    /// The latest batch.
    batch: u64,
    /// The batch that the seal knows of.
    sealed: u64,
    /// What is in the file of the seal.
    seal: Seal,
    whereabouts: Whereabouts,
    synced_blobs: HashSet<OsString>,
    /// Tells the thread that lets go of the database that it is the last one.
    _last: mpsc::Sender<()>,
    /// Dropped after the database.
    _released: Released,
    /// Dropped last.
    _lock: FileLock,
}

/// Keeps a database until the sender is gone, and drops it on a thread of its own: after a failed
/// write sled may wait in there for ever.
fn let_go_elsewhere(db: Db) -> mpsc::Sender<()> {
    let (sender, gone) = mpsc::channel();
    let thread = std::thread::Builder::new().name("callboard-sled".to_owned());
    // Without a thread, whoever opened it drops it.
    let _ = thread.spawn(move || {
        let _ = gone.recv();
        drop(db);
    });
    sender
}

/// Its drop ends when the files are free: threads of sled hold them for a moment after the
/// database was dropped. It gives up after some seconds; then nobody opens them before the program
/// ends.
#[derive(Debug)]
struct Released(PathBuf);

impl Drop for Released {
    fn drop(&mut self) {
        for _ in 0..5000 {
            match File::open(&self.0).map(|file| file.try_lock()) {
                Ok(Err(TryLockError::WouldBlock)) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
    }
}

/// What a database says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is empty.
    Nothing,
    /// Ours, with this batch as the latest.
    Batch(u64),
    /// Not empty, and not ours.
    Foreign,
}

impl Disk for SledDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.hand_over()?;
        let value = self.db.get(key).map_err(|error| failure(&self.path, error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.hand_over()?;
        self.show(self.db.scan_prefix(prefix), order, visit)
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.hand_over()?;
        let entries = match order {
            Order::Ascending => self.db.range::<&[u8], _>((Bound::Excluded(past), Bound::Unbounded)),
            Order::Descending => self.db.range(prefix..past),
        };
        self.show(entries, order, &mut |key, value| {
            if key.starts_with(prefix) { visit(key, value) } else { ControlFlow::Break(()) }
        })
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.batch += 1;
        let pending = self.pending.get_mut();
        pending.extend(changes);
        if pending.len() < PENDING { Ok(()) } else { self.hand_over() }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.write_out()?;
        if self.batch - self.sealed >= SEAL_EVERY { put_off(self.seal()) } else { Ok(()) }
    }

    fn descriptors(&self) -> Descriptors {
        // The seal and its directory, or one of sled's own files.
        Descriptors { sync: 3, tidy: 0, read: 2 }
    }

    fn set_identity(&mut self, identity: Uuid) -> Result<(), StoreError> {
        if self.seal.store != Some(identity) {
            self.seal.store = Some(identity);
            self.seal()?;
        }
        Ok(())
    }

    fn check_place(&self) -> Result<(), StoreError> {
        self.whereabouts.check()
    }

    fn check_identity(&self) -> Result<(), StoreError> {
        self.seal.check(&self.path)
    }

    fn close(mut self) -> Result<(), StoreError> {
        self.seal()
    }
}

impl SledDisk {
    fn show(&self, mut entries: ::sled::Iter, order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        while let Some(entry) = match order {
            Order::Ascending => entries.next(),
            Order::Descending => entries.next_back(),
        } {
            let (key, value) = entry.map_err(|error| failure(&self.path, error))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Gives sled what is pending, as one batch with the number of the latest in it.
    fn hand_over(&self) -> Result<(), StoreError> {
        let pending = self.pending.take();
        if pending.is_empty() {
            return Ok(());
        }
        let bytes =
            |(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        self.check_room(pending.iter().map(bytes).sum())?;
        let mut batch = Batch::default();
        for (key, value) in pending {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(MARK, IVec::from(Mark::encoded(self.batch)?));
        self.db.apply_batch(batch).map_err(|error| failure(&self.path, error))
    }

    /// sled does not get over a write that fails: its threads may wait for ever then, those of other
    /// databases of the process too. So it is given nothing that the device may have no room for.
    fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        let path = &self.path;
        let needed = ROOM.saturating_add(FOLD.saturating_mul(bytes as u64));
        match free(path).map_err(|error| io_error(path, "ask for the free space of", error))? {
            Some(free) if free < needed => Err(StoreError::unavailable(format!(
                "the device of {} has {} MB left, and sled may need {}: make room, and it goes on by itself",
                path.display(),
                free >> 20,
                needed >> 20,
            ))),
            _ => Ok(()),
        }
    }

    /// sled's `flush` hands its log over to the system, and stops there (on Linux it starts the
    /// writing of the pages, and waits neither for the device nor for the file's length).
    fn write_out(&mut self) -> Result<(), StoreError> {
        self.hand_over()?;
        self.db.flush().map_err(|error| failure(&self.path, error))?;
        self.sync_blobs().map_err(|error| io_error(&self.path.join(BLOBS), "sync", error))?;
        self.file.sync_all().map_err(|error| io_error(&self.path, "sync", error))
    }

    /// What does not fit sled's log is in files of its own, which the log names. sled writes each
    /// once and never syncs it. No row is that large, but sixteen neighbours can be.
    fn sync_blobs(&mut self) -> io::Result<()> {
        let blobs = self.path.join(BLOBS);
        let entries = match fs::read_dir(&blobs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (mut present, mut news) = (HashSet::new(), false);
        for entry in entries {
            let name = entry?.file_name();
            if !self.synced_blobs.contains(&name) {
                match OpenOptions::new().read(true).write(true).open(blobs.join(&name)) {
                    Ok(file) => {
                        keep_private(&blobs.join(&name))?;
                        file.sync_all()?;
                    }
                    // sled removes those that it needs no more.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                news = true;
            }
            present.insert(name);
        }
        self.synced_blobs = present;
        if news { sync_dir(&blobs) } else { Ok(()) }
    }

    /// sled writes its settings once and never syncs them, and opens nothing without them.
    fn sync_conf(&self) -> io::Result<()> {
        OpenOptions::new().read(true).write(true).open(self.path.join(check::CONF))?.sync_all()
    }

    /// sled makes them now and then, as the mask of the process has it.
    fn keep_snapshots_private(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(SNAPSHOT) {
                match keep_private(&entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), StoreError> {
        self.write_out()?;
        // On a mount point whose volume is gone, it would be the beginning of another store.
        self.whereabouts.check()?;
        self.keep_snapshots_private()
            .map_err(|error| io_error(&self.path, "make files private in", error))?;
        Seal::write(&self.path, self.batch, self.seal.store)?;
        self.seal = Seal::of(self.batch, self.seal.store);
        self.sealed = self.batch;
        Ok(())
    }
}

/// How many bytes may still be written to the device of a path, where that is known.
#[cfg(unix)]
fn free(path: &Path) -> io::Result<Option<u64>> {
    let device = rustix::fs::statvfs(path)?;
    let blocks = if rustix::process::geteuid().is_root() { device.f_bfree } else { device.f_bavail };
    Ok(Some(blocks.saturating_mul(device.f_frsize)))
}

#[cfg(not(unix))]
fn free(_: &Path) -> io::Result<Option<u64>> {
    Ok(None)
}

/// Opens a database with sled, which may panic on a damaged one.
pub(super) fn try_open(path: &Path, cache: u64) -> Result<Db, StoreError> {
    let config = Config::new().path(path).cache_capacity(cache);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(failure(path, error)),
        Err(_) => Err(unreadable(path, "sled panicked while it opened the files")),
    }
}

pub(super) fn mark(db: &Db) -> Result<Found, StoreError> {
    let path = Path::new("the store");
    let look = || -> Result<Found, StoreError> {
        match db.get(MARK).map_err(|error| failure(path, error))? {
            Some(bytes) => Ok(Found::Batch(Mark::decoded(path, &bytes)?.batch)),
            None if db.is_empty() && db.tree_names().len() <= 1 => Ok(Found::Nothing),
            None => Ok(Found::Foreign),
        }
    };
    catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|_| Err(unreadable(path, "sled panicked while it read the files")))
}

fn failure(path: &Path, error: ::sled::Error) -> StoreError {
    use ::sled::Error;
    match error {
        Error::Corruption { .. } => unreadable(path, "sled found corrupt data"),
        Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse { place: place(path), holder: None }
        }
        // A damaged configuration file, and anything else that is not about the disk.
        Error::Unsupported(reason) => unreadable(path, &format!("sled does not support it: {reason}")),
        error => StoreError::Unavailable {
            reason: format!("sled in {}: {error}", path.display()),
            source: Some(Arc::new(error)),
        },
    }
}
