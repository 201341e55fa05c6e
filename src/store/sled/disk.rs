use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::sled::{Batch, Config, Db, IVec};
use serde::{Deserialize, Serialize};

use super::{check, keys};
use crate::store::StoreError;
use crate::store::envelope::{Kind, decode, encode};

/// The layout of [`keys`] and the formats of the records.
pub(super) const FORMAT: u32 = 1;

/// So many batches are written before the seal is renewed, which costs a sync of the file.
const SEAL_EVERY: u64 = 256;

/// sled, and the one place where something is written to it.
#[derive(Debug)]
pub(super) struct Disk {
    db: Db,
    path: PathBuf,
    batch: u64,
}

#[derive(Serialize, Deserialize)]
struct MarkRecord {
    format: u32,
    batch: u64,
}

/// What a database says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is empty.
    Nothing,
    /// Ours, with this batch as the latest.
    Batch(u64),
    /// Not empty, and not ours.
    Foreign,
}

impl Disk {
    /// Opens the directory, or makes it. `cache` is in bytes.
    pub(super) fn open(path: &Path, cache: u64) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(|error| check::io_error(path, "create", error))?;
        let known = check::examine(path, cache)?;
        let db = try_open(path, cache)?;
        let batch = match mark(&db)? {
            Mark::Batch(batch) => batch,
            _ if known => return Err(check::unreadable(path, "its data was lost while it was opened")),
            _ => 0,
        };
        let mut disk = Self { db, path: path.to_owned(), batch };
        if !known {
            disk.write(Batch::default())?;
            disk.seal()?;
        }
        Ok(disk)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.db.get(key).map_err(|error| failure(&self.path, error))
    }

    /// Everything under a prefix, in order of the keys; backwards with `.rev()`.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(IVec, IVec), StoreError>> + '_ {
        self.db.scan_prefix(prefix).map(|entry| entry.map_err(|error| failure(&self.path, error)))
    }

    /// Writes a batch, wholly or not at all, and returns when it would survive the death of this
    /// process: what is acknowledged has been through here.
    ///
    /// After an error nobody knows what was written: close the disk and open it again.
    pub(super) fn write(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        let number = self.batch + 1;
        let mark = encode(Kind::Mark, &MarkRecord { format: FORMAT, batch: number });
        batch.insert(keys::MARK, mark.map_err(StoreError::unavailable)?);
        self.db
            .apply_batch(batch)
            .and_then(|()| self.db.flush())
            .map_err(|error| failure(&self.path, error))?;
        self.batch = number;
        if number.is_multiple_of(SEAL_EVERY) { self.seal() } else { Ok(()) }
    }

    fn seal(&self) -> Result<(), StoreError> {
        check::sync(&self.path)?;
        check::write_seal(&self.path, check::Seal { format: FORMAT, batch: self.batch })
    }

    /// Writes out everything and lets go of the files.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| failure(&self.path, error))?;
        self.seal()
    }
}

/// Opens a database with sled, which may panic on a damaged one.
pub(super) fn try_open(path: &Path, cache: u64) -> Result<Db, StoreError> {
    let config = Config::new().path(path).cache_capacity(cache);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(failure(path, error)),
        Err(_) => Err(check::unreadable(path, "sled panicked while it opened the files")),
    }
}

pub(super) fn mark(db: &Db) -> Result<Mark, StoreError> {
    let path = Path::new("the store");
    let look = || -> Result<Mark, StoreError> {
        match db.get(keys::MARK).map_err(|error| failure(path, error))? {
            Some(bytes) => {
                let mark: MarkRecord = decode(Kind::Mark, &bytes).map_err(|reason| {
                    check::unreadable(path, &format!("its mark cannot be read: {reason}"))
                })?;
                check::known_format(path, mark.format)?;
                Ok(Mark::Batch(mark.batch))
            }
            None if db.is_empty() && db.tree_names().len() <= 1 => Ok(Mark::Nothing),
            None => Ok(Mark::Foreign),
        }
    };
    catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|_| Err(check::unreadable(path, "sled panicked while it read the files")))
}

fn failure(path: &Path, error: ::sled::Error) -> StoreError {
    use ::sled::Error;
    match error {
        Error::Corruption { .. } => check::unreadable(path, "sled found corrupt data"),
        Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse { place: check::place(path) }
        }
        // A damaged configuration file, and anything else that is not about the disk.
        Error::Unsupported(reason) => check::unreadable(path, &format!("sled does not support it: {reason}")),
        error => StoreError::Unavailable {
            reason: format!("sled in {}: {error}", path.display()),
            source: Some(Arc::new(error)),
        },
    }
}
