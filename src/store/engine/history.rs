use std::collections::VecDeque;
use std::ops::ControlFlow::{Break, Continue};

use rustc_hash::FxHashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Batch, Count, Disk, Order, ROW_LIMIT, Rules, keys};
use crate::store::envelope::{Codec, Kind};
use crate::store::message::{FindRuns, Found, Pick};
use crate::store::{MemoryBackend, StoreError};
use crate::task::{Outcome, OwnerId, Refusal, RunEnd, RunId, RunRecord, TaskId};

/// The run records: written at the start of a run, completed at its end. The actor's part, which
/// never looks at the disk.
#[derive(Default)]
pub(super) struct History {
    codec: Codec,
    /// The records without an end.
    open: FxHashMap<RunId, RunRecord>,
    /// How many removed tasks keep their records.
    gone_limit: usize,
    /// Removed tasks whose records are still there, oldest first, by the number in their key.
    gone: VecDeque<(u64, TaskId)>,
    /// The latest number of each: a task can be removed, added again and removed again.
    latest_gone: FxHashMap<TaskId, u64>,
    /// The owner that sorts last among those who began runs.
    latest_owner: Option<OwnerId>,
    /// How long records are kept.
    age: Option<TimeDelta>,
    /// Whose old records are looked at next: each task has its turn, then each removed task.
    turn: usize,
}

/// Work on the records of a task that takes a look at the disk.
#[derive(Debug)]
pub(in crate::store) enum Chore {
    /// It gets so many more.
    Grows(TaskId, usize),
    /// Its records of before this time may go.
    Ages(TaskId, DateTime<Utc>),
    /// It was removed, and keeps its records for a while.
    Leaves(TaskId),
    /// It was removed long ago: its records go.
    Forgotten(TaskId),
}

impl History {
    pub(super) fn new(
        codec: Codec,
        rules: &Rules,
        gone: Vec<(u64, TaskId)>,
        latest_owner: Option<OwnerId>,
    ) -> Self {
        let latest_gone = gone.iter().map(|(number, task)| (task.clone(), *number)).collect();
        Self {
            codec,
            gone_limit: rules.removed,
            gone: gone.into(),
            latest_gone,
            latest_owner,
            age: rules.age,
            ..Self::default()
        }
    }

    /// From now on records are written with this.
    #[cfg(feature = "encryption")]
    pub(super) fn write_with(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// The removed tasks that have records still.
    pub(super) fn gone(&self) -> impl Iterator<Item = &TaskId> {
        self.gone.iter().map(|(_, task)| task)
    }

    /// Takes charge of a run that was begun before.
    pub(super) fn resume(&mut self, record: RunRecord) {
        self.open.insert(record.id, record);
    }

    /// Writes the records of runs that begin, or that ended without one, or whose end changes what
    /// becomes of their task.
    pub(super) fn begin(
        &mut self,
        batch: &mut Batch,
        task: &TaskId,
        runs: Vec<RunRecord>,
        tasks: &MemoryBackend,
    ) -> Result<(), StoreError> {
        let Some(latest) = runs.last() else { return Ok(()) };
        if let Some(before) = self.age.and_then(|age| latest.submitted_at.checked_sub_signed(age)) {
            let other = self.next_in_turn(tasks).filter(|other| other != task);
            let ages = std::iter::once(task.clone()).chain(other).map(|task| Chore::Ages(task, before));
            batch.chores.extend(ages);
        }
        let mut more = 0;
        for record in runs {
            if self.latest_owner < Some(record.id.owner) {
                self.latest_owner = Some(record.id.owner);
                batch.insert(keys::LATEST_OWNER.to_vec(), record.id.owner.0.to_be_bytes().to_vec());
            }
            batch.insert(keys::run(task, record.id), encoded(&self.codec, &record)?);
            if record.end.is_none() {
                batch.insert(keys::open_run(record.id), task.as_str().as_bytes().to_vec());
                self.open.insert(record.id, record);
                more += 1;
            } else if self.open.remove(&record.id).is_some() {
                batch.remove(keys::open_run(record.id));
            } else {
                more += 1;
            }
        }
        if more > 0 {
            batch.chores.push(Chore::Grows(task.clone(), more));
        }
        Ok(())
    }

    /// A task that may have old records and no new ones: all have their turn.
    fn next_in_turn(&mut self, tasks: &MemoryBackend) -> Option<TaskId> {
        let place = self.turn;
        self.turn += 1;
        if place < tasks.places() {
            return tasks.id_at(place).cloned();
        }
        match self.gone.get(place - tasks.places()) {
            Some((_, task)) => Some(task.clone()),
            None => {
                self.turn = 0;
                None
            }
        }
    }

    /// Writes how a run ended; answers with the record, or nothing when the run is unknown.
    pub(super) fn end(
        &mut self,
        batch: &mut Batch,
        run: RunId,
        end: RunEnd,
        exists: impl Fn(&TaskId) -> bool,
    ) -> Result<Option<RunRecord>, StoreError> {
        let Some(mut record) = self.open.remove(&run) else { return Ok(None) };
        record.end = Some(end);
        batch.remove(keys::open_run(run));
        let row = keys::run(&record.task, run);
        if exists(&record.task) || self.latest_gone.contains_key(&record.task) {
            batch.insert(row, encoded(&self.codec, &record)?);
        } else {
            // The task was forgotten while it ran. Nobody would come for this one again.
            batch.remove(row);
        }
        Ok(Some(record))
    }

    /// Numbers the removed tasks from zero on, and answers with the next number. Those that came with an
    /// import can be any.
    fn renumber(&mut self, batch: &mut Batch) -> u64 {
        self.gone.iter().for_each(|(number, _)| batch.remove(keys::gone(*number)));
        for ((number, task), new) in self.gone.iter_mut().zip(0..) {
            *number = new;
            batch.insert(keys::gone(new), task.as_str().as_bytes().to_vec());
            self.latest_gone.insert(task.clone(), new);
        }
        self.gone.len() as u64
    }

    /// Notes that a task was removed: its records stay for a while.
    pub(super) fn leave(&mut self, batch: &mut Batch, task: TaskId, exists: impl Fn(&TaskId) -> bool) {
        let next = self.gone.back().map_or(Some(0), |(number, _)| number.checked_add(1));
        let number = next.unwrap_or_else(|| self.renumber(batch));
        batch.insert(keys::gone(number), task.as_str().as_bytes().to_vec());
        batch.chores.push(Chore::Leaves(task.clone()));
        self.latest_gone.insert(task.clone(), number);
        self.gone.push_back((number, task));
        while self.gone.len() > self.gone_limit {
            let Some((number, task)) = self.gone.pop_front() else { break };
            batch.remove(keys::gone(number));
            if self.latest_gone.get(&task) == Some(&number) {
                self.latest_gone.remove(&task);
                if !exists(&task) {
                    batch.chores.push(Chore::Forgotten(task));
                }
            }
        }
    }
}

/// Bounds the number of run records: the part of the thread that has the disk.
pub(super) struct Upkeep {
    pub codec: Codec,
    /// How many records of a task are kept.
    limit: usize,
    /// How many records a task has, once that was counted.
    counts: FxHashMap<TaskId, Count>,
}

impl Upkeep {
    pub(super) fn new(codec: Codec, limit: usize) -> Self {
        Self { codec, limit, counts: FxHashMap::default() }
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// Does the chores of a batch that is about to be applied: what goes is added to its changes.
    pub(super) fn complete<D: Disk>(&mut self, disk: &D, batch: &mut Batch) -> Result<(), StoreError> {
        for chore in std::mem::take(&mut batch.chores) {
            match chore {
                Chore::Grows(task, more) => self.bound(disk, batch, task, more)?,
                Chore::Leaves(task) => drop(self.counts.remove(&task)),
                Chore::Ages(task, before) => {
                    let dropped = drop_oldest(disk, &self.codec, batch, &task, AT_ONCE, Some(before))?;
                    if let Some(count) = self.counts.get_mut(&task) {
                        count.most = count.most.saturating_sub(dropped);
                    }
                }
                Chore::Forgotten(task) => {
                    drop_oldest(disk, &self.codec, batch, &task, usize::MAX, None)?;
                }
            }
        }
        Ok(())
    }

    /// Makes room for `more` records of a task. Some may be too many for a while, so that not every
    /// run costs a look at the whole history.
    fn bound<D: Disk>(
        &mut self,
        disk: &D,
        batch: &mut Batch,
        task: TaskId,
        more: usize,
    ) -> Result<(), StoreError> {
        let bound = self.limit.saturating_add(self.limit / 4);
        let rows = keys::runs(&task);
        let mut count = match self.counts.get(&task) {
            Some(count) => *count,
            None => disk.count(&rows, bound.saturating_sub(more))?,
        };
        if !count.exact && count.most + more > bound {
            count = disk.count(&rows, 0)?;
        }
        count.most += more;
        if count.most > bound {
            count.most -= drop_oldest(disk, &self.codec, batch, &task, count.most - self.limit, None)?;
        }
        self.counts.insert(task, count);
        Ok(())
    }
}

/// So many old records go at once at most.
const AT_ONCE: usize = 64;

/// Removes up to `excess` records that have ended and can be read; only those submitted before an
/// instant, if there is one.
fn drop_oldest<D: Disk>(
    disk: &D,
    codec: &Codec,
    batch: &mut Batch,
    task: &TaskId,
    excess: usize,
    before: Option<DateTime<Utc>>,
) -> Result<usize, StoreError> {
    let mut dropped = 0;
    disk.scan(&keys::runs(task), Order::Ascending, &mut |key, bytes| {
        if dropped == excess {
            return Break(());
        }
        let Ok(record) = codec.decode::<RunRecord>(Kind::Run, key, bytes) else { return Continue(()) };
        if before.is_some_and(|before| record.submitted_at >= before) {
            return Break(());
        }
        if record.end.is_some() {
            batch.remove(key.to_vec());
            dropped += 1;
        }
        Continue(())
    })?;
    Ok(dropped)
}

/// The latest readable records of a task, newest first.
pub(super) fn latest<D: Disk>(
    disk: &D,
    codec: &Codec,
    task: &TaskId,
    limit: usize,
) -> Result<Vec<RunRecord>, StoreError> {
    let mut records = Vec::new();
    disk.scan(&keys::runs(task), Order::Descending, &mut |key, bytes| {
        if records.len() == limit {
            return Break(());
        }
        records.extend(codec.decode::<RunRecord>(Kind::Run, key, bytes));
        Continue(())
    })?;
    Ok(records)
}

/// So many records in a row are submitted long before a window, and the search for it ends: fewer can
/// be those of a clock that was set back since.
const LONG_BEFORE: usize = 1000;

/// The records that concern a window. They lie in the order in which they were submitted, which is
/// not that of their run times, so the search goes backwards, from the newest to those that were
/// submitted long before the window.
pub(super) fn find<D: Disk>(disk: &D, codec: &Codec, request: &FindRuns) -> Result<Found, StoreError> {
    let mut pick = Pick::new(request);
    let records = keys::runs(&request.id);
    let end = request.from.checked_sub_signed(FindRuns::SLACK).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut early = 0;
    disk.scan(&records, Order::Descending, &mut |key, bytes| {
        let Ok(record) = codec.decode::<RunRecord>(Kind::Run, key, bytes) else { return Continue(()) };
        early = if record.submitted_at < end { early + 1 } else { 0 };
        if early > LONG_BEFORE {
            return Break(());
        }
        pick.offer(record);
        Continue(())
    })?;
    let mut oldest = None;
    disk.scan(&records, Order::Ascending, &mut |key, bytes| match codec.decode::<RunRecord>(
        Kind::Run,
        key,
        bytes,
    ) {
        Ok(record) => {
            oldest = Some(record.submitted_at);
            Break(())
        }
        Err(_) => Continue(()),
    })?;
    Ok(Found { oldest, ..pick.found() })
}

fn encoded(codec: &Codec, record: &RunRecord) -> Result<Vec<u8>, StoreError> {
    let row = keys::run(&record.task, record.id);
    let failed = |reason| StoreError::Unstorable { id: record.task.clone(), reason };
    let bytes = codec.encode(Kind::Run, &row, record).map_err(failed)?;
    if bytes.len() <= ROW_LIMIT {
        return Ok(bytes);
    }
    // That a run ended must not fail because of what it had to say.
    let mut record = record.clone();
    if let Some(end) = &mut record.end {
        shorten(&mut end.outcome, bytes.len());
        end.output = None;
        end.backtrace = None;
    }
    codec.encode(Kind::Run, &row, &record).map_err(failed)
}

fn shorten(outcome: &mut Outcome, size: usize) {
    const KEPT: usize = 4096;
    let cut = |text: &mut String| {
        let end = (0..=KEPT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    };
    match outcome {
        Outcome::Executed { value } => *value = format!("({size} bytes, too many to keep)").into(),
        Outcome::Failed { error } => cut(error),
        Outcome::Panicked { message } => cut(message),
        Outcome::Interrupted { reason } => cut(reason),
        Outcome::Refused { reason: Refusal::ExecutorUnavailable { reason, .. } } => cut(reason),
        _ => {}
    }
}
