//! Exports: files that hold everything of a store, one record a line, as JSON.
//!
//! ```text
//! {"callboard":"store export","format":1,"store":"6f1c…","created_at":"2026-11-21T09:30:00Z"}
//! {"gone":3,"task":"removed"}
//! {"record":"spec","task":"weekly","format":2,"content":{…}}
//! {"record":"state","task":"weekly","format":2,"content":{…}}
//! {"record":"run","task":"weekly","run":"6955b90000000001-7","format":2,"content":{…}}
//! {"record":"spec","task":"secret","bytes":"UwJ4…"}
//! {"end":{"records":4,"tasks":1,"runs":1,"unreadable":0,"sha256":"9b0f…"}}
//! ```
//!
//! `bytes` is a record as it lies in the store, as base64: one that is encrypted, or that cannot be
//! read. The checksum is over all lines before the last.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::keys::Row;
use super::sweep::{examine, kind};
use super::{create_dir, damaged, io_error, sync_dir};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::envelope::{Codec, HEAD};
use crate::store::message::Exported;
use crate::task::{RunId, TaskId};

const TITLE: &str = "store export";
const FORMAT: u32 = 1;
/// A line is never longer: a record as base64, and what is around it.
const LONGEST_LINE: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    callboard: String,
    format: u32,
    /// The identity of the store.
    pub store: String,
    pub created_at: String,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Part>,
    task: TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Spec,
    State,
    Run,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct End {
    pub records: u64,
    pub tasks: u64,
    pub runs: u64,
    pub unreadable: u64,
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    end: End,
}

/// Writes an export: under another name beside the file, which is renamed at the end. Dropped before
/// that, it leaves nothing.
pub(super) struct ExportWriter {
    file: BufWriter<File>,
    path: PathBuf,
    aside: Aside,
    plain: bool,
    hash: Sha256,
    end: End,
}

/// A file that is removed unless it is kept.
struct Aside(Option<PathBuf>);

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            fs::remove_file(path).ok();
        }
    }
}

impl ExportWriter {
    /// Begins the export of the store `identity` to `path`. `plain`: what is encrypted is written so
    /// that anybody can read it.
    pub(super) fn create(path: &Path, identity: Uuid, plain: bool) -> Result<Self, StoreError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            create_dir(dir)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let aside = path.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&aside).map_err(|error| io_error(&aside, "write to", error))?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 16, file),
            path: path.to_owned(),
            aside: Aside(Some(aside)),
            plain,
            hash: Sha256::new(),
            end: End::default(),
        };
        writer.line(&Header {
            callboard: TITLE.to_owned(),
            format: FORMAT,
            store: identity.simple().to_string(),
            created_at: Clock::system().now().to_rfc3339(),
        })?;
        Ok(writer)
    }

    /// A task that was removed and has run records still.
    pub(super) fn gone(&mut self, number: u64, task: &TaskId) -> Result<(), StoreError> {
        let line = Line { gone: Some(number), ..Line::of(task) };
        self.end.records += 1;
        self.line(&line)
    }

    /// A record of the store that `codec` reads.
    pub(super) fn row(&mut self, codec: &Codec, row: &Row, bytes: &[u8]) -> Result<(), StoreError> {
        let key = row.key();
        let readable = examine(codec, row, bytes).is_ok();
        let (part, run) = match row {
            Row::Spec(_) => (Part::Spec, None),
            Row::State(_) => (Part::State, None),
            Row::Run(_, run) => (Part::Run, Some(*run)),
        };
        self.end.records += 1;
        self.end.unreadable += u64::from(!readable);
        self.end.tasks += u64::from(matches!(part, Part::Spec));
        self.end.runs += u64::from(matches!(part, Part::Run));
        let line = Line { record: Some(part), run, ..Line::of(row.task()) };
        // Both succeed for what is readable.
        let plain = codec.open(kind(row), &key, bytes).ok().filter(|_| readable);
        let renewed = codec.renew(kind(row), &key, bytes).ok().flatten().filter(|_| readable);
        let kept = match (&renewed, &plain) {
            // A plain record of a store that is encrypted by now does not leave it as it is.
            (Some(sealed), _) if !self.plain => sealed.as_slice(),
            (_, Some(plain)) if self.plain => plain,
            _ => bytes,
        };
        let content = kept.get(HEAD..).filter(|_| readable && kept.get(HEAD - 1) == Some(&b'j'));
        let content = content.and_then(|content| serde_json::from_slice::<&RawValue>(content).ok());
        match content {
            Some(content) => {
                self.line(&Line { format: kept.get(1).copied(), content: Some(content), ..line })
            }
            None => self.line(&Line { bytes: Some(STANDARD.encode(kept)), ..line }),
        }
    }

    fn line<T: Serialize>(&mut self, line: &T) -> Result<(), StoreError> {
        let mut text =
            serde_json::to_vec(line).map_err(|error| StoreError::unavailable(error.to_string()))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.write(&text)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(text).map_err(|error| io_error(&self.path, "write to", error))
    }

    /// Writes the last line; the file is on the device under its name when this returns.
    pub(super) fn finish(mut self) -> Result<Exported, StoreError> {
        self.end.sha256 = hex(&self.hash.finalize_reset());
        let end = self.end.clone();
        let mut text = serde_json::to_vec(&Trailer { end: end.clone() })
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
        text.push(b'\n');
        self.write(&text)?;
        let Self { file, path, mut aside, .. } = self;
        let publish = || {
            let file = file.into_inner().map_err(|error| error.into_error())?;
            file.sync_all()?;
            if let Some(from) = &aside.0 {
                fs::rename(from, &path)?;
            }
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            sync_dir(dir.unwrap_or(Path::new(".")))
        };
        publish().map_err(|error| io_error(&path, "write to", error))?;
        aside.0 = None;
        let End { tasks, runs, unreadable, sha256, .. } = end;
        Ok(Exported { path, tasks, runs, unreadable, sha256 })
    }
}

impl Line<'_> {
    fn of(task: &TaskId) -> Self {
        Self {
            gone: None,
            record: None,
            task: task.clone(),
            run: None,
            format: None,
            content: None,
            bytes: None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a line of an export says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Gone(u64, TaskId),
    /// A row and the record in it.
    Row(Row, Vec<u8>),
}

/// A file that was found to be a whole export.
#[derive(Debug)]
pub(super) struct ExportReader {
    path: PathBuf,
    pub store: Uuid,
    pub end: End,
}

impl ExportReader {
    /// Reads the whole file. [`Damaged`](StoreError::Damaged) unless it is what an export wrote, to
    /// the last byte.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let refuse = |reason: &str| damaged(path, reason, "import another export");
        let mut lines = Lines::open(path)?;
        let first = lines.next()?.ok_or_else(|| refuse("it is empty"))?;
        let header: Header = serde_json::from_slice(&first)
            .map_err(|_| refuse("its first line is not that of an export of a store"))?;
        if header.callboard != TITLE {
            return Err(refuse("its first line is not that of an export of a store"));
        }
        if header.format > FORMAT {
            let reason = format!("it has format {}, and this version reads up to {FORMAT}", header.format);
            return Err(damaged(path, &reason, "import it with the version of callboard that wrote it"));
        }
        let store = Uuid::parse_str(&header.store).map_err(|_| refuse("its first line names no store"))?;
        let mut hash = Sha256::new();
        hash.update(&first);
        let mut counted = End::default();
        let mut end = None;
        while let Some(line) = lines.next()? {
            if end.is_some() {
                return Err(refuse("there is something after its last line"));
            }
            if let Ok(Trailer { end: last }) = serde_json::from_slice(&line) {
                counted.unreadable = last.unreadable;
                counted.sha256 = hex(&hash.clone().finalize());
                end = Some(last);
                continue;
            }
            hash.update(&line);
            counted.records += 1;
            let number = counted.records + 1;
            match entry(&line).map_err(|reason| refuse(&format!("line {number}: {reason}")))? {
                Entry::Row(Row::Spec(_), _) => counted.tasks += 1,
                Entry::Row(Row::Run(..), _) => counted.runs += 1,
                _ => {}
            }
        }
        let end = end.ok_or_else(|| refuse("it is cut off: its last line is missing"))?;
        if end != counted {
            return Err(refuse("its checksum or its counts do not fit what is in it"));
        }
        Ok(Self { path: path.to_owned(), store, end })
    }

    /// Shows `visit` what is in it.
    pub(super) fn each(
        &self,
        mut visit: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut lines = Lines::open(&self.path)?;
        lines.next()?;
        for _ in 0..self.end.records {
            let line = lines.next()?.unwrap_or_default();
            let changed = |reason: String| damaged(&self.path, &reason, "import it again");
            visit(entry(&line).map_err(|reason| changed(format!("it was changed meanwhile: {reason}")))?)?;
        }
        Ok(())
    }
}

struct Lines {
    file: BufReader<File>,
    path: PathBuf,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| io_error(path, "read", error))?;
        Ok(Self { file: BufReader::with_capacity(1 << 16, file), path: path.to_owned() })
    }

    /// The next line with its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut self.file, LONGEST_LINE);
        limited.read_until(b'\n', &mut line).map_err(|error| io_error(&self.path, "read", error))?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => {
                Err(damaged(&self.path, "it is cut off in the middle of a line", "import another export"))
            }
        }
    }
}

fn entry(line: &[u8]) -> Result<Entry, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let task = line.task;
    let row = match (line.gone, line.record, line.run) {
        (Some(number), None, None) => return Ok(Entry::Gone(number, task)),
        (None, Some(Part::Spec), None) => Row::Spec(task),
        (None, Some(Part::State), None) => Row::State(task),
        (None, Some(Part::Run), Some(run)) => Row::Run(task, run),
        _ => return Err("it is no record".to_owned()),
    };
    let bytes = match (line.bytes, line.format, line.content) {
        (Some(bytes), None, None) => STANDARD.decode(bytes).map_err(|error| error.to_string())?,
        (None, Some(format), Some(content)) => {
            let mut bytes = vec![kind(&row) as u8, format, b'j'];
            bytes.extend(content.get().as_bytes());
            bytes
        }
        _ => return Err("it has no content".to_owned()),
    };
    if bytes.len() > 4 * super::ROW_LIMIT {
        return Err("its record is larger than a record can be".to_owned());
    }
    Ok(Entry::Row(row, bytes))
}
