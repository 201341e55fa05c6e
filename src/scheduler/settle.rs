//! The ends of runs that may be tried again: the end and what comes of it are written in one step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::actor::{Scheduler, Settings};
use super::plan::{self, Ending};
use super::session::within;
use crate::clock::Busy;
use crate::event::Event;
use crate::store::message::{Change, Commit, Get, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, Run, RunEnd, RunId, RunRecord, Source, StoredTask, TaskId, TaskState};

/// Ends that are settled together.
const BATCH: usize = 1000;

/// What came of some ends.
#[derive(Default)]
struct Settled {
    /// The runs with their ends as they stand now, and whether the store has these.
    ends: Vec<(Arc<Run>, RunEnd, bool)>,
    /// Tasks whose schedule has ended, and whether they were removed.
    finished: Vec<(TaskId, bool)>,
    /// Tasks that are not there any more.
    gone: Vec<TaskId>,
    next_due: Option<DateTime<Utc>>,
}

/// Whether the end of a run is looked at before it is told of.
pub(super) fn may_come_again(run: &Run) -> bool {
    run.task.keeps_attempts() && run.source != Source::Shutdown
}

impl Scheduler {
    /// Settles the ends that a store owes. They stay on its list until that is written.
    pub(super) fn settle_ends(&mut self, store: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        let Some(addr) = slot.addr.clone().filter(|_| slot.problem.is_none()) else { return };
        let Some(ends) = slot.ledger.decide_ends(BATCH) else { return };
        let generation = slot.generation;
        let (settings, recorded) = (self.settings.clone(), slot.capabilities.keeps_records());
        let ids = ends.iter().map(|(run, _)| &run.task.id);
        let unreadable: HashSet<TaskId> = ids.filter(|id| slot.is_unreadable(id)).cloned().collect();
        let settled = async move { settle(&settings, &addr, ends, recorded, &unreadable).await };
        let store = store.clone();
        ctx.spawn(wrap_future::<_, Self>(settled).map(move |settled, scheduler, ctx| {
            let Some(slot) = scheduler.estate.stores.get_mut(&store) else { return };
            let current = slot.generation == generation;
            if current {
                slot.ledger.decisions_answered();
            }
            match settled {
                Ok(settled) => scheduler.settled(&store, settled, busy, ctx),
                Err((error, removed)) => {
                    slot.ledger.owe_removals(removed);
                    // Otherwise the store was opened anew meanwhile, and the ends are settled there.
                    if current {
                        slot.ledger.ring();
                        scheduler.store_failed(&store, &error);
                        scheduler.arm(ctx);
                    }
                }
            }
        }));
    }

    fn settled(&mut self, store: &Alias, settled: Settled, busy: Busy, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        let owed: HashSet<RunId> = slot.ledger.decided(settled.ends.iter().map(|(run, ..)| run.id));
        let mut told = Vec::with_capacity(owed.len());
        // Whoever takes it off the list tells of it.
        for (run, end, written) in settled.ends.into_iter().filter(|(run, ..)| owed.contains(&run.id)) {
            if !written && slot.capabilities.keeps_records() {
                slot.ledger.owe_end(&run, end.clone());
            }
            told.push((run, end));
        }
        if let Some(due) = settled.next_due {
            slot.note_due(due);
        }
        // Nobody was told of a removal that was not answered.
        let mut finished = settled.finished;
        finished
            .extend(settled.gone.into_iter().filter(|id| slot.ledger.removal_known(id)).map(|id| (id, true)));
        for (run, _) in &told {
            slot.ledger.removal_known(&run.task.id);
        }
        slot.ledger.ring_if_paid();
        let mut events = Vec::with_capacity(told.len());
        for (run, end) in told {
            self.log_end(&run, &end);
            self.ran(&run);
            events.push(Event::of_end(run, Arc::new(end)));
        }
        events.retain(|event| self.wants(event.mask()));
        self.publish(events);
        for (id, gone) in finished {
            self.schedule_over(id, store, gone);
        }
        self.flush_ends(store, busy.clone(), ctx);
        self.arm(ctx);
        // A virtual clock stands still until the alarm is set.
        drop(busy);
    }
}

impl Scheduler {
    /// The schedule of a task has ended, and with that the task, unless it is kept.
    pub(super) fn schedule_over(&mut self, id: TaskId, store: &Alias, gone: bool) {
        if gone {
            self.removed(id, store.clone());
        } else {
            self.tell(schedule_ended(id, store, gone));
        }
    }
}

/// The event of the end of a schedule.
pub(super) fn schedule_ended(id: TaskId, store: &Alias, gone: bool) -> Event {
    let store = store.clone();
    if gone { Event::TaskRemoved { id, store } } else { Event::TaskFinished { id, store } }
}

/// Decides about the ends, task by task, and writes that down in one batch. The ends of a task that
/// somebody changed meanwhile are not among the answer: they are decided about anew.
///
/// A task that is `unreadable` decides nothing, and does not keep the others from it: what it waits for
/// is found when it can be read again.
///
/// An error comes with the tasks that the batch would have removed: it may have done so.
async fn settle(
    settings: &Settings,
    store: &StoreAddr,
    ends: Ends,
    recorded: bool,
    unreadable: &HashSet<TaskId>,
) -> Result<Settled, (StoreError, Vec<TaskId>)> {
    let mut settled = Settled::default();
    let groups = by_task(ends);
    let found = groups.iter().map(|(id, _)| within(settings, store.get(Get { id: id.clone() })));
    let found = join_all(found).await;
    let (mut changes, mut waiting) = (Vec::new(), Vec::new());
    for ((id, ends), task) in groups.into_iter().zip(found) {
        let task = match task {
            Ok(None) => {
                settled.gone.push(id);
                None
            }
            Ok(task) => task,
            Err(error) if !error.is_retryable() && unreadable.contains(&id) => None,
            Err(error) => return Err((error, Vec::new())),
        };
        let decided = decide(task, ends, recorded);
        settled.ends.extend(decided.known);
        if let Some((change, finished)) = decided.change {
            waiting.push((decided.ends, finished.then(|| (change.id.clone(), change.then == Then::Remove))));
            changes.push(change);
        }
    }
    if changes.is_empty() {
        return Ok(settled);
    }
    let removed = |waiting: &[(Ends, Option<(TaskId, bool)>)]| {
        let finished = waiting.iter().filter_map(|(_, finished)| finished.clone());
        finished.filter(|(_, gone)| *gone).map(|(id, _)| id).collect()
    };
    let committed = within(settings, store.commit(Commit { changes })).await;
    let committed = committed.map_err(|error| (error, removed(&waiting)))?;
    settled.next_due = committed.next_due;
    for (index, (ends, finished)) in waiting.into_iter().enumerate() {
        if committed.refused.binary_search(&index).is_err() {
            settled.ends.extend(ends.into_iter().map(|(run, end)| (run, end, true)));
            settled.finished.extend(finished);
        }
    }
    Ok(settled)
}

type Ends = Vec<(Arc<Run>, RunEnd)>;

fn by_task(ends: Ends) -> Vec<(TaskId, Ends)> {
    let mut groups: Vec<(TaskId, Ends)> = Vec::new();
    let mut places = HashMap::new();
    for (run, end) in ends {
        let place = *places.entry(run.task.id.clone()).or_insert_with(|| {
            groups.push((run.task.id.clone(), Vec::new()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(place) {
            group.push((run, end));
        }
    }
    groups
}

/// What is decided about the ends of one task's runs.
#[derive(Default)]
struct Decided {
    /// Ends that change nothing about the task.
    known: Vec<(Arc<Run>, RunEnd, bool)>,
    /// The change to the task, and whether it ends its schedule.
    change: Option<(Change, bool)>,
    /// The ends that are written with the change.
    ends: Ends,
}

fn decide(task: Option<StoredTask>, ends: Ends, recorded: bool) -> Decided {
    let mut decided = Decided::default();
    let Some(mut task) = task else {
        decided.known = ends.into_iter().map(|(run, end)| (run, end, false)).collect();
        return decided;
    };
    let revision = task.state.revision;
    let (mut records, mut outcome) = (Vec::new(), None);
    for (run, mut end) in ends {
        match plan::ended(&task, &run, &end) {
            Ending::Final => decided.known.push((run, end, false)),
            Ending::Known { retry_at } => {
                end.retry_at = Some(retry_at);
                decided.known.push((run, end, true));
            }
            Ending::Settled { then, finished, retry_at } => {
                end.retry_at = retry_at;
                if recorded {
                    records.push(RunRecord { end: Some(end.clone()), ..run.record(run.submitted_at) });
                }
                if let Then::State(state) = &then {
                    task.state = TaskState { revision, ..state.clone() };
                }
                decided.ends.push((run, end));
                outcome = Some((then, finished));
            }
        }
    }
    decided.change = outcome.map(|(then, finished)| {
        let then = match then {
            Then::State(state) => Then::State(TaskState { revision: revision + 1, ..state }),
            other @ (Then::Task(_) | Then::Remove) => other,
        };
        (Change { id: task.spec.id.clone(), revision, then, runs: records }, finished)
    });
    decided
}
