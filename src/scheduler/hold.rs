//! Stores whose tasks are kept from running while everything else goes on.

use actix::fut::{ready, wrap_future};
use actix::prelude::*;

use super::actor::Scheduler;
use super::message::{PauseStore, ResumeStore};
use crate::error::Error;

impl Handler<PauseStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, PauseStore(alias): PauseStore, _: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.stores.get_mut(&alias) else {
            return Box::pin(ready(Err(self.unknown_store(&alias))));
        };
        let changed = !std::mem::replace(&mut slot.paused, true);
        // A tick that has been decided is still submitted, and then no other.
        let tick = slot.after_tick();
        if changed {
            tracing::info!(scheduler = %self.settings.name, store = %alias, change = "paused", "somebody paused a store");
        }
        Box::pin(wrap_future(async move {
            if let Some(tick) = tick {
                tick.await.ok();
            }
            Ok(())
        }))
    }
}

impl Handler<ResumeStore> for Scheduler {
    type Result = Result<(), Error>;

    fn handle(&mut self, ResumeStore(alias): ResumeStore, ctx: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.stores.get_mut(&alias) else {
            return Err(self.unknown_store(&alias));
        };
        if std::mem::take(&mut slot.paused) {
            tracing::info!(scheduler = %self.settings.name, store = %alias, change = "resumed", "somebody resumed a store");
        }
        self.arm(ctx);
        Ok(())
    }
}
