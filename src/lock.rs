//! Locks between processes, by file: the system gives them back when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::private_file::{self, FileId, There};

/// How often a lock is taken whose file is being removed meanwhile.
const TRIES: usize = 10;

/// A locked file. The holder's process id is written in it, for people; who holds the lock is known
/// by the lock alone. The file is never removed: another process may be about to lock it.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
    /// Whether the process id stands in it.
    noted: bool,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else has it: this process, if it said so.
    Held(Option<u32>),
    /// The file cannot be made or locked.
    Io(io::Error),
}

impl FileLock {
    /// Takes the lock, or says who has it. Makes the file, for its owner alone, but not the directory
    /// it is in.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        // Somebody may remove the file between the opening and the locking: then what is locked is
        // not what others will find. Nobody has the lock for that, so it is tried again at once.
        for _ in 0..TRIES {
            let lock = Self::take_once(path)?;
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
        Err(LockError::Held(None))
    }

    fn take_once(path: &Path) -> Result<Self, LockError> {
        let mut file = open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(pid_in(file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // A note for people: without it the lock is as good. A file that has another name as well is
        // somebody's whom it does not concern, and is left as it is.
        let noted = has_one_name(&file);
        if noted {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).ok();
        }
        Ok(Self { file, path: path.to_owned(), noted })
    }

    /// An error when the file cannot even be opened.
    pub(crate) fn probe(path: &Path) -> io::Result<()> {
        open(path).map(drop)
    }

    /// Whether the file that is locked is still the one that others find under its path. Once somebody
    /// has removed it, another process can lock a new one.
    pub(crate) fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

/// Whether an open file is the one that others find under a path; where that cannot be told, it is.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    FileId::of(file).map_or(true, |id| id.compare(path) == There::Same)
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.noted {
            self.file.set_len(0).ok();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    private_file::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

fn has_one_name(file: &File) -> bool {
    #[cfg(unix)]
    return file.metadata().is_ok_and(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata) <= 1);
    #[cfg(not(unix))]
    {
        let _ = file;
        true
    }
}

fn pid_in(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    #[test]
    fn one_has_it_and_is_named() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lock");
        let first = FileLock::take(&path).unwrap();
        let told = |error| matches!(error, LockError::Held(Some(pid)) if pid == std::process::id());
        assert!(told(FileLock::take(&path).unwrap_err()));
        assert!(first.is_in_place());
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), "", "nobody has it");
        drop(FileLock::take(&path).unwrap());
        assert!(matches!(FileLock::take(&base.path().join("no/lock")), Err(LockError::Io(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_removed_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lock");
        let first = FileLock::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!first.is_in_place());
        let second = FileLock::take(&path).unwrap();
        assert!(second.is_in_place() && !first.is_in_place());
    }

    #[cfg(unix)]
    #[test]
    fn what_others_have_put_there_is_not_written_over() {
        let base = tempfile::tempdir().unwrap();
        let (victim, path) = (base.path().join("victim"), base.path().join("lock"));
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(matches!(FileLock::take(&path), Err(LockError::Io(_))));
        assert!(FileLock::probe(&path).is_err());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        drop(FileLock::take(&path).unwrap());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }
}
