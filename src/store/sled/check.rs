//! What is looked at before sled gets to see a directory.
//!
//! sled repairs by erasing: opened on a truncated or overwritten file, it zeroes what it does not
//! understand and starts empty, without an error. So sled first opens a copy, and the real files
//! only when nothing is missing from that.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk;
use crate::store::StoreError;

const DATA: &str = "db";
const SEAL: &str = "callboard-store.json";
const COPY: &str = "callboard-check";
const RESTORE: &str = "stop the program, move the directory aside and put a backup in its place \
                       (or start with an empty directory)";

/// What is known of the data outside of it: a small file beside it, readable by people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub format: u32,
    /// A batch that is known to be on disk. The data has this one or a later one.
    pub batch: u64,
}

/// Checks a directory that is about to be opened; answers whether there is anything in it.
pub(super) fn examine(path: &Path, cache: u64) -> Result<bool, StoreError> {
    let seal = read_seal(path)?;
    match File::open(path.join(DATA)) {
        Ok(file) => {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { place: place(path) }),
                Err(TryLockError::Error(error)) => return Err(io_error(path, "lock", error)),
            }
            let copy = Copy::of(path)?;
            let found = disk::try_open(&copy.0, cache).and_then(|db| disk::mark(&db));
            // The copy's directory means nothing to anybody.
            let found = found.map_err(|error| rename(error, path))?;
            match (seal, found) {
                (None, disk::Mark::Nothing) => Ok(false),
                (_, disk::Mark::Foreign) => Err(damaged(
                    path,
                    "it holds the data of another program",
                    "give the store a directory of its own",
                )),
                (Some(_), disk::Mark::Nothing) => Err(damaged(path, "its data is gone or cut off", RESTORE)),
                (Some(seal), disk::Mark::Batch(batch)) if batch < seal.batch => {
                    let missing = seal.batch - batch;
                    Err(damaged(path, &format!("its latest {missing} changes or more are missing"), RESTORE))
                }
                (_, disk::Mark::Batch(_)) => Ok(true),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if seal.is_some() || has_remains(path)? {
                return Err(damaged(path, "the file `db` is missing", RESTORE));
            }
            Ok(false)
        }
        Err(error) => Err(io_error(path, "open", error)),
    }
}

/// Writes the seal. `batch` must be on disk.
pub(super) fn write_seal(path: &Path, seal: Seal) -> Result<(), StoreError> {
    let text = serde_json::to_vec(&seal).map_err(|error| StoreError::unavailable(error.to_string()))?;
    let aside = path.join(format!("{SEAL}.new"));
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path.join(SEAL)));
    written.map_err(|error| io_error(path, "write to", error))
}

/// Makes sure that the data is on the device and not only with the operating system.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path.join(DATA))
        .and_then(|file| file.sync_all())
        .map_err(|error| io_error(path, "sync", error))
}

pub(super) fn place(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn damaged(path: &Path, reason: &str, advice: &str) -> StoreError {
    StoreError::Damaged { place: place(path), reason: reason.to_owned(), advice: advice.to_owned() }
}

/// `reason` is what was found; the advice is to restore.
pub(super) fn unreadable(path: &Path, reason: &str) -> StoreError {
    damaged(path, reason, RESTORE)
}

pub(super) fn io_error(path: &Path, deed: &str, error: io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("cannot {deed} {}: {error}", path.display()),
        source: Some(Arc::new(error)),
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

fn read_seal(path: &Path) -> Result<Option<Seal>, StoreError> {
    let bytes = match fs::read(path.join(SEAL)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read", error)),
    };
    let seal: Seal = serde_json::from_slice(&bytes).map_err(|error| {
        damaged(
            path,
            &format!("`{SEAL}` does not decode: {error}"),
            "put the file back from a backup, or remove it to go without its protection against lost data",
        )
    })?;
    known_format(path, seal.format)?;
    Ok(Some(seal))
}

pub(super) fn known_format(path: &Path, format: u32) -> Result<(), StoreError> {
    if format <= disk::FORMAT {
        return Ok(());
    }
    let reason = format!("it has format {format}, and this version reads up to {}", disk::FORMAT);
    Err(damaged(path, &reason, "open it with the version of callboard that wrote it"))
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
