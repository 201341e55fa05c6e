use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Offset, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Alias, Coalesce, Code, Outcome, RunId, StoredTask, TaskId, TaskSpec};
use crate::trigger::{Zone, ZonedTime, Zones};

/// Who asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// The trigger.
    #[default]
    Scheduled,
    /// Somebody, by `run_task`.
    Manual,
    /// The shutdown trigger.
    Shutdown,
    /// Somebody, for a past window.
    Backfill,
}

/// One execution of a task, as it is handed to an executor.
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The task.
    pub task: Arc<TaskSpec>,
    /// The store the task lives in.
    pub store: Alias,
    /// The run time the trigger gave.
    pub nominal: DateTime<Utc>,
    /// The nominal time after jitter: lateness and misfire grace count from here.
    pub due: DateTime<Utc>,
    /// How many other run times this run stands for as well: those before it, or those after it
    /// when the task coalesces into the earliest.
    pub coalesced: u64,
    /// Where those lie.
    pub span: Option<Span>,
    /// Who asked for it.
    pub source: Source,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When it was decided that it runs now.
    pub submitted_at: DateTime<Utc>,
    /// Runs even when `max_instances` of the task are running.
    pub beyond_max_instances: bool,
    /// The code.
    pub code: Code,
    /// Where the scheduler keeps the run while it is in flight; no concern of an executor.
    pub slot: u32,
    /// What the clock of the trigger's zone was away from UTC at the run time, in seconds, by the rules in
    /// force when it was submitted; `None` in UTC.
    pub(crate) offset: Option<i32>,
    /// When its task was added: that tells the task from another one that has its id since.
    pub(crate) added_at: DateTime<Utc>,
    cancel: CancelFlag,
    work: Work,
}

/// What the code says of itself while it works.
#[derive(Default)]
struct Work {
    /// How long it has to end by itself once it was asked to stop, in milliseconds.
    cancel_grace_ms: AtomicU64,
    /// Told of that time, where who cuts the run off is in another process.
    told: Option<Box<dyn Fn(Duration) + Send + Sync>>,
    /// By the monotonic clock, in nanoseconds, and one more; 0 while it goes on.
    over: AtomicU64,
    output: Mutex<Option<Box<Value>>>,
    /// How far its executor has come with it, for whoever looks; 0 when that does not say.
    progress: AtomicU8,
}

#[derive(Default)]
struct CancelFlag {
    /// Why the run was first asked to stop; 0 while it was not.
    raised: AtomicU8,
    waiting: std::sync::Mutex<Vec<Waker>>,
}

const CANCELLED: u8 = 1;
const TIMED_OUT: u8 = 2;
const REPLACED: u8 = 3;

/// It waits in its executor: for a place, or for an earlier run of its task to end.
const QUEUED: u8 = 1;
/// Its code runs.
const BEGUN: u8 = 2;

impl Run {
    /// A scheduled first attempt, due at its nominal time.
    pub fn new(id: RunId, task: Arc<TaskSpec>, store: Alias, nominal: DateTime<Utc>, code: Code) -> Self {
        Self {
            id,
            task,
            store,
            nominal,
            due: nominal,
            coalesced: 0,
            span: None,
            source: Source::Scheduled,
            attempt: 1,
            submitted_at: nominal,
            beyond_max_instances: false,
            code,
            slot: 0,
            offset: None,
            added_at: DateTime::UNIX_EPOCH,
            cancel: CancelFlag::default(),
            work: Work::default(),
        }
    }

    /// The nominal time with what the clock of the trigger's zone showed then, by the rules of time zones
    /// that were in force when the run was submitted.
    pub fn local_time(&self) -> ZonedTime {
        let zone = self.task.trigger.zone(&self.task.context(self.nominal, Zones::bundled()));
        match self.offset.and_then(FixedOffset::east_opt) {
            Some(offset) => ZonedTime::new(self.nominal, offset, zone),
            None => ZonedTime::new(self.nominal, Utc.fix(), Zone::UTC),
        }
    }

    /// Whether it is a run of this very task, and not of one that had its id before.
    pub(crate) fn is_of(&self, task: &StoredTask) -> bool {
        self.task.id == task.spec.id && self.added_at == task.state.created_at
    }

    /// Asks the code to stop; see [`TaskContext::cancelled`](super::TaskContext::cancelled).
    pub fn cancel(&self) {
        self.stop(CANCELLED);
    }

    /// Asks the code to stop because it has taken as long as it may.
    pub(crate) fn time_out(&self) {
        self.stop(TIMED_OUT);
    }

    /// Asks the code to stop because a later run of the task takes its place.
    pub(crate) fn replace(&self) {
        self.stop(REPLACED);
    }

    /// Whether a later run of the task taking its place is why the run was asked to stop.
    pub(crate) fn was_replaced(&self) -> bool {
        self.cancel.raised.load(Ordering::Acquire) == REPLACED
    }

    /// Its executor has it, and it waits there.
    pub(crate) fn note_queued(&self) {
        self.work.progress.store(QUEUED, Ordering::Release);
    }

    /// Its code runs.
    pub(crate) fn note_begun(&self) {
        self.work.progress.store(BEGUN, Ordering::Release);
    }

    /// Whether it waits in its executor.
    pub fn is_queued(&self) -> bool {
        self.work.progress.load(Ordering::Acquire) == QUEUED
    }

    /// Whether it stands for run times that were one too many of a backlog.
    pub(crate) fn is_backlog(&self) -> bool {
        self.task.coalesce == Coalesce::All && self.span.is_some_and(|span| span.from == self.nominal)
    }

    /// The first reason counts.
    fn stop(&self, reason: u8) {
        let _ = self.cancel.raised.compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
        let waiting = std::mem::take(&mut *self.cancel.waiting.lock().unwrap_or_else(|e| e.into_inner()));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether the run was asked to stop: by somebody, or because its time is up.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.raised.load(Ordering::Acquire) != 0
    }

    /// How long its code has to end by itself once it was asked to stop; see
    /// [`TaskContext::set_cancel_grace`](super::TaskContext::set_cancel_grace).
    pub fn cancel_grace(&self) -> Duration {
        Duration::from_millis(self.work.cancel_grace_ms.load(Ordering::Acquire))
    }

    pub(crate) fn set_cancel_grace(&self, grace: Duration) {
        let ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.work.cancel_grace_ms.store(ms, Ordering::Release);
        if let Some(tell) = &self.work.told {
            tell(grace);
        }
    }

    /// `tell` hears of it whenever the code asks for time to end by itself.
    #[cfg(all(unix, feature = "process"))]
    pub(crate) fn on_cancel_grace(&mut self, tell: impl Fn(Duration) + Send + Sync + 'static) {
        self.work.told = Some(Box::new(tell));
    }

    /// Notes when the work was over, by the monotonic clock.
    #[cfg(any(feature = "cli", all(unix, feature = "process")))]
    pub(crate) fn set_work_over(&self, at: Duration) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX - 1);
        self.work.over.store(nanos.saturating_add(1), Ordering::Release);
    }

    /// When the work was over, where the code has said so.
    pub(crate) fn work_over(&self) -> Option<Duration> {
        self.work.over.load(Ordering::Acquire).checked_sub(1).map(Duration::from_nanos)
    }

    pub(crate) fn set_output(&self, output: Value) {
        *self.work.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(output));
    }

    pub(crate) fn take_output(&self) -> Option<Box<Value>> {
        self.work.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether its time being up is why the run was asked to stop.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.cancel.raised.load(Ordering::Acquire) == TIMED_OUT
    }

    /// Ends when the run is asked to stop.
    pub fn cancelled(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            if !self.is_cancelled() {
                let mut waiting = self.cancel.waiting.lock().unwrap_or_else(|e| e.into_inner());
                // A run is polled many times, by few wakers.
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
            }
            if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// The record of this run as a store keeps it, not yet ended.
    pub fn record(&self, submitted_at: DateTime<Utc>) -> RunRecord {
        RunRecord {
            id: self.id,
            task: self.task.id.clone(),
            nominal: self.nominal,
            offset: self.offset,
            coalesced: self.coalesced,
            span: self.span,
            source: self.source,
            attempt: self.attempt,
            submitted_at,
            end: None,
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("id", &self.id)
            .field("task", &self.task.id)
            .field("nominal", &self.nominal)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// How and when a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// How.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When it began, if it did.
    pub started_at: Option<DateTime<Utc>>,
    /// When that was known.
    pub ended_at: DateTime<Utc>,
    /// How long the code ran, in nanoseconds of monotonic time when encoded.
    #[serde(with = "nanos")]
    pub duration: Duration,
    /// What the run had to show when it did not come to a value: what a command printed, what a
    /// server answered. The code hands it over with
    /// [`TaskContext::set_output`](super::TaskContext::set_output).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<Value>>,
    /// Where the code panicked, call by call: when it did, and `RUST_BACKTRACE` (or
    /// `RUST_LIB_BACKTRACE`) is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<Box<str>>,
    /// When it will be tried again; `None` when this end is the last word about its nominal time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    /// Whether it was cancelled because a later run of the task took its place
    /// ([`Overlap::CancelRunning`](super::Overlap::CancelRunning)), and not by somebody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// When it turned out that the clock had been ahead as this was recorded. What did not run then is
    /// no outcome of run times after that: they are open again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong_clock: Option<DateTime<Utc>>,
}

impl RunEnd {
    /// An end without a beginning: refused, missed, interrupted before the start.
    pub fn unstarted(outcome: Outcome, at: DateTime<Utc>) -> Self {
        Self {
            outcome,
            started_at: None,
            ended_at: at,
            duration: Duration::ZERO,
            output: None,
            backtrace: None,
            retry_at: None,
            replaced: false,
            wrong_clock: None,
        }
    }

    /// What went wrong, for people, with the end of what the run had to show; `None` when nothing did.
    pub fn problem(&self) -> Option<String> {
        self.problem_in(false)
    }

    /// The same; of run times that were one too many of a `backlog` that is said.
    pub(crate) fn problem_in(&self, backlog: bool) -> Option<String> {
        let problem = match &self.outcome {
            Outcome::Missed { late_ms } if backlog => {
                format!("{late_ms} ms late, and more run times were due together than max_catch_up lets run")
            }
            Outcome::Cancelled if self.replaced => "a later run of the task took its place".to_owned(),
            outcome => outcome.problem()?,
        };
        Some([problem].into_iter().chain(self.shown()).collect::<Vec<_>>().join("; "))
    }

    /// The end of what the run had to show, part by part.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.output.as_deref().map(shown).unwrap_or_default()
    }

    /// How long after `due` the run began; zero when it did not.
    pub fn lateness(&self, due: DateTime<Utc>) -> TimeDelta {
        self.started_at.map_or(TimeDelta::zero(), |started| started - due)
    }
}

/// What a run had to show, for a line: of each part the end, where the reason mostly is.
fn shown(output: &Value) -> Vec<String> {
    const KEPT: usize = 200;
    let part = |name: &str, value: &Value| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let left_out = text.chars().count().saturating_sub(KEPT);
        let mark = if left_out > 0 { "…" } else { "" };
        let end: String = text.chars().skip(left_out).collect();
        (!end.is_empty()).then(|| format!("{name}: {mark}{end}"))
    };
    match output {
        Value::Object(parts) => parts.iter().filter_map(|(name, value)| part(name, value)).collect(),
        other => part("output", other).into_iter().collect(),
    }
}

/// That a run stands for others as well, for people; nothing when it does not.
pub(crate) fn standing_for(coalesced: u64) -> Option<String> {
    match coalesced {
        0 => None,
        1 => Some("for 1 other run time as well".to_owned()),
        others => Some(format!("for {others} other run times as well")),
    }
}

/// A stretch of run times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first of them.
    pub from: DateTime<Utc>,
    /// An instant later than the last.
    pub until: DateTime<Utc>,
}

impl Span {
    /// Whether `time` lies in it.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        self.from <= time && time < self.until
    }
}

/// One run as a store remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// The run time the trigger gave.
    pub nominal: DateTime<Utc>,
    /// What the clock of the trigger's zone was away from UTC then, in seconds and positive to the east,
    /// by the rules of time zones that were in force: rules that change do not change it. `None` in UTC,
    /// and of runs that an earlier version recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// How many other run times it stands for as well; see [`Run::coalesced`].
    #[serde(default)]
    pub coalesced: u64,
    /// Where those lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Who asked for it.
    #[serde(default)]
    pub source: Source,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When it was handed to an executor.
    pub submitted_at: DateTime<Utc>,
    /// How it ended; `None` while it runs.
    pub end: Option<RunEnd>,
}

impl RunRecord {
    /// The first of the run times it concerns.
    pub fn begins(&self) -> DateTime<Utc> {
        self.span.map_or(self.nominal, |span| span.from.min(self.nominal))
    }

    /// Whether it concerns run times from `from` to `to`, both inclusive.
    pub fn concerns(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        let own = from <= self.nominal && self.nominal <= to;
        own || self.span.is_some_and(|span| span.from <= to && from < span.until)
    }
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whatever the outcome: what went wrong comes with the end of what there is to see.
    #[test]
    fn every_problem_is_shown_with_the_end_of_its_output() {
        let failed = Outcome::Failed { error: "exit code 3".to_owned() };
        let interrupted = Outcome::Interrupted { reason: "shut down".to_owned() };
        for outcome in [failed, Outcome::TimedOut { after_ms: 5 }, Outcome::Cancelled, interrupted] {
            let said = outcome.problem().unwrap();
            let mut end = RunEnd::unstarted(outcome, DateTime::UNIX_EPOCH);
            assert_eq!(end.problem(), Some(said.clone()));
            end.output = Some(Box::new(json!({ "stdout": "x".repeat(900) + " the\n end\n", "stderr": "" })));
            let problem = end.problem().unwrap();
            assert!(
                problem.starts_with(&format!("{said}; stdout: …xx")) && problem.ends_with("xx the end"),
                "{problem}"
            );
            let text = serde_json::to_string(&end).unwrap();
            assert_eq!(serde_json::from_str::<RunEnd>(&text).unwrap(), end);
        }
        let ended = RunEnd::unstarted(Outcome::Executed { value: json!(1) }, DateTime::UNIX_EPOCH);
        assert_eq!(ended.problem(), None);
    }

    /// Ends of earlier versions had nothing to show.
    #[test]
    fn an_end_without_output_is_read() {
        let end = RunEnd::unstarted(Outcome::Cancelled, DateTime::UNIX_EPOCH);
        let text = serde_json::to_string(&end).unwrap();
        assert!(!text.contains("output"), "{text}");
        assert_eq!(serde_json::from_str::<RunEnd>(&text).unwrap(), end);
    }
}
