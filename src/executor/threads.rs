//! The thread pool: runs that block their thread.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use actix::prelude::*;

use super::{ExecutorActor, ExecutorAddr, ExecutorSource, Job, Keep, Room, Runner, Started};
use crate::clock::Busy;
use crate::task::{Outcome, Refusal, RunId};

/// How soon a pool without threads tries to start one again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs tasks on threads of its own, started as they are needed and kept.
///
/// Asynchronous code runs here, too: each thread has a small runtime that drives one run at a time
/// (what such a run spawns and leaves behind stands still between runs, and there is no actix
/// system on these threads).
///
/// A run that has begun cannot be cut off: cancelling raises its flag
/// ([`TaskContext::is_cancelled`](crate::task::TaskContext::is_cancelled)), and at the end of a
/// drain's grace it is reported as interrupted and left to itself. A run that waits is taken out
/// of the queue.
///
/// ```
/// use callboard::executor::ThreadPool;
///
/// let pool = ThreadPool::new(20).queue(500);
/// ```
#[derive(Debug, Clone)]
pub struct ThreadPool {
    max_workers: usize,
    queue: usize,
}

impl ThreadPool {
    /// How many runs wait when no other number is given.
    pub const DEFAULT_QUEUE: usize = 100_000;

    /// At most so many runs at once, each on a thread of its own; 0 counts as 1.
    pub fn new(max_workers: usize) -> Self {
        Self { max_workers: max_workers.max(1), queue: Self::DEFAULT_QUEUE }
    }

    /// How many runs may wait for a thread. What a scheduler has beyond that waits in its store, and
    /// begins when there is room; of runs that others submit, one more is refused with
    /// [`Refusal::QueueFull`]. 0 is allowed: no run begins when no thread is free.
    /// Default: [`DEFAULT_QUEUE`](Self::DEFAULT_QUEUE).
    pub fn queue(mut self, runs: usize) -> Self {
        self.queue = runs;
        self
    }
}

impl ExecutorSource for ThreadPool {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let runner = PoolRunner {
            shared: Arc::default(),
            max_workers: self.max_workers,
            queue: self.queue,
            last_error: String::new(),
        };
        ExecutorActor::new(runner, keep).start().into()
    }
}

struct PoolRunner {
    shared: Arc<Shared>,
    max_workers: usize,
    queue: usize,
    /// Why no further thread could be started.
    last_error: String,
}

/// What the threads share with the runner: the queue, never the counts.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung when there is work, or no more will come.
    bell: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Threads with a run.
    busy: usize,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for work; `None` when no more will come. `hold` has kept a virtual clock still since the
    /// run before.
    fn next(&self, hold: Busy) -> Option<Job> {
        let mut hold = Some(hold);
        let mut state = self.state();
        loop {
            if let Some(mut job) = state.waiting.pop_front() {
                state.busy += 1;
                job.wake();
                return Some(job);
            }
            if state.closed {
                return None;
            }
            drop(hold.take());
            state = self.bell.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl PoolRunner {
    /// Sees to it that there is a thread for each waiting job, as far as allowed.
    fn hire(&mut self) {
        let wanted = {
            let state = self.shared.state();
            (state.busy + state.waiting.len()).min(self.max_workers).saturating_sub(state.threads)
        };
        self.start_threads(wanted);
    }

    fn start_threads(&mut self, wanted: usize) {
        for _ in 0..wanted {
            let place = Place::take(self.shared.clone());
            // A thread that does not come to be drops its place here.
            let thread = std::thread::Builder::new().name("callboard-pool".to_owned());
            if let Err(error) = thread.spawn(move || place.work()) {
                tracing::error!(%error, "the thread pool cannot start another thread");
                self.last_error = error.to_string();
                break;
            }
        }
    }

    /// Lets in as many as there are places for; hands the others back.
    fn enqueue(&self, jobs: &mut Vec<Job>) {
        let mut state = self.shared.state();
        let room = (self.queue.saturating_add(self.max_workers))
            .saturating_sub(state.busy)
            .saturating_sub(state.waiting.len());
        let count = jobs.len().min(room);
        // Those for whom there is no place wait for those who run, who may wait for a virtual clock.
        let free = self.max_workers.saturating_sub(state.busy + state.waiting.len());
        jobs.iter_mut().take(count).skip(free).for_each(Job::rest);
        state.waiting.extend(jobs.drain(..count));
        drop(state);
        match count {
            0 => {}
            1 => self.shared.bell.notify_one(),
            _ => self.shared.bell.notify_all(),
        }
    }
}

impl Runner for PoolRunner {
    const BOUNDED: bool = true;

    fn kind(&self) -> &'static str {
        "threadpool"
    }

    fn start(&mut self, job: Job) {
        self.start_all(vec![job]);
    }

    fn start_all(&mut self, mut jobs: Vec<Job>) {
        self.enqueue(&mut jobs);
        self.hire();
        for job in jobs {
            let executor = job.executor().to_string();
            job.refuse(Refusal::QueueFull { executor, limit: self.queue });
        }
        let mut state = self.shared.state();
        if state.threads == 0 {
            let (mut patient, stranded): (VecDeque<Job>, VecDeque<Job>) =
                std::mem::take(&mut state.waiting).into_iter().partition(Job::is_patient);
            patient.iter_mut().for_each(Job::rest);
            state.waiting = patient;
            drop(state);
            for job in stranded {
                let executor = job.executor().to_string();
                let reason = format!("no thread could be started: {}", self.last_error);
                job.refuse(Refusal::ExecutorUnavailable { executor, reason });
            }
        }
    }

    fn cancel(&mut self, run: RunId) {
        let mut state = self.shared.state();
        let found = state.waiting.iter().position(|job| job.run().id == run);
        let job = found.and_then(|at| state.waiting.remove(at));
        drop(state);
        if let Some(job) = job {
            job.cancel();
        }
    }

    fn stop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.shared.bell.notify_all();
        drop(waiting);
    }

    fn room(&mut self) -> Room {
        if self.shared.state().threads == 0 {
            // Whether there is a thread at all is known before runs begin.
            self.start_threads(1);
        }
        let state = self.shared.state();
        if state.threads == 0 {
            let reason = format!("no thread could be started: {}", self.last_error);
            return Room::Closed { reason, look_again: LOOK_AGAIN };
        }
        let room = self.queue.saturating_add(self.max_workers);
        Room::Places(room.saturating_sub(state.busy).saturating_sub(state.waiting.len()))
    }

    fn queued(&self) -> usize {
        self.shared.state().waiting.len()
    }
}

impl Drop for PoolRunner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread's place in the pool, given back when the thread ends, for whatever reason.
struct Place(Arc<Shared>);

/// A thread's hold on a run, for the count of busy threads.
struct AtWork(Arc<Shared>);

impl Place {
    fn take(shared: Arc<Shared>) -> Self {
        shared.state().threads += 1;
        Self(shared)
    }

    fn work(self) {
        let mut runtime = None;
        let mut hold = Busy::default();
        while let Some(mut job) = self.0.next(std::mem::take(&mut hold)) {
            hold = job.clock().busy();
            job.take_seat(AtWork(self.0.clone()));
            let Some(started) = job.begin() else { continue };
            if started.run().code.is_blocking() {
                started.block();
            } else {
                drop(std::mem::take(&mut hold));
                hold = drive(&mut runtime, started);
            }
        }
    }
}

/// Drives asynchronous code on the thread's runtime, which is made for the first of its kind.
/// Answers with what keeps a virtual clock still since the end.
fn drive(runtime: &mut Option<actix_rt::Runtime>, started: Started) -> Busy {
    let clock = started.clock().clone();
    let ready = match runtime {
        Some(runtime) => runtime,
        None => match actix_rt::Runtime::new() {
            Ok(new) => runtime.insert(new),
            Err(error) => {
                let error = format!("the thread cannot run asynchronous code: {error}");
                let hold = clock.busy();
                started.end(Outcome::Failed { error });
                return hold;
            }
        },
    };
    let mut run = started.drive();
    ready.block_on(poll_fn(|cx| {
        let hold = clock.busy();
        Pin::new(&mut run).poll(cx).map(|()| hold)
    }))
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().threads -= 1;
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
    }
}
