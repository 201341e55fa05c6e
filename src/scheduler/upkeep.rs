//! Looking after stores while they work: checked, exported, written with another key, read again.

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::message::{CheckStore, ExportStore, RecheckStore, RekeyStore};
use crate::error::Error;
use crate::store::message::{Check, Checked, Export, Exported, Rekey, Rekeyed};
use crate::store::{StoreAddr, StoreError};
use crate::task::Alias;

type Answer<T> = ResponseActFuture<Scheduler, Result<T, Error>>;

impl Scheduler {
    /// Asks an open store. It may take its time: it goes through everything it holds.
    fn ask_store<T, F>(&self, alias: &Alias, ask: impl FnOnce(StoreAddr) -> F) -> Answer<T>
    where
        T: 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let answer = match self.store_addr(alias) {
            Ok(addr) => ask(addr),
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let alias = alias.clone();
        Box::pin(wrap_future(async move { answer.await.map_err(|error| Error::store(&alias, error)) }))
    }

    /// Opens a store again that is open: what could not be read is tried once more. It goes on
    /// meanwhile, and what is under way with it is answered.
    fn reopen_store(&mut self, alias: &Alias, ctx: &mut Context<Self>) -> Answer<()> {
        if let Err(error) = self.store_addr(alias) {
            return Box::pin(ready(Err(error)));
        }
        let (bell, opened) = oneshot::channel();
        if let Some(slot) = self.estate.stores.get_mut(alias) {
            slot.opening.push(bell);
        }
        let busy = self.clock().busy();
        self.open_store(alias, busy, ctx);
        Box::pin(wrap_future(async move { opened.await.unwrap_or(Err(Error::Gone)) }))
    }
}

impl Handler<CheckStore> for Scheduler {
    type Result = Answer<Checked>;

    fn handle(&mut self, CheckStore(alias): CheckStore, _: &mut Self::Context) -> Self::Result {
        self.ask_store(&alias, |store| store.check(Check))
    }
}

impl Handler<ExportStore> for Scheduler {
    type Result = Answer<Exported>;

    fn handle(
        &mut self,
        ExportStore { alias, path, plain }: ExportStore,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.ask_store(&alias, |store| store.export(Export { path, plain }))
    }
}

impl Handler<RecheckStore> for Scheduler {
    type Result = Answer<()>;

    fn handle(&mut self, RecheckStore(alias): RecheckStore, ctx: &mut Self::Context) -> Self::Result {
        self.reopen_store(&alias, ctx)
    }
}

impl Handler<RekeyStore> for Scheduler {
    type Result = Answer<Rekeyed>;

    fn handle(&mut self, RekeyStore(alias): RekeyStore, _: &mut Self::Context) -> Self::Result {
        let rekeyed = self.ask_store(&alias, |store| store.rekey(Rekey));
        Box::pin(rekeyed.then(move |rekeyed, scheduler, ctx| {
            let waiting = scheduler.estate.stores.get(&alias).is_some_and(|slot| !slot.unreadable.is_empty());
            if rekeyed.is_err() || !waiting {
                return Box::pin(ready(rekeyed)) as Answer<Rekeyed>;
            }
            // With the new keys more may be readable.
            Box::pin(scheduler.reopen_store(&alias, ctx).map(|opened, _, _| opened.and(rekeyed)))
        }))
    }
}
