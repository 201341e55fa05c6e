//! The ends of runs: off board, written down, told.

use std::sync::Arc;

use actix::prelude::*;

use super::actor::Scheduler;
use super::session::within;
use super::settle::may_come_again;
use crate::clock::Busy;
use crate::event::{Event, EventMask};
use crate::executor::message::RunsEnded;
use crate::store::message::Finish;
use crate::task::{Alias, Outcome, Run, RunEnd};

impl Handler<RunsEnded> for Scheduler {
    type Result = ();

    fn handle(&mut self, RunsEnded { ends, busy }: RunsEnded, ctx: &mut Self::Context) {
        let stores = self.end(ends);
        for store in stores {
            self.flush_ends(&store, busy.clone(), ctx);
        }
    }
}

impl Scheduler {
    /// Takes ended runs off board and tells of them; the stores named have ends to write down.
    fn end(&mut self, ends: Vec<(Arc<Run>, RunEnd)>) -> Vec<Alias> {
        let mut events = Vec::new();
        let mut stores: Vec<Alias> = Vec::new();
        for (run, end) in ends {
            let Some(watch) = self.estate.flight.leave(&run) else {
                tracing::debug!(task = %run.task.id, run = %run.id, "a run ended twice; the first end counts");
                continue;
            };
            if let (Outcome::Refused { reason }, Some(watch)) = (&end.outcome, watch) {
                watch.send(reason.clone()).ok();
            }
            if may_come_again(&run)
                && let Some(slot) = self.estate.stores.get_mut(&run.store)
            {
                if !stores.contains(&run.store) {
                    stores.push(run.store.clone());
                }
                slot.ledger.owe_decision(run, end);
                continue;
            }
            self.log_end(&run, &end);
            self.ran(&run);
            if let Some(slot) = self.estate.stores.get_mut(&run.store)
                && slot.capabilities.keeps_records()
            {
                slot.ledger.owe_end(&run, end.clone());
                if !stores.contains(&run.store) {
                    stores.push(run.store.clone());
                }
            }
            if self.wanted.intersects(EventMask::RUN_ENDED) {
                let event = Event::of_end(run, Arc::new(end));
                if self.wanted.intersects(event.mask()) {
                    events.push(event);
                }
            }
        }
        self.publish(events);
        stores
    }

    pub(super) fn log_end(&self, run: &Run, end: &RunEnd) {
        match end.problem_in(run.is_backlog()) {
            None => tracing::debug!(
                scheduler = %self.settings.name, store = %run.store, executor = %run.task.executor,
                task = %run.task.id, run = %run.id, outcome = end.outcome.word(), "run ended"
            ),
            Some(problem) => tracing::warn!(
                scheduler = %self.settings.name, store = %run.store, executor = %run.task.executor,
                task = %run.task.id, run = %run.id, outcome = end.outcome.word(), problem, retry_at = ?end.retry_at, "run ended"
            ),
        }
    }

    /// Ends runs whose records were written with their end already.
    pub(super) fn end_recorded(&mut self, ends: Vec<(Arc<Run>, RunEnd)>) {
        let mut events = Vec::new();
        for (run, end) in ends {
            if let Some(Some(watch)) = self.estate.flight.leave(&run)
                && let Outcome::Refused { reason } = &end.outcome
            {
                watch.send(reason.clone()).ok();
            }
            self.log_end(&run, &end);
            self.ran(&run);
            events.push(Event::of_end(run, Arc::new(end)));
        }
        events.retain(|event| self.wanted.intersects(event.mask()));
        self.publish(events);
    }

    /// Writes runs off as interrupted.
    pub(super) fn interrupt(&mut self, runs: Vec<Arc<Run>>, reason: &str, ctx: &mut Context<Self>) {
        let now = self.clock().now();
        let end = |run| (run, RunEnd::unstarted(Outcome::Interrupted { reason: reason.to_owned() }, now));
        let busy = self.clock().busy();
        for store in self.end(runs.into_iter().map(end).collect()) {
            self.flush_ends(&store, busy.clone(), ctx);
        }
    }

    /// Writes the ends a store has not been told of. One message at a time, so that ends that come
    /// in meanwhile share the next.
    pub(super) fn flush_ends(&mut self, store: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        self.settle_ends(store, busy.clone(), ctx);
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        let Some(addr) = slot.addr.clone().filter(|_| slot.problem.is_none()) else { return };
        let Some(ends) = slot.ledger.write_ends() else { return };
        let generation = slot.generation;
        let finish = within(&self.settings, addr.finish(Finish { ends })).into_actor(self);
        let store = store.clone();
        ctx.spawn(finish.map(move |finished, scheduler, ctx| {
            let Some(slot) = scheduler.estate.stores.get_mut(&store) else { return };
            // When the store was opened anew meanwhile, they are owed again. It ignores those it has.
            if slot.generation != generation {
                return;
            }
            slot.ledger.ends_answered(finished.is_ok());
            match finished {
                Ok(()) => scheduler.flush_ends(&store, busy, ctx),
                Err(error) => {
                    scheduler.store_failed(&store, &error);
                    scheduler.arm(ctx);
                    drop(busy);
                }
            }
        }));
    }
}
