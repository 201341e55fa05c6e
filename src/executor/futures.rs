//! The async executor: runs are futures on arbiters.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use actix::prelude::*;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::custom::OwnArbiter;
use super::reports::Reporter;
use super::{Drive, ExecutorActor, ExecutorAddr, ExecutorSource, Job, Keep, Runner};
use crate::clock::Busy;
use crate::task::RunId;

/// How many runs a worker starts, and how many it carries on, before it lets the other work of its
/// arbiter have a turn.
const TURN: usize = 128;

/// Room in a tray for more jobs than this is given back.
const KEPT: usize = 4096;

/// Runs tasks as futures, which need not be `Send`, on arbiters of its own: one unless told
/// otherwise. A run begins and ends on one arbiter. The executor's actor lives on the arbiter that
/// starts it: code that does not yield holds up the other runs of its arbiter, and nobody else.
///
/// Blocking code given to it runs on tokio's threads for blocking work (512 at most per arbiter)
/// and cannot be cut off, only asked to stop.
///
/// ```
/// use callboard::executor::AsyncExecutor;
///
/// let executor = AsyncExecutor::new().arbiters(2).limit(1000).limit_handler("resize image", 8);
/// ```
#[derive(Debug, Clone)]
pub struct AsyncExecutor {
    /// `None`: the current one.
    arbiters: Option<usize>,
    limits: Limits,
}

/// How many runs go on at once.
#[derive(Debug, Clone)]
struct Limits {
    all: usize,
    /// Of single handlers.
    handlers: Vec<(String, usize)>,
}

impl Default for AsyncExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl AsyncExecutor {
    /// One arbiter of its own, no limit.
    pub fn new() -> Self {
        Self { arbiters: Some(1), limits: Limits { all: usize::MAX, handlers: Vec::new() } }
    }

    /// The most arbiters there are.
    pub const MAX_ARBITERS: usize = 256;

    /// That many arbiters of its own, each with a thread; 0 counts as 1, more than
    /// [`MAX_ARBITERS`](Self::MAX_ARBITERS) as that many. Runs are dealt out to them in turn.
    pub fn arbiters(mut self, arbiters: usize) -> Self {
        self.arbiters = Some(arbiters.clamp(1, Self::MAX_ARBITERS));
        self
    }

    /// Runs tasks on the arbiter that starts the executor, which in a scheduler is the
    /// scheduler's own: no thread more, but a task that does not yield holds everything up, and a
    /// program does not end before its blocking runs have.
    pub fn on_current(mut self) -> Self {
        self.arbiters = None;
        self
    }

    /// At most so many runs at once; others wait in a queue without bound. 0 counts as 1. With
    /// several arbiters each has an even share of the limit, and there are never more arbiters
    /// than that.
    pub fn limit(mut self, runs: usize) -> Self {
        self.limits.all = runs.max(1);
        self
    }

    /// At most so many runs of one handler at once; others wait in a line of their own, in order and
    /// without bound, and runs of other handlers go past it. 0 counts as 1. With several arbiters each
    /// has an even share, and there are never more arbiters than that.
    pub fn limit_handler(mut self, handler: impl Into<String>, runs: usize) -> Self {
        let (handler, runs) = (handler.into(), runs.max(1));
        self.limits.handlers.retain(|(known, _)| *known != handler);
        self.limits.handlers.push((handler, runs));
        self
    }
}

impl Limits {
    /// The most arbiters that each have a place for a run of every kind.
    fn arbiters(&self) -> usize {
        self.handlers.iter().map(|(_, limit)| *limit).fold(self.all, usize::min)
    }

    /// What the arbiter of this number has, of so many.
    fn share(&self, index: usize, arbiters: usize) -> Self {
        let share = |limit: usize| match limit {
            usize::MAX => limit,
            _ => limit / arbiters + usize::from(index < limit % arbiters),
        };
        let handlers = self.handlers.iter().map(|(handler, limit)| (handler.clone(), share(*limit)));
        Self { all: share(self.all), handlers: handlers.collect() }
    }
}

impl ExecutorSource for AsyncExecutor {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let runner = match self.arbiters {
            None => AsyncRunner::new(1, &self.limits, false),
            Some(arbiters) => AsyncRunner::new(arbiters.min(self.limits.arbiters()), &self.limits, true),
        };
        // Never on the arbiter of a worker: what its runs do there must not keep the executor from its
        // answers, nor from giving them up.
        ExecutorAddr::new(ExecutorActor::new(runner, keep).start())
    }
}

struct AsyncRunner {
    workers: Vec<Worker>,
    /// Who is next.
    turn: usize,
}

/// What a runner holds of one worker. Dropping it cuts off the worker's runs.
struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    tray: Tray,
    /// How many runs it has begun or dropped, told once a turn.
    taken: Arc<AtomicUsize>,
    given: usize,
    limits: Limits,
    /// `None`: the actor's.
    arbiter: Option<OwnArbiter>,
}

enum Order {
    /// There are jobs in the tray.
    Start,
    Cancel(RunId),
}

/// Jobs on their way to a worker. Two buffers change places, so that no memory is taken on one thread and
/// given back on another.
type Tray = Arc<Mutex<Vec<Job>>>;

fn open(tray: &Tray) -> MutexGuard<'_, Vec<Job>> {
    tray.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    fn new(limits: Limits, own_arbiter: bool) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let (tray, taken) = (Tray::default(), Arc::new(AtomicUsize::new(0)));
        let (given, told, share) = (tray.clone(), taken.clone(), limits.clone());
        // The crew's end needs no watching: it ends when this value is dropped, or with its
        // arbiter, and then the next order does not arrive.
        let begin = move || drop(actix_rt::spawn(Crew::new(orders, given, told, share)));
        let arbiter = if own_arbiter {
            let arbiter = Arbiter::new();
            arbiter.spawn_fn(begin);
            Some(OwnArbiter::of(&arbiter))
        } else {
            begin();
            None
        };
        Self { orders: sender, tray, taken, given: 0, limits, arbiter }
    }

    fn give(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut tray = open(&self.tray);
        let (before, was_empty) = (tray.len(), tray.is_empty());
        tray.extend(jobs);
        self.given += tray.len() - before;
        drop(tray);
        // Otherwise it has been told, and has not looked yet.
        if was_empty && self.orders.send(Order::Start).is_err() {
            // A task has ended the arbiter it ran on. Its runs are interrupted; the next ones get
            // a new one.
            let left = std::mem::take(&mut *open(&self.tray));
            *self = Self::new(self.limits.clone(), self.arbiter.is_some());
            self.given = left.len();
            *open(&self.tray) = left;
            self.orders.send(Order::Start).ok();
        }
    }
}

impl AsyncRunner {
    fn new(workers: usize, limits: &Limits, own_arbiters: bool) -> Self {
        let worker = |index| Worker::new(limits.share(index, workers), own_arbiters);
        Self { workers: (0..workers).map(worker).collect(), turn: 0 }
    }
}

impl Runner for AsyncRunner {
    fn kind(&self) -> &'static str {
        "async"
    }

    fn start(&mut self, job: Job) {
        self.start_all(vec![job]);
    }

    fn start_all(&mut self, jobs: Vec<Job>) {
        // Stopped: the jobs are dropped and so interrupted.
        let count = self.workers.len();
        if count == 0 {
            return;
        }
        let share = jobs.len().div_ceil(count).max(1);
        let mut jobs = jobs.into_iter();
        while jobs.len() > 0 {
            self.workers[self.turn % count].give(jobs.by_ref().take(share));
            self.turn = self.turn.wrapping_add(1);
        }
    }

    fn cancel(&mut self, run: RunId) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Cancel(run));
        }
    }

    fn stop(&mut self) {
        self.workers.clear();
    }

    fn queued(&self) -> usize {
        self.workers
            .iter()
            .map(|worker| worker.given.wrapping_sub(worker.taken.load(Ordering::Relaxed)))
            .sum()
    }
}

/// What runs on an arbiter: the runs that have begun and those that wait for a place.
struct Crew {
    orders: mpsc::UnboundedReceiver<Order>,
    tray: Tray,
    /// What changes places with the tray.
    taking: Vec<Job>,
    queue: VecDeque<Job>,
    /// How many of those in the queue, from its front, have let go of a virtual clock.
    resting: usize,
    /// Keeps a virtual clock still while there is a place for those in the queue.
    busy: Option<Busy>,
    running: FuturesUnordered<Seated>,
    limit: usize,
    lines: Vec<Line>,
    taken: usize,
    told: Arc<AtomicUsize>,
    /// Comes last: when the crew is dropped, its runs end before that.
    bell: AtEnd,
}

/// Rings when it is dropped, too.
#[derive(Default)]
struct AtEnd(Option<Reporter>);

impl AtEnd {
    fn ring(&self) {
        self.0.iter().for_each(Reporter::ring);
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The runs of a handler of which only some may go on at once.
struct Line {
    handler: String,
    limit: usize,
    running: usize,
    /// For whom there was no place; they have let go of a virtual clock.
    queue: VecDeque<Job>,
}

impl Line {
    fn has_place(&self) -> bool {
        self.running < self.limit
    }
}

/// A run that goes on, and the line it has a place of. Ends with that.
struct Seated {
    running: Running,
    line: Option<usize>,
}

#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum Running {
    Async(Drive),
    /// Brings what keeps a virtual clock still until its place has been given to the next.
    Blocking(JoinHandle<Busy>),
}

impl Crew {
    fn new(
        orders: mpsc::UnboundedReceiver<Order>,
        tray: Tray,
        told: Arc<AtomicUsize>,
        limits: Limits,
    ) -> Self {
        let line = |(handler, limit)| Line { handler, limit, running: 0, queue: VecDeque::new() };
        Self {
            orders,
            tray,
            taking: Vec::new(),
            queue: VecDeque::new(),
            resting: 0,
            busy: None,
            running: FuturesUnordered::new(),
            limit: limits.all,
            lines: limits.handlers.into_iter().map(line).collect(),
            taken: 0,
            told,
            bell: AtEnd::default(),
        }
    }

    /// Those in the queue wait for those who run: with all places taken, a virtual clock goes on as
    /// soon as these wait for it. `busy` keeps it still for now.
    fn let_go(&mut self, busy: Option<Busy>) {
        if self.running.len() < self.limit {
            self.busy = busy.filter(|_| self.has_work());
        } else {
            self.queue.iter_mut().skip(self.resting).for_each(Job::rest);
            self.resting = self.queue.len();
            self.busy = None;
        }
    }

    /// Whether somebody waits for whom there is a place, as far as is known.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.lines.iter().any(|line| line.has_place() && !line.queue.is_empty())
    }

    /// The next for whom there is a place, and whose line it is. Those for whom there is none stand in
    /// line meanwhile.
    fn next(&mut self) -> Option<(Job, Option<usize>)> {
        // Whoever stands in a line has come before those in the queue.
        for (index, line) in self.lines.iter_mut().enumerate() {
            if line.has_place()
                && let Some(job) = line.queue.pop_front()
            {
                return Some((job, Some(index)));
            }
        }
        loop {
            let mut job = self.queue.pop_front()?;
            self.resting = self.resting.saturating_sub(1);
            let handler = job.run().task.handler.name();
            let Some(index) = self.lines.iter().position(|line| line.handler == handler) else {
                return Some((job, None));
            };
            let line = &mut self.lines[index];
            if line.has_place() {
                return Some((job, Some(index)));
            }
            job.rest();
            line.queue.push_back(job);
        }
    }

    /// Takes what is in the tray.
    fn take(&mut self) {
        std::mem::swap(&mut *open(&self.tray), &mut self.taking);
        self.queue.extend(self.taking.drain(..));
        self.taking.shrink_to(KEPT);
    }

    fn cancel(&mut self, run: RunId) {
        for line in &mut self.lines {
            if let Some(at) = line.queue.iter().position(|job| job.run().id == run)
                && let Some(job) = line.queue.remove(at)
            {
                self.taken = self.taken.wrapping_add(1);
                return job.cancel();
            }
        }
        if let Some(at) = self.queue.iter().position(|job| job.run().id == run)
            && let Some(job) = self.queue.remove(at)
        {
            self.taken = self.taken.wrapping_add(1);
            self.resting -= usize::from(at < self.resting);
            job.cancel();
        }
    }

    /// Begins one run. Most are so short that their first poll ends them, and cost no more than
    /// that poll.
    fn begin(&mut self, mut job: Job, line: Option<usize>, cx: &mut Context<'_>) {
        job.wake();
        self.taken = self.taken.wrapping_add(1);
        self.bell.0.get_or_insert_with(|| job.reporter().clone());
        if job.run().code.is_blocking() {
            let thread = actix_rt::task::spawn_blocking(move || {
                let busy = job.clock().busy();
                if let Some(started) = job.begin() {
                    started.block();
                }
                busy
            });
            self.seat(Running::Blocking(thread), line);
            return;
        }
        job.be_quiet();
        if let Some(started) = job.begin() {
            let mut drive = started.drive();
            if drive.poll_once(cx).is_pending() {
                // Polled again by `running` in this very turn, which leaves the right waker.
                self.seat(Running::Async(drive), line);
            }
        }
    }

    fn seat(&mut self, running: Running, line: Option<usize>) {
        if let Some(line) = line {
            self.lines[line].running += 1;
        }
        self.running.push(Seated { running, line });
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // In this order: what comes into the tray after that is given to another crew.
        self.orders.close();
        drop(std::mem::take(&mut *open(&self.tray)));
    }
}

impl Future for Crew {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let crew = &mut *self;
        while let Poll::Ready(order) = crew.orders.poll_recv(cx) {
            match order {
                Some(Order::Start) => crew.take(),
                Some(Order::Cancel(run)) => crew.cancel(run),
                None => return Poll::Ready(()),
            }
        }
        // A place that becomes free is given to the next before the clock can move.
        let waiting = crew.lines.iter().map(|line| &line.queue).chain([&crew.queue]);
        let busy = waiting.filter_map(VecDeque::front).next().map(|job| job.clock().busy());
        let (mut more, begun) = (false, crew.taken);
        for turn in 0.. {
            if crew.running.len() >= crew.limit {
                break;
            }
            if turn == TURN {
                more = crew.has_work();
                break;
            }
            let Some((job, line)) = crew.next() else { break };
            crew.begin(job, line, cx);
        }
        let mut ended = crew.taken != begun;
        for turn in 0.. {
            if turn == TURN {
                more = true;
                break;
            }
            let Poll::Ready(Some(line)) = crew.running.poll_next_unpin(cx) else { break };
            ended = true;
            if let Some(line) = line {
                crew.lines[line].running -= 1;
            }
        }
        crew.told.store(crew.taken, Ordering::Relaxed);
        if ended {
            crew.bell.ring();
        }
        // Places have become free for runs that wait.
        more |= crew.has_work() && crew.running.len() < crew.limit;
        crew.let_go(busy);
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Future for Seated {
    type Output = Option<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let line = self.line;
        Pin::new(&mut self.running).poll(cx).map(|()| line)
    }
}

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Async(drive) => Pin::new(drive).poll(cx),
            // However it ended, the job has reported it.
            Self::Blocking(thread) => Pin::new(thread).poll(cx).map(drop),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Blocking(thread) = self {
            // Has an effect while the code waits for a thread.
            thread.abort();
        }
    }
}
