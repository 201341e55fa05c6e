use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a nominal run time ended: each has exactly one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The code returned `Ok`.
    Executed {
        /// What it returned, as JSON; `null` for `()`.
        value: Value,
    },
    /// The code returned an error, or its arguments could not be decoded.
    Failed {
        /// The error with its chain of sources, `outer: inner: root`. (The standard library has no
        /// way to ask any error for a backtrace; one that its text shows is shown.)
        error: String,
    },
    /// The code panicked.
    Panicked {
        /// The panic message and, in brackets, where it panicked: `no paper (at src/print.rs:12:9)`.
        message: String,
    },
    /// The run took longer than it may.
    TimedOut {
        /// How long it was given, in milliseconds.
        after_ms: u64,
    },
    /// Somebody cancelled the run.
    Cancelled,
    /// The run would have started later than its misfire grace allows.
    Missed {
        /// How late it would have been, in milliseconds.
        late_ms: u64,
    },
    /// The run was not let in.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Several run times were due together and a later one ran for all of them.
    Coalesced {
        /// The nominal time that ran.
        into: DateTime<Utc>,
    },
    /// The run times passed and nothing ran for them, because somebody had wished it so.
    Skipped {
        /// Which wish it was.
        because: Skip,
    },
    /// The run was cut off by the death of its executor or of the whole process.
    Interrupted {
        /// What cut it off.
        reason: String,
    },
}

/// Why run times were passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Skip {
    /// The task was paused when they were due.
    #[error("the task was paused")]
    Paused,
    /// The task was given another schedule before they were dealt with.
    #[error("the schedule was changed before it was dealt with")]
    Rescheduled,
    /// The task was removed before they were dealt with.
    #[error("the task was removed before it was dealt with")]
    Removed,
}

/// Why a run was not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// As many instances of the task as allowed were running.
    #[error("as many runs of the task are going on as its max_instances allows ({max})")]
    MaxInstances {
        /// The limit.
        max: u32,
    },
    /// As many runs of the task as its overlap policy lets wait were waiting.
    #[error("as many runs of the task wait already as its overlap policy lets wait ({limit})")]
    TaskQueueFull {
        /// How many may wait.
        limit: u32,
    },
    /// No executor has the alias the task names.
    #[error("no executor is called `{executor}`; add one under that alias or update the task")]
    UnknownExecutor {
        /// The alias.
        executor: String,
    },
    /// The task's handler is not registered in this program.
    #[error("no handler is registered under `{handler}`; register it and the task runs again")]
    UnknownHandler {
        /// The name.
        handler: String,
    },
    /// The task has a closure, and the executor runs code in other processes.
    #[error(
        "executor `{executor}` runs code in other processes, where a closure is not; register the code under a name"
    )]
    ClosureNotPortable {
        /// The alias.
        executor: String,
    },
    /// The executor has failed or is shutting down.
    #[error("executor `{executor}` takes no runs: {reason}")]
    ExecutorUnavailable {
        /// The alias.
        executor: String,
        /// What is the matter with it.
        reason: String,
    },
    /// The executor's queue is full.
    #[error("the queue of executor `{executor}` is full ({limit} runs)")]
    QueueFull {
        /// The alias.
        executor: String,
        /// How many it holds.
        limit: usize,
    },
    /// The task sends a message, and the mailbox of the actor is full.
    #[error(
        "the mailbox of the actor that gets `{handler}` is full; give it a larger one, or send less often"
    )]
    MailboxFull {
        /// The name the recipient is registered under.
        handler: String,
    },
    /// The task sends a message, and there is no actor to get it.
    #[error(
        "no actor gets `{handler}`: the one that was registered has ended, or is down for longer than the delivery waits"
    )]
    RecipientGone {
        /// The name the recipient is registered under.
        handler: String,
    },
}

impl Outcome {
    /// The outcome in one word, as it is stored and shown: `executed`, `failed`, `timed_out`, …
    pub fn word(&self) -> &'static str {
        match self {
            Self::Executed { .. } => "executed",
            Self::Failed { .. } => "failed",
            Self::Panicked { .. } => "panicked",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Missed { .. } => "missed",
            Self::Refused { .. } => "refused",
            Self::Coalesced { .. } => "coalesced",
            Self::Skipped { .. } => "skipped",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// Whether the code ran to its end without an error.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Executed { .. })
    }

    /// What went wrong, for people; `None` when nothing did.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Executed { .. } | Self::Coalesced { .. } => None,
            Self::Failed { error } => Some(error.clone()),
            Self::Panicked { message } => Some(message.clone()),
            Self::TimedOut { after_ms } => Some(format!("took longer than {after_ms} ms")),
            Self::Cancelled => Some("it was cancelled".to_owned()),
            Self::Missed { late_ms } => Some(format!("{late_ms} ms late, more than its misfire grace")),
            Self::Refused { reason } => Some(reason.to_string()),
            Self::Skipped { because } => Some(because.to_string()),
            Self::Interrupted { reason } => Some(reason.clone()),
        }
    }
}
