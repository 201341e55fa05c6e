use chrono::{DateTime, TimeDelta, Utc};

use crate::task::{Fire, Span, TaskSpec, TaskState};
use crate::trigger::{Context, SearchError, Trigger, Zones};

/// The run times of a task: those of its trigger within its window. Everything that asks for a run
/// time asks here.
pub(super) struct Times<'a> {
    pub trigger: &'a Trigger,
    pub cx: Context<'a>,
    start: Option<DateTime<Utc>>,
    /// The last instant a run time may have.
    pub end: Option<DateTime<Utc>>,
    /// Run times that ran already, while the clock was ahead.
    had: &'a [Span],
}

impl<'a> Times<'a> {
    pub(super) fn of(spec: &'a TaskSpec, anchor: DateTime<Utc>, zones: &'a Zones) -> Self {
        let cx = spec.context(anchor, zones);
        Self { trigger: &spec.trigger, cx, start: spec.start_at, end: spec.end_at, had: &[] }
    }

    /// The run times that are left to a task: without those that it had while the clock was ahead.
    pub(super) fn of_task(spec: &'a TaskSpec, state: &'a TaskState, zones: &'a Zones) -> Self {
        let had = state.replanned.as_ref().map(|replanned| replanned.ran.as_slice()).unwrap_or_default();
        Self { had, ..Self::of(spec, state.anchor, zones) }
    }

    /// Whether a run time ran already, while the clock was ahead.
    pub(super) fn is_had(&self, nominal: DateTime<Utc>) -> bool {
        self.had.iter().any(|span| span.contains(nominal))
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
        let mut nominal = self.trigger.next(at, &self.cx)?;
        for span in self.had {
            if let Some(had) = nominal.filter(|nominal| span.contains(*nominal)) {
                nominal = self.trigger.next(span.until.max(had), &self.cx)?;
            }
        }
        Ok(nominal.filter(|nominal| self.contains(*nominal)).map(|nominal| self.fire(nominal)))
    }

    /// The first run strictly after `nominal`.
    pub(super) fn after(&self, nominal: DateTime<Utc>) -> Result<Option<Fire>, SearchError> {
        // However dense the answers of a trigger of the user's own are: a run time a millisecond.
        let step =
            if self.trigger.is_custom() { TimeDelta::milliseconds(1) } else { TimeDelta::nanoseconds(1) };
        match nominal.checked_add_signed(step) {
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
