//! A database that does not let go of its files: after a failed write, now and then sled waits for
//! ever for what it could not write. Whoever opens the files next in this process gets copies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ::sled::Db;

use super::check;
use crate::store::StoreError;
use crate::store::engine::{io_error, sync_dir};

/// So long a database may take to let go, in milliseconds.
const PATIENCE: u64 = 5000;
/// What the copy is called while it is written.
const COPY: &str = "db.copy";

/// Whether the last database in a directory has kept its files when it was dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Stuck(Arc<AtomicBool>);

impl Stuck {
    /// What a database in `path` ends with.
    pub(super) fn released(&self, path: &Path) -> Released {
        Released { file: path.join(check::DATA), stuck: self.clone() }
    }

    /// Puts a copy in the place of a data file that is kept, with the same content. A database that is
    /// stuck writes no more, and if it did, then to what is no part of the store any more. Nobody else has
    /// the directory.
    pub(super) fn renew(&self, path: &Path) -> Result<(), StoreError> {
        let (data, copy) = (path.join(check::DATA), path.join(COPY));
        if !self.0.load(Ordering::Acquire) {
            // Of a process that was killed meanwhile.
            fs::remove_file(&copy).ok();
            return Ok(());
        }
        let state = || fs::metadata(&data).and_then(|meta| Ok((meta.len(), meta.modified()?)));
        let renew = || -> io::Result<()> {
            let before = state()?;
            fs::copy(&data, &copy)?;
            OpenOptions::new().read(true).write(true).open(&copy)?.sync_all()?;
            if state()? != before {
                return Err(io::Error::other("it was written to while it was copied"));
            }
            fs::rename(&copy, &data)?;
            sync_dir(path)
        };
        renew().map_err(|error| {
            // A full device needs the room.
            fs::remove_file(&copy).ok();
            io_error(&data, "copy", error)
        })?;
        self.0.store(false, Ordering::Release);
        Ok(())
    }
}

/// Its drop ends when the files are free: threads of sled hold them for a moment after the
/// database was dropped. It gives up after some seconds, and then they are copied.
#[derive(Debug)]
pub(super) struct Released {
    file: PathBuf,
    stuck: Stuck,
}

impl Drop for Released {
    fn drop(&mut self) {
        for _ in 0..PATIENCE {
            match File::open(&self.file).map(|file| file.try_lock()) {
                Ok(Err(TryLockError::WouldBlock)) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        tracing::warn!(
            file = %self.file.display(),
            "sled does not let go of its file after a failure; a copy takes its place"
        );
        self.stuck.0.store(true, Ordering::Release);
    }
}

/// Keeps a database until the sender is gone, and drops it on a thread of its own, where it may wait.
pub(super) fn let_go_elsewhere(db: Db) -> mpsc::Sender<()> {
    let (sender, gone) = mpsc::channel();
    let thread = std::thread::Builder::new().name("callboard-sled".to_owned());
    // Without a thread, whoever opened it drops it.
    let _ = thread.spawn(move || {
        let _ = gone.recv();
        drop(db);
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::super::disk::SledPlace;
    use crate::store::engine::{Disk, Place};

    #[test]
    fn a_database_that_keeps_its_files_is_succeeded() {
        let base = tempfile::tempdir().unwrap();
        let place = SledPlace::new(base.path().join("store"), 1 << 20);
        let mut disk = place.open().unwrap();
        let put = |disk: &mut <SledPlace as Place>::Disk, key: &[u8]| {
            disk.apply(vec![(key.to_vec(), Some(b"there".to_vec()))]).unwrap();
            disk.sync().unwrap();
        };
        put(&mut disk, b"s1");
        // As a database that hangs in its drop.
        let stuck = disk.database();
        drop(disk);
        let mut disk = place.open().unwrap();
        assert_eq!(disk.get(b"s1").unwrap().as_deref(), Some(b"there".as_slice()));
        put(&mut disk, b"s2");
        // Whatever it still does is nothing to the store.
        stuck.insert(b"s3", b"late").unwrap();
        stuck.flush().unwrap();
        disk.close().unwrap();
        drop(stuck);
        let disk = place.open().unwrap();
        let there = [b"s1", b"s2", b"s3"].map(|key| disk.get(key).unwrap().is_some());
        assert_eq!(there, [true, true, false]);
        disk.close().unwrap();
    }
}
