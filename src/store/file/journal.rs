//! The journal: what is acknowledged and not in the files yet. A line for each sync, so that the
//! changes of a sync are there wholly or not at all.
//!
//! There are two: `journal.jsonl` is written to. When its changes are to be brought to the files, it
//! gets the name `journal.old.jsonl` and has a successor; it goes when they are there.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::device::{self, Pen};
use super::place::{Layout, open, read_text, remove};
use super::text::{Cell, key_of, key_text, sealed, unsealed};
use crate::store::StoreError;
use crate::store::engine::{Changes, damaged, io_error};

/// Keys with their values; without one, they go.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    changes: Vec<(String, Option<Cell>)>,
}

/// The open journal, at its end.
#[derive(Debug)]
pub(super) struct Journal {
    file: Pen,
    path: PathBuf,
    settling: PathBuf,
    /// In bytes.
    length: u64,
}

impl Journal {
    /// Reads what the process before this one has left, and opens an empty journal. All that was left is in
    /// the other one, until [`settled`](Self::settled).
    pub(super) fn open(layout: &Layout) -> Result<(Self, Changes), StoreError> {
        let (path, settling) = (layout.journal(), layout.settling());
        let mut changes = Changes::new();
        let older = Left::read(layout, &settling, &mut changes)?;
        let left = Left::read(layout, &path, &mut changes)?;
        let failed = |error| io_error(&settling, "write", error);
        // What a process died in was told to nobody: it goes.
        if older.is_torn {
            let file = open(&settling, Pen::append)?;
            file.cut(older.sound).and_then(|()| file.sync()).map_err(failed)?;
        }
        if older.sound > 0 && left.sound > 0 {
            // Lines that are there twice say the same.
            let mut file = open(&settling, Pen::append)?;
            file.write_all(left.lines()).and_then(|()| file.sync()).map_err(failed)?;
        }
        let file = open(&path, Pen::append)?;
        let mut journal = Self { file, path, settling, length: left.sound };
        if left.is_torn || older.sound > 0 {
            let kept = if older.sound > 0 { 0 } else { left.sound };
            let cut = journal.file.cut(kept).and_then(|()| journal.file.sync());
            cut.map_err(|error| io_error(&journal.path, "write", error))?;
            journal.length = kept;
        }
        layout.sync_root()?;
        if journal.length > 0 {
            journal.succeed(layout)?;
        }
        Ok((journal, changes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes changes; they are on the device when this returns.
    pub(super) fn write(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let changes =
            changes.iter().map(|(key, value)| (key_text(key), value.as_deref().map(Cell::new))).collect();
        let line = sealed(&Line { changes }).map_err(StoreError::unavailable)? + "\n";
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync())
            .map_err(|error| io_error(&self.path, "write", error))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Gives this journal its other name, and begins an empty one. There is no other of that name.
    pub(super) fn succeed(&mut self, layout: &Layout) -> Result<(), StoreError> {
        device::rename(&self.path, &self.settling).map_err(|error| io_error(&self.path, "rename", error))?;
        self.file = open(&self.path, Pen::create)?;
        self.length = 0;
        // Nothing is written to it before it has its name on the device.
        layout.sync_root()
    }

    /// What was in the other journal is in the files, on the device.
    pub(super) fn settled(&self) -> Result<(), StoreError> {
        // Should it come back with a power cut, it says what is there already.
        remove(&self.settling)
    }
}

/// A journal that was left by another process.
struct Left {
    text: String,
    /// So many bytes are whole lines.
    sound: u64,
    is_torn: bool,
}

impl Left {
    fn read(layout: &Layout, path: &Path, changes: &mut Changes) -> Result<Self, StoreError> {
        let text = read_text(path)?.unwrap_or_default();
        let mut sound = 0;
        let mut broken = None;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let read = unsealed::<Line>(line).and_then(|read| {
                if !line.ends_with('\n') {
                    return Err("it is cut off".to_owned());
                }
                read.changes
                    .into_iter()
                    .map(|(key, cell)| Ok((key_of(&key)?, cell.map(|cell| cell.value()).transpose()?)))
                    .collect::<Result<Changes, String>>()
            });
            match (read, &broken) {
                (Ok(read), None) => {
                    changes.extend(read);
                    sound += line.len() as u64;
                }
                // Whatever was written after a line was written after that line was acknowledged.
                (Ok(_), Some((at, reason))) => {
                    let name = path.file_name().unwrap_or_default().display();
                    return Err(damaged(
                        &layout.root,
                        &format!("line {at} of `{name}`: {reason}"),
                        "restore the directory from a backup; or, to go on without the changes of that line, \
                         remove the line while the program is stopped",
                    ));
                }
                (Err(reason), None) => broken = Some((index + 1, reason)),
                (Err(_), Some(_)) => {}
            }
        }
        Ok(Self { is_torn: broken.is_some(), text, sound })
    }

    /// The whole lines.
    fn lines(&self) -> &[u8] {
        let end = usize::try_from(self.sound).unwrap_or(usize::MAX);
        self.text.as_bytes().get(..end).unwrap_or_default()
    }
}
