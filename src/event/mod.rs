//! WHAT HAPPENED: one value a fact, sent to whoever asked for its kind.
//!
//! Only the scheduler publishes, so the events of one task reach every listener in the same order:
//! added before anything else, and a run's submission before its end. A task whose schedule has
//! ended is removed when its last run is submitted, before that run's end.

mod actor;
mod mask;
mod message;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use actor::EventBus;
pub(crate) use actor::{OpenStream, Wanted, Watch};
pub use mask::EventMask;
pub use message::{ListenerId, Publish, Subscribe, Unsubscribe};
pub use stream::EventStream;

use crate::task::{Alias, Run, RunEnd, Source, TaskId};
use crate::timezones::Release;
use crate::trigger::Zones;

/// Something that happened. Cheap to clone.
///
/// As JSON an event is an object whose `event` says what happened, in snake case.
///
/// ```
/// use callboard::event::{Event, EventMask};
/// use callboard::task::Alias;
///
/// let event = Event::StoreAdded { store: Alias::new("default")? };
/// assert_eq!(event.mask(), EventMask::STORE_ADDED);
/// assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"event":"store_added","store":"default"}"#);
/// # Ok::<(), callboard::task::TaskError>(())
/// ```
#[derive(Debug, Clone, Serialize, actix::Message)]
#[rtype(result = "()")]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The scheduler began to work.
    SchedulerStarted,
    /// The scheduler has stopped.
    SchedulerShutdown,
    /// The scheduler stopped starting runs.
    SchedulerPaused,
    /// The scheduler starts runs again.
    SchedulerResumed,
    /// An executor was added.
    ExecutorAdded {
        /// Its alias.
        executor: Alias,
    },
    /// An executor was removed.
    ExecutorRemoved {
        /// Its alias.
        executor: Alias,
    },
    /// An executor's actor died and a successor has taken its place.
    ExecutorRestarted {
        /// Its alias.
        executor: Alias,
        /// What the actor died of.
        cause: String,
    },
    /// An executor's actor died and will not be started again by itself.
    ExecutorFailed {
        /// Its alias.
        executor: Alias,
        /// Why.
        cause: String,
    },
    /// An executor whose actor had died or stopped was brought back, because somebody asked for it.
    ExecutorRecovered {
        /// Its alias.
        executor: Alias,
    },
    /// A store was added.
    StoreAdded {
        /// Its alias.
        store: Alias,
    },
    /// A store was removed.
    StoreRemoved {
        /// Its alias.
        store: Alias,
    },
    /// A store does not answer, or answers with errors. It is tried again.
    StoreUnavailable {
        /// Its alias.
        store: Alias,
        /// What went wrong.
        cause: String,
    },
    /// A store works again.
    StoreRecovered {
        /// Its alias.
        store: Alias,
    },
    /// This process has the lock of a store: runs of the store begin here.
    LockTaken {
        /// Its alias.
        store: Alias,
    },
    /// Another process has the lock of a store, or it cannot be locked: runs of the store do not begin
    /// here. It is tried again.
    LockAwaited {
        /// Its alias.
        store: Alias,
        /// Who has it, or what went wrong.
        cause: String,
    },
    /// This process does not have the lock of a store any more.
    LockLost {
        /// Its alias.
        store: Alias,
        /// Why.
        cause: String,
    },
    /// The data of a store was damaged beyond repair and given another name, because the store was told
    /// to do that; the store began anew, empty.
    StoreSetAside {
        /// Its alias.
        store: Alias,
        /// Where the damaged data is.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A store could not take an export of itself. It is tried again; told once, until one is taken.
    StoreExportFailed {
        /// Its alias.
        store: Alias,
        /// Why.
        cause: String,
    },
    /// A record in a store cannot be read; it was left as it is and its task does not run.
    RecordUnreadable {
        /// The store.
        store: Alias,
        /// The task's id, as far as it could be told.
        id: String,
        /// What is wrong with the record.
        cause: String,
    },
    /// A record that could not be read when its store was open before can be read again: its task is
    /// back.
    RecordReadable {
        /// The store.
        store: Alias,
        /// The task's id.
        id: String,
    },
    /// All tasks of a store were removed.
    AllTasksRemoved {
        /// The store.
        store: Alias,
    },
    /// A task was added.
    TaskAdded {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
    },
    /// A task was removed, by somebody or because its schedule has ended.
    TaskRemoved {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
    },
    /// A task was changed, paused or resumed.
    TaskModified {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
    },
    /// The schedule of a task has ended, and the task is kept.
    TaskFinished {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
    },
    /// A run was handed to its executor.
    TaskSubmitted(RunFact),
    /// A run ended well.
    TaskExecuted(RunReport),
    /// A run failed or panicked, and is not tried again.
    TaskError(RunReport),
    /// A run did not end well, and is tried again: when, says
    /// [`RunEnd::retry_at`](crate::task::RunEnd::retry_at).
    TaskRetried(RunReport),
    /// A run would have started later than its misfire grace allows, or was one of more than
    /// `max_catch_up`.
    TaskMissed(RunReport),
    /// A run was refused because as many runs of its task as allowed were running, and as many as
    /// its overlap policy lets wait were waiting.
    TaskMaxInstances(RunReport),
    /// A run was refused for another reason: its executor or handler is not there.
    TaskRefused(RunReport),
    /// A run was cancelled.
    TaskCancelled(RunReport),
    /// A run took longer than it may.
    TaskTimedOut(RunReport),
    /// A run was cut off by the death of its executor or of the process.
    TaskInterrupted(RunReport),
    /// A run of an earlier life of the scheduler never ended: the process died meanwhile.
    RunInterrupted {
        /// The store.
        store: Alias,
        /// The run's record, with its end.
        record: Box<crate::task::RunRecord>,
    },
    /// The trigger of a task could not say when it runs next; the task was paused.
    TaskStalled {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
        /// What the trigger said.
        cause: String,
    },
    /// The wall clock and elapsed time went apart by more than a second.
    ClockJumped {
        /// By how much the wall clock is ahead of where it should be, in milliseconds; negative
        /// when it was set back.
        by_ms: i64,
    },
    /// The clock had been ahead: the next runs of tasks that were worked out meanwhile were worked out
    /// again.
    TasksReplanned {
        /// Their store.
        store: Alias,
        /// How many.
        tasks: u64,
        /// Those whose schedule had ended and goes on; the first hundred.
        back: Vec<TaskId>,
        /// Those that were removed as finished meanwhile and stay so, because they ran for the last time;
        /// the latest hundred, as far as this life of the scheduler knows.
        over: Vec<TaskId>,
    },
    /// Other rules of time zones are in force, because the database has changed. The next runs that they
    /// move are told one by one ([`TaskMoved`](Self::TaskMoved)), and then store by store
    /// ([`TasksMoved`](Self::TasksMoved)).
    TimezonesChanged {
        /// The rules until now.
        from: Release,
        /// The rules from now on.
        to: Release,
        /// The same: what clocks show.
        #[serde(skip)]
        rules: Arc<Zones>,
    },
    /// The time zone database has changed and cannot be used: the rules in force stay. It is looked at
    /// again every minute; told once for each reason.
    TimezonesUnusable {
        /// What is wrong, and what to do.
        cause: String,
        /// The rules in force.
        rules: Release,
    },
    /// The next run of a task was moved, because the rules of its time zone had changed.
    TaskMoved {
        /// The task.
        id: TaskId,
        /// Its store.
        store: Alias,
        /// Its next run time by the former rules.
        from: DateTime<Utc>,
        /// Its next run time; `None` when the new rules leave it none.
        to: Option<DateTime<Utc>>,
    },
    /// All tasks of a store were looked at that had been planned by other rules of time zones.
    TasksMoved {
        /// The store.
        store: Alias,
        /// How many next runs were moved.
        tasks: u64,
        /// The former rules; `None` when the store does not know them, because an earlier version wrote
        /// it.
        from: Option<Release>,
        /// The rules in force.
        to: Release,
    },
    /// A lifecycle's set-up has succeeded: it ticks from now on.
    LifecycleSetUp {
        /// Its name.
        id: TaskId,
    },
    /// A lifecycle's set-up or clean-up failed, panicked, or took too long.
    LifecycleFailed {
        /// Its name.
        id: TaskId,
        /// Which: `set-up` or `clean-up`.
        step: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// A lifecycle's clean-up has succeeded.
    LifecycleCleanedUp {
        /// Its name.
        id: TaskId,
    },
    /// The scheduler's actor died and a successor has taken its place.
    SchedulerRestarted {
        /// What it died of.
        cause: String,
    },
}

/// A run, as events tell of it.
#[derive(Debug, Clone)]
pub struct RunFact(pub Arc<Run>);

/// A run and its end, as events tell of it.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The run.
    pub run: Arc<Run>,
    /// Its end.
    pub end: Arc<RunEnd>,
}

/// How a run looks as JSON.
#[derive(Serialize)]
struct RunView<'a> {
    id: &'a TaskId,
    store: &'a Alias,
    run: crate::task::RunId,
    nominal: DateTime<Utc>,
    due: DateTime<Utc>,
    coalesced: u64,
    source: Source,
    attempt: u32,
}

impl<'a> From<&'a Run> for RunView<'a> {
    fn from(run: &'a Run) -> Self {
        Self {
            id: &run.task.id,
            store: &run.store,
            run: run.id,
            nominal: run.nominal,
            due: run.due,
            coalesced: run.coalesced,
            source: run.source,
            attempt: run.attempt,
        }
    }
}

impl Serialize for RunFact {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        RunView::from(&*self.0).serialize(s)
    }
}

impl Serialize for RunReport {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            #[serde(flatten)]
            run: RunView<'a>,
            /// A missed run says it itself.
            #[serde(skip_serializing_if = "Option::is_none")]
            late_ms: Option<i64>,
            duration_ms: f64,
            #[serde(flatten)]
            end: &'a RunEnd,
        }
        View {
            run: (&*self.run).into(),
            late_ms: (!matches!(self.end.outcome, crate::task::Outcome::Missed { .. }))
                .then(|| self.lateness().num_milliseconds()),
            duration_ms: self.duration().as_secs_f64() * 1e3,
            end: &self.end,
        }
        .serialize(s)
    }
}

impl RunReport {
    /// The task.
    pub fn task_id(&self) -> &TaskId {
        &self.run.task.id
    }

    /// How long after it was due the run began; zero when it did not begin.
    pub fn lateness(&self) -> chrono::TimeDelta {
        self.end.lateness(self.run.due)
    }

    /// How long the code ran.
    pub fn duration(&self) -> Duration {
        self.end.duration
    }
}

impl Event {
    /// The event that tells of a run's end.
    pub fn of_end(run: Arc<Run>, end: Arc<RunEnd>) -> Self {
        use crate::task::{Outcome, Refusal};
        let report = RunReport { run, end };
        if report.end.retry_at.is_some() {
            return Self::TaskRetried(report);
        }
        match &report.end.outcome {
            Outcome::Executed { .. } => Self::TaskExecuted(report),
            Outcome::Failed { .. } | Outcome::Panicked { .. } => Self::TaskError(report),
            Outcome::TimedOut { .. } => Self::TaskTimedOut(report),
            Outcome::Cancelled => Self::TaskCancelled(report),
            Outcome::Missed { .. } | Outcome::Coalesced { .. } | Outcome::Skipped { .. } => {
                Self::TaskMissed(report)
            }
            Outcome::Refused { reason: Refusal::MaxInstances { .. } | Refusal::TaskQueueFull { .. } } => {
                Self::TaskMaxInstances(report)
            }
            Outcome::Refused { .. } => Self::TaskRefused(report),
            Outcome::Interrupted { .. } => Self::TaskInterrupted(report),
        }
    }

    /// The task the event is about, if it is about one.
    pub fn task_id(&self) -> Option<&TaskId> {
        match self {
            Self::TaskAdded { id, .. }
            | Self::TaskRemoved { id, .. }
            | Self::TaskModified { id, .. }
            | Self::TaskFinished { id, .. }
            | Self::TaskMoved { id, .. }
            | Self::LifecycleSetUp { id }
            | Self::LifecycleFailed { id, .. }
            | Self::LifecycleCleanedUp { id }
            | Self::TaskStalled { id, .. } => Some(id),
            Self::TaskSubmitted(fact) => Some(&fact.0.task.id),
            Self::RunInterrupted { record, .. } => Some(&record.task),
            _ => self.report().map(RunReport::task_id),
        }
    }

    /// The end of the run the event tells of, if it tells of one.
    pub fn report(&self) -> Option<&RunReport> {
        match self {
            Self::TaskExecuted(report)
            | Self::TaskError(report)
            | Self::TaskRetried(report)
            | Self::TaskMissed(report)
            | Self::TaskMaxInstances(report)
            | Self::TaskRefused(report)
            | Self::TaskCancelled(report)
            | Self::TaskTimedOut(report)
            | Self::TaskInterrupted(report) => Some(report),
            _ => None,
        }
    }
}
