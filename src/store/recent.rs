//! The latest run records of a store that has nothing but memory.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::message::{FindRuns, Found};
use super::retention::{Entry, Ledger, Retention};
use crate::task::{Outcome, OwnerId, Refusal, RunEnd, RunId, RunRecord, TaskId};

/// What a record takes beside itself and what it says: its place in the book.
const OVERHEAD: usize = 96;

/// So many records go for each that comes, at most.
const AT_ONCE: usize = 16;

/// The run records of a store in memory, those of removed tasks included, for as long as there is room.
pub(super) struct Recent {
    bounds: Retention,
    /// Those that have ended.
    ledger: Ledger<Box<RunRecord>>,
    /// The others: what cannot go needs no place among what may.
    open: FxHashMap<RunId, Box<RunRecord>>,
}

impl Recent {
    pub(super) fn new(bounds: Retention) -> Self {
        Self { bounds, ledger: Ledger::new(bounds), open: FxHashMap::default() }
    }

    /// Makes the book anew from the records alone: a panic may have left it half changed.
    pub(super) fn reindex(&mut self, exists: impl Fn(&TaskId) -> bool) {
        let before = std::mem::replace(&mut self.ledger, Ledger::new(self.bounds));
        self.ledger.note_gone_until(before.gone_until());
        let mut entries: Vec<_> = before.into_entries().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.run);
        for (task, entry) in entries {
            self.ledger.note(&task, entry, exists(&task));
        }
    }

    /// Notes runs that begin, and others with their ends.
    pub(super) fn begin(&mut self, task: &TaskId, runs: Vec<RunRecord>) {
        for record in runs {
            if record.end.is_some() {
                self.open.remove(&record.id);
                self.enter(task, Box::new(record), true);
            } else {
                self.open.insert(record.id, Box::new(record));
            }
        }
    }

    /// Notes how a run ended, of a task that exists or does not any more.
    pub(super) fn end(&mut self, run: RunId, end: RunEnd, exists: impl FnOnce(&TaskId) -> bool) {
        let Some(mut record) = self.open.remove(&run) else { return };
        record.end = Some(end);
        let (task, exists) = (record.task.clone(), exists(&record.task));
        self.enter(&task, record, exists);
    }

    fn enter(&mut self, task: &TaskId, record: Box<RunRecord>, exists: bool) {
        let now = record.end.as_ref().map_or(record.submitted_at, |end| end.ended_at);
        let entry = Entry::new(&record, weight(&record)).keeping(record);
        self.ledger.note(task, entry, exists);
        let before = self.bounds.age.and_then(|age| now.checked_sub_signed(age));
        self.ledger.excess(before, AT_ONCE, &mut Vec::new());
    }

    /// Ends the runs of other owners.
    pub(super) fn interrupt(
        &mut self,
        owner: OwnerId,
        now: DateTime<Utc>,
        exists: impl Fn(&TaskId) -> bool,
    ) -> Vec<RunRecord> {
        let reason = "the scheduler that started it ended before the run did";
        let others = self.open.values().filter(|record| record.id.owner != owner);
        let mut runs: Vec<RunRecord> = others.map(|record| (**record).clone()).collect();
        runs.sort_unstable_by_key(|record| record.id);
        for record in &mut runs {
            let end = RunEnd::unstarted(Outcome::Interrupted { reason: reason.to_owned() }, now);
            record.end = Some(end.clone());
            self.end(record.id, end, &exists);
        }
        runs
    }

    /// Notes that a task was removed.
    pub(super) fn leave(&mut self, task: &TaskId) {
        self.ledger.leave(task);
    }

    fn newest_first(&self, task: &TaskId) -> impl Iterator<Item = RunRecord> + '_ {
        // Few runs go on at once, measured by how often somebody asks.
        let mut open: Vec<&RunRecord> =
            self.open.values().map(|record| &**record).filter(|record| record.task == *task).collect();
        open.sort_unstable_by_key(|record| Reverse(record.id));
        let (mut open, mut ended) = (open.into_iter().peekable(), self.ledger.newest_first(task).peekable());
        std::iter::from_fn(move || {
            let is_open = match (open.peek(), ended.peek()) {
                (Some(open), Some(ended)) => open.id > ended.run,
                (open, _) => open.is_some(),
            };
            if is_open { open.next() } else { ended.next().map(|entry| &*entry.record) }.cloned()
        })
    }

    pub(super) fn latest(&self, task: &TaskId, limit: usize) -> Vec<RunRecord> {
        self.newest_first(task).take(limit).collect()
    }

    pub(super) fn find(&self, request: &FindRuns) -> Found {
        Found {
            kept: Some(self.bounds.kept()),
            complete_since: self.ledger.gone_until(),
            ..Found::among(request, self.newest_first(&request.id))
        }
    }
}

/// About how many bytes a record takes.
fn weight(record: &RunRecord) -> usize {
    let end = record.end.as_ref().map_or(0, |end| {
        let backtrace = end.backtrace.as_ref().map_or(0, |text| text.len());
        backtrace
            + match &end.outcome {
                Outcome::Executed { value } => weight_of(value),
                Outcome::Failed { error: text }
                | Outcome::Panicked { message: text }
                | Outcome::Interrupted { reason: text }
                | Outcome::Refused { reason: Refusal::ExecutorUnavailable { reason: text, .. } } => {
                    text.len()
                }
                _ => 0,
            }
    });
    OVERHEAD + size_of::<RunRecord>() + end
}

fn weight_of(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(weight_of).sum(),
            Value::Object(values) => {
                values.iter().map(|(key, value)| 48 + key.len() + weight_of(value)).sum()
            }
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::task::Source;

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    fn record(task: &str, serial: u64, ended: bool) -> RunRecord {
        let at = DateTime::UNIX_EPOCH + TimeDelta::seconds(serial as i64);
        RunRecord {
            id: RunId { owner: OwnerId(1), serial },
            task: id(task),
            nominal: at,
            offset: None,
            coalesced: 0,
            span: None,
            source: Source::Scheduled,
            attempt: 1,
            submitted_at: at,
            end: ended.then(|| RunEnd::unstarted(Outcome::Cancelled, at)),
        }
    }

    fn serials(recent: &Recent, task: &str) -> Vec<u64> {
        recent.latest(&id(task), usize::MAX).iter().map(|record| record.id.serial).collect()
    }

    #[test]
    fn the_oldest_ended_runs_go_first() {
        let mut recent = Recent::new(Retention { most: Some(3), ..Retention::MEMORY });
        recent.begin(&id("a"), vec![record("a", 1, false), record("a", 2, true)]);
        for serial in 3..7 {
            recent.begin(&id("a"), vec![record("a", serial, true)]);
        }
        assert_eq!(serials(&recent, "a"), [6, 5, 4, 1], "the first has not ended");
        recent.end(
            RunId { owner: OwnerId(1), serial: 1 },
            RunEnd::unstarted(Outcome::Executed { value: Value::Null }, DateTime::UNIX_EPOCH),
            |_| true,
        );
        recent.begin(&id("a"), vec![record("a", 7, true)]);
        assert_eq!(serials(&recent, "a"), [7, 6, 5]);
    }

    /// Also where each task has less than it would keep, where records are large, and where tasks are removed.
    #[test]
    fn however_many_tasks_there_are_the_records_are_bounded() {
        let size = 1 << 20;
        let mut recent = Recent::new(Retention { size, ..Retention::MEMORY });
        for task in 0..20_000 {
            let name = id(&task.to_string());
            let mut large = record("x", 2 * task, true);
            let value = Value::from("x".repeat(task as usize % 4000));
            large.end = Some(RunEnd::unstarted(Outcome::Executed { value }, DateTime::UNIX_EPOCH));
            recent.begin(&name, vec![large, record("x", 2 * task + 1, true)]);
            if task % 2 == 0 {
                recent.leave(&name);
            }
        }
        let total: usize = (0..20_000)
            .flat_map(|task| recent.latest(&id(&task.to_string()), 9))
            .map(|record| weight(&record))
            .sum();
        assert_eq!(recent.ledger.total(), total as u64, "every byte is accounted for");
        assert!(total as u64 <= size + 10_000, "{total}");
        assert!(total as u64 > size / 2, "{total}");
        assert_eq!(serials(&recent, "19999"), [39_999, 39_998]);
        assert_eq!(serials(&recent, "0"), [0; 0], "those removed first make room");
    }
}
