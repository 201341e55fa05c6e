//! Back-fills: begun and called off. What is done about them at each step, the planner decides.

use actix::fut::ready;
use actix::prelude::*;

use super::actor::Scheduler;
use super::lifecycle::Permit;
use super::message::{BackfillTask, CancelBackfill};
use super::plan;
use super::session::{Decision, Session};
use crate::error::Error;
use crate::task::{Alias, StoredTask, TaskInfo};

type Answer<T> = ResponseActFuture<Scheduler, Result<T, Error>>;

impl Scheduler {
    /// The stores to ask: pending tasks have no past.
    fn past(&mut self, store: Option<&Alias>) -> Result<Session, Error> {
        match self.permit() {
            Permit::Open => self.session(store),
            Permit::Pending => Err(Error::NotRunning),
        }
    }
}

impl Handler<BackfillTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, request: BackfillTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, move |scheduler, _| -> Answer<TaskInfo> {
            let BackfillTask { id, store, from, to, every } = request;
            let session = match scheduler.past(store.as_ref()) {
                Ok(session) => session,
                Err(error) => return Box::pin(ready(Err(error))),
            };
            let settings = scheduler.settings.clone();
            let change = async move {
                let decide = move |task: &StoredTask| {
                    let (now, zones) = (settings.clock.now(), settings.zones.get());
                    plan::backfill(task, (from, to), every, now, &zones).map(Decision::State)
                };
                session.change(&id, decide).await
            };
            let changed = scheduler.carry_out("back-filled", change);
            Box::pin(changed.map(|changed, scheduler, _| scheduler.still_there(changed?)))
        })
    }
}

impl Handler<CancelBackfill> for Scheduler {
    type Result = Answer<bool>;

    fn handle(&mut self, request: CancelBackfill, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, move |scheduler, _| -> Answer<bool> {
            let CancelBackfill { id, store } = request;
            let session = match scheduler.past(store.as_ref()) {
                Ok(session) => session,
                Err(error) => return Box::pin(ready(Err(error))),
            };
            let clock = scheduler.clock().clone();
            let change = async move {
                let decide = |task: &StoredTask| {
                    let then = plan::cancel_backfill(task, clock.now());
                    Ok(then.map_or(Decision::Nothing, Decision::from))
                };
                session.change(&id, decide).await
            };
            Box::pin(
                scheduler
                    .carry_out("back-fill called off", change)
                    .map(|changed, _, _| changed.map(|changed| changed.written)),
            )
        })
    }
}
