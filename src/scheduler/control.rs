//! Control messages about single tasks.

use std::collections::HashSet;
use std::sync::Arc;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::message::*;
use super::plan;
use super::session::{Changed, Decision, Session, Unchanged, within};
use super::why;
use super::{SchedulerState, lifecycle::Permit};
use crate::error::Error;
use crate::event::Event;
use crate::store::message::{Change, Commit, Expect, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{
    Alias, Handler as TaskHandler, RunId, Source, StoredTask, Task, TaskChanges, TaskError, TaskId, TaskInfo,
    TaskSpec, TaskState,
};

type Answer<T> = ResponseActFuture<Scheduler, Result<T, Error>>;

fn fail<T: 'static>(error: Error) -> Answer<T> {
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
                for (alias, slot) in &self.estate.stores {
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
        change: impl Future<Output = Result<Changed, Unchanged>> + 'static,
    ) -> impl ActorFuture<Self, Output = Result<Changed, Error>> + 'static {
        wrap_future::<_, Self>(change)
            .map(|changed, scheduler, ctx| match changed {
                Ok(changed) => {
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
            slot.perhaps_removed.remove(&id);
        }
        self.retire_life(&id, &store);
        self.tell(Event::TaskRemoved { id, store });
    }

    /// A step that was not answered would have removed these tasks.
    pub(super) fn perhaps_removed(&mut self, store: &Alias, ids: impl IntoIterator<Item = TaskId>) {
        if let Some(slot) = self.estate.stores.get_mut(store) {
            slot.perhaps_removed.extend(ids);
        }
    }

    fn note_change(&mut self, changed: &Changed, ctx: &mut Context<Self>) {
        if !changed.written {
            return;
        }
        let (id, store) = (changed.id.clone(), changed.store.clone());
        match &changed.task {
            Some(_) => self.tell(Event::TaskModified { id, store }),
            None => self.removed(id, store),
        }
        self.note_finished(changed);
        self.note_due(&changed.store, changed.task.as_ref(), ctx);
    }

    fn note_finished(&self, changed: &Changed) {
        if changed.finished {
            self.tell(Event::TaskFinished { id: changed.id.clone(), store: changed.store.clone() });
        }
    }

    /// Wakes up in time for a task that was written.
    fn note_due(&mut self, store: &Alias, task: Option<&StoredTask>, ctx: &mut Context<Self>) {
        if let Some(slot) = self.estate.stores.get_mut(store)
            && let Some(due) = task.and_then(|task| task.state.due())
            && slot.note_due(due)
        {
            self.arm(ctx);
        }
    }

    fn after_tick(&mut self, store: &Alias) -> Option<oneshot::Receiver<()>> {
        self.estate.stores.get_mut(store)?.after_tick()
    }

    /// The snapshot of a task.
    pub(super) fn info(&self, store: Alias, task: StoredTask) -> TaskInfo {
        let running = self.estate.flight.running(&task.spec.id);
        TaskInfo::new(store, task, false, running)
    }

    /// Whether the task's code and executor are there, and its store can keep it.
    pub(super) fn check_spec(&self, spec: &TaskSpec, store: &Alias) -> Result<(), Error> {
        match &spec.handler {
            TaskHandler::Named(name) => {
                self.check_handler(name)?;
            }
            TaskHandler::Closure(_) => {
                let slot = self.estate.stores.get(store);
                if slot.is_some_and(|slot| slot.closures == Some(false)) {
                    let (id, store) = (spec.id.clone(), store.to_string());
                    return Err(TaskError::ClosureNotStorable { id, store }.into());
                }
            }
        }
        let Some(executor) = self.estate.executors.get(&spec.executor) else {
            return Err(self.unknown_executor(&spec.executor));
        };
        if matches!(spec.handler, TaskHandler::Closure(_)) && !executor.closures {
            let (id, executor) = (spec.id.clone(), spec.executor.to_string());
            return Err(TaskError::ClosureNotPortable { id, executor }.into());
        }
        Ok(())
    }

    /// When a task is created that was added at `since`: then, or a trifle later when a run is still
    /// known of another task of its id that was created at that very instant. So the time tells them
    /// apart.
    fn creation_of(&mut self, id: &TaskId, store: &Alias, since: DateTime<Utc>) -> DateTime<Utc> {
        let news = since > self.estate.latest_added;
        if news {
            self.estate.latest_added = since;
            return since;
        }
        let unsettled = self.estate.stores.get(store).into_iter().flat_map(|slot| &slot.unsettled);
        let known = self.estate.flight.iter().chain(unsettled.map(|(run, _)| run));
        let others = known.filter(|run| run.added_at >= since && run.task.id == *id && run.store == *store);
        let others: HashSet<_> = others.map(|run| run.added_at).collect();
        let mut created_at = since;
        while others.contains(&created_at) {
            created_at += TimeDelta::nanoseconds(1);
        }
        created_at
    }

    /// Puts a task into its store, where it may be already when an earlier try was not answered.
    pub(super) fn commit_task(
        &mut self,
        task: Task,
        since: DateTime<Utc>,
        perhaps_there: bool,
    ) -> Answer<TaskId> {
        let (first_run, paused, replace) = (task.first_run, task.paused, task.replace_existing);
        let store = task.store.clone().unwrap_or_else(|| self.settings.defaults.store.clone());
        let checked = self.store_addr(&store).and_then(|addr| {
            let mut spec = task.resolve(&self.settings.defaults, self.settings.timezone)?;
            self.check_spec(&spec, &store)?;
            spec.trigger = self.settings.registry.resolve(&spec.trigger)?;
            if let TaskHandler::Named(name) = &mut spec.handler
                && let Some(shared) = self.settings.registry.shared_name(name)
            {
                *name = shared;
            }
            Ok((addr, spec))
        });
        let (addr, spec) = match checked {
            Ok(checked) => checked,
            Err(error) => return fail(error),
        };
        let spec = Arc::new(spec);
        let session = Session {
            stores: vec![(store.clone(), addr.clone())],
            down: None,
            settings: self.settings.clone(),
            skipping: self.next_run_id(),
        };
        let id = spec.id.clone();
        let created_at = self.creation_of(&id, &store, since);
        let added = async move {
            let now = session.settings.clock.now();
            let state =
                plan::add(&spec, first_run, paused, since, now).map_err(|error| error.about(&spec.id))?;
            let state = TaskState { created_at, ..state };
            let task = StoredTask { spec: spec.clone(), state };
            match session.put(&addr, task.clone(), Expect::Absent).await {
                Ok(()) => {
                    let (id, finished) = (spec.id.clone(), task.is_finished());
                    Ok((true, Changed { store, id, task: Some(task), written: true, finished }))
                }
                Err(StoreError::Exists(_)) => {
                    let is_it = |(_, _, task): &(Alias, StoreAddr, StoredTask)| {
                        task.spec == spec && task.state.created_at == created_at
                    };
                    if perhaps_there
                        && let Some((_, _, task)) = session.find(&spec.id).await.ok().filter(is_it)
                    {
                        let (id, finished) = (spec.id.clone(), task.is_finished());
                        let changed = Changed { store, id, task: Some(task), written: true, finished };
                        return Ok((true, changed));
                    }
                    if !replace {
                        return Err(Error::store(&store, StoreError::Exists(spec.id.clone())));
                    }
                    let decide = |existing: &StoredTask| {
                        // It may have run since the last look.
                        let now = session.settings.clock.now();
                        let state = plan::replace(existing, &spec, first_run, now);
                        Ok(match state.map_err(|error| error.about(&spec.id))? {
                            Some(state) => Decision::Put(spec.clone(), state),
                            None => Decision::Nothing,
                        })
                    };
                    match session.change(&spec.id, decide).await {
                        Ok(changed) => Ok((false, changed)),
                        Err(Unchanged { error, .. }) => Err(error),
                    }
                }
                Err(error) => Err(Error::store(&store, error)),
            }
        };
        let told = wrap_future::<_, Self>(added).map(|added, scheduler, ctx| {
            let (new, changed) = added.inspect_err(|error| scheduler.note_error(error, ctx))?;
            if new {
                let slot = scheduler.estate.stores.get(&changed.store);
                if slot.is_some_and(|slot| slot.perhaps_removed.contains(&changed.id)) {
                    // There was room for it: what was perhaps removed is gone.
                    scheduler.removed(changed.id.clone(), changed.store.clone());
                }
                scheduler.tell(Event::TaskAdded { id: changed.id.clone(), store: changed.store.clone() });
                scheduler.note_finished(&changed);
                scheduler.note_due(&changed.store, changed.task.as_ref(), ctx);
            } else {
                scheduler.note_change(&changed, ctx);
            }
            Ok(id)
        });
        Box::pin(told)
    }
}

impl Handler<AddTask> for Scheduler {
    type Result = Answer<TaskId>;

    fn handle(&mut self, AddTask(mut task): AddTask, ctx: &mut Self::Context) -> Self::Result {
        // Decided here, so that messages that follow find it by its id.
        let id = task.id.get_or_insert_with(TaskId::generate).clone();
        self.in_turn(id, ctx, |scheduler, _| scheduler.add(task))
    }
}

impl Scheduler {
    pub(super) fn add(&mut self, task: Task) -> Answer<TaskId> {
        let since = self.clock().now();
        if let Err(error) = task.check_at(since) {
            return fail(error.into());
        }
        if self.permit() == Permit::Open {
            return self.commit_task(task, since, false);
        }
        Box::pin(ready(self.wait_for_start(task, since)))
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
                if spec == *task.spec {
                    return Ok(Decision::Nothing);
                }
                let now = registry.clock.now();
                let state = plan::update(task, &spec, now).map_err(|error| error.about(&spec.id))?;
                Ok(Decision::Put(spec.into(), state))
            };
            session.change(&id, decide).await
        };
        Box::pin(self.carry_out(change).map(|changed, scheduler, _| scheduler.still_there(changed?)))
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
        Box::pin(self.carry_out(change).map(|changed, scheduler, _| scheduler.still_there(changed?)))
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
        let clock = self.clock().clone();
        let change = async move {
            let decide = |task: &StoredTask| {
                let then =
                    plan::resume(task, catch_up, clock.now()).map_err(|error| error.about(&task.spec.id))?;
                Ok(then.map_or(Decision::Nothing, Decision::from))
            };
            session.change(&id, decide).await
        };
        Box::pin(self.carry_out(change).map(|changed, scheduler, _| {
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
        let change = async move { session.change(&id, |_: &StoredTask| Ok(Decision::Remove)).await };
        Box::pin(self.carry_out(change).map(|changed, _, _| changed.map(drop)))
    }
}

impl Handler<RunTask> for Scheduler {
    type Result = Answer<RunId>;

    fn handle(&mut self, request: RunTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            if !matches!(scheduler.state(), SchedulerState::Running | SchedulerState::Paused) {
                return fail(Error::NotRunning);
            }
            scheduler.run_on_demand(request, Source::Manual, 0)
        })
    }
}

impl Scheduler {
    /// Reads the task, commits the run, and submits it; starts again when the task was changed
    /// meanwhile.
    pub(super) fn run_on_demand(&mut self, request: RunTask, source: Source, tries: u32) -> Answer<RunId> {
        let session = match self.session(request.store.as_ref()) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        let id = request.id.clone();
        let found = async move { session.find(&id).await };
        Box::pin(wrap_future::<_, Self>(found).then(move |found, scheduler, _| match found {
            Ok((store, addr, task)) => scheduler.commit_on_demand(request, source, tries, store, addr, task),
            Err(error) => fail(error),
        }))
    }

    fn commit_on_demand(
        &mut self,
        request: RunTask,
        source: Source,
        tries: u32,
        store: Alias,
        addr: StoreAddr,
        task: StoredTask,
    ) -> Answer<RunId> {
        let now = self.clock().now();
        let then = match plan::run_now(&task, source, request.remove_finished, now) {
            Ok(then) => then,
            Err(error) => return fail(error.about(&task.spec.id)),
        };
        // What is due at this moment goes with the task.
        let skipped = match &then {
            Then::Remove => {
                let id = self.next_run_id();
                why::passed_over(&task, None, now, id)
            }
            _ => None,
        };
        let run = self.board_on_demand(&task, &store, source, request.force, now);
        if let Some(reason) = self.refusal(&task.spec) {
            self.estate.flight.leave(&run);
            return fail(Error::Refused { id: request.id, reason });
        }
        let records_kept =
            self.estate.stores.get(&store).is_some_and(|slot| slot.capabilities.keeps_records());
        let change = Change {
            id: task.spec.id.clone(),
            revision: task.state.revision,
            then,
            runs: skipped.into_iter().chain([run.record(now)]).filter(|_| records_kept).collect(),
        };
        let removed = change.then == Then::Remove;
        let asked = self.estate.stores.get(&store).map(|slot| slot.generation);
        let commit = within(&self.settings, addr.commit(Commit { changes: vec![change] }));
        let busy = self.clock().busy();
        Box::pin(wrap_future::<_, Self>(commit).then(move |committed, scheduler, ctx| -> Answer<RunId> {
            let current = scheduler.estate.stores.get(&store).map(|slot| slot.generation) == asked;
            let committed = committed.and_then(|committed| match current {
                false if committed.refused.is_empty() => {
                    Err(StoreError::unavailable("it was opened anew, or removed, before it had answered"))
                }
                _ => Ok(committed),
            });
            match committed {
                Ok(committed) if committed.refused.is_empty() => {}
                Ok(_) if tries < 100 => {
                    scheduler.estate.flight.leave(&run);
                    return scheduler.run_on_demand(request, source, tries + 1);
                }
                Ok(_) => {
                    scheduler.estate.flight.leave(&run);
                    return fail(Error::store(&store, StoreError::Changed(request.id)));
                }
                Err(error) => {
                    if removed {
                        scheduler.perhaps_removed(&store, [request.id.clone()]);
                    }
                    // What counts is what the store says that was opened since.
                    if current {
                        scheduler.store_failed(&store, &error);
                    }
                    scheduler.doubt(&store, vec![(run, None)], ctx);
                    scheduler.arm(ctx);
                    return fail(Error::store(&store, error));
                }
            }
            if removed {
                scheduler.removed(request.id.clone(), store.clone());
            }
            scheduler.submit_on_demand(run, busy, ctx)
        }))
    }

    fn submit_on_demand(
        &mut self,
        run: Arc<crate::task::Run>,
        busy: crate::clock::Busy,
        ctx: &mut Context<Self>,
    ) -> Answer<RunId> {
        let (refused, mut refusal) = oneshot::channel();
        self.estate.flight.watch(&run, refused);
        let Some(addr) = self.estate.executors.get(&run.task.executor).and_then(|slot| slot.addr.clone())
        else {
            self.interrupt(vec![run.clone()], "its executor went away before it began", ctx);
            return fail(Error::NotRunning);
        };
        if self.wants(crate::event::EventMask::TASK_SUBMITTED) {
            self.publish(vec![Event::TaskSubmitted(crate::event::RunFact(run.clone()))]);
        }
        self.estate.flight.depart(&run);
        let settled = self.hand_over(&addr, vec![run.clone()], busy);
        // A refusal is sent before the executor answers: it is on its way here ahead of this.
        let heard = self.hear_out(ctx);
        let settled = async move {
            settled.await.ok();
            heard.await;
        };
        Box::pin(wrap_future::<_, Self>(settled).map(move |(), _, _| match (&mut refusal).now_or_never() {
            Some(Ok(reason)) => Err(Error::Refused { id: run.task.id.clone(), reason }),
            _ => Ok(run.id),
        }))
    }
}
