//! Control messages about one task are dealt with in the order in which they came.

use std::collections::HashMap;

use actix::fut::wrap_future;
use actix::prelude::*;
use futures::channel::oneshot;

use super::SchedulerState;
use super::actor::Scheduler;
use crate::task::TaskId;

/// The latest message about each task that has any under way: the next one waits for it.
#[derive(Default)]
pub(super) struct Turns {
    latest: HashMap<TaskId, (u64, oneshot::Receiver<()>)>,
    serial: u64,
}

impl Scheduler {
    /// Does `work` at once, or when a start that is under way has ended: until then a task may be with
    /// those that wait, or on its way to its store, or there already.
    pub(super) fn once_started<T: 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> ResponseActFuture<Self, T> + 'static,
    ) -> ResponseActFuture<Self, T> {
        if self.state() != SchedulerState::Starting {
            return work(self);
        }
        let (bell, started) = oneshot::channel();
        self.starting.push(bell);
        let wait = async move { drop(started.await) };
        Box::pin(wrap_future::<_, Self>(wait).then(|(), scheduler, _| scheduler.once_started(work)))
    }

    /// Does `work` when everything that was asked about the task before has been done. Messages
    /// about other tasks do not wait.
    pub(super) fn in_turn<T: 'static>(
        &mut self,
        id: TaskId,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&mut Self, &mut Context<Self>) -> ResponseActFuture<Self, T> + 'static,
    ) -> ResponseActFuture<Self, T> {
        self.turns.serial += 1;
        let serial = self.turns.serial;
        let (done, next) = oneshot::channel();
        let before = self.turns.latest.insert(id.clone(), (serial, next));
        let work: ResponseActFuture<Self, T> = match before {
            None => work(self, ctx),
            Some((_, before)) => {
                let wait = async move { before.await.ok() };
                Box::pin(wrap_future::<_, Self>(wait).then(|_, scheduler, ctx| work(scheduler, ctx)))
            }
        };
        Box::pin(work.map(move |answer, scheduler, _| {
            if scheduler.turns.latest.get(&id).is_some_and(|(latest, _)| *latest == serial) {
                scheduler.turns.latest.remove(&id);
            }
            drop(done);
            answer
        }))
    }
}
