//! Next runs that were worked out under a clock that was ahead, worked out again from the corrected one.

use chrono::{DateTime, TimeDelta, Utc};

use super::times::{Times, left};
use super::{PlanError, rezone, settle};
use crate::store::message::Then;
use crate::task::{
    Attempt, Coalesce, Fire, MAX_AHEAD, Outcome, Replanned, RunId, RunRecord, Source, Span, StoredTask,
    TaskSpec, TaskState,
};
use crate::trigger::Zones;

/// How long a task that ended late, with run times passed over, stays to be found again.
pub(crate) const LINGER: TimeDelta = TimeDelta::days(7);

/// The shortest time in which an attempt that was cut off, or is refused as it comes back, comes again.
const RECOVERY: TimeDelta = TimeDelta::seconds(300);

const NANO: TimeDelta = TimeDelta::nanoseconds(1);

/// What is worked out again of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replan {
    pub then: Then,
    /// Records that were made under the wrong clock, marked as such.
    pub marked: Vec<RunRecord>,
    /// Its schedule had ended, and goes on.
    pub back: bool,
    /// Its schedule has ended.
    pub finished: bool,
}

/// The latest time a task knows of that must be past: later than now, it was taken from a wrong clock.
pub(crate) fn latest_time(task: &StoredTask) -> DateTime<Utc> {
    let StoredTask { spec, state } = task;
    let attempts = state.attempts.iter().filter_map(|attempt| {
        let at = attempt.at?;
        at.checked_sub_signed(longest_delay(spec, attempt))
    });
    let backfill = state.backfill.as_ref().and_then(|backfill| {
        let every = TimeDelta::try_milliseconds(i64::try_from(backfill.every_ms).ok()?)?;
        backfill.at.checked_sub_signed(every)
    });
    attempts.chain(backfill).fold(state.latest_time(), DateTime::max)
}

/// How much later than its end an attempt may come again.
fn longest_delay(spec: &TaskSpec, attempt: &Attempt) -> TimeDelta {
    let before = attempt.number.saturating_sub(attempt.interrupted).saturating_sub(1).max(1);
    let retry = spec.retry.and_then(|retry| retry.delay_after(before, u64::MAX));
    let retry = retry.and_then(|delay| TimeDelta::from_std(delay).ok()).unwrap_or_default();
    // Chance makes a delay longer or shorter.
    retry.checked_mul(2).unwrap_or(retry).max(RECOVERY)
}

/// Whether a run began, as far as is known: then its run time is had.
fn began(record: &RunRecord) -> bool {
    !matches!(
        record.end.as_ref().map(|end| &end.outcome),
        Some(
            Outcome::Missed { .. }
                | Outcome::Refused { .. }
                | Outcome::Coalesced { .. }
                | Outcome::Skipped { .. }
        )
    )
}

/// What is to become of a task that knows of times later than `now`. `found` are its records that
/// concern later run times; runs from `before` on are not of that time.
pub(crate) fn replan(
    task: &StoredTask,
    found: &[RunRecord],
    now: DateTime<Utc>,
    before: RunId,
    zones: &Zones,
) -> Result<Replan, PlanError> {
    let StoredTask { spec, state } = task;
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let scheduled = || found.iter().filter(|record| record.source == Source::Scheduled);
    let ahead = || scheduled().filter(|record| record.nominal > now);
    let mut had: Vec<DateTime<Utc>> = ahead().filter(|record| began(record)).map(|run| run.nominal).collect();
    // A run of which there is no record is taken for one that was.
    let latest = state.last_run.filter(|last| *last > now);
    had.extend(latest.filter(|last| !found.iter().any(|record| record.nominal == *last)));
    let known = state.replanned.iter().flat_map(|replanned| &replanned.ran).filter(|span| span.until > now);
    let known: Vec<Span> = known.copied().collect();

    if state.trigger_since() > now && !(spec.trigger.is_at_once() && state.last_run.is_some()) {
        (after.anchor, after.set_at) = (now, None);
    }
    // Runs that go on know their task by that.
    if state.attempts.iter().all(|attempt| attempt.at.is_some()) {
        after.created_at = state.created_at.min(now);
    }
    after.modified_at = state.modified_at.min(now);
    after.last_run = state.last_run.map(|last| last.min(now));
    let spans = merged(&Times::of(spec, after.anchor, zones), had, known)?;
    after.replanned = Some(Box::new(Replanned { at: now, before, ran: spans }));

    // What was refused is open again, and counted when it is asked for again.
    let backlog = |run: &RunRecord| {
        spec.coalesce == Coalesce::All && run.span.is_some_and(|span| span.from == run.nominal)
    };
    let refused = ahead().filter(|run| run.attempt == 1 && !began(run) && !backlog(run)).filter(|run| {
        let outcome = run.end.as_ref().map(|end| &end.outcome);
        matches!(outcome, Some(Outcome::Missed { .. } | Outcome::Refused { .. }))
    });
    after.fired = after.fired.saturating_sub(refused.count() as u64);

    for attempt in &mut after.attempts {
        let latest = now.checked_add_signed(longest_delay(spec, attempt)).unwrap_or(now);
        attempt.at = attempt.at.map(|at| at.min(latest));
    }
    if let Some(backfill) = &mut after.backfill {
        let every = i64::try_from(backfill.every_ms).ok().and_then(TimeDelta::try_milliseconds);
        let latest = every.and_then(|every| now.checked_add_signed(every)).unwrap_or(now);
        (backfill.at, backfill.until) = (backfill.at.min(latest), backfill.until.min(now));
    }
    after.backfill = after.backfill.filter(|backfill| backfill.next < backfill.until);

    let times = Times::of_task(spec, &after, zones);
    // A first run that was set for a time to come, and not for the wrong now.
    let set = state.begins.filter(|begins| *begins > now);
    let defined = state.modified_at.max(state.created_at).max(state.set_at.unwrap_or(state.modified_at));
    let meant = set.filter(|begins| defined <= now || *begins > defined);
    let meant = meant.filter(|begins| !times.is_had(*begins));
    let open = match (meant, after.last_run) {
        _ if left(spec, &after) == 0 => None,
        (Some(begins), _) => Some(Fire { nominal: begins, due: begins }),
        (None, Some(last)) if last == now => times.after(now)?,
        (None, _) => times.from(now)?,
    };
    after.begins = if set.is_some() { meant } else { state.begins };
    // What was due before then stays due.
    after.next = match state.next {
        Some(next) if latest.is_none() && next.nominal <= now => Some(next),
        _ => open,
    };
    if after.next.is_some() {
        after.leaves_at = None;
    } else if let Some(leaves_at) = &mut after.leaves_at {
        *leaves_at = (*leaves_at).min(now + LINGER);
    }

    let marked = found.iter().filter(|record| {
        let passed = record.nominal > now && !began(record);
        record.end.is_some() && (passed || record.span.is_some_and(|span| span.until > now))
    });
    let marked = marked.cloned().map(|mut record| {
        if let Some(end) = &mut record.end {
            end.wrong_clock = Some(now);
        }
        record
    });
    let back = state.is_finished(spec) && !after.is_finished(spec);
    rezone::note_offsets(spec, state.next, &mut after, zones);
    let (then, finished) = settle(spec, after);
    Ok(Replan { then, marked: marked.collect(), back, finished })
}

/// The run times that were had as few spans: those between which the trigger has none lie in one.
fn merged(times: &Times<'_>, mut had: Vec<DateTime<Utc>>, known: Vec<Span>) -> Result<Vec<Span>, PlanError> {
    had.sort_unstable();
    had.dedup();
    let mut spans: Vec<Span> = known;
    spans.extend(had.into_iter().map(|nominal| Span { from: nominal, until: nominal + NANO }));
    spans.sort_unstable_by_key(|span| (span.from, span.until));
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from <= last.until || !between(times, last.until, span.from)? => {
                last.until = last.until.max(span.until);
            }
            _ => merged.push(span),
        }
    }
    // Rather a run too few than one twice.
    while merged.len() > MAX_AHEAD {
        let gap = |index: &usize| match (merged.get(*index), merged.get(index + 1)) {
            (Some(a), Some(b)) => b.from - a.until,
            _ => TimeDelta::MAX,
        };
        let Some(nearest) = (0..merged.len() - 1).min_by_key(gap) else { break };
        let next = merged.remove(nearest + 1);
        if let Some(span) = merged.get_mut(nearest) {
            span.until = next.until;
        }
    }
    Ok(merged)
}

/// Whether the trigger has a run time from `from` on and before `until`.
fn between(times: &Times<'_>, from: DateTime<Utc>, until: DateTime<Utc>) -> Result<bool, PlanError> {
    Ok(times.from(from)?.is_some_and(|fire| fire.nominal < until))
}
