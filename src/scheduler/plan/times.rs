use std::borrow::Cow;
use std::cell::Cell;

use chrono::{DateTime, TimeDelta, Utc};

use crate::task::{Fire, Span, TaskSpec, TaskState};
use crate::trigger::{Context, Interval, SearchError, Trigger, Zones};

/// The run times of a task: those of its trigger within its window. Everything that asks for a run
/// time asks here.
pub(super) struct Times<'a> {
    pub trigger: Cow<'a, Trigger>,
    pub cx: Context<'a>,
    start: Option<DateTime<Utc>>,
    /// The last instant a run time may have.
    pub end: Option<DateTime<Utc>>,
    /// Run times that ran already: while the clock was ahead, and by other rules of time zones.
    had: [&'a [Span]; 2],
    /// The steps that were taken to find them.
    pub effort: Cell<u64>,
}

impl<'a> Times<'a> {
    pub(super) fn of(spec: &'a TaskSpec, anchor: DateTime<Utc>, zones: &'a Zones) -> Self {
        let cx = spec.context(anchor, zones);
        let effort = Cell::new(0);
        Self {
            trigger: Cow::Borrowed(&spec.trigger),
            cx,
            start: spec.start_at,
            end: spec.end_at,
            had: [&[]; 2],
            effort,
        }
    }

    /// The run times that are left to a task: without those that it had already.
    pub(super) fn of_task(spec: &'a TaskSpec, state: &'a TaskState, zones: &'a Zones) -> Self {
        let ahead = state.replanned.as_ref().map(|replanned| replanned.ran.as_slice());
        let moved = state.moved.as_ref().map(|moved| moved.ran.as_slice());
        let had = [ahead, moved].map(Option::unwrap_or_default);
        Self { trigger: as_begun(spec, state), had, ..Self::of(spec, state.anchor, zones) }
    }

    /// Whether a run time ran already.
    pub(super) fn is_had(&self, nominal: DateTime<Utc>) -> bool {
        self.had.iter().copied().flatten().any(|span| span.contains(nominal))
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
        let mut nominal = self.trigger.next_counted(at, &self.cx, &self.effort)?;
        // Those of one kind are in order, and seldom there are any of the other.
        while let Some(had) = nominal
            && let Some(span) = self.had.iter().copied().flatten().find(|span| span.contains(had))
        {
            nominal = self.trigger.next_counted(span.until, &self.cx, &self.effort)?;
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
        let due = self.trigger.due_counted(nominal, &self.cx, &self.effort);
        Fire { nominal, due: self.end.map_or(due, |end| due.min(end)) }
    }
}

/// The trigger of a task; of an interval that began at another instant than the rules of its time zone say
/// now, that one.
pub(super) fn as_begun<'a>(spec: &'a TaskSpec, state: &TaskState) -> Cow<'a, Trigger> {
    match (&spec.trigger, state.begun) {
        (Trigger::Interval(interval), Some(begun)) => {
            Cow::Owned(Trigger::Interval(Interval::clone(interval).start_at(begun).into()))
        }
        (trigger, _) => Cow::Borrowed(trigger),
    }
}

/// How many more scheduled runs the task may have.
pub(super) fn left(spec: &TaskSpec, state: &TaskState) -> u64 {
    spec.max_runs.map_or(u64::MAX, |max| max.saturating_sub(state.fired))
}
