use chrono::{DateTime, Utc};

use crate::store::StoreError;
use crate::task::{Alias, Refusal, TaskError, TaskId};
use crate::timezones::TimezonesError;
use crate::trigger::{SearchError, TriggerError};

/// Why a scheduler did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The task is not valid.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The rules of time zones could not be had.
    #[error("timezones: {0}")]
    Timezones(#[from] TimezonesError),
    /// The trigger could not say when it runs next.
    #[error("task `{id}`: {source}")]
    Search {
        /// The task.
        id: TaskId,
        /// What the trigger said.
        source: SearchError,
    },
    /// A store did not do its part.
    #[error("store `{store}`: {source}")]
    Store {
        /// The store.
        store: Alias,
        /// What it said.
        source: StoreError,
    },
    /// No store has such a task.
    #[error("there is no task `{0}`")]
    UnknownTask(TaskId),
    /// A task of this id exists already.
    #[error("a task `{0}` exists already; choose another id, or add it with `replace_existing(true)`")]
    TaskExists(TaskId),
    /// Runs of the task go on, and it can only be moved while there are none.
    #[error("task `{0}` has runs going on; move it to another store when they have ended")]
    TaskRuns(TaskId),
    /// No store has the alias.
    #[error("no store is called `{alias}`; there {}", listed(known))]
    UnknownStore {
        /// The alias asked for.
        alias: String,
        /// The aliases there are.
        known: Vec<String>,
    },
    /// No executor has the alias.
    #[error("no executor is called `{alias}`; there {}", listed(known))]
    UnknownExecutor {
        /// The alias asked for.
        alias: String,
        /// The aliases there are.
        known: Vec<String>,
    },
    /// The alias is taken.
    #[error("{kind} `{alias}` exists already; remove it first, or choose another alias")]
    AliasTaken {
        /// `store` or `executor`.
        kind: &'static str,
        /// The alias.
        alias: Alias,
    },
    /// The task is being back-filled already.
    #[error(
        "task `{id}` is being back-filled already: {} comes next, and it goes on until {}; wait for it, or \
         call it off with `cancel_backfill`",
        next.to_rfc3339(), until.to_rfc3339()
    )]
    BackfillUnderWay {
        /// The task.
        id: TaskId,
        /// The run time that comes next.
        next: DateTime<Utc>,
        /// The end of its window.
        until: DateTime<Utc>,
    },
    /// The run was not let in.
    #[error("task `{id}` was not run: {reason}")]
    Refused {
        /// The task.
        id: TaskId,
        /// Why.
        reason: Refusal,
    },
    /// Only possible while the scheduler runs.
    #[error("the scheduler is not running; start it first")]
    NotRunning,
    /// A run was asked for only if one is due, and none is.
    #[error("nothing of task `{id}` is due{}; leave `only_if_due` out to run it all the same", until(*next))]
    NotDue {
        /// The task.
        id: TaskId,
        /// Its next run time, if it has one.
        next: Option<DateTime<Utc>>,
    },
    /// Only possible while the scheduler is stopped.
    #[error("the scheduler is running; shut it down first")]
    Running,
    /// The scheduler's actor is gone, with the actix system it lived in.
    #[error("the scheduler is gone: the actix system it lived in has ended")]
    Gone,
    /// The scheduler's actor died before it answered. It is started again; whether it did what it
    /// was asked is not known.
    #[error("the scheduler died before it answered; look whether it did what you asked, and ask again")]
    Died,
    /// A setting of the scheduler has a value it cannot have.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it and what would be valid.
        reason: String,
    },
}

fn until(next: Option<DateTime<Utc>>) -> String {
    next.map(|next| format!(" before {}", next.to_rfc3339())).unwrap_or_default()
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "is none".to_owned() } else { format!("are: {}", known.join(", ")) }
}

impl Error {
    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::UnknownTask(_) | Self::UnknownStore { .. } | Self::UnknownExecutor { .. })
    }

    /// Whether something of that name exists already.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::TaskExists(_) | Self::TaskRuns(_) | Self::AliasTaken { .. } | Self::BackfillUnderWay { .. }
        )
    }

    /// Whether what was given is not valid: trying the same again cannot help.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Task(_) | Self::Search { .. } | Self::Setting { .. })
    }

    /// Whether trying the same again later may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.is_retryable(),
            Self::Refused { reason, .. } => {
                use Refusal::*;
                matches!(
                    reason,
                    MaxInstances { .. }
                        | TaskQueueFull { .. }
                        | QueueFull { .. }
                        | ExecutorUnavailable { .. }
                        | MailboxFull { .. }
                )
            }
            Self::Died | Self::TaskRuns(_) | Self::NotDue { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn store(store: &Alias, source: StoreError) -> Self {
        match source {
            StoreError::NotFound(id) => Self::UnknownTask(id),
            StoreError::Exists(id) => Self::TaskExists(id),
            source => Self::Store { store: store.clone(), source },
        }
    }
}

impl From<TriggerError> for Error {
    fn from(error: TriggerError) -> Self {
        Self::Task(error.into())
    }
}

impl From<actix::MailboxError> for Error {
    fn from(_: actix::MailboxError) -> Self {
        Self::Gone
    }
}
