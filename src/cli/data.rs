//! The data directory: whom it belongs to, and the lock that makes it one service's.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use crate::lock::{FileLock, LockError};
use crate::private_file;

/// Where a service keeps its things unless told otherwise.
pub(super) const DEFAULT: &str = "callboard-data";

/// The longest path a Unix socket can have on Linux, in bytes.
const MAX_SOCKET_PATH: usize = 107;

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

/// Makes the directory, if need be, for its owner alone. An existing one keeps its permissions, and is
/// refused as [`check_owner`] says; the answer is warnings.
pub(super) fn create(dir: &Path, trust: bool) -> Result<Vec<String>, Failure> {
    if !dir.is_dir() {
        private_file::create_dirs(dir).map_err(|error| {
            let message = format!(
                "cannot make the data directory {}: {error}; choose another with --data",
                dir.display()
            );
            Failure::new(Exit::Failed, message)
        })?;
    }
    let mut warnings = check_owner(dir, trust)?;
    warnings.extend(others_above(dir));
    Ok(warnings)
}

/// An error when somebody else says what is in a directory that decides which commands run: when it, or what
/// lies in it, belongs to another user than this one and root, or when everybody may write to it and it is
/// not ours. `trust` takes it nevertheless. Answers with warnings about one that others can look into or
/// write to.
pub(super) fn check_owner(dir: &Path, trust: bool) -> Result<Vec<String>, Failure> {
    let Some(found) = metadata(dir)? else { return Ok(Vec::new()) };
    let me = rustix::process::geteuid().as_raw();
    let trusted = |found: &Metadata| trust || found.uid() == me || found.uid() == 0;
    if !trusted(&found) {
        return Err(foreign(dir, &found));
    }
    let mode = found.mode();
    if !trust && found.uid() != me && mode & 0o002 != 0 {
        let message = format!(
            "everybody can write to the directory {} (mode {:o}), and so have commands run in your name; name one \
             of your own with --data, or add --trust-data",
            dir.display(),
            mode & 0o7777
        );
        return Err(Failure::new(Exit::Untrusted, message));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Ok(found) = entry.metadata()
            && !trusted(&found)
        {
            return Err(foreign(&entry.path(), &found));
        }
    }
    let others = match mode {
        _ if mode & 0o022 != 0 => {
            "write to the data directory {} (mode {}), and so have commands run in your name"
        }
        _ if mode & 0o077 != 0 => "look into the data directory {} (mode {})",
        _ => return Ok(Vec::new()),
    };
    let others = others.replacen("{}", &dir.display().to_string(), 1);
    let others = others.replacen("{}", &format!("{:o}", mode & 0o777), 1);
    Ok(vec![format!("others can {others}; `chmod 700` makes it yours alone")])
}

fn foreign(path: &Path, found: &Metadata) -> Failure {
    let message = format!(
        "{} belongs to another user (id {}), and whoever writes what is in it has commands run in your name; run \
         this as that user, make it yours with `chown -R`, or add --trust-data",
        path.display(),
        found.uid()
    );
    Failure::new(Exit::Untrusted, message)
}

/// Directories above in which others can put another one in its place.
fn others_above(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let me = rustix::process::geteuid().as_raw();
    let above = dir.ancestors().skip(1).find(|above| {
        above.metadata().is_ok_and(|found| {
            let sticky = found.mode() & 0o1000 != 0;
            (found.mode() & 0o002 != 0 && !sticky) || (found.uid() != me && found.uid() != 0)
        })
    })?;
    Some(format!(
        "others can write to {}, and so put another directory in the place of {}; choose a place for it where only \
         you can",
        above.display(),
        dir.display()
    ))
}

fn metadata(dir: &Path) -> Result<Option<Metadata>, Failure> {
    match dir.metadata() {
        Ok(found) => Ok(Some(found)),
        // A file where a directory above belongs: making it says so, with the file's name.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => {
            let message = format!("cannot look at the directory {}: {error}", dir.display());
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

/// Takes the directory for this process, until the lock is dropped or the process dies.
pub(super) fn lock(dir: &Path) -> Result<FileLock, Failure> {
    let path = dir.join("callboard.lock");
    FileLock::take(&path).map_err(|error| match error {
        LockError::Held(holder) => {
            let who = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let message = format!(
                "another service{who} runs on the data directory {}; stop it, or choose another with --data",
                dir.display()
            );
            Failure::new(Exit::InUse, message)
        }
        LockError::Io(error) => {
            let message = format!("cannot lock the data directory with {}: {error}", path.display());
            Failure::new(Exit::Failed, message)
        }
    })
}
