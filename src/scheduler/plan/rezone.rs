//! Next runs that were worked out by rules of time zones that are others now, worked out again.

use chrono::{DateTime, TimeDelta, Utc};

use super::times::Times;
use super::{PlanError, settle};
use crate::store::message::Then;
use crate::task::{Fire, MAX_AHEAD, Moved, Span, StoredTask, TaskSpec, TaskState};
use crate::trigger::{Reread, Trigger, Zones};

/// Run times that are looked at one by one.
const WALK: usize = 10_000;

const NANO: TimeDelta = TimeDelta::nanoseconds(1);

/// What becomes of a task under other rules.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rezone {
    pub then: Then,
    /// The next run time as it was, and as it is, if it is another one.
    pub moved: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    /// Its schedule has ended.
    pub finished: bool,
}

/// Notes by which offsets the next run of a task was worked out, if that is another one than `before`.
pub(super) fn note_offsets(spec: &TaskSpec, before: Option<Fire>, after: &mut TaskState, zones: &Zones) {
    if after.next != before {
        let offsets =
            after.next.map(|next| spec.trigger.offsets(next.nominal, &spec.context(after.anchor, zones)));
        after.offsets = offsets.unwrap_or_default();
    }
}

/// Works out the next run of a task by the present rules. `None` when it stays as it is, as it does when
/// that was done before.
pub(crate) fn rezone(
    task: &StoredTask,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<Option<Rezone>, PlanError> {
    let StoredTask { spec, state } = task;
    let cx = spec.context(state.anchor, zones);
    let Some(next) = state.next else { return Ok(None) };
    // What a person has set is an instant.
    if state.begins == Some(next.nominal) || !spec.trigger.reads_clocks(&cx) {
        return Ok(None);
    }
    let reread = Reread::new(&spec.trigger, &cx, next.nominal, state.trigger_since(), &state.offsets)?;
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    if let Trigger::Interval(interval) = &spec.trigger
        && state.begun.is_none()
    {
        after.begun = reread.has_begun(interval)?;
    }
    let (first, ran) = open(&Times::of_task(spec, &after, zones), &reread)?;
    // Jitter stays what it was where the run time does.
    after.next = first.map(|first| if first.nominal == next.nominal { next } else { first });
    after.offsets = first.map(|first| spec.trigger.offsets(first.nominal, &cx)).unwrap_or_default();
    let moves = after.next != Some(next);
    if moves || !ran.is_empty() {
        let before = state.moved.iter().flat_map(|moved| &moved.ran).copied();
        let to = first.map_or(next.nominal, |first| first.nominal);
        let ran = ran.into_iter().chain(before.filter(|span| span.until > to)).collect();
        after.moved = Some(Box::new(Moved { at: now, from: next.nominal, to, ran }));
    } else if after.offsets == state.offsets && after.begun == state.begun {
        return Ok(None);
    }
    let moved = moves.then(|| (next.nominal, first.map(|first| first.nominal)));
    let (then, finished) = settle(spec, after);
    Ok(Some(Rezone { then, moved, finished }))
}

/// The first run time that is open, and those after it that are not.
fn open(times: &Times<'_>, reread: &Reread<'_>) -> Result<(Option<Fire>, Vec<Span>), PlanError> {
    let (from, all) = reread.bounds()?;
    let (mut first, mut ran) = (None, Vec::<Span>::new());
    let (mut fire, mut open_since) = (times.from(from)?, true);
    for step in 0.. {
        let Some(at) = fire else { break };
        let is_open = at.nominal >= all || reread.is_open(at.nominal)?;
        if is_open {
            first.get_or_insert(at);
        } else if first.is_some() {
            let many = ran.len() == MAX_AHEAD;
            match ran.last_mut() {
                // Rather a run too few than one twice.
                Some(last) if !open_since || many => last.until = at.nominal + NANO,
                _ => ran.push(Span { from: at.nominal, until: at.nominal + NANO }),
            }
        }
        open_since = is_open;
        if at.nominal >= all {
            break;
        }
        if step == WALK {
            match first {
                Some(_) => ran.push(Span { from: at.nominal + NANO, until: all }),
                None => first = times.from(all)?,
            }
            break;
        }
        fire = times.after(at.nominal)?;
    }
    Ok((first, ran))
}
