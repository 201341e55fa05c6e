//! Exports: files that hold everything of a store, one record a line, as JSON.
//!
//! ```text
//! {"callboard":"store export","format":1,"store":"6f1c…","created_at":"2026-11-21T09:30:00Z"}
//! {"gone":3,"task":"removed"}
//! {"record":"spec","task":"weekly","format":2,"content":{…}}
//! {"record":"state","task":"weekly","format":2,"content":{…}}
//! {"record":"run","task":"weekly","run":"6955b90000000001-7","format":2,"content":{…}}
//! {"record":"spec","task":"secret","bytes":"UwJ4…"}
//! {"record":"run","task":"secret","run":"6955b90000000001-8","bytes":"UgN4…","open":true}
//! {"end":{"records":4,"tasks":1,"runs":1,"unreadable":0,"sha256":"9b0f…"}}
//! ```
//!
//! `bytes` is a record as it lies in the store, as base64: one that is encrypted, or that cannot be
//! read. Such a record of a run that has not ended is `open`: whoever cannot read it must know. The
//! checksum is over all lines before the last.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::files::file_error;
use super::keys::{self, Row};
use super::sweep::{Rows, examine, kind};
use super::{Disk, create_dir, damaged, sync_dir};
use crate::clock::Clock;
use crate::private_file;
use crate::store::StoreError;
use crate::store::envelope::{Codec, HEAD};
use crate::store::message::Exported;
use crate::task::{RunId, TaskId};

const TITLE: &str = "store export";
const FORMAT: u32 = 1;
/// A longer line is none of an export. Records are far below that, but for those of file stores that
/// somebody has edited.
const LONGEST_LINE: u64 = 64 << 20;
pub(super) const PART: &str = ".part";

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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    open: bool,
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
            // Of the export's directory, and no damage of the store.
            if dir.exists() && !dir.is_dir() {
                let error = io::Error::other("a file is where its directory belongs; name another place");
                return Err(file_error(path, "write to", error));
            }
            create_dir(dir).map_err(of_file)?;
        }
        // What is renamed over a device or a directory at the end would take its place.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let error =
                io::Error::other("it is there and no regular file; give the export a name of its own");
            return Err(file_error(path, "write to", error));
        }
        let aside = aside_of(path);
        let file = create_aside(&aside).map_err(|error| file_error(&aside, "write to", error))?;
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

    /// Everything there is of a task, in a store that `codec` reads.
    pub(super) fn task<D: Disk + ?Sized>(
        &mut self,
        disk: &D,
        codec: &Codec,
        rows: &Rows,
    ) -> Result<(), StoreError> {
        let halves = rows.iter().filter(|(row, _)| !matches!(row, Row::Run(..))).count();
        self.end.unreadable += u64::from(halves == 1);
        for (row, bytes) in rows {
            let is_open = || match row {
                Row::Run(_, run) => Ok(disk.get(&keys::open_run(*run))?.is_some()),
                _ => Ok(false),
            };
            self.row(codec, row, bytes, is_open)?;
        }
        Ok(())
    }

    /// A record; `is_open` tells of a run whether it has not ended.
    fn row(
        &mut self,
        codec: &Codec,
        row: &Row,
        bytes: &[u8],
        is_open: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
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
        let plain = codec.open(kind(row), &key, bytes).ok().filter(|_| readable);
        let renewed = match codec.renew(kind(row), &key, bytes) {
            Ok(renewed) => renewed.filter(|_| readable),
            // What cannot be sealed does not leave the store at all.
            Err(unread) if readable => return Err(StoreError::unavailable(unread.reason)),
            Err(_) => None,
        };
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
            None => self.line(&Line { bytes: Some(STANDARD.encode(kept)), open: is_open()?, ..line }),
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
        self.file.write_all(text).map_err(|error| file_error(&self.path, "write to", error))
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
        publish().map_err(|error| file_error(&path, "write to", error))?;
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
            open: false,
        }
    }
}

/// A directory that cannot be made for an export is no trouble of the store's.
fn of_file(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { reason, source } => StoreError::File { reason, source },
        other => other,
    }
}

/// What an export is called while it is written.
fn aside_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PART);
    path.with_file_name(name)
}

/// Makes the file that an export is written to, for its owner alone, and locks it: one that is there
/// was left behind by an export that was cut off, unless somebody has it.
fn create_aside(aside: &Path) -> io::Result<File> {
    loop {
        match private_file::open(aside, OpenOptions::new().write(true).create_new(true)) {
            Ok(file) => {
                // Without locks, as on some file systems, two exports to one file are in each other's way.
                file.try_lock().ok();
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !remove_left_behind(aside)? {
                    return Err(io::Error::other("another export to it is under way"));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes the file of an export that was cut off, or says that it is being written.
pub(super) fn remove_left_behind(aside: &Path) -> io::Result<bool> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(true),
        _ => Err(error),
    };
    match fs::symlink_metadata(aside) {
        // Only a file can be one of ours.
        Ok(there) if there.is_file() => match File::open(aside) {
            Ok(file) if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) => return Ok(false),
            Ok(_) => {}
            Err(error) => return gone(error),
        },
        Ok(_) => {}
        Err(error) => return gone(error),
    }
    fs::remove_file(aside).map(|()| true).or_else(gone)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a line of an export says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Gone(u64, TaskId),
    /// A row and the record in it; and, of a record that need not be readable, whether it is that of a
    /// run which has not ended.
    Row(Row, Vec<u8>, bool),
}

/// A file that was found to be a whole export. It stays open: another one that gets its name
/// meanwhile is not taken for it.
#[derive(Debug)]
pub(crate) struct ExportReader {
    path: PathBuf,
    file: File,
    pub(super) store: Uuid,
    pub(super) end: End,
}

impl ExportReader {
    /// Reads the whole file. [`Damaged`](StoreError::Damaged) unless it is what an export wrote, to
    /// the last byte.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let refuse = |reason: &str| damaged(path, reason, "import another export");
        let no_export = || refuse("its first line is not that of an export of a store");
        let unread = |error| file_error(path, "read", error);
        // Not even opened, what is no file: that could wait for ever.
        if !fs::metadata(path).map_err(unread)?.is_file() {
            let error = io::Error::other("it is no regular file, and an import reads it more than once");
            return Err(unread(error));
        }
        let file = File::open(path).map_err(unread)?;
        let mut lines = Lines::new(&file, path)?;
        let first = lines.next()?.ok_or_else(|| refuse("it is empty"))?;
        if first.starts_with("\u{feff}".as_bytes()) || first.ends_with(b"\r\n") {
            return Err(damaged(
                path,
                "a program that takes it for text has changed it (it has a byte order mark, or lines that end in CR LF)",
                "copy the export again, as binary data",
            ));
        }
        let header: Header = serde_json::from_slice(&first).map_err(|_| no_export())?;
        if header.callboard != TITLE {
            return Err(no_export());
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
                Entry::Row(Row::Spec(_), ..) => counted.tasks += 1,
                Entry::Row(Row::Run(..), ..) => counted.runs += 1,
                _ => {}
            }
        }
        let end = end.ok_or_else(|| refuse("it is cut off: its last line is missing"))?;
        if end != counted {
            return Err(refuse("its checksum or its counts do not fit what is in it"));
        }
        Ok(Self { path: path.to_owned(), file, store, end })
    }

    /// Shows `visit` what is in it.
    pub(super) fn each(
        &self,
        mut visit: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut lines = Lines::new(&self.file, &self.path)?;
        lines.next()?;
        for _ in 0..self.end.records {
            let line = lines.next()?.unwrap_or_default();
            let changed = |reason: String| damaged(&self.path, &reason, "import it again");
            visit(entry(&line).map_err(|reason| changed(format!("it was changed meanwhile: {reason}")))?)?;
        }
        Ok(())
    }
}

/// The identity of the store that a file is an export of, as far as its first line says.
pub(super) fn origin_of(path: &Path) -> Option<Uuid> {
    let file = File::open(path).ok()?;
    let mut first = Vec::new();
    io::Read::take(BufReader::new(file), 4096).read_until(b'\n', &mut first).ok()?;
    let header: Header = serde_json::from_slice(&first).ok()?;
    Uuid::parse_str(&header.store).ok()
}

struct Lines<'a> {
    file: BufReader<&'a File>,
    path: &'a Path,
}

impl<'a> Lines<'a> {
    /// From the beginning.
    fn new(mut file: &'a File, path: &'a Path) -> Result<Self, StoreError> {
        file.seek(SeekFrom::Start(0)).map_err(|error| file_error(path, "read", error))?;
        Ok(Self { file: BufReader::with_capacity(1 << 16, file), path })
    }

    /// The next line with its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.file, LONGEST_LINE);
        limited.read_until(b'\n', &mut line).map_err(|error| file_error(self.path, "read", error))?;
        let reason = match line.last() {
            None => return Ok(None),
            Some(b'\n') => return Ok(Some(line)),
            Some(_) if line.len() as u64 == LONGEST_LINE => "it has a line that is too long for an export",
            Some(_) => "it is cut off in the middle of a line",
        };
        Err(damaged(self.path, reason, "import another export"))
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
    Ok(Entry::Row(row, bytes, line.open))
}
