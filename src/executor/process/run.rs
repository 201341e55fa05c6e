//! One run in a worker, as the pool sees it: asked for, watched, ended.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;

use super::link::{Fate, News, Worker};
use super::output;
use super::wire::{FromWorker, Order, Time, ToWorker};
use crate::clock::{Alarm, Busy, Clock};
use crate::executor::Started;
use crate::task::{Outcome, Run};
use crate::timer;

/// Carries out a run in `worker`. Whether the worker can be given another one.
pub(super) async fn carry_out(mut started: Started, worker: &mut Worker, grace: Duration) -> bool {
    let run = started.run().clone();
    worker.runs += 1;
    worker.assign(Some(run.clone()));
    let mut flight = Flight {
        hold: Some(started.take_busy()),
        calls: 0,
        alarms: FuturesUnordered::new(),
        clock: started.clock().clone(),
        run,
        grace,
        asked: None,
        terminated: false,
        patience: None,
        deadline: None,
    };
    if let Some(limit) = flight.run.task.timeout {
        let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        flight.deadline = Some((after_ms, Box::pin(timer::sleep(&flight.clock, limit))));
    }
    let order = ToWorker::Run(Box::new(flight.order(&started)));
    let (outcome, fit) = match worker.say(&order) {
        Ok(()) => flight.watch(worker).await,
        Err(error) => {
            let error = format!("the task cannot be sent to a worker process: {error}");
            (Outcome::Failed { error }, true)
        }
    };
    worker.assign(None);
    started.end(outcome);
    // Held until the end was on its way.
    drop(flight);
    fit
}

/// Why a run is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Cancelled,
    TimedOut { after_ms: u64 },
}

struct Flight {
    run: Arc<Run>,
    clock: Clock,
    /// Keeps a virtual clock still while the worker works.
    hold: Option<Busy>,
    /// How often the worker was called: alarms that rang, and cancellations.
    calls: u64,
    /// What the run waits for on a virtual clock.
    alarms: FuturesUnordered<BoxFuture<'static, (u64, Busy)>>,
    grace: Duration,
    asked: Option<Asked>,
    terminated: bool,
    /// How long until it is stopped by other means.
    patience: Option<BoxFuture<'static, ()>>,
    deadline: Option<(u64, Pin<Box<dyn Future<Output = Busy>>>)>,
}

enum Turn {
    News(News),
    Cancelled,
    Late(u64, Busy),
    Impatient,
    Rung(u64, Busy),
}

impl Flight {
    fn order(&self, started: &Started) -> Order {
        let run = &self.run;
        Order {
            id: run.id,
            task: run.task.clone(),
            store: run.store.clone(),
            executor: started.executor().clone(),
            nominal: run.nominal,
            due: run.due,
            coalesced: run.coalesced,
            source: run.source,
            attempt: run.attempt,
            force: run.force,
            time: self.clock.is_virtual().then(|| self.time()),
            level: output::level(),
        }
    }

    fn time(&self) -> Time {
        Time { now: self.clock.now(), elapsed: self.clock.monotonic() }
    }

    async fn watch(&mut self, worker: &mut Worker) -> (Outcome, bool) {
        loop {
            match poll_fn(|cx| self.poll(worker, cx)).await {
                Turn::News(News::Message(FromWorker::Ended { run, outcome })) if run == self.run.id => {
                    return match self.asked {
                        Some(asked @ Asked::TimedOut { .. }) => (self.stopped(asked), false),
                        _ => (outcome, !self.terminated),
                    };
                }
                Turn::News(News::Message(FromWorker::Alarm { run, alarm, at })) if run == self.run.id => {
                    if let Alarm::Ring(bell) = self.clock.alarm(at) {
                        self.alarms.push(async move { (alarm, bell.await.unwrap_or_default()) }.boxed());
                    }
                }
                Turn::News(News::Message(FromWorker::Idle { run, heard })) => {
                    // A call that it has not heard yet keeps it at work.
                    if run == self.run.id && heard == self.calls && self.asked.is_none() {
                        self.hold = None;
                    }
                }
                // Of an earlier run, or nothing of importance.
                Turn::News(News::Message(_)) => {}
                Turn::News(News::Lost(fate)) => return (self.lost(&fate), false),
                Turn::Rung(alarm, busy) => {
                    self.hold = Some(busy);
                    self.calls += 1;
                    let ring = ToWorker::Ring { run: self.run.id, alarm, time: self.time() };
                    // Too short to be refused.
                    let _ = worker.say(&ring);
                }
                Turn::Cancelled => {
                    self.hold = Some(self.clock.busy());
                    self.calls += 1;
                    self.asked = Some(Asked::Cancelled);
                    self.deadline = None;
                    let _ = worker.say(&ToWorker::Cancel { run: self.run.id });
                    self.wait();
                }
                Turn::Late(after_ms, busy) => {
                    self.hold = Some(busy);
                    self.asked = Some(Asked::TimedOut { after_ms });
                    self.deadline = None;
                    self.stop(worker);
                }
                Turn::Impatient => self.stop(worker),
            }
        }
    }

    fn poll(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Poll::Ready(news) = worker.poll_news(cx) {
            return Poll::Ready(Turn::News(news));
        }
        if let Some((after, deadline)) = &mut self.deadline
            && let Poll::Ready(busy) = deadline.as_mut().poll(cx)
        {
            return Poll::Ready(Turn::Late(*after, busy));
        }
        if self.asked.is_none() && pin!(self.run.cancelled()).poll(cx).is_ready() {
            return Poll::Ready(Turn::Cancelled);
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            self.patience = None;
            return Poll::Ready(Turn::Impatient);
        }
        if let Poll::Ready(Some((alarm, busy))) = self.alarms.poll_next_unpin(cx) {
            return Poll::Ready(Turn::Rung(alarm, busy));
        }
        Poll::Pending
    }

    /// Stops the worker: gently, and the next time for good.
    fn stop(&mut self, worker: &Worker) {
        if std::mem::replace(&mut self.terminated, true) {
            worker.group().kill();
        } else {
            worker.group().terminate(self.grace);
            self.wait();
        }
    }

    fn wait(&mut self) {
        // Processes live in real time, whatever clock the scheduler has.
        self.patience = Some(timer::sleep(&Clock::system(), self.grace).map(drop).boxed());
    }

    fn lost(&self, fate: &Fate) -> Outcome {
        match self.asked {
            Some(asked) => self.stopped(asked),
            None => Outcome::Failed { error: format!("its worker process {fate}") },
        }
    }

    fn stopped(&self, asked: Asked) -> Outcome {
        match asked {
            Asked::Cancelled => Outcome::Cancelled,
            Asked::TimedOut { after_ms } => Outcome::TimedOut { after_ms },
        }
    }
}
