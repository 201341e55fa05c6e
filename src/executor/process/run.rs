//! One run in a worker, as the pool sees it: asked for, watched, ended.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use serde_json::Value;

use super::link::{Fate, News, Worker};
use super::output;
use super::wire::{FromWorker, Order, Time, ToWorker};
use crate::clock::{Alarm, Busy, Clock};
use crate::executor::Started;
use crate::task::panics::Panic;
use crate::task::{Outcome, Run};
use crate::timer;
use crate::trigger::Learned;

/// How many messages of a worker are heard before somebody else is.
const PATIENT: u32 = 64;

/// How much longer than code that has time to end by itself its worker is waited for.
const LEAD: Duration = Duration::from_millis(250);

/// What became of a run, and of the worker it was given to.
pub(super) enum Carried {
    /// It has ended, and the worker can be given another one.
    Out,
    /// It has ended, and the worker is of no more use.
    OutAndLost,
    /// The worker was lost before it had begun the run.
    Not(Started, Fate),
}

/// Carries out a run in `worker`.
pub(super) async fn carry_out(mut started: Started, worker: &mut Worker, grace: Duration) -> Carried {
    let run = started.run().clone();
    worker.runs += 1;
    worker.assign(Some(run.clone()));
    let mut flight = Flight {
        hold: Some(std::mem::take(started.busy())),
        calls: 0,
        alarms: FuturesUnordered::new(),
        clock: started.clock().clone(),
        run,
        begun: false,
        grace,
        asked: None,
        terminated: false,
        patience: None,
        deadline: None,
        ended: None,
        problem: None,
    };
    if let Some(limit) = flight.run.task.timeout {
        let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        flight.deadline = Some((after_ms, timer::sleep_as_limit(&flight.clock, limit).boxed()));
    }
    let order = ToWorker::Run(Box::new(flight.order(&started)));
    let end = match worker.say(&order) {
        Ok(()) => flight.watch(worker).await,
        Err(error) => {
            let error = format!("the task cannot be sent to a worker process: {error}");
            End::of(Outcome::Failed { error }, true)
        }
    };
    worker.assign(None);
    if let (false, None, None, Some(fate)) = (flight.begun, flight.asked, &flight.problem, worker.fate()) {
        *started.busy() = flight.hold.take().unwrap_or_default();
        return Carried::Not(started, fate.clone());
    }
    let fit = end.fit;
    // The news of the end may be late, after a pause: the worker knows better how long it lasted.
    started.note_look();
    let lasted = end.lasted.filter(|_| !started.clock().is_virtual());
    if let Some(took) = end.took.or(lasted) {
        started.set_took(took);
    }
    if let Some(output) = end.output {
        started.run().set_output(*output);
    }
    match end.outcome {
        Outcome::Panicked { message } => started.end_in(Panic { message, backtrace: end.backtrace }),
        outcome => started.end(outcome),
    }
    // Held until the end was on its way.
    drop(flight);
    if fit { Carried::Out } else { Carried::OutAndLost }
}

struct End {
    outcome: Outcome,
    output: Option<Box<Value>>,
    backtrace: Option<Box<str>>,
    took: Option<Duration>,
    lasted: Option<Duration>,
    /// Whether the worker can be given another run.
    fit: bool,
}

impl End {
    fn of(outcome: Outcome, fit: bool) -> Self {
        Self { outcome, output: None, backtrace: None, took: None, lasted: None, fit }
    }
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
    /// Whether the worker has got it.
    begun: bool,
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
    deadline: Option<(u64, BoxFuture<'static, Busy>)>,
    /// How it ended, while others of its group still do.
    ended: Option<End>,
    /// Why its worker gives up.
    problem: Option<String>,
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
            zones: Learned::here(),
            id: run.id,
            task: run.task.clone(),
            store: run.store.clone(),
            executor: started.executor().clone(),
            nominal: run.nominal,
            offset: run.offset,
            due: run.due,
            coalesced: run.coalesced,
            source: run.source,
            attempt: run.attempt,
            beyond_max_instances: run.beyond_max_instances,
            time: self.clock.is_virtual().then(|| self.time()),
            level: output::level(),
        }
    }

    fn time(&self) -> Time {
        Time { now: self.clock.now(), elapsed: self.clock.monotonic() }
    }

    async fn watch(&mut self, worker: &mut Worker) -> End {
        let mut turn = 0u32;
        loop {
            turn = turn.wrapping_add(1);
            // A worker that says more than can be heard is not the only one who is heard.
            let news_first = !turn.is_multiple_of(PATIENT);
            if !news_first {
                tokio::task::yield_now().await;
            }
            match poll_fn(|cx| self.poll(worker, news_first, cx)).await {
                Turn::News(News::Message(FromWorker::Begun { run })) if run == self.run.id => {
                    self.begun = true
                }
                Turn::News(News::Message(FromWorker::CancelGrace { run, grace })) if run == self.run.id => {
                    self.run.set_cancel_grace(grace);
                }
                Turn::News(News::Message(FromWorker::Ended {
                    run,
                    outcome,
                    output,
                    backtrace,
                    took,
                    lasted,
                })) if run == self.run.id => {
                    self.begun = true;
                    let fit = !self.terminated;
                    // Work that was over before counts as it ended.
                    let (outcome, backtrace) = match self.asked {
                        Some(Asked::TimedOut { after_ms }) if took.is_none() => {
                            (Outcome::TimedOut { after_ms }, None)
                        }
                        _ => (outcome, backtrace),
                    };
                    let end = End { outcome, output, backtrace, took, lasted: Some(lasted), fit };
                    if fit {
                        return end;
                    }
                    // What it has started has the rest of the grace.
                    self.ended.get_or_insert(end);
                    worker.group().kill_leader();
                }
                Turn::News(News::Message(FromWorker::Broken { problem })) => {
                    self.problem = Some(problem);
                    worker.group().kill();
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
                Turn::News(News::Lost(fate)) => {
                    let ended = self.ended.take();
                    return ended.unwrap_or_else(|| End::of(self.lost(&fate), false));
                }
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
                    self.ask(worker);
                }
                Turn::Late(after_ms, busy) => {
                    self.hold = Some(busy);
                    self.asked = Some(Asked::TimedOut { after_ms });
                    self.run.time_out();
                    self.deadline = None;
                    if self.run.cancel_grace().is_zero() {
                        self.stop(worker);
                    } else {
                        self.calls += 1;
                        self.ask(worker);
                    }
                }
                Turn::Impatient => self.stop(worker),
            }
        }
    }

    fn poll(&mut self, worker: &mut Worker, news_first: bool, cx: &mut Context<'_>) -> Poll<Turn> {
        if news_first && let Poll::Ready(news) = worker.poll_news(cx) {
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
        if news_first { Poll::Pending } else { worker.poll_news(cx).map(Turn::News) }
    }

    /// Stops the worker: gently, and the next time for good.
    fn stop(&mut self, worker: &Worker) {
        if std::mem::replace(&mut self.terminated, true) {
            worker.group().kill();
        } else {
            worker.group().terminate(self.grace);
            self.wait(self.grace);
        }
    }

    /// Asks the code to end.
    fn ask(&mut self, worker: &mut Worker) {
        // Too short to be refused.
        let _ = worker.say(&ToWorker::Cancel { run: self.run.id });
        self.wait(self.grace.max(self.run.cancel_grace().saturating_add(LEAD)));
    }

    fn wait(&mut self, grace: Duration) {
        // Processes live in real time, whatever clock the scheduler has.
        self.patience = Some(timer::sleep_as_limit(&Clock::system(), grace).map(drop).boxed());
    }

    fn lost(&self, fate: &Fate) -> Outcome {
        match self.asked {
            Some(Asked::Cancelled) => Outcome::Cancelled,
            Some(Asked::TimedOut { after_ms }) => Outcome::TimedOut { after_ms },
            None => {
                let error = match &self.problem {
                    Some(problem) => format!("its worker process gave up: {problem}"),
                    None => format!("its worker process {fate}"),
                };
                Outcome::Failed { error }
            }
        }
    }
}
