//! Runs that somebody asks for.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use futures::FutureExt;
use futures::channel::oneshot;

use super::SchedulerState;
use super::actor::Scheduler;
use super::control::{Answer, fail};
use super::message::RunTask;
use super::plan;
use super::session::within;
use super::why;
use crate::error::Error;
use crate::event::Event;
use crate::store::message::{Change, Commit, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, RunId, Source, StoredTask};

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
