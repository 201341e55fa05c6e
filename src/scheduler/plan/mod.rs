//! Every decision of the scheduler, as plain functions: no actor, no clock, no store.

mod ahead;
mod attempts;
mod backfill;
mod backlog;
mod blocked;
mod edit;
mod rezone;
mod times;

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::message::Then;
use crate::task::{Coalesce, Fire, Source, Span, StoredTask, TaskError, TaskSpec, TaskState, WhenFinished};
use crate::trigger::{SearchError, TriggerError, Zones};
use times::{Times, left};

pub(crate) use ahead::{Replan, latest_time, replan};
pub(crate) use attempts::{Salvage, ended, is_taken, salvage};
pub(crate) use backfill::{backfill, cancel_backfill};
pub(crate) use backlog::TURN;
pub(crate) use blocked::{Blocked, blocked};
#[cfg(feature = "cli")]
pub(crate) use edit::is_over;
pub(crate) use edit::{add, kept, replace, update};
pub(crate) use rezone::{Rezone, rezone};

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
    /// Whether its schedule has ended.
    pub finished: bool,
    /// Why the trigger could not say when it runs next; the task is paused.
    pub stalled: Option<SearchError>,
    /// The steps that it took to find the run times.
    pub effort: u64,
}

/// A run to submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedRun {
    /// Its run time; of a further attempt, with the time of the attempt as due time.
    pub fire: Fire,
    /// Other run times it stands for as well.
    pub coalesced: u64,
    pub source: Source,
    pub attempt: u32,
    /// Why it does not begin, if it does not.
    pub turned_away: Option<TurnedAway>,
}

/// Why a run that was planned does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// It is later than its grace allows.
    Missed,
    /// There was nobody to run it for longer than is waited.
    Refused,
}

impl PlannedRun {
    /// Whether it is the schedule's, for the first time.
    fn is_new(&self) -> bool {
        self.source == Source::Scheduled && self.attempt == 1
    }

    fn first(fire: Fire, coalesced: u64, source: Source) -> Self {
        Self { fire, coalesced, source, attempt: 1, turned_away: None }
    }
}

/// What comes of the end of a run that may be tried again.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and the large one is the usual one")]
pub(crate) enum Ending {
    /// The task goes on so, with the end of the run written in the same step.
    Settled { then: Then, finished: bool, retry_at: Option<DateTime<Utc>> },
    /// That was written before: the run is tried again.
    Known { retry_at: DateTime<Utc> },
    /// The task does not wait for it: only the end itself is to be written.
    Final,
}

/// Run times that are dealt with together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub first: Fire,
    /// How many; at least this many when a backlog was leapt over.
    pub count: u64,
}

/// Decides about a task that is due at `now`, and whose runs can begin; `running` says how many go on.
pub(crate) fn tick(
    task: &StoredTask,
    zones: &Zones,
    now: DateTime<Utc>,
    running: impl FnOnce() -> u32,
) -> TaskPlan {
    let StoredTask { spec, state } = task;
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let mut plan = TaskPlan::nothing();
    if !state.attempts.is_empty() {
        plan.earlier = attempts::take_due(spec, &mut after, now);
        after.runs += plan.earlier.len() as u64;
    }
    if let Some(first) = state.next.filter(|next| next.due <= now) {
        plan.advance(spec, &mut after, first, (now, zones), true);
    }
    if state.backfill.is_some() {
        let running = running() as usize + plan.runs().count();
        let (run, error) = backfill::step(spec, &mut after, (now, zones), running);
        plan.earlier.extend(run);
        plan.stalled = plan.stalled.or(error);
        attempts::note(spec, &mut after, run.as_slice());
    }
    after.leaves_at.take_if(|leaves_at| *leaves_at <= now);
    let dealt_with =
        |until: DateTime<Utc>| until <= now && after.next.is_none_or(|next| next.nominal >= until);
    if let Some(replanned) = &mut after.replanned {
        replanned.ran.retain(|span| span.until > now);
    }
    if let Some(moved) = &mut after.moved {
        moved.ran.retain(|span| !dealt_with(span.until));
    }
    rezone::note_offsets(spec, state.next, &mut after, zones);
    (plan.then, plan.finished) = settle(spec, after);
    plan
}

impl TaskPlan {
    fn nothing() -> Self {
        Self {
            run: None,
            earlier: Vec::new(),
            missed: None,
            then: Then::Remove,
            finished: false,
            stalled: None,
            effort: 0,
        }
    }

    /// Runs what is due of the schedule.
    fn advance(
        &mut self,
        spec: &TaskSpec,
        state: &mut TaskState,
        first: Fire,
        (now, zones): (DateTime<Utc>, &Zones),
        can_begin: bool,
    ) {
        let left = left(spec, state);
        let keep = match spec.coalesce {
            Coalesce::All => spec.max_catch_up.max(1) as usize,
            Coalesce::Latest | Coalesce::Earliest => 1,
        };
        let times = Times::of_task(spec, state, zones);
        let mut due = backlog::collect(&times, first, now, keep);
        self.effort += times.effort.get();
        let mut coalesced = 0;
        match spec.coalesce {
            Coalesce::Latest => coalesced = due.dropped,
            Coalesce::Earliest => (due.latest, coalesced) = (first, due.dropped),
            Coalesce::All => self.missed = (due.dropped > 0).then_some(Backlog { first, count: due.dropped }),
        }
        // What is due beyond the last run of the schedule is no run time.
        while due.earlier.len() as u64 >= left
            && let Some(earlier) = due.earlier.pop_back()
        {
            due.latest = earlier;
        }
        let submitted = 1 + due.earlier.len() as u64;
        state.next = None;
        state.last_run = Some(due.latest.nominal);
        state.runs += submitted;
        state.fired = state.fired.saturating_add(submitted);
        match due.next {
            _ if left <= submitted => {}
            Ok(next) => state.next = next,
            Err(error) => {
                state.paused = true;
                self.stalled = Some(error);
            }
        }
        let run = PlannedRun::first(due.latest, coalesced, Source::Scheduled);
        let attempts = self.earlier.len();
        self.earlier
            .extend(due.earlier.into_iter().map(|fire| PlannedRun::first(fire, 0, Source::Scheduled)));
        if can_begin {
            attempts::note(spec, state, self.earlier.get(attempts..).unwrap_or_default());
            attempts::note(spec, state, &[run]);
        }
        self.run = Some(run);
    }

    /// Lets a task stay for a while whose schedule has ended more than `late` too late, with run times
    /// passed over: it may have done so under a clock that is ahead.
    pub(crate) fn linger(&mut self, task: &StoredTask, now: DateTime<Utc>, late: TimeDelta) {
        let StoredTask { spec, state } = task;
        let ends_late = self.finished && self.then == Then::Remove;
        if !ends_late || state.next.is_none_or(|next| now - next.due <= late) {
            return;
        }
        let given_up = |run: &PlannedRun| {
            run.coalesced > 0 || run.turned_away.is_some() || !spec.misfire_grace.allows(now - run.fire.due)
        };
        if self.missed.is_none() && !self.runs().any(|run| given_up(&run)) {
            return;
        }
        let new = self.runs().filter(PlannedRun::is_new).count() as u64;
        let last = self.runs().filter(PlannedRun::is_new).map(|run| run.fire.nominal).max();
        self.then = Then::State(TaskState {
            revision: state.revision + 1,
            next: None,
            last_run: state.last_run.max(last),
            runs: state.runs + self.runs().count() as u64,
            fired: state.fired.saturating_add(new),
            attempts: Vec::new(),
            backfill: None,
            leaves_at: now.checked_add_signed(ahead::LINGER),
            ..state.clone()
        });
    }

    /// Where the run times lie that are given up.
    pub(crate) fn missed_span(&self) -> Option<Span> {
        let missed = self.missed?;
        let kept = self.runs().find(PlannedRun::is_new)?;
        Some(Span { from: missed.first.nominal, until: kept.fire.nominal })
    }

    /// Where the run times lie that a run stands for besides its own. `first` is the first one that
    /// was due.
    pub(crate) fn span_of(&self, run: &PlannedRun, first: Option<Fire>, now: DateTime<Utc>) -> Option<Span> {
        let first = first.filter(|_| run.coalesced > 0 && run.is_new())?;
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

/// What becomes of a task that has come to this state, and whether its schedule has ended: then
/// nothing is left to come, and the task is removed or kept.
fn settle(spec: &TaskSpec, state: TaskState) -> (Then, bool) {
    let finished = !state.paused && state.is_finished(spec);
    let then = match spec.when_finished {
        WhenFinished::Remove if finished && state.leaves_at.is_none() => Then::Remove,
        _ => Then::State(state),
    };
    (then, finished)
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

/// Takes the run times up to `until` off a task's schedule: another process had them. When the trigger
/// cannot say what comes after them, they stay, and the tick finds that out.
pub(crate) fn pass_over(task: &mut StoredTask, until: DateTime<Utc>, zones: &Zones) {
    let passed = task.state.next.is_some_and(|next| next.nominal <= until);
    if passed && let Ok(next) = Times::of_task(&task.spec, &task.state, zones).after(until) {
        let before = std::mem::replace(&mut task.state.next, next);
        rezone::note_offsets(&task.spec, before, &mut task.state, zones);
    }
}

/// What becomes of a task that is resumed; `None` when it is not paused. Run times that passed
/// during the pause are skipped, or kept for the next tick to deal with (`catch_up`). A schedule
/// that has ended meanwhile is removed, or kept as finished.
pub(crate) fn resume(
    task: &StoredTask,
    catch_up: bool,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<Option<Then>, PlanError> {
    let StoredTask { spec, state } = task;
    if !state.paused {
        return Ok(None);
    }
    let next = match state.next {
        Some(next) if catch_up || next.due >= now => Some(next),
        _ if left(spec, state) == 0 => None,
        _ => Times::of_task(spec, state, zones).from(now)?,
    };
    let mut after =
        TaskState { revision: state.revision + 1, paused: false, next, modified_at: now, ..state.clone() };
    // The pause does not count as lateness of what waited through it.
    for at in after.attempts.iter_mut().filter_map(|attempt| attempt.at.as_mut()) {
        *at = now.max(*at);
    }
    if let Some(backfill) = &mut after.backfill {
        backfill.at = now.max(backfill.at);
    }
    rezone::note_offsets(spec, state.next, &mut after, zones);
    Ok(Some(settle(spec, after).0))
}

/// What becomes of a task that is run on demand at `now`: the schedule stays where it is. With
/// `remove_finished`, a task whose schedule has nothing left after `now` is removed; one with runs
/// that are not settled goes when they are, unless it is kept.
pub(crate) fn run_now(
    task: &StoredTask,
    source: Source,
    remove_finished: bool,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<Then, PlanError> {
    let StoredTask { spec, state } = task;
    let mut after = TaskState {
        revision: state.revision + 1,
        runs: state.runs + 1,
        // The clock may have been set back: what has run up to then does not come again.
        last_run: state.last_run.max(Some(now)),
        ..state.clone()
    };
    attempts::note(spec, &mut after, &[PlannedRun::first(Fire { nominal: now, due: now }, 0, source)]);
    if remove_finished && !spec.trigger.on_shutdown() {
        let ahead = state.next.filter(|next| next.nominal > now).is_some();
        if !ahead && (left(spec, state) == 0 || Times::of_task(spec, state, zones).after(now)?.is_none()) {
            after.next = None;
            if after.is_finished(spec) {
                return Ok(Then::Remove);
            }
        }
    }
    Ok(Then::State(after))
}

/// A run for what is due of a schedule, asked for by somebody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DueRun {
    pub nominal: DateTime<Utc>,
    /// Other run times it stands for as well, and where they lie.
    pub coalesced: u64,
    pub span: Option<Span>,
}

/// What becomes of a task of which somebody asks to run what is due at `now`: one run, of the latest run
/// time, and the schedule goes on after it. `None` when nothing is due.
pub(crate) fn run_due(
    task: &StoredTask,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<Option<(Then, DueRun)>, PlanError> {
    let StoredTask { spec, state } = task;
    let Some(first) = state.next.filter(|next| next.due <= now) else { return Ok(None) };
    let one = TaskSpec { coalesce: Coalesce::Latest, ..TaskSpec::clone(spec) };
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let mut plan = TaskPlan::nothing();
    plan.advance(&one, &mut after, first, (now, zones), true);
    if let Some(error) = plan.stalled {
        return Err(error.into());
    }
    rezone::note_offsets(spec, state.next, &mut after, zones);
    (plan.then, plan.finished) = settle(spec, after);
    let due = plan.run.map(|run| DueRun {
        nominal: run.fire.nominal,
        coalesced: run.coalesced,
        span: plan.span_of(&run, Some(first), now),
    });
    Ok(due.map(|due| (plan.then, due)))
}

/// The run times of a task that are ahead, one after the other.
#[derive(Debug)]
pub(crate) struct Ahead {
    now: DateTime<Utc>,
    last: Option<DateTime<Utc>>,
    left: u64,
    /// The steps that were taken to find them.
    pub(crate) effort: u64,
}

impl Ahead {
    /// From the next one on, which may be due already.
    pub(crate) fn of(task: &StoredTask, now: DateTime<Utc>) -> Self {
        Self { now, last: None, left: left(&task.spec, &task.state), effort: 0 }
    }

    /// The next one of `task`, which is the same each time.
    pub(crate) fn step(
        &mut self,
        task: &StoredTask,
        zones: &Zones,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        if self.left == 0 {
            return Ok(None);
        }
        let times = Times::of_task(&task.spec, &task.state, zones);
        let next = match (self.last, task.state.next) {
            (Some(last), _) => times.after(last),
            (None, Some(next)) => Ok(Some(next)),
            (None, None) => times.from(self.now),
        };
        self.effort += times.effort.get();
        let next = next?;
        self.last = next.map(|next| next.nominal);
        self.left = if next.is_some() { self.left - 1 } else { 0 };
        Ok(self.last)
    }
}

/// Some run times of a task, one after the other.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub fires: Vec<Fire>,
    /// Where to go on, unless that is all.
    pub rest: Option<DateTime<Utc>>,
    /// The steps that were taken to find them.
    pub effort: u64,
}

/// The run times of a task from `from` to `to`, both inclusive, and the next one where that was set apart
/// from its trigger: at most `limit`, and no more than can be found in one go.
pub(crate) fn between(
    task: &StoredTask,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: usize,
    zones: &Zones,
) -> Result<Stretch, SearchError> {
    let times = Times::of_task(&task.spec, &task.state, zones);
    let (mut fires, mut next) = (Vec::new(), times.from(from)?);
    let set = task.state.next.filter(|set| task.state.begins == Some(set.nominal) && set.nominal >= from);
    let mut set = set.filter(|set| set.nominal <= to);
    let mut rest = None;
    loop {
        let fire = next.filter(|fire| fire.nominal <= to);
        let ahead = set.take_if(|set| fire.is_none_or(|fire| set.nominal <= fire.nominal));
        let Some(fire) = ahead.or(fire) else { break };
        if fires.len() == limit || times.effort.get() > backlog::EFFORT {
            rest = Some(fire.nominal);
            break;
        }
        fires.push(fire);
        if next.is_some_and(|next| next.nominal <= fire.nominal) {
            next = times.after(fire.nominal)?;
        }
    }
    Ok(Stretch { fires, rest, effort: times.effort.get() })
}

/// Why a plan could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl From<TriggerError> for PlanError {
    fn from(error: TriggerError) -> Self {
        Self::Task(error.into())
    }
}
