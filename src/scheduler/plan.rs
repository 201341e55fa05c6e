//! Every decision of the scheduler, as plain functions: no actor, no clock, no store.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::message::Then;
use crate::task::{Coalesce, Fire, Span, StoredTask, TaskSpec, TaskState};
use crate::trigger::{Context, SearchError, Trigger, TriggerError};

/// Run times enumerated one by one before the planner leaps over a long backlog.
const WALK: u64 = 10_000;

/// What is to be done about a task whose next run is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskPlan {
    /// The latest run to submit; nearly always the only one.
    pub run: Option<PlannedRun>,
    /// The runs to submit before it, oldest first.
    pub earlier: Vec<PlannedRun>,
    /// Run times given up because they exceed `max_catch_up`.
    pub missed: Option<Backlog>,
    /// What becomes of the task.
    pub then: Then,
    /// Why the trigger could not say when it runs next; the task is paused.
    pub stalled: Option<SearchError>,
}

/// A run to submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedRun {
    pub fire: Fire,
    /// Earlier run times it stands for as well.
    pub coalesced: u64,
}

/// Run times that are dealt with together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub first: Fire,
    /// How many; at least this many when a backlog was leapt over.
    pub count: u64,
}

/// The run of `nominal`, with its jitter.
pub(crate) fn fire(trigger: &Trigger, nominal: DateTime<Utc>, cx: &Context<'_>) -> Fire {
    Fire { nominal, due: trigger.due(nominal, cx) }
}

/// The first run strictly after `nominal`.
fn fire_after(
    trigger: &Trigger,
    nominal: DateTime<Utc>,
    cx: &Context<'_>,
) -> Result<Option<Fire>, SearchError> {
    let Some(from) = nominal.checked_add_signed(TimeDelta::nanoseconds(1)) else { return Ok(None) };
    Ok(trigger.next(from, cx)?.map(|nominal| fire(trigger, nominal, cx)))
}

/// Decides about a task that is due at `now`.
pub(crate) fn tick(task: &StoredTask, now: DateTime<Utc>) -> TaskPlan {
    let StoredTask { spec, state } = task;
    let Some(first) = state.next.filter(|next| next.due <= now) else {
        // Not due after all: nothing to do but write down what was there.
        let then = Then::State(state.clone());
        return TaskPlan { run: None, earlier: Vec::new(), missed: None, then, stalled: None };
    };
    let coalesce = spec.coalesce != Coalesce::All;
    let keep = if coalesce { 1 } else { spec.max_catch_up.max(1) as usize };
    let due = collect_due(spec, state.anchor, first, now, keep);

    let coalesced = if coalesce { due.dropped } else { 0 };
    let missed = (!coalesce && due.dropped > 0).then_some(Backlog { first, count: due.dropped });
    let mut after = TaskState {
        revision: state.revision + 1,
        next: None,
        last_run: Some(due.latest.nominal),
        runs: state.runs + 1 + due.earlier.len() as u64,
        ..state.clone()
    };
    let (then, stalled) = match due.next {
        Ok(None) if !spec.trigger.on_shutdown() => (Then::Remove, None),
        Ok(next) => {
            after.next = next;
            (Then::State(after), None)
        }
        Err(error) => {
            after.paused = true;
            (Then::State(after), Some(error))
        }
    };
    let run = Some(PlannedRun { fire: due.latest, coalesced });
    let earlier = due.earlier.into_iter().map(|fire| PlannedRun { fire, coalesced: 0 }).collect();
    TaskPlan { run, earlier, missed, then, stalled }
}

impl TaskPlan {
    /// Where the run times lie that are given up.
    pub(crate) fn missed_span(&self) -> Option<Span> {
        let (missed, kept) = (self.missed?, self.runs().next()?);
        Some(Span { from: missed.first.nominal, until: kept.fire.nominal })
    }

    /// Where the run times lie that a run stands for besides its own. `first` is the first one that
    /// was due.
    pub(crate) fn span_of(&self, run: &PlannedRun, first: Option<Fire>, now: DateTime<Utc>) -> Option<Span> {
        let first = first.filter(|_| run.coalesced > 0)?;
        let next = match &self.then {
            Then::State(state) => state.next.map(|next| next.nominal),
            Then::Task(_) | Then::Remove => None,
        };
        // The latest one stands for those before it, the earliest for those after it.
        let until = if run.fire.nominal > first.nominal {
            run.fire.nominal
        } else {
            next.unwrap_or(now + TimeDelta::nanoseconds(1))
        };
        Some(Span { from: first.nominal, until })
    }

    /// The runs to submit, oldest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = PlannedRun> {
        self.earlier.iter().copied().chain(self.run)
    }
}

struct DueTimes {
    latest: Fire,
    /// Those kept before it, oldest first.
    earlier: VecDeque<Fire>,
    /// How many earlier ones there were.
    dropped: u64,
    next: Result<Option<Fire>, SearchError>,
}

/// All run times from `first` that are due at `now`: the latest `keep` of them, and how many more.
///
/// Bounded in time and memory however late it is: after [`WALK`] steps the planner looks back from
/// `now` instead of forward from the past.
fn collect_due(
    spec: &TaskSpec,
    anchor: DateTime<Utc>,
    first: Fire,
    now: DateTime<Utc>,
    keep: usize,
) -> DueTimes {
    let cx = spec.context(anchor);
    let mut earlier = VecDeque::new();
    let mut dropped = 0;
    let mut current = first;
    let mut steps = 0;
    let next = loop {
        match fire_after(&spec.trigger, current.nominal, &cx) {
            Ok(Some(next)) if next.due <= now => {
                earlier.push_back(current);
                current = next;
            }
            next => break next,
        }
        if earlier.len() >= keep {
            earlier.pop_front();
            dropped += 1;
        }
        steps += 1;
        if steps == WALK
            && let Some((landing, passed)) = leap(spec, &cx, current.nominal, now, keep)
        {
            dropped += passed + 1 + earlier.len() as u64;
            earlier.clear();
            current = landing;
        }
    };
    DueTimes { latest: current, earlier, dropped, next }
}

/// A run time not long before `now` with at least `keep` due ones from it on, found by looking back
/// in doubling steps; and how many run times lie in `from..` before it (a lower bound unless the
/// trigger can count).
fn leap(
    spec: &TaskSpec,
    cx: &Context<'_>,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
    keep: usize,
) -> Option<(Fire, u64)> {
    let mut back = TimeDelta::seconds(1);
    loop {
        let start = now.checked_sub_signed(back)?;
        if start <= from {
            return None;
        }
        let mut seen = 0;
        let mut at = spec.trigger.next(start, cx).ok()?;
        let landing = at;
        while let Some(nominal) = at.filter(|nominal| spec.trigger.due(*nominal, cx) <= now) {
            seen += 1;
            if seen >= keep {
                let landing = landing?;
                let passed = count_between(&spec.trigger, from, landing, cx);
                return Some((fire(&spec.trigger, landing, cx), passed));
            }
            at = fire_after(&spec.trigger, nominal, cx).ok()?.map(|fire| fire.nominal);
        }
        back = back.checked_mul(2)?;
    }
}

/// How many run times lie after `from` and before `to`: exact for an interval, for others 0, as a
/// lower bound.
fn count_between(trigger: &Trigger, from: DateTime<Utc>, to: DateTime<Utc>, cx: &Context<'_>) -> u64 {
    let step = match (trigger, fire_after(trigger, from, cx)) {
        (Trigger::Interval(_), Ok(Some(next))) => next.nominal - from,
        _ => return 0,
    };
    let whole = (to - from).num_milliseconds() / step.num_milliseconds().max(1);
    u64::try_from(whole - 1).unwrap_or(0)
}

/// The state of a task that is new in its store.
pub(crate) fn add(
    spec: &TaskSpec,
    first_run: Option<DateTime<Utc>>,
    paused: bool,
    now: DateTime<Utc>,
) -> Result<TaskState, PlanError> {
    let mut state = TaskState::new(now);
    state.paused = paused;
    state.next = first_fire(spec, first_run, now, None)?;
    state.begins = first_run;
    Ok(state)
}

/// The state of a task that takes the place of `existing`: its runs, its paused flag and, unless
/// the trigger or the zone changed, its next run stay. `None` when nothing changes at all.
pub(crate) fn replace(
    existing: &StoredTask,
    spec: &TaskSpec,
    first_run: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<TaskState>, PlanError> {
    let same_schedule = existing.spec.trigger == spec.trigger && existing.spec.timezone == spec.timezone;
    if same_schedule && *existing.spec == *spec {
        return Ok(None);
    }
    let mut state =
        TaskState { revision: existing.state.revision + 1, modified_at: now, ..existing.state.clone() };
    if !same_schedule {
        state.anchor = now;
        state.next = first_fire(spec, first_run, now, state.last_run)?;
        state.begins = first_run;
    }
    Ok(Some(state))
}

/// The state after a change of options from `before` to `after`.
pub(crate) fn update(
    before: &StoredTask,
    after: &TaskSpec,
    now: DateTime<Utc>,
) -> Result<TaskState, PlanError> {
    let state = replace(before, after, None, now)?;
    Ok(state.unwrap_or_else(|| TaskState { revision: before.state.revision + 1, ..before.state.clone() }))
}

/// The state of a paused task; `None` when it is paused already.
pub(crate) fn pause(task: &StoredTask, now: DateTime<Utc>) -> Option<TaskState> {
    (!task.state.paused).then(|| TaskState {
        revision: task.state.revision + 1,
        paused: true,
        modified_at: now,
        ..task.state.clone()
    })
}

/// What becomes of a task that is resumed; `None` when it is not paused. Run times that passed
/// during the pause are skipped, or kept for the next tick to deal with (`catch_up`). A schedule
/// that has ended meanwhile is removed.
pub(crate) fn resume(
    task: &StoredTask,
    catch_up: bool,
    now: DateTime<Utc>,
) -> Result<Option<Then>, PlanError> {
    let StoredTask { spec, state } = task;
    if !state.paused {
        return Ok(None);
    }
    let cx = spec.context(state.anchor);
    let next = match state.next {
        Some(next) if catch_up || next.due >= now => Some(next),
        _ => spec.trigger.next(now, &cx)?.map(|nominal| fire(&spec.trigger, nominal, &cx)),
    };
    if next.is_none() && !spec.trigger.on_shutdown() {
        return Ok(Some(Then::Remove));
    }
    Ok(Some(Then::State(TaskState {
        revision: state.revision + 1,
        paused: false,
        next,
        modified_at: now,
        ..state.clone()
    })))
}

/// What becomes of a task that is run on demand at `now`: the schedule stays where it is. With
/// `remove_finished`, a task whose trigger has nothing left after `now` is removed.
pub(crate) fn run_now(
    task: &StoredTask,
    remove_finished: bool,
    now: DateTime<Utc>,
) -> Result<Then, PlanError> {
    let StoredTask { spec, state } = task;
    if remove_finished && !spec.trigger.on_shutdown() {
        let cx = spec.context(state.anchor);
        let ahead = state.next.filter(|next| next.nominal > now).is_some();
        if !ahead && fire_after(&spec.trigger, now, &cx)?.is_none() {
            return Ok(Then::Remove);
        }
    }
    Ok(Then::State(TaskState {
        revision: state.revision + 1,
        runs: state.runs + 1,
        last_run: Some(now),
        ..state.clone()
    }))
}

/// The next `count` nominal run times, without touching anything.
pub(crate) fn preview(
    task: &StoredTask,
    now: DateTime<Utc>,
    count: usize,
) -> Result<Vec<DateTime<Utc>>, SearchError> {
    let StoredTask { spec, state } = task;
    let cx = spec.context(state.anchor);
    let mut next = match state.next {
        Some(next) => Some(next.nominal),
        None => spec.trigger.next(now, &cx)?,
    };
    let mut times = Vec::with_capacity(count.min(1000));
    while let Some(nominal) = next.filter(|_| times.len() < count) {
        times.push(nominal);
        next = fire_after(&spec.trigger, nominal, &cx)?.map(|fire| fire.nominal);
    }
    Ok(times)
}

/// The first run of a schedule that is set at `now`: never the run time that ran last, again.
fn first_fire(
    spec: &TaskSpec,
    first_run: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    last_run: Option<DateTime<Utc>>,
) -> Result<Option<Fire>, PlanError> {
    let cx = spec.context(now);
    if let Some(at) = first_run {
        return Ok(Some(Fire { nominal: at, due: at }));
    }
    spec.trigger.check(now, &cx)?;
    match last_run.filter(|last| *last >= now) {
        Some(last) => Ok(fire_after(&spec.trigger, last, &cx)?),
        None => Ok(spec.trigger.next(now, &cx)?.map(|nominal| fire(&spec.trigger, nominal, &cx))),
    }
}

/// Why a plan could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Trigger(#[from] TriggerError),
    #[error(transparent)]
    Search(#[from] SearchError),
}
