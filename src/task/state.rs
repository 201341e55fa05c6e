use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A run time ahead: what the trigger said, and when the run is due after jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fire {
    /// The run time the trigger gave.
    pub nominal: DateTime<Utc>,
    /// The same after jitter; never earlier.
    pub due: DateTime<Utc>,
}

/// The part of a task that changes as it runs. Small on purpose: advancing a schedule writes this
/// and not the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Increases with every change; a write against an older revision is refused.
    pub revision: u64,
    /// The next run; `None` when the schedule has no more (or only runs at shutdown).
    pub next: Option<Fire>,
    /// The first run time, when it was set apart from the trigger: those of the trigger before it
    /// are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<DateTime<Utc>>,
    /// The nominal time of the latest run.
    pub last_run: Option<DateTime<Utc>>,
    /// Runs submitted so far, also those the executor then refused.
    pub runs: u64,
    /// A paused task keeps its next run time and does not run.
    pub paused: bool,
    /// When the trigger was set: what an omitted start time stands for.
    pub anchor: DateTime<Utc>,
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
            begins: None,
            last_run: None,
            runs: 0,
            paused: false,
            anchor: now,
            created_at: now,
            modified_at: now,
        }
    }

    /// When the store has to bring the task up: `None` while it is paused or has no next run.
    pub fn due(&self) -> Option<DateTime<Utc>> {
        if self.paused { None } else { self.next.map(|fire| fire.due) }
    }
}
