//! Adding a task: it waits for the start, or is put into its store.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use actix::fut::{ready, wrap_future};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

use super::actor::Scheduler;
use super::control::{Answer, fail};
use super::lifecycle::Permit;
use super::message::{AddTask, RegisterTask};
use super::plan;
use super::session::{Changed, Decision, Session, Unchanged};
use crate::error::Error;
use crate::event::Event;
use crate::store::message::Expect;
use crate::store::{StoreAddr, StoreError};
use crate::task::{
    Added, AddedAs, Alias, Handler as TaskHandler, Kept, StoredTask, Task, TaskError, TaskId, TaskSpec,
    TaskState,
};

impl Scheduler {
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
        let undecided = self.estate.stores.get(store).into_iter().flat_map(|slot| slot.ledger.undecided());
        let known = self.estate.flight.iter().chain(undecided);
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
    ) -> Answer<Added> {
        let (first_run, paused, replace) = (task.first_run, task.paused, task.replace_existing);
        let spread = task.spread;
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
            let state = {
                let zones = session.settings.zones.get();
                let added = plan::add(&spec, first_run, paused, spread, (since, now), &zones);
                added.map_err(|error| error.about(&spec.id))?
            };
            let state = TaskState { created_at, ..state };
            let task = StoredTask { spec: spec.clone(), state };
            match session.put(&addr, task.clone(), Expect::Absent).await {
                Ok(()) => {
                    let (id, finished) = (spec.id.clone(), task.is_finished());
                    Ok((true, Vec::new(), Changed { store, id, task: Some(task), written: true, finished }))
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
                        return Ok((true, Vec::new(), changed));
                    }
                    // One that lingers is over, and makes room.
                    let over = |existing: &StoredTask| existing.state.leaves_at.is_some();
                    let lingers = session.find(&spec.id).await.is_ok_and(|(_, _, existing)| over(&existing));
                    if lingers {
                        let decide = |existing: &StoredTask| {
                            let revision = existing.state.revision + 1;
                            let state = TaskState { revision, ..task.state.clone() };
                            match over(existing) {
                                true => Ok(Decision::Put(spec.clone(), state)),
                                false => Err(Error::store(&store, StoreError::Exists(spec.id.clone()))),
                            }
                        };
                        return match session.change(&spec.id, decide).await {
                            Ok(changed) => Ok((true, Vec::new(), changed)),
                            Err(Unchanged { error, .. }) => Err(error),
                        };
                    }
                    if !replace {
                        return Err(Error::store(&store, StoreError::Exists(spec.id.clone())));
                    }
                    let kept = RefCell::new(Vec::new());
                    let decide = |existing: &StoredTask| {
                        // It may have run since the last look.
                        let now = session.settings.clock.now();
                        let zones = session.settings.zones.get();
                        let state = plan::replace(existing, &spec, first_run, spread, now, &zones);
                        let state = state.map_err(|error| error.about(&spec.id))?;
                        let after = state.as_ref().unwrap_or(&existing.state);
                        kept.replace(plan::kept(existing, &spec, first_run, paused, after, now));
                        Ok(match state {
                            Some(state) => Decision::Put(spec.clone(), state),
                            None => Decision::Nothing,
                        })
                    };
                    match session.change(&spec.id, decide).await {
                        Ok(changed) => Ok((false, kept.take(), changed)),
                        Err(Unchanged { error, .. }) => Err(error),
                    }
                }
                Err(error) => Err(Error::store(&store, error)),
            }
        };
        let told = wrap_future::<_, Self>(added).map(|added, scheduler, ctx| {
            let (new, kept, changed) = added.inspect_err(|error| scheduler.note_error(error, ctx))?;
            let what = match (new, changed.written) {
                (true, _) => AddedAs::New,
                (false, true) => AddedAs::Changed,
                (false, false) => AddedAs::Unchanged,
            };
            for Kept { option, reason } in &kept {
                tracing::warn!(scheduler = %scheduler.settings.name, store = %changed.store, task = %id, option, %reason, "an option of a task that is there already was not taken");
            }
            if what != AddedAs::Unchanged {
                let deed = if new { "added" } else { "replaced" };
                scheduler.log_change(deed, &changed.store, &changed.id, changed.task.as_ref());
            }
            let added = Added { id, store: changed.store.clone(), what, kept };
            if new {
                let slot = scheduler.estate.stores.get(&changed.store);
                if slot.is_some_and(|slot| slot.ledger.may_be_removed(&changed.id)) {
                    // There was room for it: what was perhaps removed is gone.
                    scheduler.removed(changed.id.clone(), changed.store.clone());
                }
                scheduler.tell(Event::TaskAdded { id: changed.id.clone(), store: changed.store.clone() });
                scheduler.note_finished(&changed);
                scheduler.note_due(&changed.store, changed.task.as_ref(), ctx);
            } else {
                scheduler.note_change(&changed, ctx);
            }
            Ok(added)
        });
        Box::pin(told)
    }
}

impl Handler<AddTask> for Scheduler {
    type Result = Answer<TaskId>;

    fn handle(&mut self, AddTask(mut task): AddTask, ctx: &mut Self::Context) -> Self::Result {
        // Decided here, so that messages that follow find it by its id.
        let id = task.id.get_or_insert_with(TaskId::generate).clone();
        self.in_turn(id, ctx, |scheduler, _| {
            Box::pin(scheduler.add(task).map(|added, _, _| added.map(|added| added.id)))
        })
    }
}

impl Handler<RegisterTask> for Scheduler {
    type Result = Answer<Added>;

    fn handle(&mut self, RegisterTask(mut task): RegisterTask, ctx: &mut Self::Context) -> Self::Result {
        let id = task.id.get_or_insert_with(TaskId::generate).clone();
        self.in_turn(id, ctx, |scheduler, _| scheduler.add(task))
    }
}

impl Scheduler {
    pub(super) fn add(&mut self, task: Task) -> Answer<Added> {
        let since = self.clock().now();
        if let Err(error) = task.check_at(since) {
            return fail(error.into());
        }
        if self.permit() == Permit::Open {
            return Box::pin(self.commit_task(task, since, false).map(|added, scheduler, _| {
                if let Ok(Added { id, store, .. }) = &added {
                    // What waited under its name waits no longer.
                    scheduler.estate.pending.forget(store, id);
                }
                added
            }));
        }
        let store = task.store.clone().unwrap_or_else(|| self.settings.defaults.store.clone());
        let waits = self.wait_for_start(task, since);
        let added = |id| Added { id, store, what: AddedAs::Pending, kept: Vec::new() };
        Box::pin(ready(waits.map(added)))
    }
}
