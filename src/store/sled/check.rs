//! What is looked at before sled gets to see a directory.
//!
//! sled repairs by erasing: opened on a truncated or overwritten file, it zeroes what it does not
//! understand and starts empty, without an error. So sled first opens a copy, and the real files
//! only when nothing is missing from that.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use crate::store::StoreError;
use crate::store::engine::{damaged, io_error, place, read_seal, unreadable};

pub(super) const DATA: &str = "db";
const COPY: &str = "callboard-check";

/// Checks a directory that is about to be opened; answers whether there is anything in it.
pub(super) fn examine(path: &Path, cache: u64) -> Result<bool, StoreError> {
    let seal = read_seal(path)?;
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
            let found = disk::try_open(&copy.0, cache).and_then(|db| disk::mark(&db));
            // The copy's directory means nothing to anybody.
            let found = found.map_err(|error| rename(error, path))?;
            match (seal, found) {
                (None, disk::Found::Nothing) => Ok(false),
                (_, disk::Found::Foreign) => Err(damaged(
                    path,
                    "it holds the data of another program",
                    "give the store a directory of its own",
                )),
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

/// Whether sled was at home here.
fn has_remains(path: &Path) -> Result<bool, StoreError> {
    let entries = fs::read_dir(path).map_err(|error| io_error(path, "read", error))?;
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name == "conf" || name.starts_with("snap.")
    }))
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
    fs::create_dir(to)?;
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
