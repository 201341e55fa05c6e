//! A task moves from one store to another, with its state.

use actix::fut::{ready, wrap_future};
use actix::prelude::*;

use super::actor::Scheduler;
use super::control::{Answer, fail};
use super::message::MoveTask;
use super::session::{Session, within};
use crate::error::Error;
use crate::event::Event;
use crate::store::message::{Delete, Expect, Get};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, StoredTask, TaskError, TaskId, TaskInfo, TaskState};

impl Handler<MoveTask> for Scheduler {
    type Result = Answer<TaskInfo>;

    fn handle(&mut self, request: MoveTask, ctx: &mut Self::Context) -> Self::Result {
        self.in_turn(request.id.clone(), ctx, |scheduler, _| {
            scheduler.once_started(|scheduler| scheduler.relocate(request))
        })
    }
}

/// Where a task goes.
struct Way {
    id: TaskId,
    from: Alias,
    source: StoreAddr,
    to: Alias,
    target: StoreAddr,
}

/// Where a task is.
enum Found {
    There(Alias, Box<StoredTask>),
    Elsewhere(Box<Way>),
}

impl Scheduler {
    fn relocate(&mut self, MoveTask { id, store, to }: MoveTask) -> Answer<TaskInfo> {
        if self.estate.lives.contains_key(&id) {
            let reason = "is that of a lifecycle; end it and add it anew".to_owned();
            return fail(TaskError::Invalid { field: "store", reason }.into());
        }
        let (session, target) =
            match self.session(store.as_ref()).and_then(|s| Ok((s, self.store_addr(&to)?))) {
                Ok(found) => found,
                Err(error) => return fail(error),
            };
        let found = async move {
            // One that is in both is moved from the one that it is to leave.
            let elsewhere = Session { stores: apart_from(&session.stores, &to), ..session };
            match elsewhere.find(&id).await {
                Err(Error::UnknownTask(_)) => {
                    let there = Session { stores: vec![(to.clone(), target)], ..elsewhere };
                    there.find(&id).await.map(|(alias, _, task)| Found::There(alias, Box::new(task)))
                }
                found => found.map(|(from, source, _)| {
                    Found::Elsewhere(Box::new(Way { id, from, source, to, target }))
                }),
            }
        };
        Box::pin(wrap_future::<_, Self>(found).then(|found, scheduler, _| match found {
            Ok(Found::Elsewhere(way)) => scheduler.go(*way),
            // It is where it is to be.
            Ok(Found::There(alias, task)) => Box::pin(ready(Ok(scheduler.info(alias, *task)))),
            Err(error) => fail(error),
        }))
    }

    /// Moves a task while no run of either store begins.
    fn go(&mut self, way: Way) -> Answer<TaskInfo> {
        let both = [way.from.clone(), way.to.clone()];
        let mut ticks = Vec::new();
        for alias in &both {
            if let Some(slot) = self.estate.stores.get_mut(alias) {
                slot.moves += 1;
                ticks.extend(slot.after_tick());
            }
        }
        let settled = async move { drop(futures::future::join_all(ticks).await) };
        let moved = wrap_future::<_, Self>(settled).then(move |(), scheduler, _| {
            let mut flight = scheduler.estate.flight.iter();
            if flight.any(|run| run.task.id == way.id && run.store == way.from) {
                return fail(Error::TaskRuns(way.id));
            }
            let settings = scheduler.settings.clone();
            let checked = async move {
                let from = |error| Error::store(&way.from, error);
                let task =
                    within(&settings, way.source.get(Get { id: way.id.clone() })).await.map_err(from)?;
                Ok((task.ok_or_else(|| Error::UnknownTask(way.id.clone()))?, way))
            };
            Box::pin(wrap_future::<_, Self>(checked).then(|checked, scheduler, _| match checked {
                Ok((task, way)) => match scheduler.check_spec(&task.spec, &way.to) {
                    Ok(()) => scheduler.copy_and_delete(way, task),
                    Err(error) => fail(error),
                },
                Err(error) => fail(error),
            })) as Answer<_>
        });
        Box::pin(moved.map(move |moved, scheduler, ctx| {
            for alias in &both {
                if let Some(slot) = scheduler.estate.stores.get_mut(alias) {
                    slot.moves = slot.moves.saturating_sub(1);
                }
            }
            let moved = moved.inspect_err(|error| scheduler.note_error(error, ctx));
            scheduler.arm(ctx);
            moved
        }))
    }

    /// The copy is there before the original goes: a crash in between leaves two that were created at
    /// the same instant, and loses nothing.
    fn copy_and_delete(&mut self, way: Way, task: StoredTask) -> Answer<TaskInfo> {
        let session = Session {
            stores: Vec::new(),
            down: None,
            settings: self.settings.clone(),
            skipping: self.next_run_id(),
        };
        let now = self.clock().now();
        let moved = async move {
            let Way { id, from, source, to, target } = way;
            let (at_home, abroad) = (|error| Error::store(&from, error), |error| Error::store(&to, error));
            let original = task.state.revision;
            let state = TaskState { revision: original + 1, modified_at: now, ..task.state };
            let copy = StoredTask { spec: task.spec, state };
            let there = match session.put(&target, copy.clone(), Expect::Absent).await {
                Ok(()) => copy,
                Err(StoreError::Exists(_)) => {
                    let got = within(&session.settings, target.get(Get { id: id.clone() })).await;
                    let there = got.map_err(abroad)?.ok_or_else(|| Error::UnknownTask(id.clone()))?;
                    if there.state.created_at != copy.state.created_at {
                        return Err(Error::TaskExists(id));
                    }
                    // It was copied before, and the original has run on, or not.
                    if there.state.revision < original {
                        let revision = there.state.revision;
                        session
                            .put(&target, copy.clone(), Expect::Revision(revision))
                            .await
                            .map_err(abroad)?;
                        copy
                    } else {
                        there
                    }
                }
                Err(error) => return Err(abroad(error)),
            };
            let delete = Delete { id: id.clone(), revision: Some(original) };
            let gone = match within(&session.settings, source.delete(delete)).await {
                Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
                Err(error) => Err(at_home(error)),
            };
            Ok((id, from, to, there, gone))
        };
        Box::pin(wrap_future::<_, Self>(moved).map(|moved, scheduler, ctx| {
            let (id, from, to, task, gone) = moved?;
            tracing::info!(
                scheduler = %scheduler.settings.name, store = %to, task = %id, from = %from, change = "moved",
                "somebody moved a task to another store"
            );
            // The copy is at work, also when it is not known whether the original is gone.
            scheduler.note_due(&to, Some(&task), ctx);
            gone?;
            scheduler.tell(Event::TaskAdded { id: id.clone(), store: to.clone() });
            scheduler.tell(Event::TaskRemoved { id, store: from });
            Ok(scheduler.info(to, task))
        }))
    }
}

fn apart_from(stores: &[(Alias, StoreAddr)], alias: &Alias) -> Vec<(Alias, StoreAddr)> {
    stores.iter().filter(|(store, _)| store != alias).cloned().collect()
}
