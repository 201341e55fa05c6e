//! What a successor of the scheduler's actor does with what it inherits.

use std::sync::Arc;

use actix::prelude::*;

use super::actor::{Lifecycle, Scheduler};
use super::session::within;
use crate::event::Event;
use crate::store::message::Get;
use crate::task::{Alias, Run};

impl Scheduler {
    /// Points guardians, executors and the bus to this actor: after the death of its predecessor.
    pub(super) fn inherit(&mut self, ctx: &mut Context<Self>) {
        if !self.is_open() {
            // A start that was cut off can be tried again.
            self.estate.state = Lifecycle::default();
            return;
        }
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
        for run in self.estate.flight.stranded() {
            self.settle_stranded(run, ctx);
        }
        // The bus has not said yet what is wanted.
        self.publish(vec![Event::SchedulerRestarted { cause: "its actor died".to_owned() }]);
    }

    /// A predecessor decided on this run and died before it handed it over. If its store had
    /// written the decision down, the run is interrupted; if not, the task is still due.
    fn settle_stranded(&mut self, run: Arc<Run>, ctx: &mut Context<Self>) {
        let child = self.estate.stores.get(&run.store).and_then(|slot| slot.child.clone());
        let Some(addr) = child else {
            return self.interrupt(vec![run], "the scheduler died before it was submitted");
        };
        let busy = self.clock().busy();
        let task = within(&self.settings, addr.get(Get { id: run.task.id.clone() })).into_actor(self);
        ctx.spawn(task.map(move |task, scheduler, ctx| {
            match task {
                Ok(Some(task)) if task.state.last_run.is_none_or(|last| last < run.nominal) => {
                    scheduler.estate.flight.leave(&run);
                }
                _ => scheduler.interrupt(vec![run.clone()], "the scheduler died before it was submitted"),
            }
            scheduler.flush_ends(&run.store, busy, ctx);
        }));
    }
}
