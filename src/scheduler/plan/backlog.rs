//! Run times that are due together.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use super::times::Times;
use crate::task::Fire;
use crate::trigger::{SearchError, Trigger};

/// Run times enumerated one by one before the planner leaps over a long backlog.
const WALK: u64 = 10_000;

/// The steps that finding run times may take in one go, a second at the very most: half of them to walk
/// through a backlog, as many to leap over it. A trigger that needs more is one of parts that hardly
/// ever meet.
pub(super) const EFFORT: u64 = 1_000_000;

/// The steps after which a batch of tasks is cut off, so that others have their turn.
pub(crate) const TURN: u64 = EFFORT / 4;

pub(super) struct Backlog {
    pub latest: Fire,
    /// Those kept before it, oldest first.
    pub earlier: VecDeque<Fire>,
    /// How many earlier ones there were; at least so many when a long backlog was leapt over.
    pub dropped: u64,
    pub next: Result<Option<Fire>, SearchError>,
}

/// All run times from `first` that are due at `now`: the latest `keep` of them, and how many more.
///
/// Bounded in time and memory however late it is and whatever the trigger: after [`WALK`] steps, or
/// [`EFFORT`], the planner looks back from `now` instead of forward from the past. When even that is
/// too much, the rest of the backlog is passed over.
pub(super) fn collect(times: &Times<'_>, first: Fire, now: DateTime<Utc>, keep: usize) -> Backlog {
    let mut earlier = VecDeque::new();
    let mut dropped = 0;
    let mut current = first;
    let (mut steps, mut leapt) = (0, false);
    let next = loop {
        match times.after(current.nominal) {
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
        let much = steps == WALK || times.effort.get() > EFFORT / 2;
        if much && !leapt {
            leapt = true;
            if let Some((landing, passed)) = leap(times, current.nominal, now, keep) {
                dropped += passed + 1 + earlier.len() as u64;
                earlier.clear();
                current = landing;
            }
        } else if times.effort.get() > 2 * EFFORT {
            break times.after(now);
        }
    };
    Backlog { latest: current, earlier, dropped, next }
}

/// A run time not long before `now` (or the end of the window) with at least `keep` due ones from
/// it on, found by looking back in doubling steps; and how many run times lie in `from..` before it
/// (a lower bound unless the trigger can count).
fn leap(times: &Times<'_>, from: DateTime<Utc>, now: DateTime<Utc>, keep: usize) -> Option<(Fire, u64)> {
    let until = times.end.map_or(now, |end| end.min(now));
    let most = times.effort.get() + EFFORT;
    // The first run time since `back` ago, when enough are due from it on.
    let look = |back: TimeDelta| -> Option<Option<Fire>> {
        let start = until.checked_sub_signed(back).filter(|start| *start > from)?;
        let landing = times.from(start).ok()?;
        let mut at = landing;
        for _ in 0..keep {
            if times.effort.get() > most {
                return None;
            }
            let Some(due) = at.filter(|fire| fire.due <= now) else { return Some(None) };
            at = times.after(due.nominal).ok()?;
        }
        Some(landing)
    };
    let mut back = TimeDelta::seconds(1);
    let mut landing = loop {
        match look(back)? {
            Some(landing) => break landing,
            None => back = back.checked_mul(2)?,
        }
    };
    // A trigger that ended long before `now` would leave a long way to walk.
    if keep as u64 <= WALK {
        let (mut short, mut long) = (back / 2, back);
        while long - short > TimeDelta::seconds(1) {
            let middle = short + (long - short) / 2;
            match look(middle) {
                Some(Some(nearer)) => (landing, long) = (nearer, middle),
                Some(None) => short = middle,
                None => break,
            }
        }
    }
    Some((landing, count_between(times, from, landing.nominal)))
}

/// How many run times lie after `from` and before `to`: exact for an interval, for others 0, as a
/// lower bound.
fn count_between(times: &Times<'_>, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
    let step = match (&*times.trigger, times.after(from)) {
        (Trigger::Interval(_), Ok(Some(next))) => next.nominal - from,
        _ => return 0,
    };
    let whole = (to - from).num_milliseconds() / step.num_milliseconds().max(1);
    u64::try_from(whole - 1).unwrap_or(0)
}
