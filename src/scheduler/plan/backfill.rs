//! A past window whose run times are run on request, one after the other.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::times::as_begun;
use super::{PlannedRun, settle};
use crate::error::Error;
use crate::store::message::Then;
use crate::task::{Backfill, Fire, Overlap, Source, StoredTask, TaskError, TaskSpec, TaskState, check_range};
use crate::trigger::{SearchError, Trigger, Zones};

/// The first run time from `from` on and before `until`: of the trigger alone, because the window and
/// the number of runs say what is scheduled, and this is asked for.
fn first(
    spec: &TaskSpec,
    trigger: &Trigger,
    anchor: DateTime<Utc>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    zones: &Zones,
) -> Result<Option<DateTime<Utc>>, SearchError> {
    let cx = spec.context(earlier(spec, anchor, from), zones);
    Ok(trigger.next(from, &cx)?.filter(|nominal| *nominal < until))
}

/// The anchor for run times before the trigger was set. An interval that names no start has the
/// same rhythm before its anchor as after it; of others there is nothing before.
fn earlier(spec: &TaskSpec, anchor: DateTime<Utc>, from: DateTime<Utc>) -> DateTime<Utc> {
    let Trigger::Interval(interval) = &spec.trigger else { return anchor };
    let length = interval.length().num_milliseconds().max(1);
    let before = (anchor - from).num_milliseconds().max(0);
    let steps = before / length + i64::from(before % length > 0);
    let back = steps.checked_mul(length).and_then(TimeDelta::try_milliseconds);
    back.and_then(|back| anchor.checked_sub_signed(back)).unwrap_or(anchor)
}

/// The state of a task that is to run the run times in `from..to` as well.
pub(crate) fn backfill(
    task: &StoredTask,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    every: Duration,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<TaskState, Error> {
    let StoredTask { spec, state } = task;
    let invalid = |field, reason: String| Err(TaskError::Invalid { field, reason }.into());
    let shown = |time: DateTime<Utc>| time.to_rfc3339();
    let every_ms = match u64::try_from(every.as_millis()) {
        Ok(0) => return invalid("every", "is shorter than a millisecond; give it at least that".to_owned()),
        Ok(every) if TimeDelta::try_milliseconds(every as i64).is_some() => every,
        _ => return invalid("every", "is longer than any window; give it less".to_owned()),
    };
    check_range("from", from)?;
    if to <= from {
        return invalid("to", format!("is {}, not after from, {}", shown(to), shown(from)));
    }
    if to > now {
        let reason =
            format!("is {}, and it is {} now; run times to come are scheduled", shown(to), shown(now));
        return invalid("to", reason);
    }
    if let Some(under_way) = &state.backfill {
        let Backfill { next, until, .. } = **under_way;
        return Err(Error::BackfillUnderWay { id: spec.id.clone(), next, until });
    }
    let search = |source| Error::Search { id: spec.id.clone(), source };
    let Some(next) = first(spec, &as_begun(spec, state), state.anchor, from, to, zones).map_err(search)?
    else {
        return invalid(
            "from",
            format!("is {}, and the trigger has no run time from then to {}", shown(from), shown(to)),
        );
    };
    let backfill = Backfill { next, until: to, every_ms, at: now };
    Ok(TaskState {
        revision: state.revision + 1,
        modified_at: now,
        backfill: Some(Box::new(backfill)),
        ..state.clone()
    })
}

/// What becomes of a task whose back-fill is called off; `None` when it has none.
pub(crate) fn cancel_backfill(task: &StoredTask, now: DateTime<Utc>) -> Option<Then> {
    let StoredTask { spec, state } = task;
    state.backfill.as_ref()?;
    let after = TaskState { revision: state.revision + 1, modified_at: now, backfill: None, ..state.clone() };
    Some(settle(spec, after).0)
}

/// The next run of a back-fill that is due at `now` while `running` runs of the task go on. It is
/// put off as long as it would not be let in. The error is why there is no further one; the task is
/// paused then.
pub(super) fn step(
    spec: &TaskSpec,
    state: &mut TaskState,
    (now, zones): (DateTime<Utc>, &Zones),
    running: usize,
) -> (Option<PlannedRun>, Option<SearchError>) {
    let anchor = state.anchor;
    let trigger = as_begun(spec, state);
    let Some(backfill) = state.backfill.as_mut().filter(|backfill| backfill.at <= now) else {
        return (None, None);
    };
    let every = i64::try_from(backfill.every_ms).ok().and_then(TimeDelta::try_milliseconds);
    backfill.at = now.checked_add_signed(every.unwrap_or(TimeDelta::seconds(1))).unwrap_or(now);
    let crowded = spec.overlap != Overlap::Allow && running >= spec.max_instances as usize;
    if crowded {
        return (None, None);
    }
    let nominal = backfill.next;
    state.runs += 1;
    let run = PlannedRun::first(Fire { nominal, due: now }, 0, Source::Backfill);
    let from = nominal.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(nominal);
    match first(spec, &trigger, anchor, from, backfill.until, zones) {
        Ok(Some(next)) => backfill.next = next,
        Ok(None) => state.backfill = None,
        Err(error) => {
            // The run that was found is not lost for the sake of the next.
            (state.backfill, state.paused) = (None, true);
            return (Some(run), Some(error));
        }
    }
    (Some(run), None)
}
