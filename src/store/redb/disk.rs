use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{
    Builder, Database, DatabaseError, Error, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, TableDefinition, TableHandle, WriteTransaction,
};

use uuid::Uuid;

use super::untouched::Untouched;
use crate::lock::FileLock;
use crate::private_file;
use crate::store::StoreError;
use crate::store::engine::{
    Changes, Descriptors, Disk, IDENTITY, LOCK, MARK, Mark, Order, Place, Seal, Visit, Whereabouts,
    check_kind, check_known, check_there, create_dir, damaged, identity_in, io_error, place, put_off,
    read_seal, replaced, sync_dir, take_directory, unreadable,
};

const DATA: &str = "tasks.redb";
/// Where a database is made that does not exist yet.
const ASIDE: &str = "tasks.redb.new";
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("callboard");

// The head of a file of redb (its format 3): a byte of flags, and two commit slots whose last bytes
// are their checksum.
const FLAGS: u64 = 9;
const SECOND_IS_LATEST: u8 = 1;
const RECOVER: u8 = 2;
/// The latest commit was synced before it was made the latest.
const TRUSTED: u8 = 4;
const SLOTS: u64 = 64;
const SLOT: u64 = 128;

/// What redb tells as the progress of a repair when the checksums of the latest commit do not match.
const LATEST_IS_BROKEN: f64 = 0.3;

/// So many batches are written before the seal is renewed.
const SEAL_EVERY: u64 = 256;

/// A directory for redb.
#[derive(Debug, Clone)]
pub(super) struct RedbPlace {
    pub path: PathBuf,
    /// In bytes.
    pub cache: u64,
}

impl Place for RedbPlace {
    type Disk = RedbDisk;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<RedbDisk, StoreError> {
        create_dir(&self.path)?;
        self.open_as(None)
    }

    fn reopen(&self, identity: Uuid) -> Result<RedbDisk, StoreError> {
        self.open_as(Some(identity))
    }
}

impl RedbPlace {
    /// Opens the store `expected`; any, or a new one, unless one is.
    fn open_as(&self, expected: Option<Uuid>) -> Result<RedbDisk, StoreError> {
        let path = &self.path;
        let expect_there = || expected.map_or(Ok(()), |_| check_there(path, &[DATA]));
        expect_there()?;
        check_kind(path, DATA)?;
        let lock = take_directory(path)?;
        let seal = read_seal(path)?;
        if let Some(expected) = expected {
            check_known(path, expected, seal.and_then(|seal| seal.store))?;
        }
        let known = self.examine(seal, expected)?;
        if !known {
            expect_there()?;
            if expected.is_some() {
                return Err(replaced(path, "an empty store is there"));
            }
        }
        if !fs::metadata(path.join(DATA)).is_ok_and(|data| data.len() > 0) {
            self.make()?;
        }
        let file = self.file()?;
        let db = self.try_open(false, |builder| builder.create_file(file))?;
        let batch = match mark(&db, path)? {
            Some(batch) => batch,
            None if known => return Err(unreadable(path, "its data was lost while it was opened")),
            None => 0,
        };
        let mut disk = RedbDisk {
            db,
            transaction: None,
            path: path.clone(),
            batch,
            sealed: batch,
            seal: seal.unwrap_or(Seal::of(batch, None)),
            whereabouts: Whereabouts::note(path, &[DATA, LOCK])?,
            _lock: lock,
        };
        if !known {
            disk.apply(Changes::new())?;
        }
        // A first start may have been killed before it had written one.
        if seal.is_none() {
            disk.seal()?;
        }
        sync_dir(path).map_err(|error| io_error(path, "sync", error))?;
        Ok(disk)
    }

    /// Looks at what is there before redb may change it; answers whether there is anything.
    fn examine(&self, seal: Option<Seal>, expected: Option<Uuid>) -> Result<bool, StoreError> {
        let path = &self.path;
        let length = match fs::metadata(path.join(DATA)) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match seal {
                    Some(_) => Err(unreadable(path, &format!("the file `{DATA}` is missing"))),
                    None => Ok(false),
                };
            }
            Err(error) => return Err(io_error(path, "open", error)),
        };
        match (seal, length) {
            // Made and never written: the process died in its first moment.
            (None, 0) => return Ok(false),
            // redb would take it for a new file.
            (Some(_), 0) => return Err(unreadable(path, "its data is gone")),
            _ => {}
        }
        let file = Untouched::new(self.lock()?).map_err(|error| io_error(path, "read", error))?;
        let trusted = distrust(&file).map_err(|error| io_error(path, "read", error))?;
        let db = self.try_open(trusted, |builder| builder.create_with_backend(file))?;
        let found = mark(&db, path)?;
        if let (Some(expected), Some(_)) = (expected, found) {
            check_known(path, expected, identity(&db, path)?)?;
        }
        drop(db);
        match (seal, found) {
            (None, None) => Ok(false),
            (Some(_), None) => Err(unreadable(path, "its data is gone")),
            (Some(seal), Some(batch)) if batch < seal.batch => {
                let missing = seal.batch - batch;
                Err(unreadable(path, &format!("its latest {missing} changes or more are missing")))
            }
            (_, Some(_)) => Ok(true),
        }
    }

    /// Makes an empty database aside: redb does not open one whose making was cut short.
    fn make(&self) -> Result<(), StoreError> {
        let aside = self.path.join(ASIDE);
        // In place of what an earlier start has left behind.
        private_file::create_anew(&aside).map_err(|error| io_error(&aside, "create", error))?;
        let file = private_file::open(&aside, OpenOptions::new().read(true).write(true));
        let file = file.map_err(|error| io_error(&aside, "open", error))?;
        drop(self.try_open(false, |builder| builder.create_file(file))?);
        fs::rename(&aside, self.path.join(DATA))
            .and_then(|()| sync_dir(&self.path))
            .map_err(|error| io_error(&self.path, "create a database in", error))
    }

    fn file(&self) -> Result<File, StoreError> {
        let path = self.path.join(DATA);
        let file = private_file::open(&path, OpenOptions::new().read(true).write(true));
        file.map_err(|error| io_error(&path, "open", error))
    }

    /// The file, unless somebody else has it: what they write meanwhile would look like damage.
    fn lock(&self) -> Result<File, StoreError> {
        let (path, file) = (&self.path, self.file()?);
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { place: place(path), holder: None }),
            Err(fs::TryLockError::Error(error)) => Err(io_error(path, "lock", error)),
        }
    }

    /// Opens a database, or makes it, with redb, which may panic on a damaged one. An `exact` one
    /// must hold its latest commit whole: redb may not go back to the one before.
    fn try_open(
        &self,
        exact: bool,
        open: impl FnOnce(&Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Database, StoreError> {
        let path = &self.path;
        let mut builder = Builder::new();
        builder.set_cache_size(usize::try_from(self.cache).unwrap_or(usize::MAX));
        if exact {
            builder.set_repair_callback(|repair| {
                if repair.progress() == LATEST_IS_BROKEN {
                    repair.abort();
                }
            });
        }
        match catch_unwind(AssertUnwindSafe(|| open(&builder))) {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                Err(StoreError::InUse { place: place(path), holder: None })
            }
            Ok(Err(error @ DatabaseError::UpgradeRequired(_))) => Err(damaged(
                path,
                &format!("redb cannot read it: {error}"),
                "open it with the version of callboard that wrote it",
            )),
            Ok(Err(DatabaseError::RepairAborted)) => {
                Err(unreadable(path, "redb found corrupt data (the checksums do not match)"))
            }
            Ok(Err(error)) => Err(failure(path)(error)),
            Err(_) => Err(unreadable(path, "redb panicked while it opened the file")),
        }
    }
}

/// redb, and the transaction that waits for its commit.
pub(super) struct RedbDisk {
    // Dropped before the database, which waits in its drop for the end of every transaction.
    transaction: Option<WriteTransaction>,
    db: Database,
    path: PathBuf,
    /// The latest batch.
    batch: u64,
    /// The batch that the seal knows of.
    sealed: u64,
    /// What is in the file of the seal.
    seal: Seal,
    whereabouts: Whereabouts,
    /// Dropped last.
    _lock: FileLock,
}

impl Disk for RedbDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let failure = failure(&self.path);
        let get = || -> Result<Option<Vec<u8>>, Error> {
            Ok(match &self.transaction {
                Some(writing) => writing.open_table(TABLE)?.get(key)?.map(|value| value.value().to_vec()),
                None => {
                    self.db.begin_read()?.open_table(TABLE)?.get(key)?.map(|value| value.value().to_vec())
                }
            })
        };
        get().map_err(failure)
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let end = after(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.show((Bound::Included(prefix), end), order, visit)
    }

    fn scan_beyond(
        &self,
        prefix: &[u8],
        past: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let end = after(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = match order {
            Order::Ascending => (Bound::Excluded(past), end),
            Order::Descending => (Bound::Included(prefix), Bound::Excluded(past)),
        };
        self.show(range, order, visit)
    }

    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        let writing = match self.transaction.take() {
            Some(writing) => writing,
            None => self.db.begin_write().map_err(failure(&self.path))?,
        };
        let write = || -> Result<(), Error> {
            let mut table = writing.open_table(TABLE)?;
            for (key, value) in &changes {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
            Ok(())
        };
        write().map_err(failure(&self.path))?;
        self.transaction = Some(writing);
        self.batch += 1;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        if self.batch - self.sealed >= SEAL_EVERY { put_off(self.seal()) } else { Ok(()) }
    }

    fn descriptors(&self) -> Descriptors {
        // The seal and its directory.
        Descriptors { sync: 2, tidy: 0, read: 1 }
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

impl RedbDisk {
    fn show(&self, range: Range<'_>, order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let shown = match &self.transaction {
            Some(writing) => writing
                .open_table(TABLE)
                .map_err(Error::from)
                .and_then(|table| show(&table, range, order, visit)),
            None => self
                .db
                .begin_read()
                .map_err(Error::from)
                .and_then(|reading| show(&reading.open_table(TABLE)?, range, order, visit)),
        };
        shown.map_err(failure(&self.path))
    }

    /// One commit for all batches; redb syncs the file before it answers.
    fn commit(&mut self) -> Result<(), StoreError> {
        let Some(writing) = self.transaction.take() else { return Ok(()) };
        let mark = Mark::encoded(self.batch)?;
        let commit = || -> Result<(), Error> {
            writing.open_table(TABLE)?.insert(MARK, mark.as_slice())?;
            Ok(writing.commit()?)
        };
        commit().map_err(failure(&self.path))
    }

    fn seal(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        // On a mount point whose volume is gone, it would be the beginning of another store.
        self.whereabouts.check()?;
        Seal::write(&self.path, self.batch, self.seal.store)?;
        self.seal = Seal::of(self.batch, self.seal.store);
        self.sealed = self.batch;
        Ok(())
    }
}

type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

fn show<T: ReadableTable<&'static [u8], &'static [u8]>>(
    table: &T,
    range: Range<'_>,
    order: Order,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let mut entries = table.range::<&[u8]>(range)?;
    while let Some(entry) = match order {
        Order::Ascending => entries.next(),
        Order::Descending => entries.next_back(),
    } {
        let (key, value) = entry?;
        if visit(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

/// The first key that sorts after all those with a prefix; none when there is no such key.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// Makes redb go through all checksums of a file when it opens it, as it does after a crash, and
/// answers whether it would have trusted the latest commit without that. redb follows the page
/// numbers in what it trusts, and a corrupt one makes it ask for more memory than there is, which ends
/// the process.
fn distrust(file: &Untouched) -> io::Result<bool> {
    // Too short for a head: redb says what it thinks of it.
    if file.len()? < SLOTS + 2 * SLOT {
        return Ok(false);
    }
    let mut flags = [0];
    file.read(FLAGS, &mut flags)?;
    let [found] = flags;
    if found & TRUSTED == 0 {
        return Ok(false);
    }
    file.write(FLAGS, &[found & !TRUSTED | RECOVER])?;
    // The other slot may hold a later commit that was never completed: it is not to be preferred.
    let other = u64::from(found & SECOND_IS_LATEST == 0);
    let last = SLOTS + SLOT * (other + 1) - 1;
    let mut sum = [0];
    file.read(last, &mut sum)?;
    file.write(last, &sum.map(|byte| !byte))?;
    Ok(true)
}

/// The number of the latest batch; none in a database that is empty.
fn mark(db: &Database, path: &Path) -> Result<Option<u64>, StoreError> {
    let look = || -> Result<Option<Vec<u8>>, Error> {
        let reading = db.begin_read()?;
        let names: Vec<_> = reading.list_tables()?.map(|table| table.name().to_owned()).collect();
        if names.is_empty() {
            return Ok(None);
        }
        if !names.iter().any(|name| name == TABLE.name()) {
            return Ok(Some(Vec::new()));
        }
        let table = reading.open_table(TABLE)?;
        match table.get(MARK)? {
            Some(mark) => Ok(Some(mark.value().to_vec())),
            None if table.is_empty()? => Ok(None),
            None => Ok(Some(Vec::new())),
        }
    };
    let found = catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|_| Err(Error::Corrupted("redb panicked while it read the file".to_owned())));
    match found.map_err(failure(path))? {
        None => Ok(None),
        Some(bytes) if bytes.is_empty() => Err(damaged(
            path,
            "it holds the data of another program",
            "give the store a directory of its own",
        )),
        Some(bytes) => Ok(Some(Mark::decoded(path, &bytes)?.batch)),
    }
}

/// The identity in a database of ours.
fn identity(db: &Database, path: &Path) -> Result<Option<Uuid>, StoreError> {
    let look = || -> Result<Option<Uuid>, Error> {
        let row = db.begin_read()?.open_table(TABLE)?.get(IDENTITY)?;
        Ok(identity_in(row.as_ref().map(|row| row.value())))
    };
    catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|_| Err(Error::Corrupted("redb panicked while it read the file".to_owned())))
        .map_err(failure(path))
}

/// What an error of redb is to those who use the store.
fn failure<E: Into<Error>>(path: &Path) -> impl Fn(E) -> StoreError + '_ {
    move |error| match error.into() {
        Error::Corrupted(reason) => unreadable(path, &format!("redb found corrupt data ({reason})")),
        Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            unreadable(path, &format!("redb cannot read the file: {error}"))
        }
        error => StoreError::Unavailable {
            reason: format!("redb in {}: {error}", path.display()),
            source: Some(Arc::new(error)),
        },
    }
}

impl std::fmt::Debug for RedbDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbDisk")
            .field("path", &self.path)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
