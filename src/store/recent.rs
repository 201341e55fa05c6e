//! The latest run records of a store that has nothing but memory.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;

use super::message::{FindRuns, Found};
use crate::task::{Outcome, OwnerId, RunEnd, RunId, RunRecord, TaskId};

/// So many records are kept at most, of all tasks together: some 30 MB.
const MOST: usize = 100_000;

/// The latest run records of each task, oldest first, and of tasks that were removed as long as
/// there is room. With many tasks each has fewer.
pub(super) struct Recent {
    /// How many of one task.
    limit: usize,
    logs: FxHashMap<TaskId, Log>,
    /// Those that were removed, longest ago first, by number; some have come back since.
    removed: VecDeque<(u64, TaskId)>,
    removals: u64,
}

#[derive(Default)]
struct Log {
    records: VecDeque<RunRecord>,
    /// The number of its removal.
    removed: Option<u64>,
}

impl Recent {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, logs: FxHashMap::default(), removed: VecDeque::new(), removals: 0 }
    }

    /// Notes runs that begin, or that ended without a beginning.
    pub(super) fn begin(&mut self, task: &TaskId, runs: Vec<RunRecord>) {
        if runs.is_empty() {
            return;
        }
        if !self.logs.contains_key(task) {
            while self.logs.len() >= MOST {
                let Some((number, oldest)) = self.removed.pop_front() else { return };
                if self.logs.get(&oldest).is_some_and(|log| log.removed == Some(number)) {
                    self.logs.remove(&oldest);
                }
            }
        }
        let room = self.limit.min(MOST / (self.logs.len() + 1)).max(1);
        let log = self.logs.entry(task.clone()).or_default();
        for record in runs {
            if record.end.is_some()
                && let Some(there) = log.records.iter_mut().rev().find(|there| there.id == record.id)
            {
                *there = record;
                continue;
            }
            while log.records.len() >= room {
                let ended = log.records.iter().position(|record| record.end.is_some());
                let Some(ended) = ended else { break };
                log.records.remove(ended);
            }
            log.records.push_back(record);
        }
        log.removed = None;
    }

    /// Notes how a run ended.
    pub(super) fn end(&mut self, run: RunId, task: &TaskId, end: RunEnd) {
        let Some(log) = self.logs.get_mut(task) else { return };
        if let Some(record) = log.records.iter_mut().rev().find(|record| record.id == run) {
            record.end.get_or_insert(end);
        }
    }

    /// Ends the runs of other owners.
    pub(super) fn interrupt(&mut self, owner: OwnerId, now: DateTime<Utc>) -> Vec<RunRecord> {
        let reason = "the scheduler that started it ended before the run did";
        let mut interrupted = Vec::new();
        let records = self.logs.values_mut().flat_map(|log| &mut log.records);
        for record in records.filter(|record| record.end.is_none() && record.id.owner != owner) {
            let outcome = Outcome::Interrupted { reason: reason.to_owned() };
            record.end = Some(RunEnd::unstarted(outcome, now));
            interrupted.push(record.clone());
        }
        interrupted
    }

    /// Notes that a task was removed.
    pub(super) fn leave(&mut self, task: &TaskId) {
        let Some(log) = self.logs.get_mut(task) else { return };
        self.removals += 1;
        log.removed = Some(self.removals);
        self.removed.push_back((self.removals, task.clone()));
        if self.removed.len() > 2 * MOST {
            let logs = &self.logs;
            self.removed.retain(|(number, id)| logs.get(id).is_some_and(|log| log.removed == Some(*number)));
        }
    }

    /// Notes that all tasks were removed.
    pub(super) fn leave_all(&mut self) {
        let leaving = self.logs.iter().filter(|(_, log)| log.removed.is_none());
        let mut leaving: Vec<_> =
            leaving.map(|(task, log)| (log.records.back().map(|record| record.id), task.clone())).collect();
        leaving.sort_unstable_by_key(|(latest, _)| *latest);
        leaving.iter().for_each(|(_, task)| self.leave(task));
    }

    fn newest_first(&self, task: &TaskId) -> impl Iterator<Item = RunRecord> + '_ {
        self.logs.get(task).into_iter().flat_map(|log| log.records.iter().rev().cloned())
    }

    pub(super) fn latest(&self, task: &TaskId, limit: usize) -> Vec<RunRecord> {
        self.newest_first(task).take(limit).collect()
    }

    pub(super) fn find(&self, request: &FindRuns) -> Found {
        let kept = Some(format!("the latest {} runs of a task", self.limit));
        Found { kept, ..Found::among(request, self.newest_first(&request.id)) }
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
        let mut recent = Recent::new(3);
        recent.begin(&id("a"), vec![record("a", 1, false), record("a", 2, true)]);
        for serial in 3..7 {
            recent.begin(&id("a"), vec![record("a", serial, true)]);
        }
        assert_eq!(serials(&recent, "a"), [6, 5, 1], "the first has not ended");
        recent.end(
            RunId { owner: OwnerId(1), serial: 1 },
            &id("a"),
            RunEnd::unstarted(Outcome::Cancelled, DateTime::UNIX_EPOCH),
        );
        recent.begin(&id("a"), vec![record("a", 7, true)]);
        assert_eq!(serials(&recent, "a"), [7, 6, 5]);
    }

    #[test]
    fn however_many_tasks_there_are_the_records_are_bounded() {
        let mut recent = Recent::new(10);
        for task in 0..MOST {
            recent.begin(&id(&task.to_string()), vec![record("x", 1, true); 12]);
            if task % 2 == 0 {
                recent.leave(&id(&task.to_string()));
            }
        }
        let count: usize = recent.logs.values().map(|log| log.records.len()).sum();
        assert!(count < 4 * MOST, "{count}");
        assert_eq!(serials(&recent, "99998").len(), 1, "with many tasks each has fewer");
        recent.begin(&id("another"), vec![record("x", 1, true)]);
        assert_eq!(
            (recent.logs.len(), serials(&recent, "0").len()),
            (MOST, 0),
            "those removed first make room"
        );
        recent.leave_all();
        assert_eq!(recent.removed.len(), MOST);
    }
}
