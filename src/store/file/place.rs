//! What a directory of files looks like, and how files are written in it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::device::{self, Pen};
use super::name::{is_ours, is_short_for};
use super::text::{pretty, sealed, unsealed};
use crate::lock::FileLock;
use crate::store::StoreError;
use crate::store::engine::{
    FILES_MARK, check_kind, check_known, check_there, create_dir, damaged, io_error, known_format,
    overwritten, replaced, take_directory, unreadable,
};

pub(super) const TASKS: &str = "tasks";
const JOURNAL: &str = "journal.jsonl";
const SETTLING: &str = "journal.old.jsonl";
const REST: &str = "runs-and-removed.json";
/// What a file is called while it is written.
pub(super) const NEW: &str = ".new";
/// The latest layout of a directory. In the first one there was one journal, and a file with runs had
/// no lines that take others back.
const FORMAT: u32 = 2;

const ABOUT: &[&str] = &[
    "This directory is a file store of callboard. Each task is a file in `tasks`, named after its id.",
    "Stop the program before you change anything. In a file that you edit, remove the line `sum`;",
    "the id in it must stay. To remove a task, remove its file; a copy needs an id and a name of its own.",
    "`tasks/*.runs.jsonl` are the runs of a task, latest last. `runs-and-removed.json` says which runs have",
    "not ended, and which tasks were removed. `journal.jsonl` and `journal.old.jsonl` have changes that are",
    "not in the files yet: they get there within moments or after the next start, so do not remove them.",
];

#[derive(Serialize, Deserialize)]
struct Mark {
    about: Vec<String>,
    format: u32,
    /// The identity of the store, in hexadecimal digits; stores of earlier versions have none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

impl Mark {
    fn identity(&self) -> Option<Uuid> {
        self.store.as_ref().and_then(|store| Uuid::parse_str(store).ok())
    }
}

/// The paths in a directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
    pub tasks: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), tasks: root.join(TASKS) }
    }

    pub(super) fn task(&self, name: &str) -> PathBuf {
        self.tasks.join(format!("{name}.json"))
    }

    pub(super) fn runs(&self, name: &str) -> PathBuf {
        self.tasks.join(format!("{name}.runs.jsonl"))
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// The journal whose changes are being brought to the files.
    pub(super) fn settling(&self) -> PathBuf {
        self.root.join(SETTLING)
    }

    pub(super) fn rest(&self) -> PathBuf {
        self.root.join(REST)
    }

    /// Makes the directory ready, if it is one of ours or an empty place for one; where one is `expected`, it
    /// must be there. Answers with the identity that stands in it.
    pub(super) fn prepare(&self, expected: Option<Uuid>) -> Result<(FileLock, Option<Uuid>), StoreError> {
        let root = &self.root;
        match expected {
            Some(_) => check_there(root, &[FILES_MARK])?,
            None => create_dir(root)?,
        }
        check_kind(root, FILES_MARK)?;
        let lock = take_directory(root)?;
        let mut store = None;
        match self.mark()? {
            Some(mark) => {
                known_format(root, mark.format, FORMAT)?;
                store = mark.identity();
                if let Some(expected) = expected {
                    check_known(root, expected, store)?;
                }
                // A journal that has just got its other name has no successor yet.
                let journal = if self.settling().exists() { self.settling() } else { self.journal() };
                for (path, kind) in [(&self.tasks, "directory"), (&journal, "file")] {
                    if !path.exists() {
                        if let (Some(_), Some(name)) = (expected, path.file_name().and_then(OsStr::to_str)) {
                            check_there(root, &[name])?;
                        }
                        return Err(self.misses_a(kind, path));
                    }
                }
                if mark.format < FORMAT {
                    self.write_mark(store)?;
                }
            }
            None if expected.is_some() => {
                return Err(replaced(root, "a directory that holds no store is there"));
            }
            None => {
                // The mark is written last: a directory without one was never used.
                if fs::read_dir(&self.tasks).is_ok_and(|mut tasks| tasks.next().is_some())
                    || fs::metadata(self.journal()).is_ok_and(|journal| journal.len() > 0)
                    || self.settling().exists()
                {
                    return Err(unreadable(root, &format!("the file `{FILES_MARK}` is missing")));
                }
                create_dir(&self.tasks)?;
                drop(open(&self.journal(), Pen::append)?);
                self.sync_root()?;
                self.write_mark(None)?;
            }
        }
        Ok((lock, store))
    }

    fn mark(&self) -> Result<Option<Mark>, StoreError> {
        let Some(text) = read_text(&self.root.join(FILES_MARK))? else { return Ok(None) };
        unsealed(&text).map(Some).map_err(|reason| {
            let advice = "put the file back from a backup, or remove its line `sum` if it was edited";
            damaged(&self.root, &format!("`{FILES_MARK}`: {reason}"), advice)
        })
    }

    /// An error unless the identity that stands in the directory is that of the store which is open there.
    pub(super) fn check_identity(&self, store: Option<Uuid>) -> Result<(), StoreError> {
        match self.mark() {
            Ok(Some(mark)) if mark.identity() == store => Ok(()),
            // What cannot be read says nothing.
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::debug!(%error, "the mark of a store could not be looked at");
                Ok(())
            }
            _ => Err(overwritten(&self.root, FILES_MARK)),
        }
    }

    fn misses_a(&self, kind: &str, path: &Path) -> StoreError {
        let name = path.file_name().unwrap_or_default().display();
        unreadable(&self.root, &format!("the {kind} `{name}` is missing"))
    }

    pub(super) fn misses(&self, file: &Path) -> StoreError {
        self.misses_a("file", file)
    }

    pub(super) fn write_mark(&self, store: Option<Uuid>) -> Result<(), StoreError> {
        let about = ABOUT.iter().map(|&line| line.to_owned()).collect();
        let store = store.map(|store| store.simple().to_string());
        write_object(&self.root.join(FILES_MARK), &Mark { about, format: FORMAT, store })?;
        self.sync_root()
    }

    pub(super) fn sync_root(&self) -> Result<(), StoreError> {
        device::sync_dir(&self.root).map_err(|error| io_error(&self.root, "sync", error))
    }

    pub(super) fn sync_tasks(&self) -> Result<(), StoreError> {
        device::sync_dir(&self.tasks).map_err(|error| io_error(&self.tasks, "sync", error))
    }

    /// The names of the files in `tasks` that end in `end`, without it.
    pub(super) fn names(&self, end: &str) -> Result<Vec<String>, StoreError> {
        let listing = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.tasks)? {
                let name = entry?.file_name();
                names.extend(name.to_str().and_then(|name| name.strip_suffix(end)).map(str::to_owned));
            }
            Ok(names)
        };
        listing().map_err(|error| io_error(&self.tasks, "read", error))
    }

    /// Removes files that were being written when the process died (what they were to hold is in the
    /// journal), and answers with the names that do not say their ids: of tasks, and of their runs.
    pub(super) fn clean(&self) -> Result<[Vec<String>; 2], StoreError> {
        let mut short = [Vec::new(), Vec::new()];
        for name in self.names("")? {
            for (end, kind) in [(".json", 0), (".runs.jsonl", 1)] {
                let whole = name.strip_suffix(NEW).unwrap_or(&name);
                let Some(stem) = whole.strip_suffix(end) else { continue };
                if whole != name && is_ours(stem) {
                    device::remove(&self.tasks.join(&name)).ok();
                } else if whole == name && is_short_for(stem) {
                    short[kind].push(stem.to_owned());
                }
            }
        }
        // Of those that say the same, the first one counts.
        short.iter_mut().for_each(|names| names.sort_unstable());
        Ok(short)
    }
}

/// Opens a file to write to it, in one of the ways of a [`Pen`].
pub(super) fn open(path: &Path, pen: impl FnOnce(&Path) -> io::Result<Pen>) -> Result<Pen, StoreError> {
    pen(path).map_err(|error| io_error(path, "open", error))
}

/// The text of a file, if it is there. What is no text is shown as far as it is.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, StoreError> {
    let lossy = |bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(read_bytes(path)?.map(lossy))
}

/// What is in a file, if it is there.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match device::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, "read", error)),
    }
}

/// Writes a file anew. Its content is on the device when it gets its name; its name is when the
/// directory is synced.
pub(super) fn write_anew(
    path: &Path,
    write: impl FnOnce(&mut Pen) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(NEW);
    let aside = PathBuf::from(aside);
    let mut file = open(&aside, Pen::anew)?;
    let written = write(&mut file).and_then(|()| file.sync()).and_then(|()| device::rename(&aside, path));
    written.map_err(|error| {
        // A full device needs the room.
        device::remove(&aside).ok();
        io_error(path, "write", error)
    })
}

pub(super) fn write_object<T: Serialize>(path: &Path, object: &T) -> Result<(), StoreError> {
    let text = sealed(object).map_err(StoreError::unavailable)?;
    write_anew(path, |file| file.write_all(pretty(&text).as_bytes()))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    device::remove(path).map_err(|error| io_error(path, "remove", error))
}
