use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::deadline::Keeper;
use super::reports::{Report, Reporter};
use super::slot::Key;
use crate::clock::{Busy, Clock};
use crate::task::panics::Panic;
use crate::task::{Alias, Outcome, Refusal, Run, RunEnd, TaskContext};
use crate::timer::PAUSE;

/// Where the jobs of one executor report.
pub(super) struct Desk {
    pub(super) alias: Alias,
    pub(super) scheduler: String,
    pub(super) clock: Clock,
    pub(super) ends: Reporter,
    pub(super) keeper: Keeper,
}

/// A run that an executor has let in: what a [`Runner`](super::Runner) is given.
///
/// A job has exactly one end, whatever is done with it. One that is dropped before it ended is
/// reported as interrupted, or as panicked when a panic is what drops it.
pub struct Job {
    run: Arc<Run>,
    desk: Arc<Desk>,
    key: Key,
    busy: Busy,
    started: Option<(DateTime<Utc>, Duration)>,
    /// When its code was polled last.
    looked: Option<Duration>,
    /// What the runner holds for it.
    seat: Option<Box<dyn Send>>,
    /// Whether it waits rather than being refused when there is no place for it.
    patient: bool,
    /// Whether whoever carries it on rings when it has ended.
    quiet: bool,
    open: bool,
}

/// A job whose code is about to run. Made by [`Job::begin`].
#[derive(Debug)]
pub struct Started(pub(super) Job);

impl Job {
    pub(super) fn new(run: Arc<Run>, desk: Arc<Desk>, key: Key, busy: Busy) -> Self {
        run.note_queued();
        Self {
            run,
            desk,
            key,
            busy,
            started: None,
            looked: None,
            seat: None,
            patient: false,
            quiet: false,
            open: true,
        }
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// The alias of the executor.
    pub fn executor(&self) -> &Alias {
        &self.desk.alias
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.desk.clock
    }

    /// Keeps `seat` until the run has ended, and drops it before anybody hears of the end: so the
    /// next run, which may come with that news, finds the place free.
    pub(super) fn take_seat(&mut self, seat: impl Send + 'static) {
        self.seat = Some(Box::new(seat));
    }

    /// Nobody is told that there was no place for it: it waits for one.
    pub(super) fn be_patient(&mut self) {
        self.patient = true;
    }

    pub(super) fn is_patient(&self) -> bool {
        self.patient
    }

    /// Its end is reported quietly: the caller rings after that, also when it lets go of the job.
    pub(super) fn be_quiet(&mut self) {
        self.quiet = true;
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.desk.ends
    }

    /// It waits for a place that others have: whether a virtual clock may go on is for these to say.
    /// They may be waiting for the clock.
    pub(super) fn rest(&mut self) {
        self.busy = Busy::default();
    }

    /// There is a place for it. Whoever calls this keeps a virtual clock still meanwhile.
    pub(super) fn wake(&mut self) {
        self.busy = self.desk.clock.busy();
    }

    /// Call this when the code is about to run. `None` when it must not: the run was cancelled
    /// while it waited, or it is later than its misfire grace allows; that has been reported then.
    pub fn begin(mut self) -> Option<Started> {
        if self.run.is_cancelled() {
            self.close(Outcome::Cancelled);
            return None;
        }
        let now = self.desk.clock.now();
        let late = now - self.run.due;
        if !self.run.task.misfire_grace.allows(late) {
            self.close(Outcome::Missed { late_ms: u64::try_from(late.num_milliseconds()).unwrap_or(0) });
            return None;
        }
        Some(self.begin_anyhow())
    }

    /// The same, without asking whether it may.
    pub(super) fn begin_anyhow(mut self) -> Started {
        self.started = Some((self.desk.clock.now(), self.desk.clock.monotonic()));
        self.run.note_begun();
        Started(self)
    }

    /// Ends the run without having begun it.
    pub fn refuse(mut self, reason: Refusal) {
        self.close(Outcome::Refused { reason });
    }

    /// Ends the run as cut off.
    pub fn interrupt(mut self, reason: impl Into<String>) {
        self.close(Outcome::Interrupted { reason: reason.into() });
    }

    /// Ends the run as cancelled.
    pub fn cancel(mut self) {
        self.close(Outcome::Cancelled);
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.desk.keeper
    }

    /// How long the work has taken since it began.
    fn took(&self) -> Option<Duration> {
        let (_, since) = self.started?;
        let until = self.run.work_over().unwrap_or_else(|| self.desk.clock.monotonic());
        Some(until.saturating_sub(since))
    }

    fn close(&mut self, outcome: Outcome) {
        self.close_with(outcome, None);
    }

    fn close_with(&mut self, outcome: Outcome, backtrace: Option<Box<str>>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        drop(self.seat.take());
        let clock = &self.desk.clock;
        let output = self.run.take_output().filter(|_| !matches!(outcome, Outcome::Executed { .. }));
        let replaced = outcome == Outcome::Cancelled && self.run.was_replaced();
        let end = RunEnd {
            replaced,
            started_at: self.started.map(|(at, _)| at),
            duration: self.took().unwrap_or_default(),
            output,
            backtrace,
            ..RunEnd::unstarted(outcome, clock.now())
        };
        self.desk.ends.report(Report { key: self.key, end, busy: clock.busy() });
        if !self.quiet {
            self.reporter().ring();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.open {
            self.close(if std::thread::panicking() {
                Outcome::Panicked { message: "what ran the task panicked".to_owned() }
            } else {
                Outcome::Interrupted { reason: "the executor let go of the run before it ended".to_owned() }
            });
        }
    }
}

impl Started {
    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.0.run
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.0.desk.clock
    }

    /// The alias of the executor.
    pub fn executor(&self) -> &Alias {
        &self.0.desk.alias
    }

    /// The name of the scheduler.
    pub(super) fn scheduler(&self) -> &str {
        &self.0.desk.scheduler
    }

    /// What the code is to be given. The job's hold on a virtual clock goes over to the context.
    pub fn context(&mut self) -> TaskContext {
        TaskContext::new(self.0.run.clone(), self.0.desk.clock.clone(), std::mem::take(&mut self.0.busy))
    }

    /// The job's hold on a virtual clock, for code elsewhere that says by itself when it waits
    /// for the clock.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn busy(&mut self) -> &mut Busy {
        &mut self.0.busy
    }

    /// The work took so long, whatever the time is by now.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn set_took(&self, took: Duration) {
        if let Some((_, since)) = self.0.started {
            self.run().set_work_over(since.saturating_add(took));
        }
    }

    /// Reports how the run ended: for runners that run the code elsewhere. Others let
    /// [`drive`](Self::drive) do it. Code that came to its end when its task's timeout was over is
    /// reported as timed out, whatever it returned.
    pub fn end(mut self, outcome: Outcome) {
        let overdue = match outcome {
            Outcome::Executed { .. } | Outcome::Failed { .. } => self.overdue(),
            _ => None,
        };
        self.0.close(overdue.unwrap_or(outcome));
    }

    /// Reports that the code panicked.
    pub(super) fn end_in(mut self, Panic { message, backtrace }: Panic) {
        self.0.close_with(Outcome::Panicked { message }, backtrace);
    }

    /// The code is about to be polled.
    pub(super) fn note_look(&mut self) {
        if self.run().task.timeout.is_some() {
            self.0.looked = Some(self.0.desk.clock.monotonic());
        }
    }

    /// The outcome of a run that has taken as long as it may, or longer.
    fn overdue(&self) -> Option<Outcome> {
        let limit = self.run().task.timeout?;
        (self.0.took()? >= limit && !self.ended_in_a_pause(limit)).then(|| timed_out(limit))
    }

    /// Whether the end was there when everything went on that had stood still: nobody saw the time-out pass
    /// for as long as only a pause takes. Code that has its thread to itself is not told from it by when
    /// it was polled, but by the keeper of deadlines, which does not share that thread.
    fn ended_in_a_pause(&self, limit: Duration) -> bool {
        let Some((_, since)) = self.0.started else { return false };
        if self.clock().is_virtual() || self.run().has_timed_out() {
            return false;
        }
        let seen = match self.run().code.is_blocking() {
            true => Some(self.clock().monotonic()),
            false => self.0.looked,
        };
        seen.is_some_and(|seen| seen.saturating_sub(since) >= limit.saturating_add(PAUSE))
    }
}

pub(super) fn timed_out(limit: Duration) -> Outcome {
    Outcome::TimedOut { after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("run", &self.run)
            .field("executor", &self.desk.alias)
            .finish_non_exhaustive()
    }
}
