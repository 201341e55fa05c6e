use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::custom::OwnArbiter;
use super::deadline::Keeper;
use super::job::{Desk, Job, Report};
use super::message::*;
use super::overlap::{Verdict, Waiting};
use super::slot::Instances;
use super::{Keep, Runner};
use crate::clock::Busy;
use crate::task::{Outcome, Refusal, Run, RunEnd, RunId, panics};
use crate::timer;

/// The most ends in one notice.
const BATCH: usize = 1024;

/// How long, beyond the grace of a drain, runs that can be dropped have for their end to come in.
const LAST_CALL: Duration = Duration::from_millis(250);

const SHUT_DOWN: &str = "the executor was shut down before the run ended";

/// An executor: counts instances, lets runs in or refuses them, reports their ends. What runs them
/// is the [`Runner`].
pub struct ExecutorActor<R: Runner> {
    // Dropped in this order: the runner lets go of its jobs before the guardian hears of the end.
    runner: R,
    instances: Instances,
    waiting: Waiting,
    reports: mpsc::UnboundedReceiver<Report>,
    ends: mpsc::UnboundedSender<Report>,
    buffer: Vec<Report>,
    attached: Option<(Arc<Desk>, Recipient<RunsEnded>)>,
    early: Vec<Submit>,
    drain: Option<Draining>,
    /// Keeps a virtual clock still until futures that were asked to stop have been dropped, on
    /// whatever arbiter they live.
    stopping: Vec<(RunId, Busy)>,
    keep: Keep,
    home: Option<OwnArbiter>,
}

#[derive(Default)]
struct Draining {
    waiting: Vec<oneshot::Sender<Drained>>,
    interrupted: usize,
    /// The grace is over.
    cut: bool,
    /// The runner has let go of every job.
    stopped: bool,
}

impl Draining {
    /// Counts an end that came after the cut.
    fn note(&mut self, end: &mut RunEnd) {
        if end.outcome == Outcome::Cancelled {
            // The flag was raised by the cut.
            end.outcome = Outcome::Interrupted { reason: SHUT_DOWN.to_owned() };
        }
        if matches!(end.outcome, Outcome::Interrupted { .. }) {
            self.interrupted += 1;
        }
    }
}

impl<R: Runner> ExecutorActor<R> {
    /// An executor around `runner`. It drops `keep` when it ends.
    pub fn new(runner: R, keep: Keep) -> Self {
        panics::listen();
        let (ends, reports) = mpsc::unbounded_channel();
        Self {
            runner,
            instances: Instances::default(),
            waiting: Waiting::default(),
            reports,
            ends,
            buffer: Vec::new(),
            attached: None,
            early: Vec::new(),
            drain: None,
            stopping: Vec::new(),
            keep,
            home: None,
        }
    }

    /// The arbiter it lives on ends with it.
    pub(super) fn at_home(mut self, arbiter: OwnArbiter) -> Self {
        self.home = Some(arbiter);
        self
    }

    fn submit(&mut self, Submit { runs, busy }: Submit) {
        let Some((desk, _)) = &self.attached else {
            self.early.push(Submit { runs, busy });
            return;
        };
        let desk = desk.clone();
        let mut unstarted = Unstarted::default();
        let mut stop = Vec::new();
        if self.drain.is_some() {
            let reason = Refusal::ExecutorUnavailable {
                executor: desk.alias.to_string(),
                reason: "it is shutting down".to_owned(),
            };
            runs.into_iter().for_each(|run| unstarted.refuse(run, reason.clone()));
        } else {
            let mut jobs = Vec::with_capacity(runs.len());
            for run in runs {
                let behind = self.waiting.is_behind(&run);
                if !behind && let Some(key) = self.instances.admit(&run) {
                    jobs.push(Job::new(run, desk.clone(), key, busy.clone()));
                    continue;
                }
                match self.waiting.overlap(&run, &self.instances) {
                    Verdict::Refuse(reason) => unstarted.refuse(run, reason),
                    Verdict::Wait { replaced, stop: running } => {
                        replaced.into_iter().for_each(|run| unstarted.cancel(run));
                        stop.extend(running);
                    }
                }
            }
            if !jobs.is_empty() {
                self.runner.start_all(jobs);
            }
        }
        self.tell_unstarted(unstarted, busy);
        stop.iter().for_each(|run| self.stop(run));
        // What an inline runner has ended already goes out in the same step.
        self.read_reports();
    }

    /// Asks a run in flight to stop.
    fn stop(&mut self, run: &Run) {
        // Code that has time to end by itself may wait for the clock.
        let dropped = !run.code.is_blocking() && run.cancel_grace().is_zero();
        if dropped && self.attached.as_ref().is_some_and(|(desk, _)| desk.clock.is_virtual()) {
            self.stopping.push((run.id, self.busy()));
        }
        ask_to_stop(run);
        self.runner.cancel(run.id);
    }

    /// Lets in who waits for an instance of the task that `run` is of, as far as there are any.
    fn call_next(&mut self, run: &Run, busy: &Busy, jobs: &mut Vec<Job>) {
        let Some((desk, _)) = &self.attached else { return };
        while let Some((next, key)) = self.waiting.next(run, |next| self.instances.admit(next)) {
            jobs.push(Job::new(next, desk.clone(), key, busy.clone()));
        }
    }

    fn tell_unstarted(&self, Unstarted(ends): Unstarted, busy: Busy) {
        if let Some((desk, _)) = self.attached.as_ref().filter(|_| !ends.is_empty()) {
            let now = desk.clock.now();
            let end = |(run, outcome)| (run, RunEnd::unstarted(outcome, now));
            self.tell(ends.into_iter().map(end).collect(), busy);
        }
    }

    fn tell(&self, ends: Vec<(Arc<Run>, RunEnd)>, busy: Busy) {
        if let Some((_, notices)) = &self.attached {
            notices.do_send(RunsEnded { ends, busy });
        }
    }

    /// Settles the reports that are there, and those that come of it at once.
    fn read_reports(&mut self) {
        loop {
            while self.buffer.len() < BATCH
                && let Ok(report) = self.reports.try_recv()
            {
                self.buffer.push(report);
            }
            if self.buffer.is_empty() {
                return;
            }
            self.settle();
        }
    }

    /// Gives the instances of the reports in the buffer back, then passes the ends on and lets in
    /// who waited for them.
    fn settle(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut ends = Vec::with_capacity(buffer.len());
        let mut token = Busy::default();
        let mut next = Vec::new();
        for Report { key, mut end, busy } in buffer.drain(..) {
            if let Some(run) = self.instances.give_back(key) {
                if !self.stopping.is_empty() {
                    self.stopping.retain(|(id, _)| *id != run.id);
                }
                if let Some(drain) = self.drain.as_mut().filter(|drain| drain.cut) {
                    drain.note(&mut end);
                }
                if self.waiting.len() > 0 {
                    self.call_next(&run, &busy, &mut next);
                }
                ends.push((run, end));
            }
            token = busy;
        }
        self.buffer = buffer;
        if !ends.is_empty() {
            self.tell(ends, token);
        }
        if !next.is_empty() {
            self.runner.start_all(next);
        }
        self.give_up_the_unstoppable();
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if let Some(drain) = &mut self.drain
            && self.instances.len() == 0
        {
            drain.cut = true;
            if !std::mem::replace(&mut drain.stopped, true) {
                // Nothing comes any more: threads and processes need not wait for it.
                self.runner.stop();
            }
            for waiting in drain.waiting.drain(..) {
                let _ = waiting.send(Drained { interrupted: drain.interrupted });
            }
        }
    }

    /// The grace of the drain is over. Runs with a grace of their own are asked to end within it, all
    /// others are cut off.
    fn cut(&mut self, ctx: &mut Context<Self>) {
        self.read_reports();
        let Some(drain) = self.drain.as_mut().filter(|drain| !drain.cut) else { return };
        drain.cut = true;
        let waiting = self.waiting.take_all();
        drain.interrupted += waiting.len();
        let mut unstarted = Unstarted::default();
        waiting.into_iter().for_each(|run| unstarted.interrupt(run));
        self.tell_unstarted(unstarted, self.busy());
        let grace = self.instances.runs().map(|run| run.cancel_grace()).max().unwrap_or_default();
        match &self.attached {
            Some((desk, _)) if !grace.is_zero() => {
                let end = timer::sleep(&desk.clock, grace).into_actor(self);
                ctx.spawn(end.map(|busy, executor, ctx| {
                    executor.cut_off(ctx);
                    drop(busy);
                }));
                self.instances.runs().for_each(|run| ask_to_stop(run));
                self.read_reports();
                self.give_up_the_unstoppable();
            }
            _ => self.cut_off(ctx),
        }
    }

    /// What has not ended is cut off.
    fn cut_off(&mut self, ctx: &mut Context<Self>) {
        self.read_reports();
        let Some(drain) = self.drain.as_mut().filter(|drain| !drain.stopped) else { return };
        drain.stopped = true;
        self.runner.stop();
        self.read_reports();
        if self.instances.len() == 0 {
            return;
        }
        self.instances.runs().for_each(|run| ask_to_stop(run));
        // Futures are being dropped now, on whatever arbiter they live; blocking code cannot be
        // stopped and is not waited for.
        if let Some((desk, _)) = &self.attached {
            let last_call = timer::sleep(&desk.clock, LAST_CALL).into_actor(self);
            ctx.spawn(last_call.map(|busy, executor, _| {
                executor.give_up();
                drop(busy);
            }));
        }
        self.give_up_the_unstoppable();
    }

    /// After the cut, nothing waits for blocking code.
    fn give_up_the_unstoppable(&mut self) {
        if self.drain.as_ref().is_some_and(|drain| drain.cut)
            && self.instances.len() > 0
            && self.instances.runs().all(|run| run.code.is_blocking())
        {
            self.give_up();
        }
    }

    /// Reports what is still in flight as interrupted, without it.
    fn give_up(&mut self) {
        let left = self.instances.give_all_back();
        self.stopping.clear();
        if let Some(drain) = &mut self.drain {
            drain.interrupted += left.len();
        }
        let mut unstarted = Unstarted::default();
        left.into_iter().for_each(|run| unstarted.interrupt(run));
        self.tell_unstarted(unstarted, self.busy());
        self.answer_drain();
    }

    fn busy(&self) -> Busy {
        self.attached.as_ref().map(|(desk, _)| desk.clock.busy()).unwrap_or_default()
    }
}

/// Ends of runs that have not begun.
#[derive(Default)]
struct Unstarted(Vec<(Arc<Run>, Outcome)>);

impl Unstarted {
    fn refuse(&mut self, run: Arc<Run>, reason: Refusal) {
        self.0.push((run, Outcome::Refused { reason }));
    }

    fn cancel(&mut self, run: Arc<Run>) {
        ask_to_stop(&run);
        self.0.push((run, Outcome::Cancelled));
    }

    fn interrupt(&mut self, run: Arc<Run>) {
        ask_to_stop(&run);
        self.0.push((run, Outcome::Interrupted { reason: SHUT_DOWN.to_owned() }));
    }
}

/// Raises the run's flag. Whoever waits for it is not ours, and may panic.
fn ask_to_stop(run: &Run) {
    let _ = catch_unwind(AssertUnwindSafe(|| run.cancel()));
}

impl<R: Runner> Actor for ExecutorActor<R> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Reading);
    }
}

impl<R: Runner> Drop for ExecutorActor<R> {
    fn drop(&mut self) {
        // However the actor ends: nothing it started goes on beside a successor that counts from
        // zero. Blocking code can only be asked.
        self.instances.runs().for_each(|run| ask_to_stop(run));
    }
}

/// Reads the reports for as long as the actor lives.
struct Reading;

impl<R: Runner> ActorFuture<ExecutorActor<R>> for Reading {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        executor: &mut ExecutorActor<R>,
        ctx: &mut Context<ExecutorActor<R>>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<()> {
        if !ctx.connected() {
            // Nobody can ask for anything any more: the actor ends, whatever it waits for, and cuts off
            // what runs. Reports that nobody reads would keep a virtual clock still.
            ctx.stop();
            return task::Poll::Ready(());
        }
        while executor.reports.poll_recv_many(cx, &mut executor.buffer, BATCH).is_ready() {
            executor.settle();
        }
        task::Poll::Pending
    }
}

impl<R: Runner> Handler<Attach> for ExecutorActor<R> {
    type Result = ();

    fn handle(&mut self, attach: Attach, _: &mut Self::Context) {
        let (ends, keeper) = (self.ends.clone(), Keeper::default());
        let desk = Desk { alias: attach.alias, clock: attach.clock, ends, keeper };
        self.attached = Some((Arc::new(desk), attach.notices));
        for submit in std::mem::take(&mut self.early) {
            self.submit(submit);
        }
    }
}

impl<R: Runner> Handler<Submit> for ExecutorActor<R> {
    type Result = ();

    fn handle(&mut self, submit: Submit, _: &mut Self::Context) {
        self.submit(submit);
    }
}

impl<R: Runner> Handler<Cancel> for ExecutorActor<R> {
    type Result = bool;

    fn handle(&mut self, Cancel { run }: Cancel, _: &mut Self::Context) -> bool {
        // What has ended cannot be cancelled any more.
        self.read_reports();
        if let Some(waiting) = self.waiting.remove(run) {
            let mut unstarted = Unstarted::default();
            unstarted.cancel(waiting);
            self.tell_unstarted(unstarted, self.busy());
            return true;
        }
        let Some(found) = self.instances.find(run).cloned() else { return false };
        self.stop(&found);
        self.read_reports();
        true
    }
}

impl<R: Runner> Handler<Drain> for ExecutorActor<R> {
    type Result = ResponseFuture<Drained>;

    fn handle(&mut self, Drain { grace }: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (sender, answer) = oneshot::channel();
        self.drain.get_or_insert_default().waiting.push(sender);
        self.read_reports();
        self.answer_drain();
        if self.instances.len() > 0 {
            match &self.attached {
                Some((desk, _)) if !grace.is_zero() => {
                    let end = timer::sleep(&desk.clock, grace).into_actor(self);
                    ctx.spawn(end.map(|busy, executor, ctx| {
                        executor.cut(ctx);
                        drop(busy);
                    }));
                }
                _ => self.cut(ctx),
            }
        }
        // The sender of the answer lives as long as the actor, and this future no longer.
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl<R: Runner> Handler<Status> for ExecutorActor<R> {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        self.read_reports();
        let queued = self.runner.queued().min(self.instances.len());
        MessageResult(ExecutorStatus {
            kind: self.runner.kind().to_owned(),
            running: self.instances.len() - queued,
            queued: queued + self.waiting.len(),
            instances: self.instances.by_task(),
        })
    }
}

impl<R: Runner> std::fmt::Debug for ExecutorActor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = (&self.keep, &self.home);
        f.debug_struct("ExecutorActor")
            .field("kind", &self.runner.kind())
            .field("in_flight", &self.instances.len())
            .finish_non_exhaustive()
    }
}
