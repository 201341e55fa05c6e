//! Runs that are tried again: because they failed, or because they were cut off.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Ending, Fire, PlannedRun, Then, settle};
use crate::backoff::Backoff;
use crate::task::{
    Attempt, MAX_ATTEMPTS, MAX_RECOVERIES, MAX_WAITING, Outcome, Refusal, Run, RunEnd, Source, StoredTask,
    TaskSpec, TaskState,
};
use crate::trigger::hash;

/// How long a run that was cut off waits, when it is refused as it comes back.
const RECOVERY: Backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(300));

impl Attempt {
    fn is(&self, run: &Run) -> bool {
        self.nominal == run.nominal && self.source == run.source
    }
}

/// What is remembered of runs that begin: nothing, unless they may be tried again.
pub(super) fn note(spec: &TaskSpec, state: &mut TaskState, runs: &[PlannedRun]) {
    if !spec.keeps_attempts() {
        return;
    }
    let room = MAX_ATTEMPTS.saturating_sub(state.attempts.len());
    let runs = runs.iter().filter(|run| run.source != Source::Shutdown).take(room);
    state.attempts.extend(runs.map(|run| Attempt {
        nominal: run.fire.nominal,
        due: run.fire.due,
        coalesced: run.coalesced,
        source: run.source,
        number: run.attempt,
        interrupted: 0,
        at: None,
    }));
}

/// The further attempts that are due at `now`.
pub(super) fn take_due(spec: &TaskSpec, state: &mut TaskState, now: DateTime<Utc>) -> Vec<PlannedRun> {
    let mut runs = Vec::new();
    let keeps = spec.keeps_attempts();
    state.attempts.retain_mut(|attempt| {
        let Some(at) = attempt.at.filter(|at| *at <= now) else { return true };
        runs.push(PlannedRun {
            // It is late when it begins after this, and not after the first attempt.
            fire: Fire { nominal: attempt.nominal, due: at },
            coalesced: attempt.coalesced,
            source: attempt.source,
            attempt: attempt.number,
            turned_away: None,
        });
        attempt.at = None;
        keeps
    });
    // What was to run first comes first.
    runs.sort_by_key(|run| (run.fire.due, run.fire.nominal));
    runs
}

/// When a run is tried again that ended so at `ended_at`; the attempt is then the next one.
fn again(
    spec: &TaskSpec,
    attempt: &mut Attempt,
    outcome: &Outcome,
    ended_at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let seed =
        || hash(spec.id.as_str(), attempt.nominal.timestamp_millis() as u64 ^ u64::from(attempt.number));
    // What was cut off through no fault of its own is not counted against its attempts.
    let retry = || spec.retry?.delay_after(attempt.number.saturating_sub(attempt.interrupted), seed());
    let recovers = spec.recover && attempt.interrupted < MAX_RECOVERIES;
    let (delay, cut_off) = match outcome {
        Outcome::Failed { .. } | Outcome::Panicked { .. } | Outcome::TimedOut { .. } => (retry()?, false),
        Outcome::Interrupted { .. } if recovers => (Duration::ZERO, true),
        Outcome::Refused {
            reason:
                Refusal::MaxInstances { .. }
                | Refusal::TaskQueueFull { .. }
                | Refusal::QueueFull { .. }
                | Refusal::ExecutorUnavailable { .. },
        } if attempt.number > 1 => match retry() {
            Some(delay) => (delay, false),
            None if recovers && attempt.interrupted > 0 => {
                (RECOVERY.delay(attempt.interrupted - 1, seed()), true)
            }
            None => return None,
        },
        _ => return None,
    };
    let at = ended_at.checked_add_signed(TimeDelta::from_std(delay).ok()?)?;
    attempt.number = attempt.number.checked_add(1)?;
    attempt.interrupted += u32::from(cut_off);
    attempt.at = Some(at);
    Some(at)
}

/// What comes of the end of a run of `task`.
pub(crate) fn ended(task: &StoredTask, run: &Run, end: &RunEnd) -> Ending {
    let StoredTask { spec, state } = task;
    if !run.is_of(task) {
        // The task that ran is gone, and what it waited for with it.
        return Ending::Final;
    }
    let of_run = |attempt: &&Attempt| attempt.is(run);
    let Some(index) = state
        .attempts
        .iter()
        .position(|attempt| attempt.is(run) && attempt.number == run.attempt && attempt.at.is_none())
    else {
        // Written before, and the answer was lost; or it was begun when too much was remembered.
        let later = state.attempts.iter().filter(of_run).find(|attempt| attempt.number > run.attempt);
        return match later {
            Some(later) => Ending::Known { retry_at: later.at.unwrap_or(end.ended_at) },
            None => Ending::Final,
        };
    };
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let retry_at = settle_one(spec, &mut after, index, &end.outcome, end.ended_at);
    let (then, finished) = settle(spec, after);
    Ending::Settled { then, finished, retry_at }
}

/// Takes an attempt that has ended off the list, unless it is tried again.
fn settle_one(
    spec: &TaskSpec,
    state: &mut TaskState,
    index: usize,
    outcome: &Outcome,
    ended_at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let waiting = state.attempts.iter().filter(|attempt| attempt.at.is_some()).count();
    let attempt = state.attempts.get_mut(index)?;
    // What was cut off does not pile up: no more of it begins than goes on.
    let room = waiting < MAX_WAITING || matches!(outcome, Outcome::Interrupted { .. });
    let retry_at = room.then(|| again(spec, attempt, outcome, ended_at)).flatten();
    if retry_at.is_none() {
        state.attempts.remove(index);
    }
    retry_at
}

/// What becomes of a task with runs that an earlier life of the scheduler began and nobody will end
/// (`lost` tells which): they were cut off.
pub(crate) struct Salvage {
    pub then: Then,
    pub finished: bool,
    /// The attempts, as they were, that come again, and when.
    pub again: Vec<(Attempt, DateTime<Utc>)>,
}

/// `None` when there is none of them.
pub(crate) fn salvage(
    task: &StoredTask,
    lost: impl Fn(&Attempt) -> bool,
    now: DateTime<Utc>,
) -> Option<Salvage> {
    let StoredTask { spec, state } = task;
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let outcome = Outcome::Interrupted { reason: String::new() };
    let (mut again, mut found) = (Vec::new(), false);
    for index in (0..state.attempts.len()).rev() {
        let Some(attempt) = state.attempts.get(index).copied() else { continue };
        if attempt.at.is_some() || !lost(&attempt) {
            continue;
        }
        found = true;
        if let Some(at) = settle_one(spec, &mut after, index, &outcome, now) {
            again.push((attempt, at));
        }
    }
    let (then, finished) = settle(spec, after);
    found.then_some(Salvage { then, finished, again })
}

/// Whether the store has taken the decision to begin this run: as far as the task can tell, which it
/// cannot of the runs of one that had its id before. These are gone with that, decided or not.
pub(crate) fn is_taken(task: &StoredTask, run: &Run) -> bool {
    let state = &task.state;
    if !run.is_of(task) {
        return true;
    }
    match (run.source, run.attempt) {
        (_, 2..) => !state
            .attempts
            .iter()
            .any(|attempt| attempt.is(run) && attempt.number == run.attempt && attempt.at.is_some()),
        (Source::Backfill, _) => state.backfill.as_ref().is_none_or(|backfill| backfill.next > run.nominal),
        _ => {
            // A run by hand sets `last_run` as well, and leaves what is due where it is.
            let due =
                run.source == Source::Scheduled && state.next.is_some_and(|next| next.nominal <= run.nominal);
            !due && state.last_run.is_some_and(|last| last >= run.nominal)
        }
    }
}
