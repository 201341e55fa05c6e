//! From the decision to the executor: runs are made, and handed out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::actor::Scheduler;
use super::why;
use crate::clock::Busy;
use crate::event::{Event, EventMask, RunFact};
use crate::executor::message::Seats;
use crate::task::{Alias, Code, Failure, Handler, Run, StoredTask, TaskContext, TaskId, TaskInfo, Wait};
use crate::trigger::Zones;

/// A task of a store.
pub(super) type Name = (Alias, TaskId);

/// How tasks stand at one moment.
pub(super) struct Standing {
    /// The runs in flight, and how many of them wait in their executor.
    runs: HashMap<Name, (u32, u32)>,
    /// What those wait for that wait, at this revision.
    waits: HashMap<Name, (u64, Wait)>,
    /// The rules in force.
    zones: Arc<Zones>,
}

impl Standing {
    /// The snapshot of a task.
    pub(super) fn snapshot(&self, store: Alias, task: StoredTask) -> TaskInfo {
        let name = (store, task.spec.id.clone());
        let (all, queued) = self.runs.get(&name).copied().unwrap_or((0, 0));
        let wait = self.waits.get(&name).filter(|(revision, _)| *revision == task.state.revision);
        let wait = wait.map(|(_, wait)| wait.clone());
        TaskInfo::new(name.0, task, false, all, &self.zones).queued(queued).waiting(wait)
    }
}

impl Scheduler {
    /// Makes a run and takes it on board.
    pub(super) fn board(
        &mut self,
        StoredTask { spec, state }: &StoredTask,
        store: &Alias,
        zones: &Zones,
        set: impl FnOnce(&mut Run),
    ) -> Arc<Run> {
        let id = self.next_run_id();
        let code = match &spec.handler {
            Handler::Named(name) => self.code(name).cloned(),
            Handler::Closure(code) => Some(code.clone()),
        };
        let code = code.unwrap_or_else(|| {
            // Never run: `want` turns the run away first.
            Code::from_async(|_: TaskContext, _: serde_json::Value| async {
                Err::<(), _>(Failure::new("no such handler"))
            })
        });
        self.estate.flight.board(|slot| {
            let mut run = Run::new(id, spec.clone(), store.clone(), DateTime::UNIX_EPOCH, code);
            (run.slot, run.added_at) = (slot, state.created_at);
            set(&mut run);
            run.offset = why::offset(spec, state.anchor, run.nominal, zones);
            run
        })
    }

    /// Tells of runs and hands them to their executors, one message each.
    pub(super) fn submit(&mut self, runs: Vec<Arc<Run>>, seats: BTreeMap<Alias, Seats>, busy: Busy) {
        if self.wants(EventMask::TASK_SUBMITTED) {
            self.publish(runs.iter().map(|run| Event::TaskSubmitted(RunFact(run.clone()))).collect());
        }
        self.hand_out(runs, seats, busy);
    }

    /// Hands runs to their executors, one message each.
    pub(super) fn hand_out(&mut self, runs: Vec<Arc<Run>>, mut seats: BTreeMap<Alias, Seats>, busy: Busy) {
        let mut rest = runs;
        while let Some(first) = rest.first() {
            // Nearly always all runs go to one executor, and nothing is copied.
            let executor = first.task.executor.clone();
            let batch;
            if rest.iter().all(|run| run.task.executor.same(&executor)) {
                batch = std::mem::take(&mut rest);
            } else {
                (batch, rest) = rest.into_iter().partition(|run| run.task.executor == executor);
            }
            let seats = if seats.is_empty() { None } else { seats.remove(&executor) };
            self.submit_batch(&executor, batch, seats, busy.clone());
        }
    }

    fn submit_batch(&mut self, executor: &Alias, runs: Vec<Arc<Run>>, seats: Option<Seats>, busy: Busy) {
        let Some(addr) = self.estate.executors.get(executor).and_then(|slot| slot.addr.clone()) else {
            // They are written down, and have not begun: they do when it is there again.
            return self.estate.waitlist.strand(executor, runs);
        };
        for run in &runs {
            self.estate.flight.depart(run);
        }
        drop(self.hand_over(&addr, runs, seats, busy));
    }

    /// How all tasks stand, for listings.
    pub(super) fn standing(&self) -> Standing {
        let mut runs = HashMap::new();
        for run in self.estate.flight.iter() {
            let (all, queued) = runs.entry((run.store.clone(), run.task.id.clone())).or_insert((0, 0));
            *all += 1;
            *queued += u32::from(run.is_queued());
        }
        Standing { runs, waits: self.estate.waitlist.all_told(), zones: self.settings.zones.get() }
    }

    /// A run asked for by somebody or by the shutdown trigger.
    pub(super) fn board_on_demand(
        &mut self,
        task: &StoredTask,
        store: &Alias,
        set: impl FnOnce(&mut Run),
        now: DateTime<Utc>,
    ) -> Arc<Run> {
        let zones = self.settings.zones.get();
        self.board(task, store, &zones, |run| {
            (run.nominal, run.due, run.submitted_at) = (now, now, now);
            set(run);
        })
    }
}
