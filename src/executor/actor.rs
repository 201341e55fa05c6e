use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::prelude::*;
use tokio::sync::oneshot;

use super::custom::OwnArbiter;
use super::deadline::Keeper;
use super::job::{Desk, Job};
use super::message::*;
use super::overlap::{Verdict, Waiting};
use super::reports::{Report, Reporter, Reports, reports};
use super::seats::{GiveBack, Places};
use super::slot::Instances;
use super::{ExecutorAddr, Keep, Room, Runner, Seats};
use crate::clock::{Busy, Clock};
use crate::task::{Outcome, Refusal, Run, RunEnd, RunId, panics};
use crate::timer;

/// The most ends in one notice.
const BATCH: usize = 1024;

/// Room for more reports than this is given back.
const KEPT: usize = 4 * BATCH;

/// How long, beyond the grace of a drain, runs that can be dropped have for their end to come in.
const LAST_CALL: Duration = Duration::from_millis(250);

/// A runner that is closed is looked at no sooner than this.
const LEAST_NAP: Duration = Duration::from_millis(10);

const SHUT_DOWN: &str = "the executor was shut down before the run ended";

/// An executor: counts instances, lets runs in or refuses them, reports their ends. What runs them
/// is the [`Runner`].
pub struct ExecutorActor<R: Runner> {
    // Dropped in this order: the runner lets go of its jobs before the guardian hears of the end.
    runner: R,
    instances: Instances,
    waiting: Waiting,
    places: Places,
    /// Runs that were let in while the runner had no room.
    overflow: VecDeque<Job>,
    /// Whether the runner is looked at again, because it was closed.
    looking: bool,
    reports: Reports,
    ends: Reporter,
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
        let (ends, reports) = reports();
        Self {
            runner,
            instances: Instances::default(),
            waiting: Waiting::default(),
            places: Places::default(),
            overflow: VecDeque::new(),
            looking: false,
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

    fn submit(&mut self, Submit { runs, seats, busy }: Submit) {
        let Some((desk, _)) = &self.attached else {
            self.early.push(Submit { runs, seats, busy });
            return;
        };
        let patient = R::BOUNDED && seats.is_some();
        if let Some(seats) = seats {
            self.places.give_back(seats.settle());
        }
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
                        replaced.into_iter().for_each(|run| unstarted.replace(run));
                        stop.extend(running);
                    }
                }
            }
            if patient {
                self.start_patiently(jobs);
            } else if !jobs.is_empty() {
                self.runner.start_all(jobs);
            }
        }
        self.tell_unstarted(unstarted, busy);
        for run in &stop {
            ask(|| run.replace());
            self.stop(run);
        }
        // What an inline runner has ended already goes out in the same step.
        self.read_reports();
    }

    /// Gives the runner as many as it has room for, those who came first at the beginning; the others
    /// wait.
    fn start_patiently(&mut self, jobs: Vec<Job>) {
        for mut job in jobs {
            job.be_patient();
            self.overflow.push_back(job);
        }
        if self.overflow.is_empty() {
            return;
        }
        let free = self.places.free(&self.runner.room(), 0).min(self.overflow.len());
        let mut jobs: Vec<Job> = self.overflow.drain(..free).collect();
        jobs.iter_mut().for_each(Job::wake);
        self.overflow.iter_mut().for_each(Job::rest);
        if !jobs.is_empty() {
            self.runner.start_all(jobs);
        }
    }

    /// Tells whoever waits for a place that there are some.
    fn tell_vacant(&mut self) {
        if self.drain.is_some() || !self.places.is_watched() {
            return;
        }
        let places = self.places.free(&self.runner.room(), self.overflow.len());
        let Some((desk, _)) = self.attached.as_ref().filter(|_| places > 0) else { return };
        let (executor, busy) = (desk.alias.clone(), desk.clock.busy());
        if let Some(watcher) = self.places.take_watcher() {
            watcher.do_send(Vacant { executor, places, busy });
        }
    }

    /// Looks at a runner that is closed again, when that is worth while, as long as somebody waits.
    fn keep_looking(&mut self, ctx: &mut Context<Self>) {
        if !R::BOUNDED || self.looking {
            return;
        }
        if !self.places.is_watched() && self.overflow.is_empty() && self.runner.queued() == 0 {
            return;
        }
        let Room::Closed { look_again, .. } = self.runner.room() else { return };
        self.looking = true;
        let nap = timer::sleep(&Clock::system(), look_again.max(LEAST_NAP)).into_actor(self);
        ctx.spawn(nap.map(|_, executor, ctx| {
            executor.looking = false;
            executor.start_patiently(Vec::new());
            executor.tell_vacant();
            executor.keep_looking(ctx);
        }));
    }

    fn reserve(&mut self, Reserve { tasks, others, notices }: Reserve, ctx: &mut Context<Self>) -> Reserved {
        self.read_reports();
        let alias = self.attached.as_ref().map(|(desk, _)| desk.alias.to_string()).unwrap_or_default();
        let unavailable = |reason| Refusal::ExecutorUnavailable { executor: alias.clone(), reason };
        if self.drain.is_some() {
            let problem = Some(unavailable("it is shutting down".to_owned()));
            return Reserved { granted: vec![false; tasks.len()], seats: Seats::none(), problem };
        }
        let room = self.runner.room();
        let free = self.places.free(&room, self.overflow.len());
        let needs = tasks.iter().map(|(store, task)| {
            self.instances.has_one_for(store, task) && !self.waiting.has_line(store, task)
        });
        let (granted, taken) = self.places.grant(free, needs);
        let short = granted.contains(&false);
        let problem = short.then(|| match room {
            Room::Closed { reason, .. } => unavailable(reason),
            _ => Refusal::QueueFull { executor: alias.clone(), limit: self.instances.len() },
        });
        if short || others {
            self.places.watch(notices);
        }
        if !short {
            self.tell_vacant();
        }
        self.keep_looking(ctx);
        Reserved { granted, seats: Seats::new(taken, ctx.address().recipient()), problem }
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
            let end = |(run, outcome): (Arc<Run>, Outcome)| {
                let replaced = outcome == Outcome::Cancelled && run.was_replaced();
                (run, RunEnd { replaced, ..RunEnd::unstarted(outcome, now) })
            };
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
            self.reports.read(&mut self.buffer);
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
        let mut ends = Vec::with_capacity(buffer.len().min(BATCH));
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
            if ends.len() == BATCH {
                self.tell(std::mem::take(&mut ends), busy.clone());
            }
            token = busy;
        }
        if buffer.capacity() <= KEPT {
            self.buffer = buffer;
        }
        if !ends.is_empty() {
            self.tell(ends, token);
        }
        if R::BOUNDED {
            self.start_patiently(next);
            self.tell_vacant();
        } else if !next.is_empty() {
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
                let end = timer::sleep_as_limit(&desk.clock, grace).into_actor(self);
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
        self.overflow.clear();
        self.read_reports();
        if self.instances.len() == 0 {
            return;
        }
        self.instances.runs().for_each(|run| ask_to_stop(run));
        // Futures are being dropped now, on whatever arbiter they live; blocking code cannot be
        // stopped and is not waited for.
        if let Some((desk, _)) = &self.attached {
            let last_call = timer::sleep_as_limit(&desk.clock, LAST_CALL).into_actor(self);
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

    fn replace(&mut self, run: Arc<Run>) {
        ask(|| run.replace());
        self.0.push((run, Outcome::Cancelled));
    }

    fn interrupt(&mut self, run: Arc<Run>) {
        ask_to_stop(&run);
        self.0.push((run, Outcome::Interrupted { reason: SHUT_DOWN.to_owned() }));
    }
}

/// Raises the run's flag. Whoever waits for it is not ours, and may panic.
fn ask_to_stop(run: &Run) {
    ask(|| run.cancel());
}

fn ask(stop: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(stop));
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
        executor.reports.listen(cx);
        executor.read_reports();
        task::Poll::Pending
    }
}

impl<R: Runner> Handler<Attach> for ExecutorActor<R> {
    type Result = ();

    fn handle(&mut self, attach: Attach, ctx: &mut Self::Context) {
        let (ends, keeper) = (self.ends.clone(), Keeper::default());
        let desk =
            Desk { alias: attach.alias, scheduler: attach.scheduler, clock: attach.clock, ends, keeper };
        self.attached = Some((Arc::new(desk), attach.notices));
        for submit in std::mem::take(&mut self.early) {
            self.submit(submit);
        }
        self.keep_looking(ctx);
    }
}

impl<R: Runner> Handler<Reserve> for ExecutorActor<R> {
    type Result = MessageResult<Reserve>;

    fn handle(&mut self, reserve: Reserve, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.reserve(reserve, ctx))
    }
}

impl<R: Runner> Handler<GiveBack> for ExecutorActor<R> {
    type Result = ();

    fn handle(&mut self, GiveBack(places): GiveBack, _: &mut Self::Context) {
        self.places.give_back(places);
        self.start_patiently(Vec::new());
        self.tell_vacant();
    }
}

/// The address of a bounded runner's actor is asked for places, that of another one is not.
impl<R: Runner> From<Addr<ExecutorActor<R>>> for ExecutorAddr {
    fn from(addr: Addr<ExecutorActor<R>>) -> Self {
        if R::BOUNDED { Self::bounded(addr) } else { Self::new(addr) }
    }
}

impl<R: Runner> Handler<Submit> for ExecutorActor<R> {
    type Result = ();

    fn handle(&mut self, submit: Submit, ctx: &mut Self::Context) {
        self.submit(submit);
        self.keep_looking(ctx);
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
        if let Some(index) = self.overflow.iter().position(|job| job.run().id == run)
            && let Some(job) = self.overflow.remove(index)
        {
            job.cancel();
        }
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
                    let end = timer::sleep_as_limit(&desk.clock, grace).into_actor(self);
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
        let queued = (self.runner.queued() + self.overflow.len()).min(self.instances.len());
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
