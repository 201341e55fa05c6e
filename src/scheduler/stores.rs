//! The stores of a scheduler: raised, opened, lost and found again, lowered.

use actix::fut::{ready, wrap_future, wrap_stream};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable};
use futures::stream::{self, StreamExt};

use super::SchedulerState;
use super::actor::Scheduler;
use super::ledger::Remains;
use super::locks::StoreLock;
use super::message::{AddStore, RemoveStore, RestoreStore};
use super::salvage::{salvage, unsettled};
use super::session::{within, within_time};
use super::slot::StoreSlot;
use crate::backoff::Backoff;
use crate::clock::Busy;
use crate::error::Error;
use crate::event::Event;
use crate::store::message::{Close, Failures, Open, Opened, SetAside, Unreadable};
use crate::store::{StoreAddr, StoreError};
use crate::supervision::{ChildChange, ChildNotice};
use crate::task::{Alias, OwnerId, RunRecord};

/// So often the time that a store may take to open is doubled, from one try to the next.
const MOST_PATIENCE: u32 = 3;

impl Scheduler {
    pub(super) fn unknown_store(&self, alias: &Alias) -> Error {
        Error::UnknownStore { alias: alias.to_string(), known: self.store_names() }
    }

    /// The address of an open store.
    pub(super) fn store_addr(&self, alias: &Alias) -> Result<StoreAddr, Error> {
        let slot = self.estate.stores.get(alias).ok_or_else(|| self.unknown_store(alias))?;
        slot.addr.clone().ok_or_else(|| slot.down(alias))
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.estate.generation += 1;
        self.estate.generation
    }

    /// Starts the actor of a store and opens it; the answer comes when it is open or cannot be.
    pub(super) fn raise_store(
        &mut self,
        alias: &Alias,
        ctx: &mut Context<Self>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (opened, wait) = oneshot::channel();
        let (clock, notices) = (self.clock().clone(), self.usher.clone().recipient());
        if let Some(slot) = self.estate.stores.get_mut(alias) {
            slot.opening.push(opened);
            // A start that was cut off may have left it alive.
            let there = slot.child.clone().or_else(|| slot.keeper.raise(alias, clock, notices));
            if let Some(addr) = there {
                self.store_started(alias, addr, ctx);
            }
        }
        wait
    }

    pub(super) fn store_started(&mut self, alias: &Alias, addr: StoreAddr, ctx: &mut Context<Self>) {
        let generation = self.next_generation();
        if let Some(slot) = self.estate.stores.get_mut(alias) {
            slot.reset(generation);
            slot.child = Some(addr);
        }
        let busy = self.clock().busy();
        self.open_store(alias, busy, ctx);
    }

    pub(super) fn open_store(&mut self, alias: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let (owner, now) = (self.owner(), self.clock().now());
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        slot.retry_at = None;
        let Some(addr) = slot.child.clone() else { return };
        let generation = slot.generation;
        // What one that is only slow has read by its deadline, it reads again at the next try.
        let patience = self.settings.store_deadline.saturating_mul(1 << slot.failures.min(MOST_PATIENCE));
        let open = within_time(&self.settings, patience, addr.open(Open { owner, now })).into_actor(self);
        let alias = alias.clone();
        let opened = open.then({
            let (alias, addr) = (alias.clone(), addr.clone());
            move |opened, scheduler, _| {
                let settings = scheduler.settings.clone();
                let read = {
                    let (settings, addr) = (settings.clone(), addr.clone());
                    async move {
                        let mut opened = opened.map_err(|error| (error, Vec::new()))?;
                        match unsettled(&settings, &addr, &mut opened).await {
                            Ok(unsettled) => Ok((opened, unsettled)),
                            // They are closed, and nobody is told of them again.
                            Err(error) => Err((error, opened.interrupted)),
                        }
                    }
                };
                wrap_future::<_, Self>(read).then(move |read, scheduler, _| {
                    let live = scheduler.live(&alias);
                    wrap_future(async move {
                        let (mut opened, unsettled) = read?;
                        match salvage(&settings, &addr, &mut opened, unsettled, &live).await {
                            Ok(finished) => Ok((opened, finished)),
                            Err(error) => Err((error, opened.interrupted)),
                        }
                    })
                })
            }
        });
        ctx.spawn(opened.map(move |opened, scheduler, ctx| {
            let current =
                scheduler.estate.stores.get(&alias).is_some_and(|slot| slot.generation == generation);
            if !current {
                let (Ok((Opened { interrupted, .. }, _)) | Err((_, interrupted))) = opened;
                return scheduler.report_interrupted(&alias, interrupted);
            }
            match opened {
                Ok((opened, finished)) => {
                    scheduler.store_opened(&alias, addr, opened, busy, ctx);
                    for (id, gone) in finished {
                        scheduler.schedule_over(id, &alias, gone);
                    }
                }
                Err((error, interrupted)) => {
                    scheduler.report_interrupted(&alias, interrupted);
                    let answer = Error::store(&alias, error.clone());
                    scheduler.store_failed(&alias, &error);
                    if let Some(slot) = scheduler.estate.stores.get_mut(&alias) {
                        slot.opening.drain(..).for_each(|wait| drop(wait.send(Err(answer.clone()))));
                    }
                    scheduler.arm(ctx);
                }
            }
        }));
    }

    /// Sees to it that runs sort after those of earlier lives, also when the clock was set back since.
    /// Only before there are any: stores know runs by their owner. Answers whether there was another
    /// owner of that number, whose runs the store has taken for those of this one.
    fn sort_after(&mut self, latest: Option<OwnerId>) -> bool {
        let owner = self.owner();
        match latest {
            Some(latest) if self.state() == SchedulerState::Starting && owner <= latest => {
                self.estate.owner = Some(latest.successor());
                owner == latest
            }
            _ => false,
        }
    }

    fn store_opened(
        &mut self,
        alias: &Alias,
        addr: StoreAddr,
        opened: Opened,
        busy: Busy,
        ctx: &mut Context<Self>,
    ) {
        let was_mistaken = self.sort_after(opened.latest_owner);
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        slot.addr = Some(addr);
        slot.capabilities = opened.capabilities;
        slot.closures = Some(opened.capabilities.closures);
        // Something written while it was being opened may be missing in the answer.
        slot.next_due = [opened.next_due, slot.next_due].into_iter().flatten().min();
        slot.opening.drain(..).for_each(|wait| drop(wait.send(Ok(()))));
        self.estate.waitlist.forget_store(alias);
        self.store_works(alias);
        if let Some(SetAside { place, reason }) = opened.set_aside {
            tracing::error!(
                scheduler = %self.settings.name, store = %alias, %place, %reason,
                "the data of a store was damaged and set aside; the store began anew"
            );
            self.tell(Event::StoreSetAside { store: alias.clone(), place, cause: reason });
        }
        self.listen(alias, opened.export_failures, opened.failures, ctx);
        self.report_quarantine(alias, opened.unreadable, opened.healed);
        self.report_interrupted(alias, opened.interrupted);
        self.look_at_lock(alias, busy.clone(), ctx);
        self.estate.pending.try_again(Some(alias));
        self.commit_late(ctx);
        self.settle_doubts(alias, ctx);
        self.look_for_wrong_times(alias, opened.latest_time);
        self.look_for_other_rules(alias, opened.rules);
        self.replan_stores(&busy, ctx);
        self.flush_ends(alias, busy.clone(), ctx);
        self.arm(ctx);
        if was_mistaken {
            return self.open_store(alias, busy, ctx);
        }
        // A virtual clock stands still until the alarm is set.
        drop(busy);
    }

    /// Hears of what fails in a store while nobody asks it, until it is opened again.
    fn listen(
        &mut self,
        alias: &Alias,
        exports: Option<Failures>,
        failures: Option<Failures>,
        ctx: &mut Context<Self>,
    ) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let (end, ended) = AbortHandle::new_pair();
        if let Some(before) = slot.listening.replace(end) {
            before.abort();
        }
        let next =
            |mut failures: Failures| async move { failures.next().await.map(|error| (error, failures)) };
        let news =
            |failures: Option<Failures>| stream::iter(failures).flat_map(move |it| stream::unfold(it, next));
        let exports = news(exports).map(|error| (true, error));
        let failures = news(failures).map(|error| (false, error));
        let told = Abortable::new(Box::pin(stream::select(exports, failures)), ended);
        let store = alias.clone();
        ctx.spawn(
            wrap_stream::<_, Self>(told)
                .map(move |(of_export, error), scheduler, ctx| {
                    if of_export {
                        let (store, cause) = (store.clone(), error.to_string());
                        return scheduler.tell(Event::StoreExportFailed { store, cause });
                    }
                    scheduler.store_failed(&store, &error);
                    scheduler.arm(ctx);
                })
                .finish(),
        );
    }

    /// Tells of what cannot be read and was not told of yet, and of what is readable again.
    fn report_quarantine(&mut self, store: &Alias, unreadable: Vec<Unreadable>, healed: Vec<String>) {
        let Some(slot) = self.estate.stores.get_mut(store) else { return };
        let present = unreadable.into_iter().map(|record| (record.id, record.reason)).collect();
        let before = std::mem::replace(&mut slot.unreadable, present);
        let news: Vec<_> = slot.unreadable.difference(&before).cloned().collect();
        for (id, cause) in news {
            tracing::error!(
                scheduler = %self.settings.name, store = %store, task = %id, reason = %cause,
                "a record cannot be read; it was left as it is"
            );
            self.tell(Event::RecordUnreadable { store: store.clone(), id, cause });
        }
        for id in healed {
            tracing::info!(
                scheduler = %self.settings.name, store = %store, task = %id,
                "a record that could not be read is readable again"
            );
            self.tell(Event::RecordReadable { store: store.clone(), id });
        }
    }

    /// Commits the tasks that waited for a store longer than until the start.
    fn commit_late(&mut self, ctx: &mut Context<Self>) {
        if !self.is_open() || self.committing || self.first_pending().is_none() {
            return;
        }
        self.committing = true;
        ctx.spawn(self.commit_pending().map(|_, scheduler, _| scheduler.committing = false));
    }

    fn report_interrupted(&self, store: &Alias, records: Vec<RunRecord>) {
        for record in records {
            tracing::warn!(
                scheduler = %self.settings.name, store = %store, task = %record.task, run = %record.id,
                nominal = %record.nominal, "a run of an earlier life never ended"
            );
            self.tell(Event::RunInterrupted { store: store.clone(), record: Box::new(record) });
        }
    }

    /// A store did not do its part: it is left alone for a while and then opened again.
    pub(super) fn store_failed(&mut self, alias: &Alias, error: &StoreError) {
        let now = self.clock().now();
        let base = self.settings.store_retry;
        let longest = base.saturating_mul(60);
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let news = slot.problem.is_none();
        slot.problem = Some(error.to_string());
        // However often it fails meanwhile, and whoever asks: the next try is not put off.
        if slot.retry_at.is_none() {
            let delay = match error {
                // It is free the moment its holder is gone.
                StoreError::InUse { .. } if slot.lock.is_some() => base,
                // A look costs little, and it is back the moment somebody has put it back.
                StoreError::Gone { .. } => base,
                _ => Backoff::exponential(base, longest).delay(slot.failures, slot.generation),
            };
            slot.failures = slot.failures.saturating_add(1);
            let delay = TimeDelta::from_std(delay).unwrap_or(TimeDelta::seconds(60));
            slot.retry_at = now.checked_add_signed(delay);
        }
        if news {
            tracing::error!(scheduler = %self.settings.name, store = %alias, %error, "the store is unavailable");
            self.tell(Event::StoreUnavailable { store: alias.clone(), cause: error.to_string() });
        }
    }

    /// A store was opened. Nothing else ends its trouble: what is owed to it is settled then.
    fn store_works(&mut self, alias: &Alias) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        // One that opens and then does not say what it was asked has not recovered yet.
        if !slot.ledger.has_questions() {
            slot.failures = 0;
        }
        slot.retry_at = None;
        if slot.problem.take().is_some() {
            tracing::info!(scheduler = %self.settings.name, store = %alias, "the store works again");
            self.tell(Event::StoreRecovered { store: alias.clone() });
        }
    }

    /// Opens stores again whose time has come.
    pub(super) fn retry_stores(&mut self, now: DateTime<Utc>, busy: &Busy, ctx: &mut Context<Self>) {
        let retry = |slot: &StoreSlot| slot.retry_at.is_some_and(|at| at <= now);
        let due: Vec<Alias> = self
            .estate
            .stores
            .iter()
            .filter(|(_, slot)| retry(slot))
            .map(|(alias, _)| alias.clone())
            .collect();
        for alias in due {
            self.open_store(&alias, busy.clone(), ctx);
        }
    }

    /// Closes a store and lets its actor go. It can be raised again.
    pub(super) fn lower_store(&mut self, alias: &Alias) -> impl Future<Output = ()> + use<> {
        let generation = self.next_generation();
        let settings = self.settings.clone();
        let lowered = self.estate.stores.get_mut(alias).map(|slot| {
            slot.reset(generation);
            slot.problem = None;
            slot.retry_at = None;
            slot.paused = false;
            if let Some(listening) = slot.listening.take() {
                listening.abort();
            }
            let reason = StoreError::unavailable("it was closed again before it was open");
            let answer = Error::store(alias, reason);
            slot.opening.drain(..).for_each(|wait| drop(wait.send(Err(answer.clone()))));
            (slot.keeper.dismiss(), slot.child.take(), slot.lock.as_mut().and_then(StoreLock::release))
        });
        async move {
            let Some((dismissed, addr, lock)) = lowered else { return };
            dismissed.await;
            // Whoever opens the store next finds the lock free.
            if lock.is_some() {
                crate::threads::aside(move || drop(lock)).await;
            }
            if let Some(addr) = addr
                && let Err(error) = within(&settings, addr.close(Close)).await
            {
                tracing::error!(scheduler = %settings.name, %error, "a store did not close well");
            }
        }
    }
}

impl Handler<ChildNotice<StoreAddr>> for Scheduler {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<StoreAddr>, ctx: &mut Self::Context) {
        let Ok(alias) = Alias::new(&*notice.name) else { return };
        let trouble = match notice.change {
            ChildChange::Started { child, .. } => return self.store_started(&alias, child, ctx),
            ChildChange::Restarting { cause, .. } => {
                format!("its actor has died ({cause}); a successor follows")
            }
            ChildChange::Failed { reason } => {
                // News, whatever is the matter with it already.
                if let Some(slot) = self.estate.stores.get_mut(&alias) {
                    slot.problem = None;
                }
                format!("its actor has died for good ({reason}); `RestoreStore` brings it back")
            }
            ChildChange::Ended => "its actor has stopped".to_owned(),
        };
        let generation = self.next_generation();
        if let Some(slot) = self.estate.stores.get_mut(&alias) {
            slot.reset(generation);
            slot.child = None;
            let answer =
                Error::Store { store: alias.clone(), source: StoreError::unavailable(trouble.clone()) };
            slot.opening.drain(..).for_each(|wait| drop(wait.send(Err(answer.clone()))));
        }
        self.store_failed(&alias, &StoreError::unavailable(trouble));
        if let Some(slot) = self.estate.stores.get_mut(&alias) {
            // Its guardian brings it back, not the timer.
            slot.retry_at = None;
        }
    }
}

impl Handler<AddStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, request: AddStore, ctx: &mut Self::Context) -> Self::Result {
        let AddStore { alias, source, policy } = request;
        if self.estate.stores.contains_key(&alias) {
            return Box::pin(ready(Err(Error::AliasTaken { kind: "store", alias })));
        }
        let serial = self.next_generation();
        let mut slot = StoreSlot::new(serial, source, policy);
        if let Some(lock_path) = &self.settings.lock_path {
            if !self.estate.stores.is_empty()
                && let Err(error) = lock_path.check_several()
            {
                return Box::pin(ready(Err(error)));
            }
            slot.lock = Some(StoreLock::new(lock_path.of(&alias)));
        }
        self.estate.stores.insert(alias.clone(), slot);
        if !self.is_raised() {
            return Box::pin(ready(Ok(())));
        }
        let opened = self.raise_store(&alias, ctx);
        Box::pin(wrap_future::<_, Self>(opened).then(move |opened, scheduler, _| {
            let result = opened.unwrap_or(Err(Error::Gone));
            match &result {
                Ok(()) => {
                    tracing::info!(scheduler = %scheduler.settings.name, store = %alias, change = "added", "somebody added a store");
                    scheduler.tell(Event::StoreAdded { store: alias });
                }
                // Somebody removed it meanwhile; the alias may stand for another one by now.
                Err(_) if !scheduler.is_slot(&alias, serial) => {}
                Err(_) => {
                    // A store that cannot be opened is not added.
                    let lowered = scheduler.lower_store(&alias);
                    scheduler.estate.stores.remove(&alias);
                    return Box::pin(wrap_future(async move {
                        lowered.await;
                        result
                    })) as ResponseActFuture<Self, _>;
                }
            }
            Box::pin(ready(result))
        }))
    }
}

impl Scheduler {
    /// Whether the alias stands for this store still.
    fn is_slot(&self, alias: &Alias, serial: u64) -> bool {
        self.estate.stores.get(alias).is_some_and(|slot| slot.serial == serial)
    }

    /// Forgets a store that has been closed.
    pub(super) fn forget_store(&mut self, alias: Alias, ctx: &mut Context<Self>) {
        self.estate.waitlist.drop_store(&alias);
        if let Some(slot) = self.estate.stores.remove(&alias) {
            let Remains { unanswered, undecided } = slot.ledger.into_remains();
            self.doubt(&alias, unanswered, ctx);
            self.end_recorded(undecided);
        }
        tracing::info!(scheduler = %self.settings.name, store = %alias, change = "removed", "somebody removed a store");
        self.tell(Event::StoreRemoved { store: alias });
    }
}

impl Handler<RemoveStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RemoveStore(alias): RemoveStore, _: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.stores.get_mut(&alias) else {
            return Box::pin(ready(Err(self.unknown_store(&alias))));
        };
        if let Some(others) = &mut slot.leaving {
            let (bell, gone) = oneshot::channel();
            others.push(bell);
            return Box::pin(wrap_future(async move {
                gone.await.ok();
                Ok(())
            }));
        }
        slot.leaving = Some(Vec::new());
        let serial = slot.serial;
        // What the tick under way has decided is submitted first.
        let tick = slot.after_tick();
        let wait = async move {
            if let Some(tick) = tick {
                tick.await.ok();
            }
        };
        Box::pin(
            wrap_future::<_, Self>(wait)
                .then({
                    let alias = alias.clone();
                    // And the ends that are known are written.
                    move |(), scheduler, ctx| {
                        let busy = scheduler.clock().busy();
                        scheduler.flush_ends(&alias, busy, ctx);
                        let written =
                            scheduler.estate.stores.get_mut(&alias).and_then(|slot| slot.ledger.after_ends());
                        wrap_future(async move {
                            if let Some(written) = written {
                                written.await.ok();
                            }
                        })
                    }
                })
                .then({
                    let alias = alias.clone();
                    move |(), scheduler: &mut Self, _| wrap_future(scheduler.lower_store(&alias))
                })
                .map(move |(), scheduler: &mut Self, ctx| {
                    // One that could not be opened has been forgotten by who added it.
                    if scheduler.is_slot(&alias, serial) {
                        scheduler.forget_store(alias, ctx);
                    }
                    Ok(())
                }),
        )
    }
}

impl Handler<RestoreStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RestoreStore(alias): RestoreStore, ctx: &mut Self::Context) -> Self::Result {
        let restored = match self.estate.stores.get(&alias) {
            Some(_) if !self.is_open() => Err(Error::NotRunning),
            Some(slot) => Ok(slot.keeper.restore()),
            None => Err(self.unknown_store(&alias)),
        };
        let heard = self.hear_out(ctx);
        Box::pin(wrap_future(async move {
            restored?.await;
            heard.await;
            Ok(())
        }))
    }
}
