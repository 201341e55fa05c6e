//! The journal: what is acknowledged and not in the files yet. A line for each sync, so that the
//! changes of a sync are there wholly or not at all.
//!
//! There are two: `journal.jsonl` is written to. When its changes are to be brought to the files, it
//! gets the name `journal.old.jsonl` and has a successor; it goes when they are there.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::device::{self, Pen};
use super::place::{Layout, open, read_bytes, remove, write_anew};
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
    /// A power cut can bring back the other journal, which was removed.
    lingers: bool,
}

impl Journal {
    /// Reads what the process before this one has left, and opens an empty journal. All that was left is in
    /// the other one, until [`settled`](Self::settled).
    pub(super) fn open(layout: &Layout) -> Result<(Self, Changes), StoreError> {
        let (path, settling) = (layout.journal(), layout.settling());
        let older = Left::read(layout, &settling)?;
        let left = Left::read(layout, &path)?;
        // Nobody writes to a journal that has its other name; only earlier versions have put the lines of
        // the later one at its end, which they kept until that was done.
        if let Some(torn) = &older.torn
            && !left
                .lines()
                .split(|byte| *byte == b'\n')
                .any(|line| line.starts_with(torn.bytes.trim_ascii_end()))
        {
            return Err(torn.damaged(layout, &settling));
        }
        let file = if left.sound > 0 {
            // What was left is written anew and synced, the older lines first: not all that can be read needs
            // to be on the device. After a sync that failed it is not, and no later sync brings it there. Until
            // this one has its other name the older ones are there twice, all of them before the later ones.
            write_anew(&path, |pen| {
                pen.write_all(older.lines())?;
                pen.write_all(left.lines())
            })?;
            layout.sync_root()?;
            succeed(layout)?
        } else {
            let file = open(&path, Pen::append)?;
            if !left.bytes.is_empty() {
                let cut = file.cut(0).and_then(|()| file.sync());
                cut.map_err(|error| io_error(&path, "write", error))?;
            }
            layout.sync_root()?;
            file
        };
        let changes = older.changes.into_iter().chain(left.changes).collect();
        Ok((Self { file, path, settling, length: 0, lingers: false }, changes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// A file that nobody else finds is no place for changes.
    pub(super) fn check_place(&self) -> Result<(), StoreError> {
        if self.file.is_in_place() {
            return Ok(());
        }
        let path = self.path.display();
        Err(StoreError::unavailable(format!("somebody has removed or replaced {path}")))
    }

    /// Writes changes; they are on the device when this returns.
    pub(super) fn write(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.check_place()?;
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
        self.file = succeed(layout)?;
        self.length = 0;
        self.lingers = false;
        Ok(())
    }

    /// What was in the other journal is in the files, on the device.
    pub(super) fn settled(&mut self) -> Result<(), StoreError> {
        // Should it come back with a power cut, it says what is there already.
        self.lingers = true;
        remove(&self.settling)
    }

    /// Whoever changes files from now on must not have them changed back by a journal that comes back.
    pub(super) fn close(self, layout: &Layout) -> Result<(), StoreError> {
        if self.lingers { layout.sync_root() } else { Ok(()) }
    }
}

/// Gives the journal its other name, and answers with its successor.
fn succeed(layout: &Layout) -> Result<Pen, StoreError> {
    let path = layout.journal();
    device::rename(&path, &layout.settling()).map_err(|error| io_error(&path, "rename", error))?;
    let file = open(&path, Pen::create)?;
    // Nothing is written to it before it has its name on the device.
    layout.sync_root()?;
    Ok(file)
}

/// A journal that was left by another process.
#[derive(Default)]
struct Left {
    bytes: Vec<u8>,
    /// So many bytes are whole lines.
    sound: usize,
    changes: Changes,
    torn: Option<Torn>,
}

/// The last line, if it cannot be read: what a process died in was told to nobody.
struct Torn {
    number: usize,
    bytes: Vec<u8>,
    reason: String,
}

impl Left {
    fn read(layout: &Layout, path: &Path) -> Result<Self, StoreError> {
        let mut left = Self { bytes: read_bytes(path)?.unwrap_or_default(), ..Self::default() };
        // Somebody who has edited it may have left it so; a line that is cut off does not have its sum.
        if left.bytes.last().is_some_and(|last| *last != b'\n') {
            left.bytes.push(b'\n');
        }
        for (index, line) in left.bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            // Whatever was written after a line was written after that line was acknowledged.
            if let Some(torn) = &left.torn {
                return Err(torn.damaged(layout, path));
            }
            match changes(line) {
                Ok(changes) => {
                    left.changes.extend(changes);
                    left.sound += line.len();
                }
                Err(reason) => left.torn = Some(Torn { number: index + 1, bytes: line.to_vec(), reason }),
            }
        }
        Ok(left)
    }

    /// The whole lines.
    fn lines(&self) -> &[u8] {
        self.bytes.get(..self.sound).unwrap_or_default()
    }
}

impl Torn {
    fn damaged(&self, layout: &Layout, path: &Path) -> StoreError {
        let (line, reason) = (self.number, &self.reason);
        let name = path.file_name().unwrap_or_default().display();
        damaged(
            &layout.root,
            &format!("line {line} of `{name}`: {reason}"),
            "restore the directory from a backup; or, to go on without the changes of that line, remove the line \
             while the program is stopped",
        )
    }
}

/// What a line says.
fn changes(line: &[u8]) -> Result<Changes, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(Changes::new());
    }
    let read = unsealed::<Line>(text)?;
    let change =
        |(key, cell): (String, Option<Cell>)| Ok((key_of(&key)?, cell.map(|cell| cell.value()).transpose()?));
    read.changes.into_iter().map(change).collect()
}
