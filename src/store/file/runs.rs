//! The file with the runs of a task: a line for each record, and another one when it changes. The
//! later one counts. It is written anew when records go.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::place::{private, read_text, remove, write_text};
use super::text::{Cell, key_of, key_text, sealed, unsealed};
use crate::store::StoreError;
use crate::store::engine::io_error;

/// The first line: whose runs these are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    runs_of: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    run: String,
    record: Cell,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct RunsFile {
    /// The task, where the first line says it.
    pub task: Option<String>,
    /// By the part of the key that names the run.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Lines that cannot be read. They are kept.
    pub damaged: Vec<String>,
}

impl RunsFile {
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let mut file = Self::default();
        let text = read_text(path)?.unwrap_or_default();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (index, line) in lines {
            if index == 0
                && let Ok(Head { runs_of }) = unsealed(line)
            {
                file.task = Some(runs_of);
                continue;
            }
            let read = unsealed::<Line>(line).and_then(|line| Ok((key_of(&line.run)?, line.record.value()?)));
            match read {
                Ok((run, record)) => drop(file.records.insert(run, record)),
                Err(_) => file.damaged.push(line.to_owned()),
            }
        }
        if !file.damaged.is_empty() {
            tracing::warn!(
                file = %path.display(), lines = file.damaged.len(),
                "lines of a file with runs cannot be read; they were left as they are"
            );
        }
        Ok(file)
    }

    /// Makes changes to the file at `path`; the caller syncs the directory.
    pub(super) fn change(
        path: &Path,
        task: &str,
        changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Result<(), StoreError> {
        if changes.values().all(Option::is_some) {
            return append(path, task, &changes);
        }
        let mut file = Self::read(path)?;
        for (run, record) in changes {
            match record {
                Some(record) => drop(file.records.insert(run, record)),
                None => drop(file.records.remove(&run)),
            }
        }
        if file.records.is_empty() && file.damaged.is_empty() {
            return remove(path);
        }
        let mut text = head(task)?;
        for line in &file.damaged {
            text.push_str(line);
            text.push('\n');
        }
        for (run, record) in &file.records {
            text.push_str(&line(run, record)?);
        }
        write_text(path, &text)
    }
}

fn append(path: &Path, task: &str, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), StoreError> {
    let mut file = private(path, OpenOptions::new().read(true).append(true).create(true))?;
    let failed = |error| io_error(path, "write", error);
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut text = String::new();
    if length == 0 {
        text = head(task)?;
    } else {
        // The end of an earlier write may be missing; what there is of it is not to spoil this one.
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    for (run, record) in changes {
        if let Some(record) = record {
            text.push_str(&line(run, record)?);
        }
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn head(task: &str) -> Result<String, StoreError> {
    ended(sealed(&Head { runs_of: task.to_owned() }))
}

fn line(run: &[u8], record: &[u8]) -> Result<String, StoreError> {
    ended(sealed(&Line { run: key_text(run), record: Cell::new(record) }))
}

fn ended(line: Result<String, String>) -> Result<String, StoreError> {
    line.map(|line| line + "\n").map_err(StoreError::unavailable)
}
