//! Control messages about single tasks.

use std::sync::Arc;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::lifecycle::Permit;
use super::message::*;
use super::plan;
use super::session::{Changed, Decision, Session, Unchanged};
use crate::error::Error;
use crate::event::Event;
use crate::task::{Alias, Handler as TaskHandler, StoredTask, TaskChanges, TaskError, TaskId, TaskInfo};

pub(super) type Answer<T> = ResponseActFuture<Scheduler, Result<T, Error>>;

pub(super) fn fail<T: 'static>(error: Error) -> Answer<T> {
    Box::pin(ready(Err(error)))
}

impl Scheduler {
    /// The stores to ask about a task.
    pub(super) fn session(&mut self, store: Option<&Alias>) -> Result<Session, Error> {
        if !self.is_open() {
            return Err(Error::NotRunning);
        }
        let mut down = None;
        let mut stores = Vec::new();
        match store {
            Some(alias) => stores.push((alias.clone(), self.store_addr(alias)?)),
            None => {
                // The first one that has the task is meant.
                let default = self.estate.stores.get_key_value(&self.settings.defaults.store);
                let others =
                    self.estate.stores.iter().filter(|(alias, _)| **alias != self.settings.defaults.store);
                for (alias, slot) in default.into_iter().chain(others) {
                    match &slot.addr {
                        Some(addr) => stores.push((alias.clone(), addr.clone())),
                        None => down = Some(slot.down(alias)),
                    }
                }
            }
        }
        let skipping = self.next_run_id();
        Ok(Session { stores, down, settings: self.settings.clone(), skipping })
    }

    /// Carries out a change, tells of it, and lets the answer out when no tick is under way that
    /// has seen the task as it was before: what the tick has decided is submitted first.
    pub(super) fn carry_out(
        &self,
        deed: &'static str,
        change: impl Future<Output = Result<Changed, Unchanged>> + 'static,
    ) -> impl ActorFuture<Self, Output = Result<Changed, Error>> + 'static {
        wrap_future::<_, Self>(change)
            .map(|changed, scheduler, ctx| match changed {
                Ok(changed) => {
                    if changed.written {
                        scheduler.log_change(deed, &changed.store, &changed.id, changed.task.as_ref());
                    }
                    scheduler.note_change(&changed, ctx);
                    Ok(changed)
                }
                Err(Unchanged { error, removing }) => {
                    if let Error::Store { store, .. } = &error {
                        scheduler.perhaps_removed(store, removing);
                    }
                    scheduler.note_error(&error, ctx);
                    Err(error)
                }
            })
            .then(|changed, scheduler, _| {
                let tick = match &changed {
                    Ok(changed) if changed.written => scheduler.after_tick(&changed.store),
                    _ => None,
                };
                let wait = async move {
                    if let Some(tick) = tick {
                        tick.await.ok();
                    }
                    changed
                };
                wrap_future(wait)
            })
    }

    /// A line for each change that somebody has made.
    pub(super) fn log_change(&self, deed: &str, store: &Alias, id: &TaskId, task: Option<&StoredTask>) {
        let executor = task.map(|task| task.spec.executor.as_str());
        tracing::info!(
            scheduler = %self.settings.name, store = %store, task = %id, executor, change = deed,
            "somebody changed a task"
        );
    }

    /// A store that does not answer is opened again, also when only somebody's request showed it.
    pub(super) fn note_error(&mut self, error: &Error, ctx: &mut Context<Self>) {
        if let Error::Store { store, source } = error
            && source.is_retryable()
            && self.estate.stores.get(store).is_some_and(|slot| slot.addr.is_some())
        {
            self.store_failed(store, source);
            self.arm(ctx);
        }
    }

    /// A task is gone from its store.
    pub(super) fn removed(&mut self, id: TaskId, store: Alias) {
        if let Some(slot) = self.estate.stores.get_mut(&store) {
            slot.ledger.removal_known(&id);
        }
        self.estate.waitlist.forget(&store, &id);
        self.retire_life(&id, &store);
        self.tell(Event::TaskRemoved { id, store });
    }

    /// A step that was not answered would have removed these tasks.
    pub(super) fn perhaps_removed(&mut self, store: &Alias, ids: impl IntoIterator<Item = TaskId>) {
        if let Some(slot) = self.estate.stores.get_mut(store) {
            slot.ledger.owe_removals(ids);
        }
    }

    pub(super) fn note_change(&mut self, changed: &Changed, ctx: &mut Context<Self>) {
        if !changed.written {
            return;
        }
        let (id, store) = (changed.id.clone(), changed.store.clone());
        if self.estate.waitlist.forget(&store, &id) {
            self.arm(ctx);
        }
        match &changed.task {
            Some(_) => self.tell(Event::TaskModified { id, store }),
            None => self.removed(id, store),
        }
        self.note_finished(changed);
        self.note_due(&changed.store, changed.task.as_ref(), ctx);
    }

    pub(super) fn note_finished(&self, changed: &Changed) {
        if changed.finished {
            self.tell(Event::TaskFinished { id: changed.id.clone(), store: changed.store.clone() });
        }
    }

    /// Wakes up in time for a task that was written, and notes what the clock showed then.
    pub(super) fn note_due(&mut self, store: &Alias, task: Option<&StoredTask>, ctx: &mut Context<Self>) {
        if let Some(slot) = self.estate.stores.get_mut(store)
            && let Some(due) = task.and_then(|task| task.state.due())
            && (slot.note_due(due) || self.estate.seen.strays(&self.settings.clock))
        {
            self.arm(ctx);
        }
    }

    pub(super) fn after_tick(&mut self, store: &Alias) -> Option<oneshot::Receiver<()>> {
        self.estate.stores.get_mut(store)?.after_tick()
    }

    /// The snapshot of a task.
    pub(super) fn info(&self, store: Alias, task: StoredTask) -> TaskInfo {
        let running = self.estate.flight.running(&store, &task.spec.id);
        let queued = self.estate.flight.queued(&store, &task.spec.id);
        self.with_wait(TaskInfo::new(store, task, false, running, &self.settings.zones.get()).queued(queued))
    }
}

impl Handler<UpdateTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, request: UpdateTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            scheduler.once_started(|scheduler| scheduler.update(request))
        })
    }
}

impl Scheduler {
    fn update(&mut self, UpdateTask { id, store, changes }: UpdateTask) -> Answer<TaskInfo> {
        if self.permit() == Permit::Pending {
            return Box::pin(ready(self.update_waiting(&id, store.as_ref(), changes)));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let registry = self.settings.clone();
        let executors = self.executor_names();
        let slots = self.estate.executors.iter();
        let elsewhere: Vec<Alias> =
            slots.filter(|(_, slot)| !slot.closures).map(|(alias, _)| alias.clone()).collect();
        let lives: Vec<Arc<str>> = self.estate.lives.keys().map(|id| id.as_str().into()).collect();
        let change = async move {
            let decide = |task: &StoredTask| {
                let mut spec = changes.clone().apply(&task.spec)?;
                spec.trigger = registry.registry.resolve(&spec.trigger)?;
                if let TaskHandler::Named(name) = &spec.handler
                    && !lives.contains(name)
                {
                    registry.registry.find(name)?;
                }
                if !executors.iter().any(|executor| executor == spec.executor.as_str()) {
                    let alias = spec.executor.to_string();
                    return Err(Error::UnknownExecutor { alias, known: executors.clone() });
                }
                if matches!(spec.handler, TaskHandler::Closure(_)) && elsewhere.contains(&spec.executor) {
                    let (id, executor) = (spec.id.clone(), spec.executor.to_string());
                    return Err(TaskError::ClosureNotPortable { id, executor }.into());
                }
                let next_run = changes.get_next_run();
                if spec == *task.spec && next_run.is_none() {
                    return Ok(Decision::Nothing);
                }
                let (now, zones) = (registry.clock.now(), registry.zones.get());
                let state = plan::update(task, &spec, next_run, now, &zones)
                    .map_err(|error| error.about(&spec.id))?;
                Ok(Decision::Put(spec.into(), state))
            };
            session.change(&id, decide).await
        };
        Box::pin(
            self.carry_out("updated", change).map(|changed, scheduler, _| scheduler.still_there(changed?)),
        )
    }

    pub(super) fn still_there(&self, changed: Changed) -> Result<TaskInfo, Error> {
        match changed.task {
            Some(task) => Ok(self.info(changed.store, task)),
            None => Err(Error::UnknownTask(changed.id)),
        }
    }
}

impl Handler<RescheduleTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, request: RescheduleTask, ctx: &mut Self::Context) -> Self::Result {
        let RescheduleTask { id, store, trigger } = request;
        let changes = TaskChanges::new().trigger(trigger);
        Handler::<UpdateTask>::handle(self, UpdateTask { id, store, changes }, ctx)
    }
}

impl Handler<PauseTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, request: PauseTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            scheduler.once_started(|scheduler| scheduler.pause_one(request))
        })
    }
}

impl Scheduler {
    fn pause_one(&mut self, PauseTask { id, store }: PauseTask) -> Answer<TaskInfo> {
        if self.permit() == Permit::Pending {
            return Box::pin(ready(self.pause_waiting(&id, store.as_ref(), true)));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let clock = self.clock().clone();
        let change = async move {
            let decide = |task: &StoredTask| {
                Ok(plan::pause(task, clock.now()).map_or(Decision::Nothing, Decision::State))
            };
            session.change(&id, decide).await
        };
        Box::pin(
            self.carry_out("paused", change).map(|changed, scheduler, _| scheduler.still_there(changed?)),
        )
    }
}

impl Handler<ResumeTask> for Scheduler {
    type Result = Answer<Option<TaskInfo>>;

    fn handle(&mut self, request: ResumeTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            scheduler.once_started(|scheduler| scheduler.resume_one(request))
        })
    }
}

impl Scheduler {
    fn resume_one(&mut self, request: ResumeTask) -> Answer<Option<TaskInfo>> {
        let ResumeTask { id, store, catch_up } = request;
        if self.permit() == Permit::Pending {
            return Box::pin(ready(self.pause_waiting(&id, store.as_ref(), false).map(Some)));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let settings = self.settings.clone();
        let change = async move {
            let decide = |task: &StoredTask| {
                let (now, zones) = (settings.clock.now(), settings.zones.get());
                let then = plan::resume(task, catch_up, now, &zones);
                let then = then.map_err(|error| error.about(&task.spec.id))?;
                Ok(then.map_or(Decision::Nothing, Decision::from))
            };
            session.change(&id, decide).await
        };
        Box::pin(self.carry_out("resumed", change).map(|changed, scheduler, _| {
            let Changed { store, task, .. } = changed?;
            Ok(task.map(|task| scheduler.info(store, task)))
        }))
    }
}

impl Handler<DeleteTask> for Scheduler {
    type Result = Answer<()>;

    fn handle(&mut self, request: DeleteTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            scheduler.once_started(|scheduler| scheduler.delete(request))
        })
    }
}

impl Scheduler {
    fn delete(&mut self, DeleteTask { id, store }: DeleteTask) -> Answer<()> {
        if self.permit() == Permit::Pending {
            return Box::pin(ready(self.delete_waiting(&id, store.as_ref())));
        }
        let session = match self.session(store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        // One that could not be put into its store waits still.
        let waited = self.delete_waiting(&id, store.as_ref()).is_ok();
        let change = async move { session.change(&id, |_: &StoredTask| Ok(Decision::Remove)).await };
        Box::pin(self.carry_out("removed", change).map(move |changed, _, _| match changed {
            Err(Error::UnknownTask(_)) if waited => Ok(()),
            changed => changed.map(drop),
        }))
    }
}
