//! The file with the runs of a task: a line for each record, and another one when it changes; the later
//! one counts. A line can also take records back. What does not count any more is left out when the
//! file is written anew, which is done when it is the larger part.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::device::{self, Pen};
use super::place::{open, remove, write_anew};
use super::text::{Cell, key_of, key_text, sealed, sound, unsealed};
use crate::store::StoreError;
use crate::store::engine::io_error;

/// So much that does not count is no reason to write a file anew.
const SPARE: u64 = if cfg!(test) { 1 << 10 } else { 8 << 10 };
/// How much is read at once where lines are read one after the other.
const WINDOW: u64 = 16 << 10;
/// How much of the end of a file is looked at first.
const TAIL: u64 = 32 << 10;

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

/// Records that are there no more.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    gone: Vec<String>,
}

/// What becomes of records, by the part of the key that names the run.
pub(super) type RunChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a line says.
enum Said {
    Head(String),
    Run(Vec<u8>),
    Gone(Vec<Vec<u8>>),
    Nothing,
    Damaged,
}

impl Said {
    fn by(line: &[u8]) -> Self {
        let Ok(line) = std::str::from_utf8(line) else { return Self::Damaged };
        // As the store writes it: what the sum vouches for need not be taken to pieces.
        if let Some(run) = sound(line.trim_end_matches('\n'))
            .and_then(|rest| rest.strip_prefix("\"run\":\""))
            .and_then(|rest| rest.split_once('"'))
            .and_then(|(run, _)| if run.contains('\\') { None } else { key_of(run).ok() })
        {
            return Self::Run(run);
        }
        // A sync that failed can leave a hole, which reads as zeros.
        if line.trim_matches(['\0', ' ', '\t', '\r', '\n']).is_empty() {
            return Self::Nothing;
        }
        if let Ok((run, _)) = record(line) {
            return Self::Run(run);
        }
        if let Ok(Head { runs_of }) = unsealed(line) {
            return Self::Head(runs_of);
        }
        let gone = unsealed::<Gone>(line).and_then(|line| line.gone.iter().map(|run| key_of(run)).collect());
        gone.map_or(Self::Damaged, Self::Gone)
    }
}

/// The run of a line, and its record.
fn record(line: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let line = unsealed::<Line>(line)?;
    Ok((key_of(&line.run)?, line.record.value()?))
}

/// Where a line is, and how long it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    at: u64,
    length: u64,
}

/// What is where in a file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Where the record of each run is.
    pub runs: BTreeMap<Vec<u8>, Span>,
    /// Lines that cannot be read. They are kept.
    damaged: Vec<Span>,
    /// How long the file is.
    length: u64,
    /// How much of it counts.
    live: u64,
}

impl Index {
    /// Goes through a file, which may be missing.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let mut index = Self::default();
        let failed = |error| io_error(path, "read", error);
        let mut file = match device::open(path) {
            Ok(file) => BufReader::with_capacity(64 << 10, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index),
            Err(error) => return Err(failed(error)),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = file.read_until(b'\n', &mut line).map_err(failed)? as u64;
            if length == 0 {
                break;
            }
            index.add(Said::by(&line), length);
        }
        if !index.damaged.is_empty() {
            tracing::warn!(
                file = %path.display(), lines = index.damaged.len(),
                "lines of a file with runs cannot be read; they were left as they are"
            );
        }
        Ok(index)
    }

    /// Notes a line at the end of the file.
    fn add(&mut self, said: Said, length: u64) {
        let span = Span { at: self.length, length };
        self.length += length;
        match said {
            Said::Head(_) => self.live += length,
            Said::Nothing => {}
            Said::Run(run) => {
                self.live += length;
                let before = self.runs.insert(run, span);
                self.live -= before.map_or(0, |before| before.length);
            }
            Said::Gone(runs) => {
                for run in runs {
                    self.live -= self.runs.remove(&run).map_or(0, |before| before.length);
                }
            }
            Said::Damaged => {
                self.live += length;
                self.damaged.push(span);
            }
        }
    }

    /// How much there is to remember.
    pub(super) fn places(&self) -> usize {
        1 + self.runs.len() + self.damaged.len()
    }

    fn is_wasteful(&self) -> bool {
        self.length > 2 * self.live + SPARE
    }
}

/// Makes changes to the file at `path`; the caller syncs the directory. What has changed is noted in
/// `index`, which is that of the file, or made where it is needed. When `again`, that was tried before,
/// and nobody knows how far it went.
pub(super) fn change(
    path: &Path,
    task: &str,
    changes: &RunChanges,
    index: &mut Option<Index>,
    again: bool,
) -> Result<(), StoreError> {
    let failed = |error| io_error(path, "write", error);
    let takes_back = changes.values().any(Option::is_none);
    if takes_back && index.is_none() {
        *index = Some(Index::read(path)?);
    }
    if takes_back
        && let Some(index) = index
        && index.length == length(path)?
        && index.damaged.is_empty()
        && index.runs.keys().all(|run| changes.get(run).is_some_and(Option::is_none))
        && changes.values().all(Option::is_none)
    {
        *index = Index::default();
        return remove(path);
    }
    let gone: Vec<_> = changes
        .iter()
        .filter(|(run, record)| {
            record.is_none() && index.as_ref().is_none_or(|index| index.runs.contains_key(*run))
        })
        .map(|(run, _)| run)
        .collect();
    if gone.is_empty() && changes.values().all(Option::is_none) {
        return Ok(());
    }
    let mut file = open(path, Pen::append)?;
    let (length, last) = file.end().map_err(failed)?;
    if index.as_ref().is_some_and(|index| index.length != length) {
        // Somebody else has been here.
        *index = Some(Index::read(path)?);
    }
    let mut lines = Vec::new();
    // The end of an earlier write may be missing; what there is of it is not to spoil this one. And after a
    // sync that failed it may be on no device, although it can be read: the end of its last line, too.
    if length > 0 && (again || last != Some(b'\n')) {
        lines.push((Said::Nothing, "\n".to_owned()));
    }
    if length == 0 || again {
        let head = ended(sealed(&Head { runs_of: task.to_owned() }))?;
        lines.push((Said::Head(task.to_owned()), head));
    }
    for (run, record) in changes {
        if let Some(record) = record {
            let line = sealed(&Line { run: key_text(run), record: Cell::new(record) });
            lines.push((Said::Run(run.clone()), ended(line)?));
        }
    }
    if !gone.is_empty() {
        let line = sealed(&Gone { gone: gone.iter().map(|run| key_text(run)).collect() });
        lines.push((Said::Gone(gone.into_iter().cloned().collect()), ended(line)?));
    }
    let text: String = lines.iter().map(|(_, line)| line.as_str()).collect();
    file.write_all(text.as_bytes()).and_then(|()| file.sync()).map_err(failed)?;
    if let Some(index) = index {
        lines.into_iter().for_each(|(said, line)| index.add(said, line.len() as u64));
        if index.is_wasteful() {
            *index = rewrite(path, task, index)?;
        }
    }
    Ok(())
}

/// Writes a file anew, without what does not count.
fn rewrite(path: &Path, task: &str, index: &Index) -> Result<Index, StoreError> {
    let mut lines = Lines::of(path)?;
    let head = ended(sealed(&Head { runs_of: task.to_owned() }))?;
    let mut now = Index::default();
    now.add(Said::Head(task.to_owned()), head.len() as u64);
    write_anew(path, |file| {
        let mut file = io::BufWriter::with_capacity(64 << 10, file);
        file.write_all(head.as_bytes())?;
        let damaged = index.damaged.iter().map(|span| (None, *span));
        let runs = index.runs.iter().map(|(run, span)| (Some(run), *span));
        for (run, span) in damaged.chain(runs) {
            let line = lines.at(span, false)?;
            file.write_all(line)?;
            let mut length = line.len() as u64;
            if !line.ends_with(b"\n") {
                file.write_all(b"\n")?;
                length += 1;
            }
            now.add(run.map_or(Said::Damaged, |run| Said::Run(run.clone())), length);
        }
        file.flush()
    })?;
    Ok(now)
}

fn ended(line: Result<String, String>) -> Result<String, StoreError> {
    line.map(|line| line + "\n").map_err(StoreError::unavailable)
}

/// The task that a file names: in its first line, if that can be read.
pub(super) fn task_of(path: &Path) -> Result<Option<String>, StoreError> {
    let failed = |error| io_error(path, "read", error);
    let mut file = BufReader::new(device::open(path).map_err(failed)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        if let Said::Head(task) = Said::by(&line) {
            return Ok(Some(task));
        }
        line.clear();
    }
    Ok(None)
}

/// How long a file is; a missing one has no length.
pub(super) fn length(path: &Path) -> Result<u64, StoreError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_error(path, "read", error)),
    }
}

/// The lines of a file, where they are known to be.
pub(super) struct Lines<'a> {
    path: &'a Path,
    file: File,
    window: Vec<u8>,
    /// Where the window begins.
    from: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn of(path: &'a Path) -> Result<Self, StoreError> {
        let file = device::open(path).map_err(|error| io_error(path, "read", error))?;
        Ok(Self { path, file, window: Vec::new(), from: 0 })
    }

    /// The record in a line; `None`, with a warning, when it is there no more.
    pub(super) fn record(&mut self, span: Span, backwards: bool) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path;
        let line = self.at(span, backwards).map_err(|error| io_error(path, "read", error))?;
        let read = std::str::from_utf8(line).map_err(|error| error.to_string()).and_then(record);
        match read {
            Ok((_, record)) => Ok(Some(record)),
            Err(reason) => {
                tracing::warn!(file = %path.display(), %reason, "a line of a file with runs was changed by somebody else");
                Ok(None)
            }
        }
    }

    /// A line. The window is moved so that the next ones, or those before, are in it as well.
    fn at(&mut self, span: Span, backwards: bool) -> io::Result<&[u8]> {
        let end = span.at + span.length;
        if span.at < self.from || end > self.from + self.window.len() as u64 {
            self.from = if backwards { end.saturating_sub(WINDOW).min(span.at) } else { span.at };
            let length = if backwards { end - self.from } else { span.length.max(WINDOW) };
            self.window.clear();
            self.file.seek(SeekFrom::Start(self.from))?;
            (&self.file).take(length).read_to_end(&mut self.window)?;
        }
        let begin = usize::try_from(span.at - self.from).unwrap_or(usize::MAX);
        let line = begin.checked_add(usize::try_from(span.length).unwrap_or(usize::MAX));
        line.and_then(|end| self.window.get(begin..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Looks for the record of a run from the end of a file: records that are asked for one by one are
/// young.
pub(super) fn find(path: &Path, run: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |error| io_error(path, "read", error);
    let mut file = match device::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut end = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut step = TAIL;
    // The beginning of a line whose end was looked at.
    let mut rest = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(step);
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        (&file).take(end - from).read_to_end(&mut part).map_err(failed)?;
        part.append(&mut rest);
        let mut lines: Vec<&[u8]> = part.split_inclusive(|byte| *byte == b'\n').collect();
        if from > 0 && !lines.is_empty() {
            rest = lines.remove(0).to_vec();
        }
        for line in lines.into_iter().rev() {
            match Said::by(line) {
                Said::Run(found) if found == run => {
                    let read = std::str::from_utf8(line).ok().and_then(|line| record(line).ok());
                    if let Some((_, record)) = read {
                        return Ok(Some(record));
                    }
                }
                Said::Gone(gone) if gone.iter().any(|gone| gone == run) => return Ok(None),
                _ => {}
            }
        }
        (end, step) = (from, step * 4);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(serial: u64) -> Vec<u8> {
        [1_u64.to_be_bytes(), serial.to_be_bytes()].concat()
    }

    fn text(serial: u64, word: &str) -> Vec<u8> {
        format!("R\u{3}j{{\"n\":{serial},\"word\":\"{word}\"}}").into_bytes()
    }

    /// What a file says, three ways.
    fn content(path: &Path, index: &Option<Index>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let read = Index::read(path).unwrap();
        if let Some(index) = index {
            assert_eq!((&read.runs, read.live, read.length), (&index.runs, index.live, index.length));
        }
        if read.runs.is_empty() {
            return BTreeMap::new();
        }
        let mut lines = Lines::of(path).unwrap();
        let mut records = |backwards| -> BTreeMap<Vec<u8>, Vec<u8>> {
            let mut spans: Vec<_> = read.runs.iter().collect();
            if backwards {
                spans.reverse();
            }
            let mut record = |span| lines.record(span, backwards).unwrap().unwrap();
            spans.into_iter().map(|(run, span)| (run.clone(), record(*span))).collect()
        };
        let forwards = records(false);
        assert_eq!(records(true), forwards);
        for (run, record) in &forwards {
            assert_eq!(find(path, run).unwrap().as_ref(), Some(record));
        }
        forwards
    }

    /// Records come, change and go for long, with the index of the file and without: the file says what it
    /// was told, and is not much larger than what it says.
    #[test]
    fn a_file_says_what_it_was_told_and_stays_small() {
        let base = tempfile::tempdir().unwrap();
        for keeps_index in [true, false] {
            let path = base.path().join(format!("{keeps_index}.runs.jsonl"));
            let (mut index, mut model) = (None, BTreeMap::new());
            for serial in 0..600_u64 {
                let mut changes = RunChanges::new();
                changes.insert(run(serial), Some(text(serial, "begun")));
                if serial % 3 == 0 {
                    changes.insert(run(serial / 2), Some(text(serial / 2, &"ended ".repeat(5))));
                }
                if serial > 40 {
                    changes.insert(run(serial - 40), None);
                }
                model.extend(changes.clone());
                model.retain(|_, record: &mut Option<Vec<u8>>| record.is_some());
                if !keeps_index {
                    index = None;
                }
                change(&path, "a task", &changes, &mut index, serial % 7 == 0).unwrap();
                if serial % 50 == 0 {
                    let told: BTreeMap<_, _> =
                        model.iter().map(|(run, record)| (run.clone(), record.clone().unwrap())).collect();
                    assert_eq!(content(&path, &index), told);
                    assert_eq!(find(&path, &run(10_000)).unwrap(), None);
                    let live: usize = told.values().map(|record| record.len() + 120).sum();
                    assert!(length(&path).unwrap() < 2 * live as u64 + 2 * SPARE, "{serial}");
                }
            }
            assert_eq!(task_of(&path).unwrap().as_deref(), Some("a task"));
            let all = model.into_keys().map(|run| (run, None)).collect();
            change(&path, "a task", &all, &mut index, false).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_record_is_found_far_from_the_end() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.runs.jsonl");
        let many = (0..3000).map(|serial| (run(serial), Some(text(serial, "begun")))).collect();
        change(&path, "a", &many, &mut None, false).unwrap();
        for serial in [0, 1, 1500, 2999] {
            assert_eq!(find(&path, &run(serial)).unwrap(), Some(text(serial, "begun")));
        }
        assert_eq!(find(&path, &run(3000)).unwrap(), None);
    }
}
