//! Runs of which it is not known whether the store has written them down.

use std::sync::Arc;

use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::actor::{Scheduler, Settings};
use super::ledger::{Questions, Unanswered};
use super::plan;
use super::session::within;
use crate::event::Event;
use crate::store::message::{Get, List, Runs};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, Outcome, Run, RunEnd, Source, StoredTask, TaskId};

/// Among so many of the latest records of a task is that of a run in doubt, if there is one.
const RECORDS: usize = 10_000;

impl Scheduler {
    /// Settles runs whose commit was not answered, or whose scheduler died before it submitted
    /// them: at once when the store works, otherwise when it does again.
    pub(super) fn doubt(&mut self, store: &Alias, runs: Vec<Unanswered>, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(store) else {
            let (mut ended, mut lost) = (Vec::new(), Vec::new());
            for (run, end) in runs {
                match end {
                    Some(end) => ended.push((run, end)),
                    None => lost.push(run),
                }
            }
            self.end_recorded(ended);
            return self.interrupt(lost, "its store was removed before it was submitted", ctx);
        };
        slot.ledger.owe_answers(runs);
        if slot.addr.is_some() && slot.problem.is_none() {
            self.settle_doubts(store, ctx);
        }
    }

    /// Asks the store about each doubtful run, and about each task that may be gone.
    pub(super) fn settle_doubts(&mut self, store: &Alias, ctx: &mut Context<Self>) {
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        let Some(addr) = slot.addr.clone() else { return };
        let generation = slot.generation;
        let recorded = slot.capabilities.keeps_records();
        let Questions { runs, removals, clearing } = slot.ledger.ask();
        if let Some(at) = clearing {
            let (store, busy) = (store.clone(), self.settings.clock.busy());
            let tasks = within(&self.settings, addr.list(List)).into_actor(self);
            ctx.spawn(tasks.map(move |tasks, scheduler, ctx| {
                scheduler.settle_clearing(&store, generation, at, tasks, ctx);
                drop(busy);
            }));
        }
        for id in removals {
            let (store, busy) = (store.clone(), self.settings.clock.busy());
            let task = within(&self.settings, addr.get(Get { id: id.clone() })).into_actor(self);
            ctx.spawn(task.map(move |task, scheduler, ctx| {
                scheduler.settle_removal(id, store, generation, task, ctx);
                drop(busy);
            }));
        }
        for (run, end) in runs {
            let busy = self.settings.clock.busy();
            let (settings, addr, asked) = (self.settings.clone(), addr.clone(), run.clone());
            let told = async move { tell(&settings, &addr, &asked, recorded).await }.into_actor(self);
            ctx.spawn(told.map(move |told, scheduler, ctx| {
                let store = run.store.clone();
                if let Some(slot) = scheduler.estate.stores.get_mut(&store) {
                    if slot.generation != generation {
                        // What counts is what the store says that was opened since.
                        return scheduler.doubt(&store, vec![(run, end)], ctx);
                    }
                    slot.ledger.answered();
                    if told.as_ref().is_err_and(|error| !error.is_retryable())
                        && slot.is_unreadable(&run.task.id)
                    {
                        // That is the task's trouble, and no other one's.
                        slot.ledger.cannot_read((run, end));
                        return scheduler.arm(ctx);
                    }
                }
                scheduler.settle(run, end, told, ctx);
                scheduler.flush_ends(&store, busy.clone(), ctx);
                scheduler.replan_stores(&busy, ctx);
                scheduler.arm(ctx);
                // A virtual clock stands still until the alarm is set.
                drop(busy);
            }));
        }
    }

    /// Nobody was told of a removal that was not answered.
    fn settle_removal(
        &mut self,
        id: TaskId,
        store: Alias,
        generation: u64,
        task: Result<Option<StoredTask>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(slot) = self.estate.stores.get_mut(&store) else { return };
        if slot.generation != generation {
            return;
        }
        match task {
            Ok(None) if slot.ledger.may_be_removed(&id) => self.removed(id, store),
            Ok(_) => drop(slot.ledger.removal_known(&id)),
            Err(error) if !error.is_retryable() && slot.is_unreadable(&id) => {}
            Err(error) => {
                self.store_failed(&store, &error);
                self.arm(ctx);
            }
        }
    }

    /// Nobody was told of a removal of all tasks that was not answered. When it was carried out, what is
    /// there was added since.
    fn settle_clearing(
        &mut self,
        store: &Alias,
        generation: u64,
        at: DateTime<Utc>,
        tasks: Result<Vec<StoredTask>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        if slot.generation != generation {
            return;
        }
        match tasks {
            Ok(tasks) => {
                let owed = slot.ledger.clearing_known(at);
                if owed && tasks.iter().all(|task| task.state.created_at >= at) {
                    self.all_removed(store);
                }
            }
            Err(error) => {
                self.store_failed(store, &error);
                self.arm(ctx);
            }
        }
    }

    /// A shutdown goes on without the answers that are still out: whether these runs come to be is
    /// not known, so nothing is told of them. It is when their store works again after the next start;
    /// in a store that keeps records it may be found by another process.
    pub(super) fn leave_doubts(&mut self) {
        for (run, _) in self.estate.flight.stranded() {
            self.estate.flight.leave(&run);
            tracing::warn!(
                scheduler = %self.settings.name, store = %run.store, task = %run.task.id, run = %run.id,
                nominal = %run.nominal,
                "shut down before the store said whether this run is to be; if it is not, it is still due"
            );
        }
    }

    /// Settles a run that a shutdown has left in doubt.
    fn settle_left(&mut self, run: Arc<Run>, end: Option<RunEnd>, told: Result<Told, StoreError>) {
        let Some(slot) = self.estate.stores.get_mut(&run.store) else { return };
        match told {
            // It was among the records that never ended, or was written with its end.
            Ok(_) if slot.capabilities.keeps_records() => {}
            Ok(Told { taken: false, .. }) => {}
            Ok(_) => {
                let outcome = Outcome::Interrupted { reason: "the scheduler was shut down".to_owned() };
                let end = end.unwrap_or_else(|| RunEnd::unstarted(outcome, self.settings.clock.now()));
                self.log_end(&run, &end);
                self.tell(Event::of_end(run, Arc::new(end)));
            }
            Err(error) => {
                slot.ledger.owe_answers([(run.clone(), end)]);
                self.store_failed(&run.store, &error);
            }
        }
    }

    /// If the decision was written down, the run ends as it was decided or, as it was never
    /// submitted, as interrupted. If not, the task is still due, and the run is forgotten.
    fn settle(
        &mut self,
        run: Arc<Run>,
        end: Option<RunEnd>,
        told: Result<Told, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        if !self.estate.flight.is_on_board(&run) {
            return self.settle_left(run, end, told);
        }
        match told {
            Ok(Told { taken: false, due }) => {
                self.estate.flight.leave(&run);
                // It is due still: the timer was set before this was known.
                if let Some(slot) = self.estate.stores.get_mut(&run.store)
                    && let Some(due) = due
                {
                    slot.note_due(due);
                }
                self.arm(ctx);
            }
            Ok(_) => match end {
                Some(end) => self.end_recorded(vec![(run, end)]),
                None => {
                    let reason = "it was never submitted: its store did not answer in time";
                    self.interrupt(vec![run], reason, ctx)
                }
            },
            Err(error) => {
                let store = run.store.clone();
                self.store_failed(&store, &error);
                self.doubt(&store, vec![(run, end)], ctx);
            }
        }
    }
}

/// What a store says about a run in doubt.
struct Told {
    /// Whether the decision was written down.
    taken: bool,
    /// When its task is due.
    due: Option<DateTime<Utc>>,
}

/// Asks the store about a run. The task tells of what its schedule has come to; of a run that somebody
/// asked for, and when the task is gone, which may have been removed since, only a record does.
async fn tell(settings: &Settings, store: &StoreAddr, run: &Run, recorded: bool) -> Result<Told, StoreError> {
    let id = run.task.id.clone();
    let task = within(settings, store.get(Get { id: id.clone() })).await?;
    let on_demand = matches!(run.source, Source::Manual | Source::Shutdown) && run.attempt == 1;
    let taken = match &task {
        Some(task) if run.is_of(task) && !(on_demand && recorded) => plan::is_taken(task, run),
        _ if recorded => {
            let records = within(settings, store.runs(Runs { id, limit: RECORDS })).await?;
            records.iter().any(|record| record.id == run.id)
        }
        _ => true,
    };
    Ok(Told { taken, due: task.and_then(|task| task.state.due()) })
}
