//! What is looked at before sled gets to see a directory.
//!
//! sled repairs by erasing: opened on a truncated or overwritten file, it zeroes what it does not
//! understand and starts empty, without an error. So sled first opens a copy, and the real files
//! only when nothing is missing from that.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::disk;
use crate::private_file;
use crate::store::StoreError;
use crate::store::engine::{IDENTITY, Seal, check_known, damaged, identity_in, io_error, place, unreadable};

pub(super) const DATA: &str = "db";
/// The settings that sled keeps beside it.
pub(super) const CONF: &str = "conf";
const COPY: &str = "callboard-check";

/// Checks a directory that is about to be opened, where the store `expected` must be, if one must; answers
/// whether there is anything in it.
pub(super) fn examine(
    path: &Path,
    cache: u64,
    seal: Option<Seal>,
    expected: Option<Uuid>,
) -> Result<bool, StoreError> {
    match File::open(path.join(DATA)) {
        Ok(file) => {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::InUse { place: place(path), holder: None });
                }
                Err(TryLockError::Error(error)) => return Err(io_error(path, "lock", error)),
            }
            let copy = Copy::of(path)?;
            let found = disk::try_open(&copy.0, cache)
                .and_then(|db| Ok((disk::mark(&db)?, db.get(IDENTITY).ok().flatten())));
            // The copy's directory means nothing to anybody.
            let (found, identity) = found.map_err(|error| rename(error, path))?;
            if let Some(expected) = expected {
                check_known(path, expected, identity_in(identity.as_deref()))?;
            }
            match (seal, found) {
                (None, disk::Found::Nothing) => Ok(false),
                (_, disk::Found::Foreign) => Err(foreign(path)),
                (Some(_), disk::Found::Nothing) => Err(unreadable(path, "its data is gone or cut off")),
                (Some(seal), disk::Found::Batch(batch)) if batch < seal.batch => {
                    let missing = seal.batch - batch;
                    Err(unreadable(path, &format!("its latest {missing} changes or more are missing")))
                }
                (_, disk::Found::Batch(_)) => Ok(true),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if seal.is_some() || has_remains(path)? {
                return Err(unreadable(path, "the file `db` is missing"));
            }
            clear_unfinished(path, cache)?;
            Ok(false)
        }
        Err(error) => Err(io_error(path, "open", error)),
    }
}

fn rename(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Damaged { reason, advice, .. } => {
            StoreError::Damaged { place: place(path), reason, advice }
        }
        other => other,
    }
}

/// Whether sled has kept data here.
fn has_remains(path: &Path) -> Result<bool, StoreError> {
    let entries = fs::read_dir(path).map_err(|error| io_error(path, "read", error))?;
    let blobs = fs::read_dir(path.join(disk::BLOBS)).is_ok_and(|mut blobs| blobs.next().is_some());
    Ok(blobs || entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("snap.")))
}

/// Before its data file, sled makes one with its settings. A first start that was killed in between
/// leaves that alone behind, or the beginning of it, which sled would not read.
fn clear_unfinished(path: &Path, cache: u64) -> Result<(), StoreError> {
    let conf = path.join(CONF);
    let left = match fs::read(&conf) {
        Ok(left) => left,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, "read", error)),
    };
    let fresh = Copy(path.join(COPY));
    fresh.remove();
    drop(disk::try_open(&fresh.0, cache).map_err(|error| rename(error, path))?);
    let whole = fs::read(fresh.0.join(CONF)).map_err(|error| io_error(path, "read", error))?;
    if !whole.starts_with(&left) {
        return Err(foreign(path));
    }
    fs::remove_file(&conf).map_err(|error| io_error(path, "write to", error))
}

fn foreign(path: &Path) -> StoreError {
    damaged(path, "it holds the data of another program", "give the store a directory of its own")
}

/// A copy of the data, gone when dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| io_error(path, "make a copy for checking in", error);
        let copy = Self(path.join(COPY));
        copy.remove();
        copy_files(path, &copy.0).map_err(failed)?;
        let blobs = path.join("blobs");
        if blobs.is_dir() {
            copy_files(&blobs, &copy.0.join("blobs")).map_err(failed)?;
        }
        Ok(copy)
    }

    fn remove(&self) {
        // What is left behind is removed by the next start.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    private_file::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}
