//! Directories, and what errors of the system are called.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::lock::{FileLock, LockError};
use crate::private_file;
use crate::store::StoreError;

/// What only a file store has in its directory.
pub(in crate::store) const FILES_MARK: &str = "callboard-files.json";
/// Locked by the process that has the directory.
pub(in crate::store) const LOCK: &str = "callboard-store.lock";
const RESTORE: &str = "stop the program, move the directory aside and put a backup in its place, or begin with an \
                       empty directory and bring an export back with `callboard store import`";

/// An error unless this version reads the format.
pub(in crate::store) fn known_format(path: &Path, format: u32, latest: u32) -> Result<(), StoreError> {
    if format <= latest {
        return Ok(());
    }
    let reason = format!("it has format {format}, and this version reads up to {latest}");
    Err(damaged(path, &reason, "open it with the version of callboard that wrote it"))
}

/// The path of a store, unless it is something else than a directory.
pub(in crate::store) fn check_directory(path: &Path) -> Result<PathBuf, StoreError> {
    if path.exists() && !path.is_dir() {
        let advice = "give the store the path of a directory";
        return Err(damaged(path, "it is a file where a directory belongs", advice));
    }
    Ok(path.to_owned())
}

/// An error when a directory holds the store of another kind, which would be mixed up with this one.
/// `own` is what only a store of this kind has there.
pub(in crate::store) fn check_kind(path: &Path, own: &str) -> Result<(), StoreError> {
    for (mark, kind) in [("db", "sled"), ("tasks.redb", "redb"), (FILES_MARK, "file")] {
        // Others may call a file `db`; sled has a second one.
        let there = path.join(mark).exists() && (kind != "sled" || path.join("conf").exists());
        if mark != own && there {
            let reason = format!("it holds the tasks of a {kind} store");
            return Err(damaged(path, &reason, "give the store a directory of its own"));
        }
    }
    Ok(())
}

/// Whether there is a store in a directory, or what is left of one.
#[cfg(feature = "cli")]
pub(crate) fn holds_store(path: &Path) -> bool {
    ["db", "tasks.redb", FILES_MARK, "callboard-store.json", "tasks", "journal.jsonl"]
        .iter()
        .any(|mark| path.join(mark).exists())
}

/// Takes a directory for this process, for as long as the lock is kept.
pub(in crate::store) fn take_directory(path: &Path) -> Result<FileLock, StoreError> {
    FileLock::take(&path.join(LOCK)).map_err(|error| match error {
        LockError::Held(holder) => StoreError::InUse { place: place(path), holder },
        LockError::Io(error) => io_error(path, "lock", error),
    })
}

/// Whether an error says that data was lost, and not that it is somebody else's or of a newer version.
pub(super) fn is_beyond_repair(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { advice, .. } if advice == RESTORE)
}

/// Gives a damaged directory another name, so that a fresh one can take its place. Answers with the
/// name.
pub(super) fn set_aside(path: &Path, now: DateTime<Utc>) -> Result<PathBuf, StoreError> {
    // Nobody else may have begun a fresh one meanwhile.
    let _lock = take_directory(path)?;
    // Without a slash at its end, which would put the name into the directory.
    let path = path.components().as_path();
    let name = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{}{end}", now.format("%Y%m%dT%H%M%SZ")));
        PathBuf::from(name)
    };
    let mut aside = name("");
    for number in 2.. {
        if !aside.exists() {
            break;
        }
        aside = name(&format!("-{number}"));
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    fs::rename(path, &aside).map_err(|error| io_error(path, "set aside", error))?;
    // It has its new name whatever the device makes of that; the fresh one begins with a sync as well.
    sync_dir(above.unwrap_or(Path::new("."))).ok();
    Ok(aside)
}

/// Makes a directory and those above it, for its owner alone, so that a power cut does not take them
/// back.
pub(in crate::store) fn create_dir(path: &Path) -> Result<(), StoreError> {
    check_directory(path)?;
    let create = || {
        // The name of a directory is in the one above it.
        for made in private_file::create_dirs(path)? {
            let above = made.parent().filter(|above| !above.as_os_str().is_empty());
            sync_dir(above.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    };
    create().map_err(|error| io_error(path, "create", error))
}

/// Makes a file one for its owner alone that a database has made in its own way.
#[cfg(feature = "sled")]
pub(in crate::store) fn keep_private(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Makes sure that the names in a directory are on the device.
pub(in crate::store) fn sync_dir(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file; its entries are in a journal there.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

pub(in crate::store) fn place(path: &Path) -> String {
    path.display().to_string()
}

pub(in crate::store) fn damaged(path: &Path, reason: &str, advice: &str) -> StoreError {
    StoreError::Damaged { place: place(path), reason: reason.to_owned(), advice: advice.to_owned() }
}

/// `reason` is what was found; the advice is to restore.
pub(in crate::store) fn unreadable(path: &Path, reason: &str) -> StoreError {
    damaged(path, reason, RESTORE)
}

pub(in crate::store) fn io_error(path: &Path, deed: &str, error: io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("cannot {deed} {}: {error}", path.display()),
        source: Some(Arc::new(error)),
    }
}

/// The same of the file of an export, whose trouble is not that of the store.
pub(super) fn file_error(path: &Path, deed: &str, error: io::Error) -> StoreError {
    StoreError::File {
        reason: format!("cannot {deed} {}: {error}", path.display()),
        source: Some(Arc::new(error)),
    }
}
