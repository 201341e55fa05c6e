//! Stopping one run.

use actix::fut::{ready, wrap_future};
use actix::prelude::*;

use super::actor::Scheduler;
use super::message::CancelRun;
use crate::error::Error;
use crate::executor::message::Cancel;

impl Handler<CancelRun> for Scheduler {
    type Result = ResponseActFuture<Self, Result<bool, Error>>;

    fn handle(&mut self, CancelRun { run }: CancelRun, ctx: &mut Self::Context) -> Self::Result {
        if !self.is_open() {
            return Box::pin(ready(Err(Error::NotRunning)));
        }
        let Some((found, departed)) = self.estate.flight.find(run) else { return Box::pin(ready(Ok(false))) };
        tracing::info!(
            scheduler = %self.settings.name, store = %found.store, task = %found.task.id,
            executor = %found.task.executor, run = %run, change = "cancelled", "somebody cancels a run"
        );
        if !departed {
            // Its executor hears of it together with the run.
            found.cancel();
            return Box::pin(ready(Ok(true)));
        }
        let executor = self.estate.executors.get(&found.task.executor).and_then(|slot| slot.addr.clone());
        let Some(executor) = executor else { return Box::pin(ready(Ok(false))) };
        let cancelled = executor.cancel(Cancel { run });
        // An end that it has reported before is on its way here ahead of this.
        let heard = self.hear_out(ctx);
        Box::pin(wrap_future(async move {
            let cancelled = cancelled.await.unwrap_or(false);
            heard.await;
            Ok(cancelled)
        }))
    }
}
