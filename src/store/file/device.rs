//! The calls by which files are read and changed, all in one place: tests stand between them and the
//! system, see each one, and have any of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::lock::is_at;
use crate::private_file;
use crate::store::engine::sync_dir as sync_names;

/// A call, for whoever watches.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "nobody watches"))]
pub(super) enum Call<'a> {
    Read,
    /// A file is opened to be written to, and made if it is missing.
    Open {
        /// It is to be empty.
        anew: bool,
    },
    Write(&'a [u8]),
    Cut(u64),
    Sync,
    Rename(&'a Path),
    Remove,
    SyncNames,
}

#[cfg(not(test))]
fn through<T>(_: &Path, _: Call<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    work()
}
#[cfg(test)]
use super::tap::through;

/// How much of it is written at once.
#[cfg(not(test))]
fn portion<'a>(_: &Path, bytes: &'a [u8]) -> &'a [u8] {
    bytes
}
#[cfg(test)]
use super::tap::portion;

/// A file that is open to be written to; for its owner alone, if it was made.
#[derive(Debug)]
pub(super) struct Pen {
    file: File,
    path: PathBuf,
}

impl Pen {
    /// Writes at the end of what is there.
    pub(super) fn append(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().read(true).append(true).create(true))
    }

    /// Writes a file that was not there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().append(true).create_new(true))
    }

    /// Writes a file from its beginning.
    pub(super) fn anew(path: &Path) -> io::Result<Self> {
        let file = through(path, Call::Open { anew: true }, || private_file::create_anew(path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        let file = through(path, Call::Open { anew: false }, || private_file::open(path, options))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Returns when what was written is on the device.
    pub(super) fn sync(&self) -> io::Result<()> {
        through(&self.path, Call::Sync, || self.file.sync_all())
    }

    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        through(&self.path, Call::Cut(length), || self.file.set_len(length))
    }

    /// How long the file is, and its last byte.
    pub(super) fn end(&mut self) -> io::Result<(u64, Option<u8>)> {
        let length = self.file.seek(SeekFrom::End(0))?;
        if length == 0 {
            return Ok((0, None));
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        Ok((length, Some(last[0])))
    }

    /// Whether others find this file under its path.
    pub(super) fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = portion(&self.path, bytes);
        through(&self.path, Call::Write(bytes), || self.file.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is in a file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    through(path, Call::Read, || fs::read(path))
}

/// A file to read from.
pub(super) fn open(path: &Path) -> io::Result<File> {
    through(path, Call::Read, || File::open(path))
}

/// Gives a file another name, which may be that of a file that goes for it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    through(from, Call::Rename(to), || fs::rename(from, to))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match through(path, Call::Remove, || fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns when the names in a directory are on the device.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    through(path, Call::SyncNames, || sync_names(path))
}
