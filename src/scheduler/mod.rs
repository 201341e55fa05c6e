//! THE CONDUCTOR: decides what runs when, and has stores and executors do it.
//!
//! The life of a run, in ten lines:
//!
//! 1. the timer wakes the scheduler at the earliest due time of a store;
//! 2. `TakeDue` fetches the tasks that are due, oldest first, in batches;
//! 3. the planner works out each task's due run times, coalesces them, and finds the next one;
//! 4. `Commit` writes the new states (and the records of the runs) in one batch; a task that somebody
//!    changed meanwhile is left out and comes up again if it is still due;
//! 5. `Submit` hands the runs to their executors, one message each;
//! 6. the executor lets a run in or refuses it, and judges its lateness when it starts;
//! 7. the code runs, and whatever it does the run ends in one outcome;
//! 8. the executor gives the instance back and then reports the end;
//! 9. the event bus tells whoever asked;
//! 10. `Finish` writes the end down, with others that have come in.

mod actor;
mod add;
pub(crate) mod arbiter;
mod backfill;
mod builder;
mod cancel;
mod control;
mod doubt;
mod ends;
mod executors;
mod flight;
mod handle;
mod handover;
mod heir;
mod hold;
mod inspect;
mod keeper;
mod ledger;
mod lifecycle;
mod lives;
mod locks;
pub mod message;
mod on_demand;
mod pending;
mod plan;
mod relocate;
mod replan;
mod rezone;
mod salvage;
mod session;
mod settle;
mod slices;
mod slot;
mod stores;
mod tick;
mod turn;
mod upkeep;
mod usher;
mod waiting;
mod waitlist;
mod wake;
mod why;
mod zones;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use actor::Scheduler;
pub use builder::Builder;
pub use handle::{Handle, ScopeGuard};

pub use crate::timezones::Release as TimezonesStatus;

use crate::error::Error;
use crate::task::{Alias, TaskId};
#[cfg(feature = "cli")]
pub(crate) use plan::is_over;

/// What a scheduler is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchedulerState {
    /// Not started, or shut down.
    Stopped,
    /// Opening its stores.
    Starting,
    /// Starting runs as they become due.
    Running,
    /// Started, but starting no runs.
    Paused,
    /// Waiting for its runs to end.
    ShuttingDown,
}

/// How a scheduler is.
#[derive(Debug, Clone, Serialize)]
pub struct SchedulerStatus {
    /// What it is doing.
    pub state: SchedulerState,
    /// Its name, for people and logs.
    pub name: String,
    /// Its identity among the schedulers that share a store; the name unless set.
    pub identity: String,
    /// When it was started.
    pub started_at: Option<DateTime<Utc>>,
    /// How long ago that was, in milliseconds of elapsed time.
    pub uptime_ms: Option<u64>,
    /// When it last looked at the clock: a living scheduler does so at least every ten seconds.
    pub last_seen: DateTime<Utc>,
    /// Runs going on.
    pub running: usize,
    /// Tasks waiting for the start.
    pub pending: usize,
    /// Tasks that are due and wait, because what is to run them is not there or has no room.
    pub waiting: usize,
    /// By which rules it reads clocks.
    pub timezones: TimezonesStatus,
    /// Its stores.
    pub stores: Vec<StoreStatus>,
    /// Its executors.
    pub executors: Vec<ExecutorState>,
}

impl SchedulerStatus {
    /// Whether it was started and not shut down, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.state, SchedulerState::Running | SchedulerState::Paused)
    }
}

/// What a start has left out, and why; see [`Handle::start`]. Nothing of it keeps the rest from
/// running.
///
/// ```
/// use callboard::prelude::*;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let scheduler = Scheduler::builder().build()?;
/// let started = scheduler.start().await?;
/// for (store, error) in &started.stores {
///     eprintln!("the tasks of {store} wait: {error}");
/// }
/// assert!(started.is_complete());
/// # scheduler.shutdown(Shutdown::now()).await
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Started {
    /// Stores that could not be opened. They are tried again by themselves, as if they had failed
    /// later, and their pending tasks are put into them then.
    pub stores: Vec<(Alias, Error)>,
    /// Tasks that could not be put into stores that are open. They stay pending, and are tried again
    /// when their store is opened again, at the next start, or when they are changed before it.
    pub tasks: Vec<(TaskId, Error)>,
}

impl Started {
    /// Whether nothing was left out.
    pub fn is_complete(&self) -> bool {
        self.stores.is_empty() && self.tasks.is_empty()
    }
}

/// How a store is.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    /// Its alias.
    pub alias: Alias,
    /// Whether what it acknowledged outlives a crash.
    pub durable: bool,
    /// When its next task is due.
    pub next_due: Option<DateTime<Utc>>,
    /// What is the matter with it; `None` when it works.
    pub problem: Option<String>,
    /// Records in quarantine: they could not be read when it was opened last, and their tasks do not
    /// run. [`CheckStore`](message::CheckStore) lists them.
    pub unreadable: usize,
    /// What is the matter with these records, such as the key that is missing: each reason once, and eight
    /// at most.
    pub unreadable_because: Vec<String>,
    /// Whether it is [paused](message::PauseStore).
    pub paused: bool,
    /// Its lock between processes; `None` without a [`lock_path`](Builder::lock_path).
    pub lock: Option<LockStatus>,
}

/// How the lock of a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockStatus {
    /// The file.
    pub path: std::path::PathBuf,
    /// Whether this scheduler holds it: only then do runs of the store begin here.
    pub held: bool,
    /// The id of the process that holds it instead, where it is known.
    pub holder: Option<u32>,
    /// Why it is not held; `None` when it is, or was not tried yet.
    pub problem: Option<String>,
}

/// How an executor is.
#[derive(Debug, Clone, Serialize)]
pub struct ExecutorState {
    /// Its alias.
    pub alias: Alias,
    /// What is the matter with it; `None` when it works.
    pub problem: Option<String>,
    /// How many tasks are due and wait for it.
    pub waiting: usize,
}

/// How to shut down.
///
/// ```text
/// nothing more is started → shutdown triggers run → runs may end within the grace
///   → what has not is cut off as interrupted → stores are closed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    pub(crate) grace: Duration,
    pub(crate) force: bool,
}

impl Shutdown {
    /// Lets runs end within `grace`; what has not ended by then is interrupted.
    pub fn wait(grace: Duration) -> Self {
        Self { grace, force: false }
    }

    /// Interrupts what runs.
    pub fn now() -> Self {
        Self::wait(Duration::ZERO)
    }

    /// The same when `passed` of the grace is over.
    #[cfg(feature = "web")]
    pub(crate) fn after(self, passed: Duration) -> Self {
        Self { grace: self.grace.saturating_sub(passed), ..self }
    }

    /// Shuts down also from inside nested starts, not only from the outermost.
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

impl Default for Shutdown {
    /// A grace of thirty seconds.
    fn default() -> Self {
        Self::wait(Duration::from_secs(30))
    }
}
