use chrono::{DateTime, TimeDelta, Utc};

use crate::task::{Fire, TaskSpec, TaskState};
use crate::trigger::{Context, SearchError, Trigger};

/// The run times of a task: those of its trigger within its window. Everything that asks for a run
/// time asks here.
pub(super) struct Times<'a> {
    pub trigger: &'a Trigger,
    pub cx: Context<'a>,
    start: Option<DateTime<Utc>>,
    /// The last instant a run time may have.
    pub end: Option<DateTime<Utc>>,
}

impl<'a> Times<'a> {
    pub(super) fn of(spec: &'a TaskSpec, anchor: DateTime<Utc>) -> Self {
        Self { trigger: &spec.trigger, cx: spec.context(anchor), start: spec.start_at, end: spec.end_at }
    }

    /// Whether an instant lies within the window.
    pub(super) fn contains(&self, at: DateTime<Utc>) -> bool {
        self.start.is_none_or(|start| start <= at) && self.end.is_none_or(|end| at <= end)
    }

    /// The first run at or after `at`.
    pub(super) fn from(&self, at: DateTime<Utc>) -> Result<Option<Fire>, SearchError> {
        let at = self.start.map_or(at, |start| start.max(at));
        // A search beyond the end could take long, or give up, for nothing.
        if self.end.is_some_and(|end| end < at) {
            return Ok(None);
        }
        let nominal = self.trigger.next(at, &self.cx)?;
        Ok(nominal.filter(|nominal| self.contains(*nominal)).map(|nominal| self.fire(nominal)))
    }

    /// The first run strictly after `nominal`.
    pub(super) fn after(&self, nominal: DateTime<Utc>) -> Result<Option<Fire>, SearchError> {
        match nominal.checked_add_signed(TimeDelta::nanoseconds(1)) {
            Some(from) => self.from(from),
            None => Ok(None),
        }
    }

    /// The run of `nominal`, with its jitter.
    fn fire(&self, nominal: DateTime<Utc>) -> Fire {
        let due = self.trigger.due(nominal, &self.cx);
        Fire { nominal, due: self.end.map_or(due, |end| due.min(end)) }
    }
}

/// How many more scheduled runs the task may have.
pub(super) fn left(spec: &TaskSpec, state: &TaskState) -> u64 {
    spec.max_runs.map_or(u64::MAX, |max| max.saturating_sub(state.fired))
}
