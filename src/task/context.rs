use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Run, RunId, Source, TaskId};
use crate::clock::{Busy, Clock};
use crate::trigger::ZonedTime;

/// What task code is given: who it is, for which run time, and whether it should stop.
///
/// ```
/// use callboard::task::TaskContext;
/// use std::time::Duration;
///
/// async fn report(run: TaskContext, list: String) {
///     // The run time it is about, however late it began.
///     println!("{} for {list}, attempt {}", run.nominal(), run.attempt());
///     // Waits on the scheduler's clock: a virtual one in tests.
///     run.sleep(Duration::from_millis(10)).await;
/// }
/// # let _ = callboard::task::Registry::new().register("report", report);
/// ```
#[derive(Debug, Clone)]
pub struct TaskContext {
    run: Arc<Run>,
    clock: Clock,
    busy: Option<Arc<Mutex<Option<Busy>>>>,
}

impl TaskContext {
    /// The context of `run`. `busy` is the clock's token for this run; it is put aside while the
    /// code waits for the clock itself.
    pub fn new(run: Arc<Run>, clock: Clock, busy: Busy) -> Self {
        let busy = clock.is_virtual().then(|| Arc::new(Mutex::new(Some(busy))));
        Self { run, clock, busy }
    }

    /// The task.
    pub fn task_id(&self) -> &TaskId {
        &self.run.task.id
    }

    /// This run.
    pub fn run_id(&self) -> RunId {
        self.run.id
    }

    /// The run itself, with its task.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// The run time the trigger gave, whenever the run began in fact. Use it, not the clock, to
    /// name what a run is about ("the report of 08:00").
    pub fn nominal(&self) -> DateTime<Utc> {
        self.run.nominal
    }

    /// The [nominal](Self::nominal) time with what the clock of the trigger's zone showed then, by the rules
    /// of time zones that were in force when the run was submitted: for "the report of Monday". The table
    /// in `chrono-tz` may have another hour.
    ///
    /// ```
    /// use callboard::task::TaskContext;
    ///
    /// async fn report(run: TaskContext, _: ()) {
    ///     println!("the report of {}", run.local_time().naive_local().format("%A, %H:%M"));
    /// }
    /// # let _ = callboard::task::Registry::new().register("report", report);
    /// ```
    pub fn local_time(&self) -> ZonedTime {
        self.run.local_time()
    }

    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.run.attempt
    }

    /// Who asked for the run.
    pub fn source(&self) -> Source {
        self.run.source
    }

    /// The scheduler's clock: virtual in tests.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether the run was asked to stop: somebody cancelled it, or its task's
    /// [`timeout`](super::Task::timeout) is over. Blocking code looks here from time to time.
    pub fn is_cancelled(&self) -> bool {
        self.run.is_cancelled()
    }

    /// Ends when the run is asked to stop, as [`is_cancelled`](Self::is_cancelled) tells it.
    pub async fn cancelled(&self) {
        self.run.cancelled().await;
    }

    /// Gives the code time to end by itself once the run was asked to stop, by a cancellation, its
    /// task's timeout, or a shutdown whose grace is over. Within `grace` it is polled on, learns of it
    /// by [`cancelled`](Self::cancelled), and its instance is not given to another run; after that it is
    /// dropped. Of milliseconds; default: none, it is dropped at once.
    ///
    /// An error that it ends with is then no failure: the run is cancelled, timed out or interrupted.
    ///
    /// ```
    /// use callboard::task::{Failure, TaskContext};
    /// use std::time::Duration;
    ///
    /// async fn transfer(run: TaskContext, parts: u32) -> Result<(), Failure> {
    ///     run.set_cancel_grace(Duration::from_secs(5));
    ///     for part in 0..parts {
    ///         if run.is_cancelled() {
    ///             // Puts away what it has begun.
    ///             return Err(Failure::new(format!("stopped before part {part}")));
    ///         }
    ///         run.sleep(Duration::from_millis(10)).await;
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = callboard::task::Registry::new().register("transfer", transfer);
    /// ```
    pub fn set_cancel_grace(&self, grace: Duration) {
        self.run.set_cancel_grace(grace);
    }

    /// What the run has to show so far. It is kept with the run's end, as
    /// [`RunEnd::output`](super::RunEnd::output), when the run comes to no value: when it fails,
    /// panics, or is timed out, cancelled or cut off. The latest counts.
    pub fn set_output(&self, output: Value) {
        self.run.set_output(output);
    }

    /// The work was over at `at`, by the clock's monotonic time, and was not cut off: for code that
    /// hears of the end of its work later. How long the run took, and whether that was too long, counts
    /// to there.
    #[cfg(feature = "cli")]
    pub(crate) fn set_work_over(&self, at: Duration) {
        self.run.set_work_over(at);
    }

    /// A tracing span that names the task and the run.
    pub fn span(&self) -> tracing::Span {
        tracing::info_span!("run", task = %self.task_id(), run = %self.run_id(), attempt = self.attempt())
    }

    /// Says whether the run is at work. While it is not, but waits for its turn, a virtual clock may
    /// move on.
    pub(crate) fn set_working(&self, working: bool) {
        if let Some(slot) = &self.busy {
            put(slot, working.then(|| self.clock.busy()));
        }
    }

    /// Waits with `wait`, during which a virtual clock may move on: the run is not working but
    /// waiting for the time. `wait` brings the token for going on.
    pub(crate) async fn rest(&self, wait: impl Future<Output = Busy>) {
        let Some(slot) = &self.busy else {
            wait.await;
            return;
        };
        put(slot, None);
        let resting = Resting { slot, clock: &self.clock };
        let token = wait.await;
        put(slot, Some(token));
        drop(resting);
    }
}

fn put(slot: &Mutex<Option<Busy>>, token: Option<Busy>) {
    *slot.lock().unwrap_or_else(|e| e.into_inner()) = token;
}

/// A rest that may be given up: then the run is at work again.
struct Resting<'a> {
    slot: &'a Mutex<Option<Busy>>,
    clock: &'a Clock,
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.slot.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(|| self.clock.busy());
    }
}
