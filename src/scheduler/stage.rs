//! The stores and executors of a scheduler: added, removed, lost and found again.

use std::sync::Arc;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::message::{AddExecutor, AddStore, RemoveExecutor, RemoveStore, RestoreExecutor, RestoreStore};
use super::session::within;
use crate::backoff::Backoff;
use crate::clock::Busy;
use crate::error::Error;
use crate::event::Event;
use crate::executor::message::{Attach, Drain};
use crate::executor::{ExecutorAddr, ExecutorSource};
use crate::store::message::{Close, Get, Open, Opened};
use crate::store::{Capabilities, StoreAddr, StoreError, StoreSource};
use crate::supervision::{ChildChange, ChildNotice, Dismiss, Guardian, RestartPolicy, Restore};
use crate::task::{Alias, Run, RunEnd, RunId, RunRecord, TaskId};

/// What looks after the actor of a store or an executor.
pub(super) enum Keeper<S: ?Sized, A: Clone + Send + 'static> {
    /// Not started yet.
    Source(Box<S>, RestartPolicy),
    /// A guardian of ours.
    Guardian(Addr<Guardian<A>>),
    /// Somebody else.
    Owner(A),
}

pub(super) type StoreKeeper = Keeper<dyn StoreSource, StoreAddr>;
pub(super) type ExecutorKeeper = Keeper<dyn ExecutorSource, ExecutorAddr>;

pub(super) struct StoreSlot {
    keeper: Option<StoreKeeper>,
    /// The actor, opened or not.
    child: Option<StoreAddr>,
    /// The actor, once it is open.
    pub addr: Option<StoreAddr>,
    pub generation: u64,
    pub capabilities: Capabilities,
    pub next_due: Option<DateTime<Utc>>,
    pub ticking: bool,
    pub finishing: bool,
    /// Ends of runs the store has not been told of.
    pub unfinished: Vec<(RunId, TaskId, RunEnd)>,
    /// What is the matter with it.
    pub problem: Option<String>,
    retry_at: Option<DateTime<Utc>>,
    failures: u32,
    after_tick: Vec<oneshot::Sender<()>>,
    after_finish: Vec<oneshot::Sender<()>>,
    opening: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl StoreSlot {
    pub(super) fn new(source: Box<dyn StoreSource>, policy: RestartPolicy) -> Self {
        Self {
            keeper: Some(Keeper::Source(source, policy)),
            child: None,
            addr: None,
            generation: 0,
            capabilities: Capabilities::default(),
            next_due: None,
            ticking: false,
            finishing: false,
            unfinished: Vec::new(),
            problem: None,
            retry_at: None,
            failures: 0,
            after_tick: Vec::new(),
            after_finish: Vec::new(),
            opening: Vec::new(),
        }
    }

    /// The error of a store that cannot be asked.
    pub(super) fn down(&self, alias: &Alias) -> Error {
        let reason = self.problem.clone().unwrap_or_else(|| "it is not open yet".to_owned());
        Error::Store { store: alias.clone(), source: StoreError::unavailable(reason) }
    }

    /// Whether a tick may begin.
    pub(super) fn is_ready(&self) -> bool {
        self.addr.is_some() && !self.ticking && self.problem.is_none()
    }

    /// When the timer must ring for this store.
    pub(super) fn wants_attention(&self, running: bool) -> Option<DateTime<Utc>> {
        match self.retry_at {
            Some(retry) => Some(retry),
            None if running && self.is_ready() => self.next_due,
            None => None,
        }
    }

    /// Rings when the tick under way has submitted what it decided; `None` when there is none.
    pub(super) fn after_tick(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ticking.then(|| {
            let (bell, wait) = oneshot::channel();
            self.after_tick.push(bell);
            wait
        })
    }

    pub(super) fn release_waiting(&mut self) {
        for bell in self.after_tick.drain(..) {
            bell.send(()).ok();
        }
    }

    /// Rings when every end has been written, or cannot be.
    pub(super) fn after_finish(&mut self) -> Option<oneshot::Receiver<()>> {
        self.finishing.then(|| {
            let (bell, wait) = oneshot::channel();
            self.after_finish.push(bell);
            wait
        })
    }

    pub(super) fn release_if_finished(&mut self) {
        if self.unfinished.is_empty() {
            self.release_finished();
        }
    }

    pub(super) fn release_finished(&mut self) {
        for bell in self.after_finish.drain(..) {
            bell.send(()).ok();
        }
    }

    /// Forgets what was under way with an actor that is gone.
    fn reset(&mut self, generation: u64) {
        self.generation = generation;
        self.addr = None;
        self.ticking = false;
        self.finishing = false;
        self.release_waiting();
        self.release_finished();
    }
}

pub(super) struct ExecutorSlot {
    keeper: Option<ExecutorKeeper>,
    pub addr: Option<ExecutorAddr>,
    /// Why it takes no runs.
    pub problem: Option<String>,
}

impl ExecutorSlot {
    pub(super) fn new(source: Box<dyn ExecutorSource>, policy: RestartPolicy) -> Self {
        Self {
            keeper: Some(Keeper::Source(source, policy)),
            addr: None,
            problem: Some("it has not been started".to_owned()),
        }
    }
}

impl Scheduler {
    pub(super) fn unknown_store(&self, alias: &Alias) -> Error {
        Error::UnknownStore { alias: alias.to_string(), known: self.store_names() }
    }

    /// The address of an open store.
    pub(super) fn store_addr(&self, alias: &Alias) -> Result<StoreAddr, Error> {
        let slot = self.estate.stores.get(alias).ok_or_else(|| self.unknown_store(alias))?;
        slot.addr.clone().ok_or_else(|| slot.down(alias))
    }

    fn next_generation(&mut self) -> u64 {
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
        let clock = self.clock().clone();
        let Some(slot) = self.estate.stores.get_mut(alias) else { return wait };
        slot.opening.push(opened);
        match slot.keeper.take() {
            Some(Keeper::Source(mut source, policy)) if source.supervised() => {
                let factory = move |keep| source.start(keep);
                let notices = self.usher.clone().recipient();
                let guardian = Guardian::new(alias.as_str(), policy, clock, factory, notices).start();
                slot.keeper = Some(Keeper::Guardian(guardian));
            }
            Some(Keeper::Source(mut source, _)) => {
                let addr = source.start(Box::new(()));
                slot.keeper = Some(Keeper::Owner(addr.clone()));
                self.store_started(alias, addr, ctx);
            }
            Some(Keeper::Guardian(guardian)) => {
                slot.keeper = Some(Keeper::Guardian(guardian.clone()));
                match slot.child.clone() {
                    // A start that was cut off has left it alive.
                    Some(addr) => self.store_started(alias, addr, ctx),
                    None => guardian.do_send(Restore),
                }
            }
            Some(Keeper::Owner(addr)) => {
                slot.keeper = Some(Keeper::Owner(addr.clone()));
                self.store_started(alias, addr, ctx);
            }
            None => {}
        }
        wait
    }

    fn store_started(&mut self, alias: &Alias, addr: StoreAddr, ctx: &mut Context<Self>) {
        let generation = self.next_generation();
        if let Some(slot) = self.estate.stores.get_mut(alias) {
            slot.reset(generation);
            slot.child = Some(addr);
        }
        let busy = self.clock().busy();
        self.open_store(alias, busy, ctx);
    }

    fn open_store(&mut self, alias: &Alias, busy: Busy, ctx: &mut Context<Self>) {
        let (owner, now) = (self.owner(), self.clock().now());
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        slot.retry_at = None;
        let Some(addr) = slot.child.clone() else { return };
        let generation = slot.generation;
        let open = within(&self.settings, addr.open(Open { owner, now })).into_actor(self);
        let alias = alias.clone();
        ctx.spawn(open.map(move |opened, scheduler, ctx| {
            let current =
                scheduler.estate.stores.get(&alias).is_some_and(|slot| slot.generation == generation);
            if !current {
                return;
            }
            match opened {
                Ok(opened) => scheduler.store_opened(&alias, addr, opened, busy, ctx),
                Err(error) => {
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

    fn store_opened(
        &mut self,
        alias: &Alias,
        addr: StoreAddr,
        opened: Opened,
        busy: Busy,
        ctx: &mut Context<Self>,
    ) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        slot.addr = Some(addr);
        slot.capabilities = opened.capabilities;
        slot.next_due = opened.next_due;
        slot.opening.drain(..).for_each(|wait| drop(wait.send(Ok(()))));
        self.store_works(alias);
        for record in opened.unreadable {
            tracing::error!(
                scheduler = %self.settings.name, store = %alias, task = %record.id, reason = %record.reason,
                "a record cannot be read; it was left as it is"
            );
            self.tell(Event::RecordUnreadable { store: alias.clone(), id: record.id, cause: record.reason });
        }
        self.report_interrupted(alias, opened.interrupted);
        self.flush_ends(alias, busy.clone(), ctx);
        self.arm(ctx);
        // A virtual clock stands still until the alarm is set.
        drop(busy);
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
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        let news = slot.problem.is_none();
        slot.problem = Some(error.to_string());
        let delay = Backoff::exponential(base, base * 60).delay(slot.failures, slot.generation);
        slot.failures = slot.failures.saturating_add(1);
        slot.retry_at = now.checked_add_signed(TimeDelta::from_std(delay).unwrap_or(TimeDelta::seconds(60)));
        if news {
            tracing::error!(scheduler = %self.settings.name, store = %alias, %error, "the store is unavailable");
            self.tell(Event::StoreUnavailable { store: alias.clone(), cause: error.to_string() });
        }
    }

    pub(super) fn store_works(&mut self, alias: &Alias) {
        let Some(slot) = self.estate.stores.get_mut(alias) else { return };
        slot.failures = 0;
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
        let (guardian, addr) = match self.estate.stores.get_mut(alias) {
            Some(slot) => {
                slot.reset(generation);
                slot.problem = None;
                slot.retry_at = None;
                let guardian = match &slot.keeper {
                    Some(Keeper::Guardian(guardian)) => Some(guardian.clone()),
                    _ => None,
                };
                (guardian, slot.child.take())
            }
            None => (None, None),
        };
        async move {
            if let Some(guardian) = guardian {
                guardian.send(Dismiss).await.ok();
            }
            if let Some(addr) = addr
                && let Err(error) = within(&settings, addr.close(Close)).await
            {
                tracing::error!(scheduler = %settings.name, %error, "a store did not close well");
            }
        }
    }

    /// Starts the actor of an executor.
    pub(super) fn raise_executor(&mut self, alias: &Alias, ctx: &mut Context<Self>) {
        let clock = self.clock().clone();
        let Some(slot) = self.estate.executors.get_mut(alias) else { return };
        match slot.keeper.take() {
            Some(Keeper::Source(mut source, policy)) if source.supervised() => {
                let factory = move |keep| source.start(keep);
                let notices = self.usher.clone().recipient();
                let guardian = Guardian::new(alias.as_str(), policy, clock, factory, notices).start();
                slot.keeper = Some(Keeper::Guardian(guardian));
            }
            Some(Keeper::Source(mut source, _)) => {
                let addr = source.start(Box::new(()));
                slot.keeper = Some(Keeper::Owner(addr.clone()));
                self.executor_started(alias, addr, ctx);
            }
            Some(Keeper::Guardian(guardian)) => {
                guardian.do_send(Restore);
                slot.keeper = Some(Keeper::Guardian(guardian));
            }
            Some(Keeper::Owner(addr)) => {
                slot.keeper = Some(Keeper::Owner(addr.clone()));
                self.executor_started(alias, addr, ctx);
            }
            None => {}
        }
    }

    fn executor_started(&mut self, alias: &Alias, addr: ExecutorAddr, ctx: &mut Context<Self>) {
        let attach = Attach {
            alias: alias.clone(),
            clock: self.clock().clone(),
            notices: self.usher.clone().recipient(),
        };
        ctx.spawn(wrap_future(addr.attach(attach)).map(|_, _, _| ()));
        if let Some(slot) = self.estate.executors.get_mut(alias) {
            slot.addr = Some(addr);
            slot.problem = None;
        }
    }

    /// Ends the work of an executor within `grace` and lets its actor go.
    pub(super) fn lower_executor(
        &mut self,
        alias: &Alias,
        grace: std::time::Duration,
    ) -> impl Future<Output = ()> + use<> {
        let (guardian, addr) = match self.estate.executors.get_mut(alias) {
            Some(slot) => {
                slot.problem = Some("it is being stopped".to_owned());
                let guardian = match &slot.keeper {
                    Some(Keeper::Guardian(guardian)) => Some(guardian.clone()),
                    _ => None,
                };
                (guardian, slot.addr.take())
            }
            None => (None, None),
        };
        async move {
            if let Some(guardian) = guardian {
                guardian.send(Dismiss).await.ok();
            }
            if let Some(addr) = addr {
                addr.drain(Drain { grace }).await.ok();
            }
        }
    }

    /// Points guardians, executors and the bus to this actor: after the death of its predecessor.
    pub(super) fn inherit(&mut self, ctx: &mut Context<Self>) {
        if !self.is_open() {
            // A start that was cut off can be tried again.
            self.estate.state = super::actor::Lifecycle::default();
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
}

impl Scheduler {
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

impl Handler<ChildNotice<StoreAddr>> for Scheduler {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<StoreAddr>, ctx: &mut Self::Context) {
        let Ok(alias) = Alias::new(&*notice.name) else { return };
        let trouble = match notice.change {
            ChildChange::Started { child, .. } => return self.store_started(&alias, child, ctx),
            ChildChange::Restarting { cause, .. } => {
                format!("its actor has died ({cause}); a successor follows")
            }
            ChildChange::Failed { reason } => format!("its actor has died for good: {reason}"),
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

impl Handler<ChildNotice<ExecutorAddr>> for Scheduler {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<ExecutorAddr>, ctx: &mut Self::Context) {
        let Ok(alias) = Alias::new(&*notice.name) else { return };
        let problem = match notice.change {
            ChildChange::Started { child, cause } => {
                self.executor_started(&alias, child, ctx);
                if let Some(cause) = cause {
                    self.tell(Event::ExecutorRestarted { executor: alias, cause: cause.to_string() });
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
            ChildChange::Ended => "its actor has stopped".to_owned(),
        };
        tracing::error!(scheduler = %self.settings.name, executor = %alias, %problem, "the executor is down");
        if let Some(slot) = self.estate.executors.get_mut(&alias) {
            slot.addr = None;
            slot.problem = Some(problem.clone());
        }
        let lost = self.estate.flight.on_executor(&alias);
        self.interrupt(lost, &problem);
        let stores: Vec<Alias> = self.estate.stores.keys().cloned().collect();
        for store in stores {
            self.flush_ends(&store, notice.busy.clone(), ctx);
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
        self.estate.stores.insert(alias.clone(), StoreSlot::new(source, policy));
        if !self.is_open() {
            return Box::pin(ready(Ok(())));
        }
        let opened = self.raise_store(&alias, ctx);
        Box::pin(wrap_future::<_, Self>(opened).then(move |opened, scheduler, _| {
            let result = opened.unwrap_or(Err(Error::Gone));
            match &result {
                Ok(()) => scheduler.tell(Event::StoreAdded { store: alias }),
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

impl Handler<RemoveStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RemoveStore(alias): RemoveStore, _: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.stores.get_mut(&alias) else {
            return Box::pin(ready(Err(self.unknown_store(&alias))));
        };
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
                    move |(), scheduler, _| wrap_future(scheduler.lower_store(&alias))
                })
                .map(move |(), scheduler: &mut Self, _| {
                    scheduler.estate.stores.remove(&alias);
                    scheduler.tell(Event::StoreRemoved { store: alias });
                    Ok(())
                }),
        )
    }
}

impl Handler<AddExecutor> for Scheduler {
    type Result = Result<(), Error>;

    fn handle(&mut self, request: AddExecutor, ctx: &mut Self::Context) -> Self::Result {
        let AddExecutor { alias, source, policy } = request;
        if self.estate.executors.contains_key(&alias) {
            return Err(Error::AliasTaken { kind: "executor", alias });
        }
        self.estate.executors.insert(alias.clone(), ExecutorSlot::new(source, policy));
        if self.is_open() {
            self.raise_executor(&alias, ctx);
        }
        self.tell(Event::ExecutorAdded { executor: alias });
        Ok(())
    }
}

impl Handler<RemoveExecutor> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, request: RemoveExecutor, _: &mut Self::Context) -> Self::Result {
        let RemoveExecutor { alias, grace } = request;
        if !self.estate.executors.contains_key(&alias) {
            let known = self.executor_names();
            return Box::pin(ready(Err(Error::UnknownExecutor { alias: alias.to_string(), known })));
        }
        let lowered = wrap_future::<_, Self>(self.lower_executor(&alias, grace));
        Box::pin(lowered.map(move |(), scheduler, _| {
            let lost = scheduler.estate.flight.on_executor(&alias);
            scheduler.interrupt(lost, "its executor was removed");
            scheduler.estate.executors.remove(&alias);
            scheduler.tell(Event::ExecutorRemoved { executor: alias });
            Ok(())
        }))
    }
}

impl Handler<RestoreExecutor> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RestoreExecutor(alias): RestoreExecutor, ctx: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.executors.get(&alias) else {
            let known = self.executor_names();
            return Box::pin(ready(Err(Error::UnknownExecutor { alias: alias.to_string(), known })));
        };
        let guardian = match &slot.keeper {
            Some(Keeper::Guardian(guardian)) if self.is_open() => Some(guardian.clone()),
            Some(_) if self.is_open() => None,
            _ => return Box::pin(ready(Err(Error::NotRunning))),
        };
        Box::pin(wrap_future(restored(guardian, self.hear_out(ctx))))
    }
}

impl Handler<RestoreStore> for Scheduler {
    type Result = ResponseActFuture<Self, Result<(), Error>>;

    fn handle(&mut self, RestoreStore(alias): RestoreStore, ctx: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.estate.stores.get(&alias) else {
            return Box::pin(ready(Err(self.unknown_store(&alias))));
        };
        let guardian = match &slot.keeper {
            Some(Keeper::Guardian(guardian)) if self.is_open() => Some(guardian.clone()),
            Some(_) if self.is_open() => None,
            _ => return Box::pin(ready(Err(Error::NotRunning))),
        };
        Box::pin(wrap_future(restored(guardian, self.hear_out(ctx))))
    }
}

/// Has the guardian start its child again, and waits until the scheduler knows of it.
async fn restored<A: Clone + Send + 'static>(
    guardian: Option<Addr<Guardian<A>>>,
    heard: impl Future<Output = ()>,
) -> Result<(), Error> {
    if let Some(guardian) = guardian {
        guardian.send(Restore).await?;
    }
    heard.await;
    Ok(())
}
