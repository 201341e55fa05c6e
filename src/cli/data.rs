//! The data directory: the lock that makes it one service's, the store, the control socket.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};

/// Where a service keeps its things unless told otherwise.
pub(super) const DEFAULT: &str = "callboard-data";

/// The longest path a Unix socket can have on Linux, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Held by the one service on a directory; the system gives it back when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// The path of the control socket in `dir`.
pub(super) fn socket(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join("callboard.sock");
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH {
        let message = format!(
            "the path of the control socket, {}, is {length} bytes long and a socket's can have {MAX_SOCKET_PATH}; \
             choose a shorter --data directory, or start in its parent and name it relatively",
            path.display()
        );
        return Err(Failure::new(Exit::Invalid, message));
    }
    Ok(path)
}

/// Makes the directory, if need be, for its owner alone. An existing one keeps its permissions;
/// the answer is a warning when others can look inside.
pub(super) fn create(dir: &Path) -> Result<Option<String>, Failure> {
    let failed = |error: std::io::Error| {
        let message =
            format!("cannot make the data directory {}: {error}; choose another with --data", dir.display());
        Failure::new(Exit::Failed, message)
    };
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    let mode = dir.metadata().map_err(failed)?.permissions().mode();
    Ok((mode & 0o077 != 0).then(|| {
        format!(
            "others can look into the data directory {} (mode {:o}); `chmod 700` makes it yours alone",
            dir.display(),
            mode & 0o777
        )
    }))
}

/// Takes the directory for this process.
pub(super) fn lock(dir: &Path) -> Result<Lock, Failure> {
    let path = dir.join("callboard.lock");
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot lock the data directory with {}: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(20).read_to_string(&mut pid);
            let who = match pid.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            let message = format!(
                "another service{who} runs on the data directory {}; stop it, or choose another with --data",
                dir.display()
            );
            return Err(Failure::new(Exit::InUse, message));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Only for the message above: who holds the lock is known by the lock alone.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}
