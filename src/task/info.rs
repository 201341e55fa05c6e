use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Alias, StoredTask, TaskId, TaskSpec, TaskState};
use crate::trigger::Zones;

/// Where a task's schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    /// Added before the scheduler was started: not in its store yet.
    Pending,
    /// Paused: runs only when asked for.
    Paused,
    /// Waiting for its next run.
    Scheduled,
    /// Its schedule has ended, and it was kept
    /// ([`WhenFinished::Keep`](super::WhenFinished::Keep)): runs only when asked for.
    Finished,
}

/// Why a task that is due does not run: what is to run it is not there, or has no room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Since when it waits.
    pub since: DateTime<Utc>,
    /// What for, for people.
    pub reason: String,
}

/// A snapshot of a task; it does not change when the task does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskInfo {
    /// The store.
    pub store: Alias,
    /// What the task is.
    #[serde(flatten)]
    pub spec: Arc<TaskSpec>,
    /// How far it has come.
    #[serde(flatten)]
    pub state: TaskState,
    /// Where its schedule stands.
    pub schedule_state: ScheduleState,
    /// Runs going on now.
    pub running: u32,
    /// Runs that wait in their executor: for a place, or for an earlier run of the task to end.
    pub queued: u32,
    /// Why it waits although it is due; `None` when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Wait>,
    /// When it runs, in plain English.
    pub when: String,
}

impl TaskInfo {
    /// The snapshot of a task in `store`, told by the rules of `zones`.
    pub fn new(store: Alias, task: StoredTask, pending: bool, running: u32, zones: &Zones) -> Self {
        let schedule_state = match () {
            () if pending => ScheduleState::Pending,
            () if task.state.paused => ScheduleState::Paused,
            () if task.is_finished() => ScheduleState::Finished,
            () => ScheduleState::Scheduled,
        };
        let when = task.spec.trigger.describe(&task.spec.context(task.state.anchor, zones));
        Self {
            store,
            spec: task.spec,
            state: task.state,
            schedule_state,
            running,
            queued: 0,
            waiting: None,
            when,
        }
    }

    /// The same, with so many of its runs waiting in their executor.
    pub(crate) fn queued(self, queued: u32) -> Self {
        Self { running: self.running.saturating_sub(queued), queued, ..self }
    }

    /// The same of a task that waits.
    pub(crate) fn waiting(self, waiting: Option<Wait>) -> Self {
        Self { waiting, ..self }
    }

    /// The task.
    pub fn id(&self) -> &TaskId {
        &self.spec.id
    }

    /// The next nominal run time; `None` when there is none (or only at shutdown). A paused task
    /// has none: what it keeps for later is in [`state`](Self::state).
    pub fn next_run_time(&self) -> Option<DateTime<Utc>> {
        if self.state.paused { None } else { self.state.next.map(|fire| fire.nominal) }
    }
}

/// By what a list of tasks is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SortKey {
    /// The next run time, tasks without one last. The default.
    #[default]
    NextRunTime,
    /// The id.
    Id,
    /// The label.
    Name,
    /// Pending, paused, scheduled, finished.
    ScheduleState,
    /// The executor.
    Executor,
    /// The store.
    Store,
    /// When it runs, in plain English.
    Trigger,
}

/// Which tasks are listed, and in which order. All conditions must hold.
///
/// ```
/// use callboard::task::{SortKey, TaskQuery};
///
/// let query = TaskQuery::new().text("letter").sort(SortKey::Id).descending();
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    store: Option<String>,
    executor: Option<String>,
    state: Option<ScheduleState>,
    trigger: Option<String>,
    text: Option<String>,
    sort: SortKey,
    descending: bool,
}

impl TaskQuery {
    /// All tasks, by next run time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only tasks in this store.
    pub fn store(mut self, alias: impl Into<String>) -> Self {
        self.store = Some(alias.into());
        self
    }

    /// Only tasks of this executor.
    pub fn executor(mut self, alias: impl Into<String>) -> Self {
        self.executor = Some(alias.into());
        self
    }

    /// Only tasks in this state.
    pub fn state(mut self, state: ScheduleState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only tasks with this text, in any case, in [`TaskInfo::when`].
    pub fn trigger(mut self, text: impl Into<String>) -> Self {
        self.trigger = Some(text.into().to_lowercase());
        self
    }

    /// Only tasks with this text, in any case, in their id, label, handler or [`TaskInfo::when`].
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into().to_lowercase());
        self
    }

    /// The order.
    pub fn sort(mut self, key: SortKey) -> Self {
        self.sort = key;
        self
    }

    /// The other way round.
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// The store asked for, if one was.
    pub fn store_alias(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// Whether a task is listed.
    pub fn matches(&self, task: &TaskInfo) -> bool {
        let has = |text: &str, wanted: &str| text.to_lowercase().contains(wanted);
        self.store.as_deref().is_none_or(|store| task.store.as_str() == store)
            && self.executor.as_deref().is_none_or(|executor| task.spec.executor.as_str() == executor)
            && self.state.is_none_or(|state| task.schedule_state == state)
            && self.trigger.as_deref().is_none_or(|text| has(&task.when, text))
            && self.text.as_deref().is_none_or(|text| {
                [task.id().as_str(), task.spec.label(), task.spec.handler.name(), &task.when]
                    .into_iter()
                    .any(|field| has(field, text))
            })
    }

    /// The order of two tasks; the id decides between equals.
    pub fn compare(&self, a: &TaskInfo, b: &TaskInfo) -> Ordering {
        let order = match self.sort {
            SortKey::Id => Ordering::Equal,
            SortKey::Name => a.spec.label().cmp(b.spec.label()),
            SortKey::NextRunTime => {
                let key = |task: &TaskInfo| task.next_run_time().unwrap_or(DateTime::<Utc>::MAX_UTC);
                key(a).cmp(&key(b))
            }
            SortKey::ScheduleState => a.schedule_state.cmp(&b.schedule_state),
            SortKey::Executor => a.spec.executor.cmp(&b.spec.executor),
            SortKey::Store => a.store.cmp(&b.store),
            SortKey::Trigger => a.when.cmp(&b.when),
        };
        let order = order.then_with(|| a.id().cmp(b.id()));
        if self.descending { order.reverse() } else { order }
    }
}
