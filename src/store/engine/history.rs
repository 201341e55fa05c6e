use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{Batch, ROW_LIMIT, Rules, keys};
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind};
use crate::store::retention::Entry;
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
}

/// What the changes of a batch mean for the records of a task: for the thread that has the disk, which
/// keeps the book of them.
#[derive(Debug)]
pub(in crate::store) enum Chore {
    /// One is written.
    Noted(TaskId, Entry),
    /// One is removed.
    Dropped(TaskId, RunId),
    /// It was removed, and its records stay for a while.
    Leaves(TaskId),
    /// It was removed long ago, under this number: its records go.
    Forgotten(u64, TaskId),
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
    ) -> Result<(), StoreError> {
        for record in runs {
            if self.latest_owner < Some(record.id.owner) {
                self.latest_owner = Some(record.id.owner);
                batch.insert(keys::LATEST_OWNER.to_vec(), record.id.owner.0.to_be_bytes().to_vec());
            }
            self.write(batch, task, &record)?;
            batch.now = Some(record.submitted_at);
            if record.end.is_none() {
                batch.insert(keys::open_run(record.id), task.as_str().as_bytes().to_vec());
                self.open.insert(record.id, record);
            } else if self.open.remove(&record.id).is_some() {
                batch.remove(keys::open_run(record.id));
            }
        }
        Ok(())
    }

    fn write(&self, batch: &mut Batch, task: &TaskId, record: &RunRecord) -> Result<(), StoreError> {
        let (key, bytes) = (keys::run(task, record.id), encoded(&self.codec, record)?);
        let entry = Entry::new(record, key.len() + bytes.len());
        batch.chores.push(Chore::Noted(task.clone(), entry));
        batch.insert(key, bytes);
        Ok(())
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
        batch.now = Some(end.ended_at);
        record.end = Some(end);
        batch.remove(keys::open_run(run));
        if exists(&record.task) || self.latest_gone.contains_key(&record.task) {
            self.write(batch, &record.task, &record)?;
        } else {
            // The task was forgotten while it ran. Nobody would come for this one again.
            batch.remove(keys::run(&record.task, run));
            batch.chores.push(Chore::Dropped(record.task.clone(), run));
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
                    batch.chores.push(Chore::Forgotten(number, task));
                }
            }
        }
    }
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
