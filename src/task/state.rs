use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{RunId, Source, Span, TaskSpec};
use crate::trigger::Offsets;

/// A run time ahead: what the trigger said, and when the run is due after jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fire {
    /// The run time the trigger gave.
    pub nominal: DateTime<Utc>,
    /// The same after jitter; never earlier.
    pub due: DateTime<Utc>,
}

/// A run of a task that may be tried again, as the task remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The run time the trigger gave.
    pub nominal: DateTime<Utc>,
    /// The same after jitter.
    pub due: DateTime<Utc>,
    /// How many other run times it stands for as well.
    #[serde(default)]
    pub coalesced: u64,
    /// Who asked for it.
    #[serde(default)]
    pub source: Source,
    /// The attempt that is going on, or that comes next; the first is 1.
    pub number: u32,
    /// How many of the attempts before were cut off: these do not count against
    /// [`Retry::times`](super::Retry::times), but against [`MAX_RECOVERIES`](super::MAX_RECOVERIES).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interrupted: u32,
    /// When it is made; `None` while it is going on.
    pub at: Option<DateTime<Utc>>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How far a back-fill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// The run time that comes next.
    pub next: DateTime<Utc>,
    /// The end of the window; a run time at this very instant is outside.
    pub until: DateTime<Utc>,
    /// The time between two of its runs, at least, in milliseconds.
    pub every_ms: u64,
    /// When the next one is submitted.
    pub at: DateTime<Utc>,
}

/// At most so many stretches of run times are remembered of a task that ran while the clock was ahead;
/// the nearest of more are taken for one.
pub const MAX_AHEAD: usize = 100;

/// That a task's next run was worked out again, because the clock had been ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replanned {
    /// The corrected time from which it was.
    pub at: DateTime<Utc>,
    /// Runs before this one were begun under the wrong clock, or earlier: what they stand for besides
    /// their own run time counts up to [`at`](Self::at) only.
    pub before: RunId,
    /// Run times after [`at`](Self::at) that ran already, and do not run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<Span>,
}

/// That the next run of a task was moved, because the rules of its time zone had changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// When that was.
    pub at: DateTime<Utc>,
    /// The next run time by the former rules.
    pub from: DateTime<Utc>,
    /// The next run time by the new ones. What these say of earlier times is not what was done.
    pub to: DateTime<Utc>,
    /// Run times after [`to`](Self::to) that ran already, by the former rules, and do not run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<Span>,
}

/// The part of a task that changes as it runs. Small on purpose: advancing a schedule writes this
/// and not the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Increases with every change; a write against an older revision is refused.
    pub revision: u64,
    /// The next run; `None` when the schedule has no more (or only runs at shutdown).
    pub next: Option<Fire>,
    /// What the clocks that the trigger reads were away from UTC at the next run, by the rules by which
    /// it was worked out: what it stands for when these change.
    #[serde(default, skip_serializing_if = "Offsets::is_empty")]
    pub offsets: Offsets,
    /// The first run time, when it was set apart from the trigger: those of the trigger before it
    /// are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<DateTime<Utc>>,
    /// What the start of an interval was that is a time on a wall clock: kept of one that had begun when the
    /// rules of its time zone changed, and would begin at another instant by the new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<DateTime<Utc>>,
    /// The nominal time of the latest run.
    pub last_run: Option<DateTime<Utc>>,
    /// Runs submitted so far, also those the executor then refused.
    pub runs: u64,
    /// How many of them the schedule asked for, each once however often it was tried: what
    /// [`max_runs`](super::TaskSpec::max_runs) is compared with.
    #[serde(default)]
    pub fired: u64,
    /// Runs that are not settled: going on, or waiting to be tried again. Kept only for tasks that
    /// ask for [`retry`](super::TaskSpec::retry) or [`recover`](super::TaskSpec::recover).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// A past window whose run times are being run on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Box<Backfill>>,
    /// When the next run was worked out again, because the clock had been ahead; `None` when it never
    /// was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replanned: Option<Box<Replanned>>,
    /// That the next run was moved, because the rules of its time zone had changed; the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Box<Moved>>,
    /// When a task goes whose schedule has ended, and which would be gone but that it ended much too
    /// late, with run times that were passed over: the clock may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves_at: Option<DateTime<Utc>>,
    /// A paused task keeps its next run time and does not run.
    pub paused: bool,
    /// What an omitted start time of the trigger stands for: when the trigger was set, or, of a task
    /// that has run before that, its latest run.
    pub anchor: DateTime<Utc>,
    /// When the trigger was set, where that is not the [`anchor`](Self::anchor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<DateTime<Utc>>,
    /// When the task was first added.
    pub created_at: DateTime<Utc>,
    /// When somebody last changed it; runs do not count.
    pub modified_at: DateTime<Utc>,
}

impl TaskState {
    /// The state of a task that is added at `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            revision: 1,
            next: None,
            offsets: Offsets::default(),
            begins: None,
            begun: None,
            last_run: None,
            runs: 0,
            fired: 0,
            attempts: Vec::new(),
            backfill: None,
            replanned: None,
            moved: None,
            leaves_at: None,
            paused: false,
            anchor: now,
            set_at: None,
            created_at: now,
            modified_at: now,
        }
    }

    /// When the task was given its present trigger.
    pub fn trigger_since(&self) -> DateTime<Utc> {
        self.set_at.unwrap_or(self.anchor)
    }

    /// The latest of the times that were now when they were noted.
    pub(crate) fn latest_time(&self) -> DateTime<Utc> {
        let latest = self.modified_at.max(self.created_at).max(self.set_at.unwrap_or(self.modified_at));
        self.last_run.map_or(latest, |last| last.max(latest))
    }

    /// Whether nothing is left to come: no run time, no further attempt, no back-fill. A task that
    /// runs at shutdown is never finished.
    pub(crate) fn is_finished(&self, spec: &TaskSpec) -> bool {
        self.next.is_none()
            && self.attempts.is_empty()
            && self.backfill.is_none()
            && !spec.trigger.on_shutdown()
    }

    /// When the store has to bring the task up: for its next run, a further attempt or the next
    /// step of a back-fill. `None` while it is paused or has nothing to come.
    pub fn due(&self) -> Option<DateTime<Utc>> {
        if self.paused {
            return None;
        }
        let next = self.next.map(|fire| fire.due).or(self.leaves_at);
        if self.attempts.is_empty() && self.backfill.is_none() {
            return next;
        }
        let attempts = self.attempts.iter().filter_map(|attempt| attempt.at);
        let backfill = self.backfill.as_ref().map(|backfill| backfill.at);
        attempts.chain(next).chain(backfill).min()
    }
}
