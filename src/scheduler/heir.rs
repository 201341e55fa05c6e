//! What a successor of the scheduler's actor does with what it inherits.

use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;

use super::SchedulerState;
use super::actor::{Lifecycle, Scheduler};
use crate::event::Event;
use crate::task::Alias;

impl Scheduler {
    /// Ends the removals that the predecessor had begun. Nobody knows how much of a grace was left.
    fn carry_on_removals(&mut self, ctx: &mut Context<Self>) {
        let stores = self.estate.stores.iter().filter(|(_, slot)| slot.leaving.is_some());
        let stores: Vec<Alias> = stores.map(|(alias, _)| alias.clone()).collect();
        for alias in stores {
            ctx.spawn(wrap_future::<_, Self>(self.lower_store(&alias)));
            self.forget_store(alias, ctx);
        }
        let executors = self.estate.executors.iter().filter(|(_, slot)| slot.leaving.is_some());
        let executors: Vec<Alias> = executors.map(|(alias, _)| alias.clone()).collect();
        for alias in executors {
            let removed = self.remove_executor(alias, Duration::ZERO);
            ctx.spawn(removed);
        }
    }

    /// Points guardians, executors and the bus to this actor: after the death of its predecessor.
    pub(super) fn inherit(&mut self, ctx: &mut Context<Self>) {
        if !self.is_open() {
            // A start that was cut off can be tried again.
            self.estate.state = Lifecycle::default();
            return;
        }
        // They are in flight, and not handed over: that is settled below.
        self.estate.waitlist.take_all_stranded();
        self.carry_on_removals(ctx);
        let executors: Vec<Alias> = self.estate.executors.keys().cloned().collect();
        for alias in executors {
            let addr = self.estate.executors.get(&alias).and_then(|slot| slot.addr.clone());
            if let Some(addr) = addr {
                self.executor_started(&alias, addr, ctx);
            }
        }
        let stores: Vec<Alias> = self.estate.stores.keys().cloned().collect();
        for alias in stores {
            let child = self.estate.stores.get(&alias).and_then(|slot| slot.child.clone());
            if let Some(child) = child {
                self.store_started(&alias, child, ctx);
            }
        }
        for (run, end) in self.estate.flight.stranded() {
            let slot = self.estate.stores.get(&run.store);
            if slot.is_some_and(|slot| slot.ledger.is_unanswered(run.id)) {
                continue;
            }
            let store = run.store.clone();
            self.perhaps_removed(&store, [run.task.id.clone()]);
            self.doubt(&store, vec![(run, end)], ctx);
        }
        self.tell(Event::SchedulerRestarted { cause: "its actor died".to_owned() });
        if self.state() == SchedulerState::ShuttingDown {
            // Nobody knows how much of the grace was left.
            let shutdown = self.shut_down(Duration::ZERO, ctx);
            ctx.spawn(shutdown);
        }
    }
}
