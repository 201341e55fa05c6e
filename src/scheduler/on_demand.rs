//! Runs that somebody asks for.

use std::sync::Arc;

use actix::fut::{ready, wrap_future};
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
use crate::executor::ExecutorAddr;
use crate::executor::message::{Reserved, Seats};
use crate::store::message::{Change, Commit, Then};
use crate::store::{StoreAddr, StoreError};
use crate::task::{Alias, Outcome, Refusal, Run, RunEnd, RunId, RunRecord, Source, StoredTask};

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
            Ok((store, addr, task)) => scheduler.book_on_demand(request, source, tries, store, addr, task),
            Err(error) => fail(error),
        }))
    }

    /// A run that somebody asks for does not wait: without anybody to run it, or room for it, that is
    /// the answer, and nothing is written down. One of the shutdown has no later time; it is refused with
    /// an outcome, or waits in its executor.
    fn book_on_demand(
        &mut self,
        request: RunTask,
        source: Source,
        tries: u32,
        store: Alias,
        addr: StoreAddr,
        task: StoredTask,
    ) -> Answer<RunId> {
        let want = self.want(&task.spec).map(|want| want.reason);
        if source == Source::Shutdown {
            return self.commit_on_demand(request, (source, want), tries, store, addr, task, None);
        }
        if let Some(reason) = want {
            return fail(Error::Refused { id: request.id, reason });
        }
        let executor = task.spec.executor.clone();
        let bounded = self.estate.executors.get(&executor).and_then(|slot| slot.addr.as_ref());
        let asked = match bounded.is_some_and(ExecutorAddr::is_bounded) {
            true => self.reserve(&executor, vec![(store.clone(), task.spec.clone())]),
            false => None,
        };
        let Some(asked) = asked else {
            return self.commit_on_demand(request, (source, None), tries, store, addr, task, None);
        };
        Box::pin(wrap_future::<_, Self>(asked).then(move |asked, scheduler, _| match asked {
            Ok(Reserved { granted, seats, problem }) => match problem.filter(|_| granted != [true]) {
                None => {
                    let of = (source, None);
                    scheduler.commit_on_demand(request, of, tries, store, addr, task, Some(seats))
                }
                Some(reason) => fail(Error::Refused { id: request.id, reason }),
            },
            Err(_) => {
                let (executor, reason) = (executor.to_string(), "its actor has ended".to_owned());
                let reason = Refusal::ExecutorUnavailable { executor, reason };
                fail(Error::Refused { id: request.id, reason })
            }
        }))
    }

    #[expect(clippy::too_many_arguments, reason = "what was found out in the steps before")]
    fn commit_on_demand(
        &mut self,
        request: RunTask,
        (source, want): (Source, Option<Refusal>),
        tries: u32,
        store: Alias,
        addr: StoreAddr,
        task: StoredTask,
        seats: Option<Seats>,
    ) -> Answer<RunId> {
        let now = self.clock().now();
        let zones = self.settings.zones.get();
        let planned = match request.only_if_due {
            true => plan::run_due(&task, now, &zones).map(|due| due.map(|(then, due)| (then, Some(due)))),
            false => plan::run_now(&task, source, request.remove_finished, now, &zones)
                .map(|then| Some((then, None))),
        };
        let (then, due) = match planned {
            Ok(Some(planned)) => planned,
            Ok(None) => {
                let next = task.state.next.map(|next| next.nominal);
                return fail(Error::NotDue { id: request.id, next });
            }
            Err(error) => return fail(error.about(&task.spec.id)),
        };
        // What is due at this moment goes with the task.
        let skipped = match &then {
            Then::Remove if due.is_none() => {
                let id = self.next_run_id();
                why::passed_over(&task, None, now, id, &zones)
            }
            _ => None,
        };
        let set = |run: &mut Run| {
            run.source = source;
            run.beyond_max_instances = request.beyond_max_instances;
            if let Some(plan::DueRun { nominal, coalesced, span }) = due {
                (run.nominal, run.coalesced, run.span, run.source) =
                    (nominal, coalesced, span, Source::Scheduled);
            }
        };
        let run = self.board_on_demand(&task, &store, set, now);
        let end = want.map(|reason| RunEnd::unstarted(Outcome::Refused { reason }, now));
        if let Some(end) = &end {
            self.estate.flight.doom(&run, end.clone());
        }
        let records_kept =
            self.estate.stores.get(&store).is_some_and(|slot| slot.capabilities.keeps_records());
        let change = Change {
            id: task.spec.id.clone(),
            revision: task.state.revision,
            then,
            runs: skipped
                .into_iter()
                .chain([RunRecord { end: end.clone(), ..run.record(now) }])
                .filter(|_| records_kept)
                .collect(),
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
                    scheduler.doubt(&store, vec![(run, end)], ctx);
                    scheduler.arm(ctx);
                    return fail(Error::store(&store, error));
                }
            }
            if scheduler.estate.seen.strays(scheduler.clock()) {
                scheduler.arm(ctx);
            }
            if removed {
                scheduler.removed(request.id.clone(), store.clone());
            }
            let Some(end) = end else { return scheduler.submit_on_demand(run, seats, busy, ctx) };
            let answer = match &end.outcome {
                Outcome::Refused { reason } => Err(Error::Refused { id: request.id, reason: reason.clone() }),
                _ => Ok(run.id),
            };
            scheduler.end_recorded(vec![(run, end)]);
            Box::pin(ready(answer))
        }))
    }

    fn submit_on_demand(
        &mut self,
        run: Arc<Run>,
        seats: Option<Seats>,
        busy: crate::clock::Busy,
        ctx: &mut Context<Self>,
    ) -> Answer<RunId> {
        let (refused, mut refusal) = oneshot::channel();
        self.estate.flight.watch(&run, refused);
        if run.source != Source::Shutdown {
            tracing::info!(
                scheduler = %self.settings.name, store = %run.store, task = %run.task.id,
                executor = %run.task.executor, run = %run.id, change = "run", "somebody runs a task"
            );
        }
        let Some(addr) = self.estate.executors.get(&run.task.executor).and_then(|slot| slot.addr.clone())
        else {
            let reason = "it went away before the run began".to_owned();
            self.interrupt(vec![run.clone()], "its executor went away before it began", ctx);
            let reason = Refusal::ExecutorUnavailable { executor: run.task.executor.to_string(), reason };
            return fail(Error::Refused { id: run.task.id.clone(), reason });
        };
        if self.wants(crate::event::EventMask::TASK_SUBMITTED) {
            self.publish(vec![Event::TaskSubmitted(crate::event::RunFact(run.clone()))]);
        }
        self.estate.flight.depart(&run);
        let settled = self.hand_over(&addr, vec![run.clone()], seats, busy);
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
