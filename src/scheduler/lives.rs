//! Lifecycle tasks: their set-ups when the scheduler starts, their clean-ups when it stops.
//!
//! The ticks are runs of an ordinary task, found by the lifecycle's name. What lives between them
//! belongs to this process, not to a store: it is set up at each start, wherever the ticks may go,
//! and cleaned up here.

use std::sync::Arc;

use actix::fut::ready;
use actix::prelude::*;
use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::future::join_all;

use super::SchedulerState;
use super::actor::Scheduler;
use super::arbiter;
use super::message::AddLifecycle;
use crate::clock::Busy;
use crate::error::Error;
use crate::event::Event;
use crate::task::{
    Alias, AnyLifecycle, Code, Failure, LifeEnded, LifeStage, LifeStep, Run, RunId, TaskError, TaskId,
    TickCode, TickQueue,
};

/// A lifecycle, and its life while the scheduler runs.
pub(super) struct LifeSlot {
    lifecycle: AnyLifecycle,
    /// Where the task of its ticks is.
    store: Alias,
    life: Option<Life>,
    /// The life before, which may not have ended yet.
    before: Option<LifeEnded>,
    /// The task is gone: the life ends with the last run.
    retired: bool,
}

struct Life {
    code: Code,
    /// Its drop ends the life, also when the scheduler goes without a shutdown.
    _end: oneshot::Sender<()>,
    ended: LifeEnded,
}

/// A life that ends, of a lifecycle that is gone.
pub(super) struct Leaving {
    ended: LifeEnded,
    /// The life, for as long as there are runs of it: its lifecycle was added anew meanwhile.
    still: Option<(Life, Vec<RunId>)>,
}

/// What came of a step of a lifecycle.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LifeTold {
    id: TaskId,
    step: LifeStep,
    result: Result<(), Failure>,
    pub(super) busy: Busy,
}

impl Scheduler {
    /// The code that tasks may name: of the registry, or of a lifecycle that is set up.
    pub(super) fn code(&self, name: &str) -> Option<&Code> {
        let ticks = || self.estate.lives.get(name)?.life.as_ref().map(|life| &life.code);
        self.settings.registry.get(name).or_else(ticks)
    }

    /// Whether tasks may name this code, or will when the scheduler has started.
    pub(super) fn check_handler(&self, name: &str) -> Result<(), TaskError> {
        match self.estate.lives.contains_key(name) {
            true => Ok(()),
            false => self.settings.registry.find(name).map(drop),
        }
    }

    /// Begins the lives of all lifecycles: the start.
    pub(super) fn begin_lives(&mut self) {
        let ids: Vec<TaskId> = self.estate.lives.keys().cloned().collect();
        ids.iter().for_each(|id| self.begin_life(id));
    }

    fn begin_life(&mut self, id: &TaskId) {
        let clock = self.clock().clone();
        let Some(slot) = self.estate.lives.get_mut(id).filter(|slot| slot.life.is_none()) else { return };
        let arbiter = match arbiter::start() {
            Ok(arbiter) => arbiter,
            Err(error) => {
                let cause = format!("there is no thread for it: {error}; the next start tries again");
                let result = Err(Failure::new(cause));
                let told = LifeTold { id: id.clone(), step: LifeStep::SetUp, result, busy: clock.busy() };
                return self.usher.do_send(told);
            }
        };
        let (orders, ticks) = mpsc::unbounded();
        let (end, ending) = oneshot::channel();
        let (done, ended) = oneshot::channel::<()>();
        let (before, lifecycle) = (slot.before.take(), slot.lifecycle.clone());
        let (usher, id, busy) = (self.usher.clone(), id.clone(), Some(clock.busy()));
        arbiter.spawn_fn(move || {
            let teller = clock.clone();
            let tell = Box::new(move |step, result| {
                usher.do_send(LifeTold { id: id.clone(), step, result, busy: teller.busy() });
            });
            let ticks = TickQueue::new(ticks);
            let life = lifecycle.live(LifeStage { before, ticks, end: ending, clock, busy, tell });
            actix_rt::spawn(async move {
                life.await;
                drop(done);
                Arbiter::current().stop();
            });
        });
        let code = Code::Async(Arc::new(TickCode(orders)));
        slot.life = Some(Life { code, _end: end, ended: ended.shared() });
    }

    /// Ends all lives: the shutdown. The lifecycles stay for the next start. The future ends when
    /// everything is cleaned up.
    pub(super) fn end_lives(&mut self) -> impl Future<Output = ()> + use<> {
        let mut ended = Vec::new();
        self.estate.lives.retain(|_, slot| {
            if let Some(life) = slot.life.take() {
                ended.push(life.ended.clone());
                slot.before = Some(life.ended);
            }
            !slot.retired
        });
        // The last one first: a life that waits for the one before hears that it need not begin.
        let leaving = std::mem::take(&mut self.estate.leaving);
        ended.extend(leaving.into_iter().rev().map(|leaving| leaving.ended));
        join_all(ended).map(drop)
    }

    /// A task has been removed; if it was a lifecycle's, that ends with the last run.
    pub(super) fn retire_life(&mut self, id: &TaskId, store: &Alias) {
        if let Some(slot) = self.estate.lives.get_mut(id).filter(|slot| slot.store == *store) {
            slot.retired = true;
            self.settle_life(id);
        }
    }

    /// All tasks of a store have been removed.
    pub(super) fn retire_lives(&mut self, store: &Alias) {
        let ids: Vec<TaskId> = self.estate.lives.keys().cloned().collect();
        ids.iter().for_each(|id| self.retire_life(id, store));
    }

    /// A run has ended.
    pub(super) fn ran(&mut self, run: &Run) {
        // A shutdown ends all lives together, so that none begins meanwhile.
        let all = match self.state() {
            SchedulerState::ShuttingDown => &mut [],
            _ => &mut self.estate.leaving[..],
        };
        for leaving in all {
            if let Some((_, runs)) = &mut leaving.still {
                runs.retain(|id| *id != run.id);
                leaving.still.take_if(|(_, runs)| runs.is_empty());
            }
        }
        if !self.estate.lives.is_empty() {
            self.settle_life(&run.task.id);
        }
    }

    fn settle_life(&mut self, id: &TaskId) {
        let store = self.estate.lives.get(id).filter(|slot| slot.retired).map(|slot| slot.store.clone());
        if store.is_some_and(|store| self.estate.flight.running(&store, id) == 0) {
            self.forget_life(id);
        }
    }

    /// Ends a life, and forgets the lifecycle.
    fn forget_life(&mut self, id: &TaskId) {
        let Some(slot) = self.estate.lives.remove(id) else { return };
        let ended = slot.life.map(|life| life.ended).or(slot.before);
        self.leave(ended.map(|ended| Leaving { ended, still: None }));
    }

    /// Makes room for a lifecycle of the same name as one whose task is gone. The life of that one
    /// goes on until its runs have ended, and the next one begins after it; the answer is its end.
    fn make_room(&mut self, id: &TaskId) -> Option<LifeEnded> {
        let slot = self.estate.lives.remove(id)?;
        let Some(life) = slot.life else { return slot.before };
        let ended = life.ended.clone();
        let of_another = |run: &Run| {
            let mut lives = self.estate.leaving.iter().filter_map(|leaving| leaving.still.as_ref());
            lives.any(|(_, runs)| runs.contains(&run.id))
        };
        let own = |run: &&Arc<Run>| run.task.id == *id && run.store == slot.store && !of_another(run);
        let runs = self.estate.flight.iter().filter(own);
        let runs: Vec<RunId> = runs.map(|run| run.id).collect();
        let still = (!runs.is_empty()).then_some((life, runs));
        self.leave(Some(Leaving { ended: ended.clone(), still }));
        Some(ended)
    }

    fn leave(&mut self, leaving: Option<Leaving>) {
        let all = &mut self.estate.leaving;
        all.retain(|leaving| leaving.ended.clone().now_or_never().is_none());
        all.extend(leaving);
    }
}

impl Handler<AddLifecycle> for Scheduler {
    type Result = ResponseActFuture<Self, Result<TaskId, Error>>;

    fn handle(&mut self, AddLifecycle(lifecycle): AddLifecycle, ctx: &mut Self::Context) -> Self::Result {
        // A lifecycle without a name that is valid, or without ticks, is told what it lacks.
        let checked = lifecycle.task.check().map(|()| lifecycle.task.get_id().cloned());
        match checked {
            Err(error) => Box::pin(ready(Err(error.into()))),
            Ok(None) => Box::pin(ready(Err(TaskError::NoTrigger.into()))),
            Ok(Some(id)) => self.in_turn(id.clone(), ctx, |scheduler, _| scheduler.add_life(id, lifecycle)),
        }
    }
}

impl Scheduler {
    fn add_life(
        &mut self,
        id: TaskId,
        lifecycle: AnyLifecycle,
    ) -> ResponseActFuture<Self, Result<TaskId, Error>> {
        if self.state() == SchedulerState::ShuttingDown {
            return Box::pin(ready(Err(Error::NotRunning)));
        }
        let retired = self.estate.lives.get(&id).is_some_and(|slot| slot.retired);
        if !retired && self.check_handler(id.as_str()).is_ok() {
            return Box::pin(ready(Err(TaskError::DuplicateHandler(id.to_string()).into())));
        }
        let before = self.make_room(&id);
        let task = lifecycle.task.clone();
        let store = task.store.clone().unwrap_or_else(|| self.settings.defaults.store.clone());
        let slot = LifeSlot { lifecycle, store, life: None, before, retired: false };
        self.estate.lives.insert(id.clone(), slot);
        if self.is_open() {
            self.begin_life(&id);
        }
        Box::pin(self.add(task).map(move |added, scheduler, ctx| {
            if added.is_err() {
                scheduler.forget_life(&id);
            }
            scheduler.handler_registered(id.as_str(), ctx);
            added.map(|added| added.id)
        }))
    }
}

impl Handler<LifeTold> for Scheduler {
    type Result = ();

    fn handle(&mut self, LifeTold { id, step, result, busy: _busy }: LifeTold, _: &mut Self::Context) {
        let scheduler = &self.settings.name;
        let what = match step {
            LifeStep::SetUp => "set-up",
            LifeStep::CleanUp => "clean-up",
        };
        match (step, result) {
            (_, Err(cause)) => {
                tracing::error!(%scheduler, lifecycle = %id, step = what, %cause, "a lifecycle failed");
                self.tell(Event::LifecycleFailed { id, step: what, cause: cause.to_string() });
            }
            (LifeStep::SetUp, Ok(())) => {
                tracing::info!(%scheduler, lifecycle = %id, "a lifecycle is set up");
                self.tell(Event::LifecycleSetUp { id });
            }
            (LifeStep::CleanUp, Ok(())) => {
                tracing::info!(%scheduler, lifecycle = %id, "a lifecycle is cleaned up");
                self.tell(Event::LifecycleCleanedUp { id });
            }
        }
    }
}
