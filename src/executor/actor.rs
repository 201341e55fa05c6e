use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::custom::OwnArbiter;
use super::job::{Desk, Job, Report};
use super::message::*;
use super::slot::Instances;
use super::{Keep, Runner};
use crate::clock::Busy;
use crate::task::{Outcome, Refusal, Run, RunEnd};
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
    reports: mpsc::UnboundedReceiver<Report>,
    ends: mpsc::UnboundedSender<Report>,
    buffer: Vec<Report>,
    attached: Option<(Arc<Desk>, Recipient<RunsEnded>)>,
    early: Vec<Submit>,
    drain: Option<Draining>,
    keep: Keep,
    home: Option<OwnArbiter>,
}

#[derive(Default)]
struct Draining {
    waiting: Vec<oneshot::Sender<Drained>>,
    interrupted: usize,
    cut: bool,
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
        let (ends, reports) = mpsc::unbounded_channel();
        Self {
            runner,
            instances: Instances::default(),
            reports,
            ends,
            buffer: Vec::new(),
            attached: None,
            early: Vec::new(),
            drain: None,
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
        let mut refused = Vec::new();
        if self.drain.is_some() {
            let reason = Refusal::ExecutorUnavailable {
                executor: desk.alias.to_string(),
                reason: "it is shutting down".to_owned(),
            };
            refused.extend(runs.into_iter().map(|run| (run, reason.clone())));
        } else {
            let mut jobs = Vec::with_capacity(runs.len());
            for run in runs {
                match self.instances.admit(&run) {
                    Ok(key) => jobs.push(Job::new(run, desk.clone(), key, busy.clone())),
                    Err(reason) => refused.push((run, reason)),
                }
            }
            if !jobs.is_empty() {
                self.runner.start_all(jobs);
            }
        }
        if !refused.is_empty() {
            let now = desk.clock.now();
            let end = |reason| RunEnd::unstarted(Outcome::Refused { reason }, now);
            self.tell(refused.into_iter().map(|(run, reason)| (run, end(reason))).collect(), busy.clone());
        }
        // What an inline runner has ended already goes out in the same step.
        self.read_reports();
    }

    fn tell(&self, ends: Vec<(Arc<Run>, RunEnd)>, busy: Busy) {
        if let Some((_, notices)) = &self.attached {
            notices.do_send(RunsEnded { ends, busy });
        }
    }

    /// Settles the reports that are there.
    fn read_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.buffer.push(report);
            if self.buffer.len() == BATCH {
                self.settle();
            }
        }
        self.settle();
    }

    /// Gives the instances of the reports in the buffer back, then passes the ends on.
    fn settle(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut ends = Vec::with_capacity(self.buffer.len());
        let mut token = Busy::default();
        for Report { key, mut end, busy } in self.buffer.drain(..) {
            token = busy;
            if let Some(run) = self.instances.give_back(key) {
                if let Some(drain) = self.drain.as_mut().filter(|drain| drain.cut) {
                    drain.note(&mut end);
                }
                ends.push((run, end));
            }
        }
        if !ends.is_empty() {
            self.tell(ends, token);
        }
        self.give_up_the_unstoppable();
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if let Some(drain) = &mut self.drain
            && self.instances.len() == 0
        {
            if !std::mem::replace(&mut drain.cut, true) {
                // Nothing comes any more: threads and processes need not wait for it.
                self.runner.stop();
            }
            for waiting in drain.waiting.drain(..) {
                let _ = waiting.send(Drained { interrupted: drain.interrupted });
            }
        }
    }

    /// The grace is over: what has not ended is cut off.
    fn cut(&mut self, ctx: &mut Context<Self>) {
        self.read_reports();
        let Some(drain) = self.drain.as_mut().filter(|drain| !drain.cut) else { return };
        drain.cut = true;
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
        let (Some((desk, _)), Some(drain)) = (&self.attached, &mut self.drain) else { return };
        drain.interrupted += left.len();
        let (now, busy) = (desk.clock.now(), desk.clock.busy());
        let ends: Vec<_> = left
            .into_iter()
            .map(|run| {
                ask_to_stop(&run);
                let reason = SHUT_DOWN.to_owned();
                (run, RunEnd::unstarted(Outcome::Interrupted { reason }, now))
            })
            .collect();
        if !ends.is_empty() {
            self.tell(ends, busy);
        }
        self.answer_drain();
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
            // Nobody can ask for anything any more: the actor ends, and cuts off what runs.
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
        let desk = Desk { alias: attach.alias, clock: attach.clock, ends: self.ends.clone() };
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
        let Some(found) = self.instances.find(run) else { return false };
        ask_to_stop(found);
        self.runner.cancel(run);
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
            queued,
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
