//! What is done about runs that cannot start on time, take too long or fail.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::TaskError;
use crate::backoff::Backoff;

/// How late a run may start and still run.
///
/// The default is [`Unlimited`](MisfireGrace::Unlimited): a late run still runs. (asyncz and
/// APScheduler drop a run that is more than one second late, which loses runs on every hiccup.)
///
/// ```text
/// grace 10 s      nominal 08:00:00        started 08:00:07   runs
///                 nominal 08:00:00        started 08:00:12   missed, recorded with its lateness
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
pub enum MisfireGrace {
    /// Runs however late it is.
    #[default]
    Unlimited,
    /// Runs when at most this late; otherwise the run is missed. Kept to the millisecond.
    Within(Duration),
}

impl MisfireGrace {
    /// Whether a run that would start `late` after it was due still runs.
    pub fn allows(self, late: chrono::TimeDelta) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Within(grace) => {
                late.to_std().is_ok_and(|late| late <= grace) || late <= chrono::TimeDelta::zero()
            }
        }
    }
}

impl From<Duration> for MisfireGrace {
    fn from(grace: Duration) -> Self {
        Self::Within(grace)
    }
}

impl From<Option<u64>> for MisfireGrace {
    fn from(ms: Option<u64>) -> Self {
        ms.map_or(Self::Unlimited, |ms| Self::Within(Duration::from_millis(ms)))
    }
}

impl From<MisfireGrace> for Option<u64> {
    fn from(grace: MisfireGrace) -> Self {
        match grace {
            MisfireGrace::Unlimited => None,
            MisfireGrace::Within(grace) => Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Which of the run times that are due together run.
///
/// They come together when the program was down, the task ran late, or the scheduler was paused.
/// Whatever is chosen, each run time has its outcome: those that do not run themselves are
/// [`Coalesced`](super::Outcome::Coalesced) into the one that does, or missed.
///
/// ```text
/// due together: 08:00 08:05 08:10
/// Latest        one run, of 08:10, which stands for the others
/// Earliest      one run, of 08:00, which stands for the others
/// All           three runs, 08:00 first; at most `max_catch_up` of them, the latest
/// ```
///
/// In code `true` stands for [`Latest`](Coalesce::Latest) and `false` for [`All`](Coalesce::All),
/// as in APScheduler and asyncz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coalesce {
    /// The latest runs for all of them. The default.
    #[default]
    Latest,
    /// The earliest runs for all of them.
    Earliest,
    /// Each runs, oldest first; at most `max_catch_up`, the latest, and the others are missed.
    All,
}

impl From<bool> for Coalesce {
    fn from(coalesce: bool) -> Self {
        if coalesce { Self::Latest } else { Self::All }
    }
}

impl FromStr for Coalesce {
    type Err = TaskError;

    /// `latest`, `earliest` or `all`.
    fn from_str(text: &str) -> Result<Self, TaskError> {
        match text {
            "latest" => Ok(Self::Latest),
            "earliest" => Ok(Self::Earliest),
            "all" => Ok(Self::All),
            _ => invalid("coalesce", text, "latest, earliest or all"),
        }
    }
}

fn invalid<T>(field: &'static str, text: &str, valid: &str) -> Result<T, TaskError> {
    Err(TaskError::Invalid { field, reason: format!("is {text:?}; it is one of {valid}") })
}

/// What becomes of a run that is due while as many runs of its task as allowed are going on.
///
/// ```text
/// max_instances 1, a run every minute that takes 90 s
/// Skip            08:00 runs    08:01 refused    08:02 runs      (the default)
/// Queue(1)        08:00 runs    08:01 waits, runs at 08:01:30    08:02 waits …
/// CancelRunning   08:00 is cancelled at 08:01, which runs then
/// Allow           08:00 and 08:01 run side by side
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is refused, and recorded as such. The default.
    #[default]
    Skip,
    /// It waits, in the executor, for an earlier run to end; at most this many wait, and further
    /// ones are refused. At least 1. What waits counts as late for its misfire grace.
    Queue(u32),
    /// The run of the task that has been going on longest is cancelled, and this one runs when
    /// that one has ended. A run that waits for this already is cancelled as well.
    CancelRunning,
    /// It runs: `max_instances` does not count.
    Allow,
}

impl FromStr for Overlap {
    type Err = TaskError;

    /// `skip`, `queue N`, `cancel_running` or `allow`.
    fn from_str(text: &str) -> Result<Self, TaskError> {
        let queue = text.strip_prefix("queue ").and_then(|number| number.trim().parse().ok());
        match (text, queue) {
            ("skip", _) => Ok(Self::Skip),
            (_, Some(1..)) => Ok(Self::Queue(queue.unwrap_or(1))),
            ("cancel_running", _) => Ok(Self::CancelRunning),
            ("allow", _) => Ok(Self::Allow),
            _ => invalid("overlap", text, "skip, queue N (at least 1), cancel_running or allow"),
        }
    }
}

/// How often, and when, a run that failed, panicked or timed out is tried again.
///
/// Each attempt is a run of its own with the nominal time of the first and a higher number. The
/// schedule goes on meanwhile. What is to be tried again is stored with the task, so that a restart
/// does not forget it. At most [`MAX_WAITING`] attempts of one task wait at a time, and at most
/// [`MAX_ATTEMPTS`] go on or wait.
///
/// ```
/// use std::time::Duration;
/// use callboard::backoff::Backoff;
/// use callboard::task::{Retry, Task};
///
/// let backoff = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(300)).jitter(0.2);
/// let task = Task::new("import").trigger("0 * * * *").retry(Retry::times(4).backoff(backoff));
/// # let _ = task;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    times: u32,
    backoff: Backoff,
}

impl Retry {
    /// At most `times` further attempts after the first. Between them: a second, doubled each time,
    /// at most five minutes, unless [`backoff`](Self::backoff) says otherwise.
    pub const fn times(times: u32) -> Self {
        Self { times, backoff: Backoff::exponential(Duration::from_secs(1), Duration::from_secs(300)) }
    }

    /// How long to wait before each further attempt, from the end of the one before.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How many further attempts there are.
    pub const fn get_times(&self) -> u32 {
        self.times
    }

    /// How long to wait after attempt number `attempt` (the first is 1); `None` when it was the
    /// last. `seed` decides the jitter.
    pub fn delay_after(&self, attempt: u32, seed: u64) -> Option<Duration> {
        (attempt <= self.times).then(|| self.backoff.delay(attempt.saturating_sub(1), seed))
    }
}

/// How many attempts of one task wait to be made, at most: the state of a task is written at every
/// run and must stay small. A run that fails when so many wait is not tried again.
pub const MAX_WAITING: usize = 256;

/// How many runs of one task are remembered in its state at most, those that go on and those that
/// wait, so that the state fits a row of a store
/// ([`ROW_LIMIT`](crate::store::ROW_LIMIT)). A run that begins when there are so many is not tried
/// again, whether it fails or is cut off.
pub const MAX_ATTEMPTS: usize = 300;

/// How many times one run is begun again because it was cut off
/// ([`recover`](super::TaskSpec::recover)): a run that brings the whole program down must not do so
/// for ever.
pub const MAX_RECOVERIES: u32 = 10;

/// What becomes of a task whose schedule has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFinished {
    /// It is removed; its run records stay for a while. The default.
    #[default]
    Remove,
    /// It stays, without a next run: it can be run by hand, or get another schedule.
    Keep,
}

impl FromStr for WhenFinished {
    type Err = TaskError;

    /// `remove` or `keep`.
    fn from_str(text: &str) -> Result<Self, TaskError> {
        match text {
            "remove" => Ok(Self::Remove),
            "keep" => Ok(Self::Keep),
            _ => invalid("when_finished", text, "remove or keep"),
        }
    }
}

impl WhenFinished {
    pub(super) fn is_remove(&self) -> bool {
        *self == Self::Remove
    }
}

/// Whole milliseconds, for a length of time that may be left out.
pub(super) mod millis {
    use super::*;
    use serde::Serializer;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(Duration::from_millis))
    }
}
