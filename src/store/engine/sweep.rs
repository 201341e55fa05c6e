//! Work that goes through everything a store holds, task by task, in slices between the writes.
//!
//! An export is what the store held at the moment it was asked for: what a write changes of tasks
//! that the export has not come to yet is kept for it.

use std::collections::BTreeSet;
use std::mem;
use std::ops::ControlFlow::Continue;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use futures::channel::oneshot;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::export::ExportWriter;
use super::keys::Row;
use super::load::{gone, missing, no_id, notes, read_spec};
use super::{Changes, Disk, Order, ROW_LIMIT, keys};
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind, Unread};
use crate::store::message::{Checked, Exported, Quarantined, Rekeyed};
use crate::task::{RunRecord, TaskId, TaskState};

/// So many rows make a slice, about.
const SLICE: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Rows with what lies under them.
pub(super) type Rows = Vec<(Row, Vec<u8>)>;

/// What is done with the rows of each task.
enum Work {
    Check {
        checked: Checked,
        since: Option<FxHashMap<Vec<u8>, DateTime<Utc>>>,
        done: Answer<Checked>,
    },
    #[cfg_attr(not(feature = "encryption"), expect(dead_code, reason = "there are no keys"))]
    Rekey {
        codec: Codec,
        rekeyed: Rekeyed,
        done: Answer<Rekeyed>,
    },
    Export(Box<ExportWork>),
    /// It came to an end: what is answered when everything is synced.
    Ended(Box<dyn FnOnce() + Send>),
}

struct ExportWork {
    to: PathBuf,
    plain: bool,
    writer: Option<ExportWriter>,
    /// What was there when the export began, of the rows of each task that were changed since.
    before: FxHashMap<TaskId, FxHashMap<Vec<u8>, Option<Vec<u8>>>>,
    done: Box<dyn FnOnce(Result<Exported, StoreError>) + Send>,
}

/// One such work.
pub(super) struct Sweep {
    /// What is left.
    tasks: BTreeSet<TaskId>,
    work: Work,
}

impl Sweep {
    fn new(tasks: BTreeSet<TaskId>, work: Work) -> Self {
        Self { tasks, work }
    }

    pub(super) fn check(tasks: BTreeSet<TaskId>, done: Answer<Checked>) -> Self {
        Self::new(tasks, Work::Check { checked: Checked::default(), since: None, done })
    }

    #[cfg(feature = "encryption")]
    pub(super) fn rekey(tasks: BTreeSet<TaskId>, codec: Codec, done: Answer<Rekeyed>) -> Self {
        Self::new(tasks, Work::Rekey { rekeyed: begin_rekey(&codec), codec, done })
    }

    pub(super) fn export(tasks: BTreeSet<TaskId>, to: PathBuf, plain: bool, done: Answer<Exported>) -> Self {
        Self::export_then(tasks, to, plain, |exported| drop(done.send(exported)))
    }

    pub(super) fn export_then(
        tasks: BTreeSet<TaskId>,
        to: PathBuf,
        plain: bool,
        done: impl FnOnce(Result<Exported, StoreError>) + Send + 'static,
    ) -> Self {
        let done = Box::new(done);
        let work = ExportWork { to, plain, writer: None, before: FxHashMap::default(), done };
        Self::new(tasks, Work::Export(Box::new(work)))
    }

    /// What the store reads and writes with from now on, if this changes it.
    pub(super) fn codec(&self) -> Option<&Codec> {
        match &self.work {
            Work::Rekey { codec, .. } => Some(codec),
            _ => None,
        }
    }

    fn fail(self, error: &StoreError) {
        let error = error.clone();
        match self.work {
            Work::Check { done, .. } => drop(done.send(Err(error))),

            Work::Rekey { done, .. } => drop(done.send(Err(error))),
            Work::Export(work) => (work.done)(Err(error)),
            Work::Ended(_) => {}
        }
    }

    /// Does a slice; says whether it came to an end.
    fn go_on<D: Disk>(&mut self, disk: &mut D, codec: &Codec, identity: Uuid) -> Result<bool, StoreError> {
        let mut rows = 0;
        let mut changes = Changes::new();
        let mut trouble = None;
        while rows < SLICE && trouble.is_none() {
            let Some(task) = self.tasks.pop_first() else { break };
            let mut found = rows_of(disk, &task)?;
            rows += found.len().max(1);
            match &mut self.work {
                Work::Check { checked, since, .. } => {
                    if since.is_none() {
                        *since = Some(notes(disk)?);
                    }
                    let quarantine = check(codec, &task, &found, checked);
                    let since = since.as_ref();
                    checked.quarantine.extend(quarantine.into_iter().map(|(row, unread, bytes)| {
                        let noted = since.and_then(|since| since.get(&row.key()).copied());
                        quarantined(&row, unread, bytes, noted)
                    }));
                }

                Work::Rekey { codec, rekeyed, .. } => renew(codec, found, rekeyed, &mut changes),
                Work::Export(work) => {
                    work.as_of_then(&task, &mut found);
                    trouble = work.write(disk, codec, identity, found).err();
                }
                Work::Ended(_) => {}
            }
        }
        if !changes.is_empty() {
            disk.apply(changes)?;
            disk.sync()?;
        }
        if !self.tasks.is_empty() && trouble.is_none() {
            return Ok(false);
        }
        // An export of nothing has a file too.
        if let (Work::Export(work), None) = (&mut self.work, &trouble) {
            trouble = work.write(disk, codec, identity, Rows::new()).err();
        }
        let ended = |work| -> Box<dyn FnOnce() + Send> {
            match (work, trouble) {
                (Work::Check { checked, done, .. }, _) => Box::new(move || drop(done.send(Ok(checked)))),
                (Work::Rekey { rekeyed, done, .. }, _) => Box::new(move || drop(done.send(Ok(rekeyed)))),
                (Work::Export(work), Some(trouble)) => Box::new(move || (work.done)(Err(trouble))),
                (Work::Export(work), None) => {
                    let ExportWork { writer, done, .. } = *work;
                    let exported = match writer {
                        Some(writer) => writer.finish(),
                        None => Err(StoreError::unavailable("the export was not begun")),
                    };
                    Box::new(move || done(exported))
                }
                (Work::Ended(answer), _) => answer,
            }
        };
        let work = mem::replace(&mut self.work, Work::Ended(Box::new(|| {})));
        self.work = Work::Ended(ended(work));
        Ok(true)
    }
}

impl ExportWork {
    /// Puts back what was changed since the export began.
    fn as_of_then(&mut self, task: &TaskId, rows: &mut Rows) {
        let Some(before) = self.before.remove(task) else { return };
        rows.retain(|(row, _)| !before.contains_key(&row.key()));
        rows.extend(before.into_iter().filter_map(|(key, value)| Some((Row::at(&key)?, value?))));
    }

    fn write<D: Disk>(
        &mut self,
        disk: &D,
        codec: &Codec,
        identity: Uuid,
        rows: Rows,
    ) -> Result<(), StoreError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let mut writer = ExportWriter::create(&self.to, identity, self.plain)?;
                for (number, task) in gone(disk)? {
                    writer.gone(number, &task)?;
                }
                none.insert(writer)
            }
        };
        writer.task(disk, codec, &rows)
    }
}

/// What there is of such works; they are done one after the other.
pub(super) struct Sweeps {
    identity: Uuid,
    queue: std::collections::VecDeque<Sweep>,
}

impl Sweeps {
    pub(super) fn new(identity: Uuid) -> Self {
        Self { identity, queue: std::collections::VecDeque::new() }
    }

    pub(super) fn add(&mut self, sweep: Sweep) {
        self.queue.push_back(sweep);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Keeps for exports under way what `changes` are about to change.
    pub(super) fn keep<D: Disk>(&mut self, disk: &D, changes: &Changes) -> Result<(), StoreError> {
        for sweep in &mut self.queue {
            let Work::Export(work) = &mut sweep.work else { continue };
            for (key, _) in changes {
                let Some(row) = Row::at(key).filter(|row| sweep.tasks.contains(row.task())) else { continue };
                let before = work.before.entry(row.task().clone()).or_default();
                if !before.contains_key(key) {
                    before.insert(key.clone(), disk.get(key)?);
                }
            }
        }
        Ok(())
    }

    /// Goes on with the first; says whether it came to an end, and is to be answered when everything
    /// is synced.
    pub(super) fn go_on<D: Disk>(&mut self, disk: &mut D, codec: &Codec) -> Result<bool, StoreError> {
        match self.queue.front_mut() {
            Some(sweep) => sweep.go_on(disk, codec, self.identity),
            None => Ok(false),
        }
    }

    /// Answers for what came to an end.
    pub(super) fn answer(&mut self) {
        if let Some(Sweep { work: Work::Ended(answer), .. }) = self.queue.pop_front() {
            answer();
        }
    }

    pub(super) fn fail(&mut self, error: &StoreError) {
        self.queue.drain(..).for_each(|sweep| sweep.fail(error));
    }
}

/// Everything there is of a task.
pub(super) fn rows_of<D: Disk + ?Sized>(disk: &D, task: &TaskId) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    for row in [Row::Spec(task.clone()), Row::State(task.clone())] {
        if let Some(value) = disk.get(&row.key())? {
            rows.push((row, value));
        }
    }
    disk.scan(&keys::runs(task), Order::Ascending, &mut |key, value| {
        rows.extend(Row::at(key).map(|row| (row, value.to_vec())));
        Continue(())
    })?;
    Ok(rows)
}

/// Reads a record as the store does.
pub(super) fn examine(codec: &Codec, row: &Row, bytes: &[u8]) -> Result<(), Unread> {
    match row {
        Row::Spec(id) => read_spec(codec, id, bytes).map(drop),
        Row::State(_) => codec.decode::<TaskState>(Kind::State, &row.key(), bytes).map(drop),
        Row::Run(..) => read_run(codec, row, bytes).map(drop),
    }
}

/// Reads the record of a run.
pub(super) fn read_run(codec: &Codec, row: &Row, bytes: &[u8]) -> Result<RunRecord, Unread> {
    codec.decode(Kind::Run, &row.key(), bytes)
}

/// Counts what can be read of a task, and gives the rest.
pub(super) fn check(
    codec: &Codec,
    task: &TaskId,
    rows: &Rows,
    checked: &mut Checked,
) -> Vec<(Row, Unread, Vec<u8>)> {
    let mut bad = Vec::new();
    let (mut spec, mut state) = (None, None);
    for (row, bytes) in rows {
        let good = match examine(codec, row, bytes) {
            Ok(()) => true,
            Err(unread) => {
                bad.push((row.clone(), unread, bytes.clone()));
                false
            }
        };
        match row {
            Row::Spec(_) => spec = Some(good),
            Row::State(_) => state = Some(good),
            Row::Run(..) => checked.runs += u64::from(good),
        }
    }
    let there = |wanted: fn(&Row) -> bool| rows.iter().find(|(row, _)| wanted(row)).cloned();
    match (spec, state) {
        (Some(true), Some(true)) => checked.tasks += 1,
        (Some(_), None) => {
            if let Some((row, bytes)) = there(|row| matches!(row, Row::Spec(_))) {
                bad.push((row, missing("its state"), bytes));
            }
        }
        (None, Some(_)) => {
            bad.extend(
                there(|row| matches!(row, Row::State(_)))
                    .map(|(row, bytes)| (row, missing("its spec"), bytes)),
            );
        }
        _ => {}
    }
    debug_assert!(bad.iter().all(|(row, ..)| row.task() == task));
    bad
}

pub(super) fn quarantined(
    row: &Row,
    unread: Unread,
    bytes: Vec<u8>,
    since: Option<DateTime<Utc>>,
) -> Quarantined {
    let record = match row {
        Row::Spec(_) => "spec".to_owned(),
        Row::State(_) => "state".to_owned(),
        Row::Run(_, run) => run.to_string(),
    };
    let id = row.task().to_string();
    Quarantined { id, record, cause: unread.cause, reason: unread.reason, since, bytes }
}

/// A row whose key has an id that no task can have.
pub(super) fn nameless(id: String, record: &str, bytes: &[u8]) -> Quarantined {
    let Unread { cause, reason } = no_id();
    Quarantined { id, record: record.to_owned(), cause, reason, since: None, bytes: bytes.to_vec() }
}

#[cfg(feature = "encryption")]
pub(super) fn begin_rekey(codec: &Codec) -> Rekeyed {
    let key = codec.cipher.as_ref().map(|cipher| cipher.keys.current().to_string());
    Rekeyed { key: key.unwrap_or_default(), ..Rekeyed::default() }
}

/// Writes the rows of a task with the current key.
pub(super) fn renew(codec: &Codec, rows: Rows, rekeyed: &mut Rekeyed, changes: &mut Changes) {
    for (row, bytes) in rows {
        let key = row.key();
        match codec.renew(kind(&row), &key, &bytes) {
            // What was within the limit is not lost for the few bytes of a seal.
            Ok(Some(sealed)) if sealed.len() <= 2 * ROW_LIMIT => {
                rekeyed.rewritten += 1;
                changes.push((key, Some(sealed)));
            }
            Ok(None) => rekeyed.current += 1,
            Ok(Some(_)) | Err(_) => rekeyed.unreadable += 1,
        }
    }
}

pub(super) fn kind(row: &Row) -> Kind {
    match row {
        Row::Spec(_) => Kind::Spec,
        Row::State(_) => Kind::State,
        Row::Run(..) => Kind::Run,
    }
}
