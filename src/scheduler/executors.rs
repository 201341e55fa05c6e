//! The executors of a scheduler: raised, lost and found again, lowered.

use std::time::Duration;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;

use super::actor::Scheduler;
use super::message::{AddExecutor, RemoveExecutor, RestoreExecutor};
use super::slot::ExecutorSlot;
use crate::error::Error;
use crate::event::Event;
use crate::executor::ExecutorAddr;
use crate::executor::message::{Attach, Drain};
use crate::supervision::{ChildChange, ChildNotice};
use crate::task::Alias;

impl Scheduler {
    pub(super) fn unknown_executor(&self, alias: &Alias) -> Error {
        Error::UnknownExecutor { alias: alias.to_string(), known: self.executor_names() }
    }

    /// Starts the actor of an executor.
    pub(super) fn raise_executor(&mut self, alias: &Alias, ctx: &mut Context<Self>) {
        let (clock, notices) = (self.clock().clone(), self.usher.clone().recipient());
        if let Some(slot) = self.estate.executors.get_mut(alias)
            && let Some(addr) = slot.keeper.raise(alias, clock, notices)
        {
            self.executor_started(alias, addr, ctx);
        }
    }

    pub(super) fn executor_started(&mut self, alias: &Alias, addr: ExecutorAddr, ctx: &mut Context<Self>) {
        let attach = Attach {
            alias: alias.clone(),
            scheduler: self.settings.name.clone(),
            clock: self.clock().clone(),
            notices: self.usher.clone().recipient(),
        };
        ctx.spawn(wrap_future(addr.attach(attach)).map(|_, _, _| ()));
        if let Some(slot) = self.estate.executors.get_mut(alias) {
            slot.addr = Some(addr);
            slot.problem = None;
            self.executor_works(alias, ctx);
        }
    }

    /// Ends the work of an executor within `grace` and lets its actor go.
    pub(super) fn lower_executor(
        &mut self,
        alias: &Alias,
        grace: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let lowered = self.estate.executors.get_mut(alias).map(|slot| {
            slot.problem = Some("it is being stopped".to_owned());
            slot.down = false;
            (slot.keeper.dismiss(), slot.addr.take().or_else(|| slot.leaving.clone()))
        });
        async move {
            let Some((dismissed, addr)) = lowered else { return };
            dismissed.await;
            if let Some(addr) = addr {
                addr.drain(Drain { grace }).await.ok();
            }
        }
    }
}

impl Scheduler {
    /// Ends the work of an executor within `grace` and forgets it: of several who ask, the first whose
    /// grace is over.
    pub(super) fn remove_executor(&mut self, alias: Alias, grace: Duration) -> ResponseActFuture<Self, ()> {
        let serial = self.estate.executors.get_mut(&alias).map(|slot| {
            slot.leaving = slot.addr.clone().or(slot.leaving.take());
            slot.serial
        });
        let lowered = wrap_future::<_, Self>(self.lower_executor(&alias, grace));
        // The ends that it has reported are on their way.
        let heard = lowered.then(|(), scheduler, ctx| wrap_future(scheduler.hear_out(ctx)));
        Box::pin(heard.map(move |(), scheduler, ctx| {
            // The alias may stand for another one by now.
            if scheduler.estate.executors.get(&alias).map(|slot| slot.serial) != serial {
                return;
            }
            let lost = scheduler.estate.flight.on_executor(&alias);
            scheduler.interrupt(lost, "its executor was removed", ctx);
            scheduler.estate.executors.remove(&alias);
            tracing::info!(scheduler = %scheduler.settings.name, executor = %alias, change = "removed", "somebody removed an executor");
            scheduler.tell(Event::ExecutorRemoved { executor: alias });
        }))
    }
}

impl Handler<ChildNotice<ExecutorAddr>> for Scheduler {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<ExecutorAddr>, ctx: &mut Self::Context) {
        let Ok(alias) = Alias::new(&*notice.name) else { return };
        let problem = match notice.change {
            ChildChange::Started { child, cause } => {
                self.executor_started(&alias, child, ctx);
                let slot = self.estate.executors.get_mut(&alias);
                let was_down = slot.is_some_and(|slot| std::mem::take(&mut slot.down));
                if let Some(cause) = cause {
                    self.tell(Event::ExecutorRestarted { executor: alias, cause: cause.to_string() });
                } else if was_down {
                    self.tell(Event::ExecutorRecovered { executor: alias });
                }
                return;
            }
            ChildChange::Restarting { cause, .. } => {
                format!("its actor has died ({cause}); a successor follows")
            }
            ChildChange::Failed { reason } => {
                self.tell(Event::ExecutorFailed { executor: alias.clone(), cause: reason.clone() });
                format!("its actor has died for good ({reason}); `RestoreExecutor` brings it back")
            }
            ChildChange::Ended => {
                let cause = "its actor has stopped, and its restart policy does not bring it back".to_owned();
                self.tell(Event::ExecutorFailed { executor: alias.clone(), cause });
                "its actor has stopped; `RestoreExecutor` brings it back".to_owned()
            }
        };
        tracing::error!(scheduler = %self.settings.name, executor = %alias, %problem, "the executor is down");
        if let Some(slot) = self.estate.executors.get_mut(&alias) {
            slot.addr = None;
            slot.problem = Some(problem.clone());
            slot.down = true;
        }
        let lost = self.estate.flight.on_executor(&alias);
        self.interrupt(lost, &problem, ctx);
    }
}

impl Handler<AddExecutor> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, request: AddExecutor, ctx: &mut Self::Context) -> Self::Result {
        let AddExecutor { alias, source, policy } = request;
        if self.estate.executors.contains_key(&alias) {
            return Box::pin(ready(Err(Error::AliasTaken { kind: "executor", alias })));
        }
        let serial = self.next_generation();
        self.estate.executors.insert(alias.clone(), ExecutorSlot::new(serial, source, policy));
        tracing::info!(scheduler = %self.settings.name, executor = %alias, change = "added", "somebody added an executor");
        self.tell(Event::ExecutorAdded { executor: alias.clone() });
        if !self.is_raised() {
            return Box::pin(ready(Ok(())));
        }
        self.raise_executor(&alias, ctx);
        // Whoever hears that it was added may use it.
        let raised = self.estate.executors.get(&alias).map(|slot| slot.keeper.raised());
        let heard = self.hear_out(ctx);
        Box::pin(wrap_future(async move {
            if let Some(raised) = raised {
                raised.await;
            }
            heard.await;
            Ok(())
        }))
    }
}

impl Handler<RemoveExecutor> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, request: RemoveExecutor, _: &mut Self::Context) -> Self::Result {
        let RemoveExecutor { alias, grace } = request;
        if !self.estate.executors.contains_key(&alias) {
            return Box::pin(ready(Err(self.unknown_executor(&alias))));
        }
        Box::pin(self.remove_executor(alias, grace).map(|(), _, _| Ok(())))
    }
}

impl Handler<RestoreExecutor> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RestoreExecutor(alias): RestoreExecutor, ctx: &mut Self::Context) -> Self::Result {
        let restored = match self.estate.executors.get(&alias) {
            Some(_) if !self.is_open() => Err(Error::NotRunning),
            Some(slot) => {
                tracing::info!(scheduler = %self.settings.name, executor = %alias, change = "restored", "somebody brings an executor back");
                Ok(slot.keeper.restore())
            }
            None => Err(self.unknown_executor(&alias)),
        };
        let heard = self.hear_out(ctx);
        Box::pin(wrap_future(async move {
            restored?.await;
            heard.await;
            Ok(())
        }))
    }
}
