//! The journal: what is acknowledged and not in the files yet. A line for each sync, so that the
//! changes of a sync are there wholly or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::{Layout, private, read_text};
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
    file: File,
    path: PathBuf,
    /// In bytes.
    length: u64,
}

impl Journal {
    /// Opens the journal and reads it.
    pub(super) fn open(layout: &Layout) -> Result<(Self, Changes), StoreError> {
        let path = layout.journal();
        let text = read_text(&path)?.unwrap_or_default();
        let mut changes = Changes::new();
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
                    return Err(damaged(
                        &layout.root,
                        &format!("line {at} of `journal.jsonl`: {reason}"),
                        "restore the directory from a backup; or, to go on without the changes of that line, \
                         remove the line while the program is stopped",
                    ));
                }
                (Err(reason), None) => broken = Some((index + 1, reason)),
                (Err(_), Some(_)) => {}
            }
        }
        let file = private(&path, OpenOptions::new().append(true).create(true))?;
        let journal = Self { file, path, length: sound };
        if broken.is_some() {
            // The write that the process died in: nobody was told that it had happened.
            journal.cut(sound)?;
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
            .and_then(|()| self.file.sync_all())
            .map_err(|error| io_error(&self.path, "write", error))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Empties the journal: everything in it is in the files, on the device.
    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        self.cut(0)?;
        self.length = 0;
        Ok(())
    }

    fn cut(&self, length: u64) -> Result<(), StoreError> {
        let cut = self.file.set_len(length).and_then(|()| self.file.sync_all());
        cut.map_err(|error| io_error(&self.path, "write", error))
    }
}
