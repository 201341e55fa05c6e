use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Outcome, RunRecord, TaskId};

/// What became of a task's run times in a window, in their order: the answer to "why did it run,
/// or not?".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// The task.
    pub task: TaskId,
    /// Each run time of the trigger, and each run that somebody asked for.
    pub times: Vec<RunTime>,
    /// Where to go on when there was more than was asked for: the start of the next window.
    pub next: Option<DateTime<Utc>>,
}

/// One run time, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunTime {
    /// The run time the trigger gave; of a run that somebody asked for, when they did.
    pub nominal: DateTime<Utc>,
    /// What became of it.
    pub fate: Fate,
    /// Why, in plain words.
    pub reason: String,
    /// The run that dealt with it, when it is on record: for a run time that was coalesced, the run
    /// that stood for it.
    pub run: Option<RunRecord>,
    /// The attempts before that one, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<RunRecord>,
}

/// What becomes of a run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// A run of it returned `Ok`.
    Executed,
    /// A run of it returned an error.
    Failed,
    /// A run of it panicked.
    Panicked,
    /// A run of it took too long.
    TimedOut,
    /// Somebody cancelled its run.
    Cancelled,
    /// It would have started too late, or was one too many of a backlog.
    Missed,
    /// Its run was not let in.
    Refused,
    /// Another run time ran for it.
    Coalesced,
    /// Its run was cut off.
    Interrupted,
    /// It was passed over, because somebody had wished it so.
    Skipped,
    /// Its run has not ended.
    Running,
    /// Its run has ended, and will be tried again.
    Retrying,
    /// It is due, and not dealt with yet.
    Due,
    /// It is not due yet.
    Waiting,
    /// The task is paused at present: it will be skipped, unless the task is resumed in time.
    Paused,
    /// The task had no such run time: it was before the schedule began, or after it ended.
    Outside,
    /// No record is kept of it, or not any more.
    Forgotten,
    /// There should be a record of it, and there is none.
    Unknown,
}

impl Fate {
    /// What an outcome means for the run time of its run.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Executed { .. } => Self::Executed,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Panicked { .. } => Self::Panicked,
            Outcome::TimedOut { .. } => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Missed { .. } => Self::Missed,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::Coalesced { .. } => Self::Coalesced,
            Outcome::Skipped { .. } => Self::Skipped,
            Outcome::Interrupted { .. } => Self::Interrupted,
        }
    }

    /// The fate in one word, as it is written in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Refused => "refused",
            Self::Coalesced => "coalesced",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Due => "due",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Outside => "outside",
            Self::Forgotten => "forgotten",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing will change it any more.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Running | Self::Retrying | Self::Due | Self::Waiting | Self::Paused)
    }
}
