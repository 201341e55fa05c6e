//! The pool: places for workers, and the queue in front of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::ProcessPool;
use super::keeper::Group;
use super::link::{News, StartError, Worker};
use super::run::{Carried, carry_out};
use super::worker;
use crate::backoff::Backoff;
use crate::clock::{Busy, Clock};
use crate::executor::{Job, Room, Runner, Started};
use crate::task::{Alias, Handler, Outcome, Refusal, RunId};
use crate::timer;

/// How long no worker is started after one could not be.
const BACKOFF: Backoff = Backoff::exponential(Duration::from_millis(250), LONGEST);

const LONGEST: Duration = Duration::from_secs(30);

/// Owns the places; lives on the pool's arbiter.
pub(super) struct PoolRunner {
    shared: Rc<Shared>,
    places: Vec<JoinHandle<()>>,
}

/// What the places share with the runner, all on one arbiter.
struct Shared {
    settings: ProcessPool,
    queue: RefCell<VecDeque<Job>>,
    /// Rung when there is work.
    bell: Notify,
    places: Cell<usize>,
    /// Places with a run, or with a worker that retires.
    busy: Cell<usize>,
    /// Those of them that have no run any more.
    retiring: Cell<usize>,
    stopped: Cell<bool>,
    /// The workers that live.
    groups: RefCell<Vec<Weak<Group>>>,
    trouble: RefCell<Option<Trouble>>,
}

/// Why no worker could be started.
struct Trouble {
    reason: String,
    /// How often in a row.
    times: u32,
    /// By the monotonic clock.
    until: Duration,
}

impl PoolRunner {
    pub(super) fn new(settings: ProcessPool) -> Self {
        let trouble = worker::unheeded().then(|| Trouble {
            reason: "this process was itself started as a worker, and its `main` does not call `callboard::executor::worker::run_if_asked`".to_owned(),
            times: 0,
            until: Duration::MAX,
        });
        let shared = Shared {
            settings,
            queue: RefCell::default(),
            bell: Notify::new(),
            places: Cell::new(0),
            busy: Cell::new(0),
            retiring: Cell::new(0),
            stopped: Cell::new(false),
            groups: RefCell::default(),
            trouble: RefCell::new(trouble),
        };
        Self { shared: Rc::new(shared), places: Vec::new() }
    }

    /// Sees to it that there is a place for each waiting job, as far as allowed.
    fn hire(&mut self) {
        let shared = &self.shared;
        let wanted = (shared.busy.get() + shared.queue.borrow().len()).min(shared.settings.max_workers);
        self.places.retain(|place| !place.is_finished());
        for _ in shared.places.get()..wanted {
            let place = Place::take(shared.clone());
            self.places.push(actix_rt::spawn(place.work()));
        }
    }
}

impl Runner for PoolRunner {
    const BOUNDED: bool = true;

    fn kind(&self) -> &'static str {
        "processpool"
    }

    fn start(&mut self, job: Job) {
        self.start_all(vec![job]);
    }

    fn start_all(&mut self, jobs: Vec<Job>) {
        let shared = &self.shared;
        let limit = shared.settings.queue;
        for mut job in jobs {
            if shared.stopped.get() {
                // Dropped, and so interrupted.
                continue;
            }
            let executor = || job.executor().to_string();
            if matches!(job.run().task.handler, Handler::Closure(_)) {
                let executor = executor();
                job.refuse(Refusal::ClosureNotPortable { executor });
                continue;
            }
            let room = limit.saturating_add(shared.settings.max_workers);
            let working = shared.busy.get() - shared.retiring.get();
            if working + shared.queue.borrow().len() >= room {
                let executor = executor();
                job.refuse(Refusal::QueueFull { executor, limit });
                continue;
            }
            if shared.busy.get() + shared.queue.borrow().len() >= shared.settings.max_workers {
                // It waits for those who run, who may wait for a virtual clock.
                job.rest();
            }
            shared.queue.borrow_mut().push_back(job);
        }
        self.hire();
        self.shared.bell.notify_waiters();
    }

    fn cancel(&mut self, run: RunId) {
        let mut queue = self.shared.queue.borrow_mut();
        let found = queue.iter().position(|job| job.run().id == run);
        let job = found.and_then(|at| queue.remove(at));
        drop(queue);
        if let Some(job) = job {
            job.cancel();
        }
    }

    fn stop(&mut self) {
        self.shared.stopped.set(true);
        for place in self.places.drain(..) {
            place.abort();
        }
        // The places are gone soon; their workers go at once.
        for group in self.shared.groups.take() {
            if let Some(group) = group.upgrade() {
                group.kill();
            }
        }
        let waiting = self.shared.queue.take();
        drop(waiting);
    }

    fn room(&mut self) -> Room {
        let shared = &self.shared;
        if let Some((reason, left)) = shared.reason_to_wait().filter(|_| !shared.has_workers()) {
            return Room::Closed { reason, look_again: left.min(LONGEST) };
        }
        let room = shared.settings.queue.saturating_add(shared.settings.max_workers);
        let working = shared.busy.get().saturating_sub(shared.retiring.get());
        Room::Places(room.saturating_sub(working).saturating_sub(shared.queue.borrow().len()))
    }

    fn queued(&self) -> usize {
        self.shared.queue.borrow().len()
    }
}

impl Drop for PoolRunner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A place for a worker, given back when it ends for whatever reason.
struct Place(Rc<Shared>);

/// Counts a place for as long as it lives.
struct Count<'a>(&'a Cell<usize>);

impl Place {
    fn take(shared: Rc<Shared>) -> Self {
        shared.places.set(shared.places.get() + 1);
        Self(shared)
    }

    async fn work(self) {
        let shared = &*self.0;
        let mut worker = None;
        let mut hold = Busy::default();
        loop {
            let job = shared.next(&mut worker, std::mem::take(&mut hold)).await;
            let _at_work = Count::begin(&shared.busy);
            let clock = job.clock().clone();
            let (job, ready) = match worker.take().filter(Worker::lives) {
                Some(ready) => (Some(job), Some(ready)),
                None => shared.with_worker(job).await,
            };
            let Some(mut ready) = ready else {
                hold = clock.busy();
                continue;
            };
            let Some(started) = job.and_then(Job::begin) else {
                hold = clock.busy();
                worker = Some(ready);
                continue;
            };
            let fit = match carry_out(started, &mut ready, shared.settings.grace).await {
                Carried::Out => true,
                Carried::OutAndLost => false,
                Carried::Not(started, _) => match shared.once_more(started).await {
                    Some(another) => {
                        ready = another;
                        true
                    }
                    None => false,
                },
            };
            // The end is on its way, and keeps a virtual clock still until here.
            hold = clock.busy();
            let spent = shared.settings.recycle_after.is_some_and(|runs| ready.runs >= runs);
            match (fit, spent) {
                (true, false) => worker = Some(ready),
                (true, true) => {
                    let _retiring = Count::begin(&shared.retiring);
                    ready.retire(shared.settings.grace).await;
                }
                (false, _) => {}
            }
        }
    }
}

impl Shared {
    /// Waits for a job, and with an eye on the worker that has none. `hold` has kept a virtual clock
    /// still since the run before.
    async fn next(&self, worker: &mut Option<Worker>, hold: Busy) -> Job {
        let mut hold = Some(hold);
        loop {
            // Asked for before the queue is looked at, so that no ring in between is missed.
            let bell = self.bell.notified();
            if let Some(mut job) = self.queue.borrow_mut().pop_front() {
                job.wake();
                return job;
            }
            drop(hold.take());
            let Some(idle) = worker else {
                bell.await;
                continue;
            };
            let lost =
                matches!(select(pin!(bell), pin!(idle.news())).await, Either::Right((News::Lost(_), _)));
            if lost {
                *worker = None;
            }
        }
    }

    /// Starts a worker for the job. The job is not there any more when it was cancelled meanwhile,
    /// refused, or left to another worker.
    async fn with_worker(&self, job: Job) -> (Option<Job>, Option<Worker>) {
        if let Some((reason, left)) = self.reason_to_wait() {
            self.leave(job, reason, left).await;
            return (None, None);
        }
        let run = job.run().clone();
        let starting = pin!(self.start_worker(job.executor().clone()));
        let (started, job) = match select(starting, pin!(run.cancelled())).await {
            Either::Left((started, _)) => (started, Some(job)),
            Either::Right(((), starting)) => {
                job.cancel();
                (starting.await, None)
            }
        };
        match started {
            Ok(worker) => (job, Some(worker)),
            Err((error, delay)) => {
                if let Some(job) = job {
                    self.leave(job, format!("no worker process could be started: {error}"), delay).await;
                }
                (None, None)
            }
        }
    }

    /// Gives a run to a fresh worker: the one it was given to had died before it heard of it. The
    /// worker, if it can be given another run.
    async fn once_more(&self, started: Started) -> Option<Worker> {
        let executor = started.executor().clone();
        match self.start_worker(executor.clone()).await {
            Ok(mut worker) => match carry_out(started, &mut worker, self.settings.grace).await {
                Carried::Out => Some(worker),
                Carried::OutAndLost => None,
                Carried::Not(started, fate) => {
                    started.end(Outcome::Failed { error: format!("its worker process {fate}") });
                    None
                }
            },
            Err((error, _)) => {
                let reason = format!("no worker process could be started: {error}");
                let executor = executor.to_string();
                started.end(Outcome::Refused { reason: Refusal::ExecutorUnavailable { executor, reason } });
                None
            }
        }
    }

    /// Starts a worker; otherwise it says why it could not, and when to try again.
    async fn start_worker(&self, executor: Alias) -> Result<Worker, (StartError, Duration)> {
        let ProcessPool { launch, start_limit, .. } = &self.settings;
        match Worker::start(launch.clone(), executor.clone(), *start_limit).await {
            Ok(worker) => {
                self.trouble.replace(None);
                let mut groups = self.groups.borrow_mut();
                groups.retain(|group| group.strong_count() > 0);
                groups.push(Arc::downgrade(worker.group()));
                Ok(worker)
            }
            Err(error) => {
                tracing::error!(%executor, %error, "no worker process could be started");
                let delay = self.note_trouble(&error);
                Err((error, delay))
            }
        }
    }

    /// Leaves a job to the workers that there are, and the place without one for `delay`; refuses
    /// it when there are none.
    async fn leave(&self, job: Job, reason: String, delay: Duration) {
        if job.is_patient() || self.has_workers() {
            let mut job = job;
            // A virtual clock may go on meanwhile.
            job.rest();
            self.queue.borrow_mut().push_front(job);
            if self.has_workers() {
                self.bell.notify_waiters();
            }
            timer::sleep(&Clock::system(), delay.min(LONGEST)).await;
        } else {
            let executor = job.executor().to_string();
            job.refuse(Refusal::ExecutorUnavailable { executor, reason });
        }
    }

    fn has_workers(&self) -> bool {
        self.groups.borrow().iter().any(|group| group.strong_count() > 0)
    }

    /// Why no worker is started for now, and how long that lasts.
    fn reason_to_wait(&self) -> Option<(String, Duration)> {
        let trouble = self.trouble.borrow();
        let Trouble { reason, times, until } = trouble.as_ref()?;
        let left = until.saturating_sub(Clock::system().monotonic());
        match (left.is_zero(), times) {
            (true, _) => None,
            (false, 0) => Some((reason.clone(), left)),
            (false, _) => {
                let ms = left.as_millis() + 1;
                let reason =
                    format!("no worker process could be started ({reason}); the next try is in {ms} ms");
                Some((reason, left))
            }
        }
    }

    fn note_trouble(&self, error: &StartError) -> Duration {
        let mut trouble = self.trouble.borrow_mut();
        let now = Clock::system().monotonic();
        if let Some(known) = trouble.as_ref().filter(|known| known.until > now) {
            // Of several that were started together the first has been noted.
            return known.until - now;
        }
        let times = trouble.as_ref().map_or(0, |trouble| trouble.times);
        let delay = BACKOFF.delay(times, 0);
        let until = now.saturating_add(delay);
        *trouble = Some(Trouble { reason: error.to_string(), times: times.saturating_add(1), until });
        delay
    }
}

impl<'a> Count<'a> {
    fn begin(places: &'a Cell<usize>) -> Self {
        places.set(places.get() + 1);
        Self(places)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.set(self.0.places.get() - 1);
    }
}
