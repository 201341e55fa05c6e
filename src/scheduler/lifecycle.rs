//! Start, pause, resume, shut down.

use std::pin::Pin;
use std::task::{Poll, ready as ready_or_pending};
use std::time::Duration;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use futures::future::{Either, join_all, select};

use super::actor::{Lifecycle, Scheduler};
use super::handle::retire;
use super::locks::{self, StoreLock};
use super::message::*;
use super::pending::Pending;
use super::session::within;
use super::{
    ExecutorState, SchedulerState, SchedulerStatus, Shutdown, Started, StoreStatus, TimezonesStatus,
};
use crate::clock::Clock;
use crate::error::Error;
use crate::event::Event;
use crate::store::StoreError;
use crate::store::message::{List, RemoveAll};
use crate::task::{Added, Alias, Source, TaskId};
use crate::timer;

/// What the shutdown adds to the grace at each of three steps: together less than a second.
const SLACK: Duration = Duration::from_millis(300);

type Step<T> = ResponseActFuture<Scheduler, T>;

/// What may be done with tasks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// They wait for the start.
    Pending,
    /// They are in their stores.
    Open,
}

impl Scheduler {
    pub(super) fn permit(&self) -> Permit {
        if self.is_open() { Permit::Open } else { Permit::Pending }
    }

    /// Raises everything, commits what is pending, and begins with what works; when nothing does, or
    /// a strict start lacks something, it lowers everything again.
    fn start_up(&mut self, paused: bool, ctx: &mut Context<Self>) -> Step<Result<Started, Error>> {
        self.estate.state = Lifecycle { state: SchedulerState::Starting, depth: 1, started_at: None };
        let executors: Vec<Alias> = self.estate.executors.keys().cloned().collect();
        for alias in &executors {
            self.raise_executor(alias, ctx);
        }
        // What is due at once is not refused by executors that are just being started.
        let raised = executors.iter().filter_map(|alias| self.estate.executors.get(alias));
        let raised: Vec<_> = raised.map(|slot| slot.keeper.raised()).collect();
        let heard = self.hear_out(ctx);
        let stores: Vec<Alias> = self.estate.stores.keys().cloned().collect();
        let opened: Vec<_> = stores.iter().map(|alias| self.raise_store(alias, ctx)).collect();
        let (strict, patient) = (self.settings.strict, self.settings.lock_path.is_some());
        let locks =
            self.estate.stores.values().filter_map(|slot| Some(slot.lock.as_ref()?.path().to_owned()));
        let locks = locks::check(locks.collect());
        let opened = async move {
            let results = join_all(opened).await;
            join_all(raised).await;
            heard.await;
            locks.await?;
            let mut started = Started::default();
            let mut open = results.is_empty();
            for (alias, opened) in stores.into_iter().zip(results) {
                match opened.unwrap_or(Err(Error::Gone)) {
                    Ok(()) => open = true,
                    Err(error) => {
                        // Its turn comes when the other process is gone.
                        let in_use = matches!(&error, Error::Store { source: StoreError::InUse { .. }, .. });
                        if strict && !(in_use && patient) {
                            return Err(error);
                        }
                        open |= in_use && patient;
                        started.stores.push((alias, error));
                    }
                }
            }
            match started.stores.first() {
                Some((_, error)) if !open => Err(error.clone()),
                _ => Ok(started),
            }
        };
        Box::pin(
            wrap_future::<_, Self>(opened)
                .then(move |opened, scheduler, _| match opened {
                    Ok(mut started) => {
                        scheduler.estate.pending.try_again(None);
                        Box::pin(scheduler.commit_pending().map(move |left_out, _, _| {
                            started.tasks = left_out;
                            match started.tasks.first() {
                                Some((_, error)) if strict => Err(error.clone()),
                                _ => Ok(started),
                            }
                        })) as Step<_>
                    }
                    Err(error) => Box::pin(ready(Err(error))),
                })
                .then(move |committed: Result<Started, Error>, scheduler, ctx| match committed {
                    Ok(started) => {
                        scheduler.begin(paused, ctx);
                        for wait in scheduler.starting.drain(..) {
                            wait.send(Ok(started.clone())).ok();
                        }
                        Box::pin(ready(Ok(started))) as Step<_>
                    }
                    Err(error) => {
                        tracing::error!(scheduler = %scheduler.settings.name, %error, "the scheduler did not start");
                        let lowered = scheduler.lower_all(Duration::ZERO);
                        Box::pin(wrap_future::<_, Self>(lowered).map(move |(), scheduler, _| {
                            scheduler.estate.state = Lifecycle::default();
                            scheduler.estate.owner = None;
                            for wait in scheduler.starting.drain(..) {
                                wait.send(Err(error.clone())).ok();
                            }
                            Err(error)
                        }))
                    }
                }),
        )
    }

    /// Puts the tasks that waited for the start into their stores, one after the other. Those that
    /// cannot be committed wait on; the answer has them, and why.
    pub(super) fn commit_pending(&mut self) -> Step<Vec<(TaskId, Error)>> {
        Box::pin(CommitPending { under_way: None, left_out: Vec::new() })
    }

    fn begin(&mut self, paused: bool, ctx: &mut Context<Self>) {
        let clock = self.clock();
        let (now, elapsed) = (clock.now(), clock.monotonic());
        self.estate.state.started_at = Some((now, elapsed));
        self.estate.state.state = if paused { SchedulerState::Paused } else { SchedulerState::Running };
        self.last_seen = now;
        tracing::info!(scheduler = %self.settings.name, paused, "the scheduler has started");
        self.tell(Event::SchedulerStarted);
        self.begin_lives();
        self.hold_back(ctx);
        self.arm(ctx);
    }

    /// Begins the startup delay, if there is one.
    fn hold_back(&mut self, ctx: &mut Context<Self>) {
        let delay = self.settings.startup_delay;
        if delay.is_zero() {
            return;
        }
        let over = timer::sleep(self.clock(), delay).into_actor(self);
        self.held_back = Some(ctx.spawn(over.map(|busy, scheduler, ctx| {
            scheduler.held_back = None;
            scheduler.arm(ctx);
            drop(busy);
        })));
    }

    /// Everything that ends a scheduler, in order; see [`Shutdown`].
    pub(super) fn shut_down(&mut self, grace: Duration, ctx: &mut Context<Self>) -> Step<()> {
        self.estate.state.state = SchedulerState::ShuttingDown;
        self.wake.disarm(ctx);
        if let Some(delay) = self.held_back.take() {
            ctx.cancel_future(delay);
        }
        tracing::info!(scheduler = %self.settings.name, ?grace, "the scheduler is shutting down");
        let clock = self.clock().clone();
        let end = clock.monotonic().saturating_add(grace).saturating_add(SLACK);
        let left = {
            let clock = clock.clone();
            move || end.saturating_sub(clock.monotonic())
        };
        let ticks: Vec<_> = self.estate.stores.values_mut().filter_map(|slot| slot.after_tick()).collect();
        let ticks = at_most(&clock, left(), async move { drop(join_all(ticks).await) });
        Box::pin(
            wrap_future::<_, Self>(ticks)
                .then({
                    let left = left.clone();
                    move |(), scheduler, _| scheduler.run_shutdown_triggers(left())
                })
                .then({
                    let (clock, left) = (clock.clone(), left.clone());
                    move |(), scheduler, _| {
                        let executors: Vec<Alias> = scheduler.estate.executors.keys().cloned().collect();
                        let lowered: Vec<_> =
                            executors.iter().map(|alias| scheduler.lower_executor(alias, grace)).collect();
                        wrap_future(at_most(&clock, left(), async move { drop(join_all(lowered).await) }))
                    }
                })
                .then({
                    let (clock, left) = (clock.clone(), left.clone());
                    move |(), scheduler: &mut Self, ctx| {
                        // Nothing ticks any more. A clean-up that takes longer goes on without us.
                        let cleaned = at_most(&clock, left().max(SLACK), scheduler.end_lives());
                        let heard = scheduler.hear_out(ctx);
                        wrap_future(async move {
                            cleaned.await;
                            heard.await;
                        })
                    }
                })
                .then(move |(), scheduler: &mut Self, ctx| {
                    let mut lost = scheduler.estate.flight.departed();
                    lost.extend(scheduler.estate.waitlist.take_all_stranded());
                    scheduler.interrupt(lost, "the scheduler was shut down", ctx);
                    scheduler.leave_doubts();
                    let stores: Vec<Alias> = scheduler.estate.stores.keys().cloned().collect();
                    let busy = scheduler.clock().busy();
                    for alias in &stores {
                        scheduler.flush_ends(alias, busy.clone(), ctx);
                    }
                    let written: Vec<_> = scheduler
                        .estate
                        .stores
                        .values_mut()
                        .filter_map(|slot| slot.ledger.after_ends())
                        .collect();
                    let time = left().max(SLACK);
                    wrap_future(at_most(&clock, time, async move { drop(join_all(written).await) }))
                })
                .then(|(), scheduler, _| wrap_future(scheduler.lower_all(SLACK)))
                .map(|(), scheduler, _| {
                    scheduler.estate.state = Lifecycle::default();
                    scheduler.estate.owner = None;
                    tracing::info!(scheduler = %scheduler.settings.name, "the scheduler has stopped");
                    scheduler.tell(Event::SchedulerShutdown);
                    for stopped in scheduler.stopping.drain(..) {
                        stopped.send(()).ok();
                    }
                    if let Some((arbiter, system)) = scheduler.estate.retired.take() {
                        retire(&arbiter, system);
                    }
                }),
        )
    }

    /// Closes stores and stops executors, each within `time`.
    fn lower_all(&mut self, time: Duration) -> impl Future<Output = ()> + use<> {
        let clock = self.clock().clone();
        let stores: Vec<Alias> = self.estate.stores.keys().cloned().collect();
        let stores: Vec<_> = stores.iter().map(|alias| self.lower_store(alias)).collect();
        let executors: Vec<Alias> = self.estate.executors.keys().cloned().collect();
        let executors: Vec<_> =
            executors.iter().map(|alias| self.lower_executor(alias, Duration::ZERO)).collect();
        at_most(&clock, time.max(SLACK), async move {
            join_all(executors).await;
            join_all(stores).await;
        })
    }

    /// Runs the tasks whose trigger asks for a run at shutdown.
    fn run_shutdown_triggers(&mut self, time: Duration) -> Step<()> {
        let stores: Vec<_> = self
            .estate
            .stores
            .iter()
            .filter_map(|(alias, slot)| Some((alias.clone(), slot.addr.clone()?)))
            .collect();
        let settings = self.settings.clone();
        let found = async move {
            let mut found = Vec::new();
            for (alias, addr) in stores {
                let tasks = addr.list(List).await.unwrap_or_else(|error| {
                    tracing::error!(scheduler = %settings.name, store = %alias, %error, "shutdown tasks of this store do not run");
                    Vec::new()
                });
                let wants =
                    tasks.into_iter().filter(|task| !task.state.paused && task.spec.trigger.on_shutdown());
                found.extend(wants.map(|task| (alias.clone(), task.spec.id.clone())));
            }
            found
        };
        let clock = self.clock().clone();
        let found = async move {
            let limit = timer::sleep_as_limit(&clock, time.max(Duration::from_millis(1)));
            match select(Box::pin(found), Box::pin(limit)).await {
                Either::Left((found, _)) => found,
                Either::Right(_) => Vec::new(),
            }
        };
        Box::pin(wrap_future::<_, Self>(found).then(move |found, scheduler, ctx| {
            for (store, id) in found {
                let request = RunTask::new(id).store(store);
                let ran = scheduler.run_on_demand(request, Source::Shutdown, 0).map(|ran, scheduler, _| {
                    if let Err(error) = ran {
                        tracing::error!(scheduler = %scheduler.settings.name, %error, "a shutdown task did not run");
                    }
                    let waiting = scheduler.shutdown_runs.saturating_sub(1);
                    scheduler.shutdown_runs = waiting;
                    if waiting == 0
                        && let Some(bell) = scheduler.shutdown_bell.take()
                    {
                        bell.send(()).ok();
                    }
                });
                scheduler.shutdown_runs += 1;
                ctx.spawn(ran);
            }
            let (bell, submitted) = futures::channel::oneshot::channel();
            if scheduler.shutdown_runs > 0 {
                scheduler.shutdown_bell = Some(bell);
            }
            wrap_future(at_most(scheduler.clock(), time, async move {
                submitted.await.ok();
            }))
        }))
    }
}

/// Commits one waiting task after the other. A loop, because futures that hold their successor
/// would be as deep as there are tasks.
struct CommitPending {
    under_way: Option<Committing>,
    left_out: Vec<(TaskId, Error)>,
}

/// A waiting task that is on its way to its store.
struct Committing {
    serial: u64,
    pending: Pending,
    commit: Step<Result<Added, Error>>,
}

impl ActorFuture<Scheduler> for CommitPending {
    type Output = Vec<(TaskId, Error)>;

    fn poll(
        mut self: Pin<&mut Self>,
        scheduler: &mut Scheduler,
        ctx: &mut Context<Scheduler>,
        task: &mut std::task::Context<'_>,
    ) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let Committing { serial, pending, commit } = match &mut this.under_way {
                Some(under_way) => under_way,
                None => match scheduler.begin_pending() {
                    Some((serial, pending)) => {
                        let Pending { task, since, perhaps_there, .. } = pending.clone();
                        let commit = scheduler.commit_task(task, since, perhaps_there);
                        this.under_way.insert(Committing { serial, pending, commit })
                    }
                    None => return Poll::Ready(std::mem::take(&mut this.left_out)),
                },
            };
            match ready_or_pending!(commit.as_mut().poll(scheduler, ctx, task)) {
                Ok(_) => scheduler.no_longer_waits(*serial, pending),
                Err(error) => {
                    let id = scheduler.estate.pending.leave_out(*serial, pending);
                    tracing::error!(
                        scheduler = %scheduler.settings.name, task = %id.as_ref().map_or("", TaskId::as_str), %error,
                        "a task that waited was not added; it waits on"
                    );
                    this.left_out.extend(id.map(|id| (id, error)));
                }
            }
            this.under_way = None;
        }
    }
}

/// Waits for `work`, but no longer than `time` of the clock's time.
fn at_most<W: Future<Output = ()> + 'static>(
    clock: &Clock,
    time: Duration,
    work: W,
) -> impl Future<Output = ()> + use<W> {
    let limit = timer::sleep_as_limit(clock, time);
    async move {
        select(Box::pin(work), Box::pin(limit)).await;
    }
}

impl Handler<Start> for Scheduler {
    type Result = Step<Result<Started, Error>>;

    fn handle(&mut self, Start { paused }: Start, ctx: &mut Self::Context) -> Self::Result {
        match self.state() {
            SchedulerState::Stopped => self.start_up(paused, ctx),
            SchedulerState::ShuttingDown => Box::pin(ready(Err(Error::Running))),
            SchedulerState::Starting => {
                self.estate.state.depth += 1;
                let (bell, started) = futures::channel::oneshot::channel();
                self.starting.push(bell);
                Box::pin(wrap_future(async move { started.await.unwrap_or(Err(Error::Died)) }))
            }
            SchedulerState::Running | SchedulerState::Paused => {
                self.estate.state.depth += 1;
                Box::pin(ready(Ok(Started::default())))
            }
        }
    }
}

impl Handler<Pause> for Scheduler {
    type Result = Step<Result<(), Error>>;

    fn handle(&mut self, _: Pause, _: &mut Self::Context) -> Self::Result {
        match self.state() {
            SchedulerState::Paused => return Box::pin(ready(Ok(()))),
            SchedulerState::Running => self.estate.state.state = SchedulerState::Paused,
            _ => return Box::pin(ready(Err(Error::NotRunning))),
        }
        tracing::info!(scheduler = %self.settings.name, change = "paused", "somebody paused the scheduler");
        self.tell(Event::SchedulerPaused);
        // A tick that has been decided is still submitted, and then no other.
        let ticks: Vec<_> = self.estate.stores.values_mut().filter_map(|slot| slot.after_tick()).collect();
        Box::pin(wrap_future(async move {
            join_all(ticks).await;
            Ok(())
        }))
    }
}

impl Handler<Resume> for Scheduler {
    type Result = Result<(), Error>;

    fn handle(&mut self, _: Resume, ctx: &mut Self::Context) -> Self::Result {
        match self.state() {
            SchedulerState::Running => return Ok(()),
            SchedulerState::Paused => self.estate.state.state = SchedulerState::Running,
            _ => return Err(Error::NotRunning),
        }
        tracing::info!(scheduler = %self.settings.name, change = "resumed", "somebody resumed the scheduler");
        self.tell(Event::SchedulerResumed);
        self.arm(ctx);
        Ok(())
    }
}

impl Handler<Stop> for Scheduler {
    type Result = Step<Result<(), Error>>;

    fn handle(&mut self, Stop(Shutdown { grace, force }): Stop, ctx: &mut Self::Context) -> Self::Result {
        match self.state() {
            SchedulerState::Stopped => Box::pin(ready(Ok(()))),
            SchedulerState::Starting => Box::pin(ready(Err(Error::NotRunning))),
            SchedulerState::ShuttingDown => {
                let (bell, stopped) = futures::channel::oneshot::channel();
                self.stopping.push(bell);
                Box::pin(wrap_future(async move {
                    stopped.await.ok();
                    Ok(())
                }))
            }
            SchedulerState::Running | SchedulerState::Paused => {
                if self.estate.state.depth > 1 && !force {
                    self.estate.state.depth -= 1;
                    return Box::pin(ready(Ok(())));
                }
                Box::pin(self.shut_down(grace, ctx).map(|(), _, _| Ok(())))
            }
        }
    }
}

impl Handler<GetStatus> for Scheduler {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        let clock = self.clock();
        let (started, zones) = (self.estate.state.started_at, self.settings.zones.get());
        let uptime = started.map(|(_, elapsed)| clock.monotonic().saturating_sub(elapsed));
        MessageResult(SchedulerStatus {
            state: self.state(),
            name: self.settings.name.clone(),
            identity: self.settings.identity.clone(),
            started_at: started.map(|(at, _)| at),
            uptime_ms: uptime.map(|uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
            last_seen: self.last_seen,
            running: self.estate.flight.len(),
            pending: self.estate.pending.len(),
            waiting: self.estate.waitlist.len(),
            timezones: TimezonesStatus::of(&zones),
            stores: self
                .estate
                .stores
                .iter()
                .map(|(alias, slot)| StoreStatus {
                    alias: alias.clone(),
                    durable: slot.capabilities.durable,
                    next_due: slot.next_due,
                    problem: slot.problem.clone(),
                    unreadable: slot.unreadable.len(),
                    unreadable_because: slot.reasons(),
                    paused: slot.paused,
                    lock: slot.lock.as_ref().map(StoreLock::status),
                })
                .collect(),
            executors: self
                .estate
                .executors
                .iter()
                .map(|(alias, slot)| ExecutorState {
                    alias: alias.clone(),
                    problem: slot.problem.clone(),
                    waiting: self.estate.waitlist.for_executor(alias),
                })
                .collect(),
        })
    }
}

impl Handler<RemoveAllTasks> for Scheduler {
    type Result = Step<Result<usize, Error>>;

    fn handle(&mut self, RemoveAllTasks { store }: RemoveAllTasks, _: &mut Self::Context) -> Self::Result {
        self.once_started(move |scheduler| scheduler.remove_all(store))
    }
}

impl Scheduler {
    /// All tasks of a store have been removed.
    pub(super) fn all_removed(&mut self, store: &Alias) {
        self.retire_lives(store);
        self.estate.waitlist.forget_store(store);
        tracing::info!(scheduler = %self.settings.name, store = %store, change = "all tasks removed", "somebody emptied a store");
        self.tell(Event::AllTasksRemoved { store: store.clone() });
    }

    fn remove_all(&mut self, store: Option<Alias>) -> Step<Result<usize, Error>> {
        let dropped = self.estate.pending.clear(store.as_ref());
        if self.permit() == Permit::Pending {
            let stores = self.estate.stores.keys().filter(|alias| store.as_ref().is_none_or(|s| s == *alias));
            let stores: Vec<Alias> = stores.cloned().collect();
            stores.iter().for_each(|alias| self.retire_lives(alias));
            return Box::pin(ready(Ok(dropped)));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        // Every store is asked, whatever becomes of another.
        let since = self.clock().now();
        let removed = async move {
            let mut removed = Vec::new();
            for (alias, addr) in session.stores {
                let count = within(&session.settings, addr.remove_all(RemoveAll)).await;
                removed.push((alias, count));
            }
            (removed, session.down)
        };
        Box::pin(
            wrap_future::<_, Self>(removed)
                .map(move |(removed, mut trouble): (Vec<_>, Option<Error>), scheduler: &mut Self, ctx| {
                    let (mut sum, mut ticks) = (0, Vec::new());
                    for (alias, count) in removed {
                        match count {
                            Ok(count) => {
                                sum += count;
                                scheduler.all_removed(&alias);
                                let slot = scheduler.estate.stores.get_mut(&alias);
                                ticks.extend(slot.and_then(|slot| slot.after_tick()));
                            }
                            Err(error) => {
                                if let Some(slot) = scheduler.estate.stores.get_mut(&alias)
                                    && error.is_retryable()
                                {
                                    slot.ledger.owe_clearing(since);
                                }
                                let error = Error::store(&alias, error);
                                scheduler.note_error(&error, ctx);
                                trouble = Some(error);
                            }
                        }
                    }
                    (trouble.map_or(Ok(sum), Err), ticks)
                })
                .then(|(answer, ticks), _, _| {
                    wrap_future(async move {
                        join_all(ticks).await;
                        answer
                    })
                }),
        )
    }
}
