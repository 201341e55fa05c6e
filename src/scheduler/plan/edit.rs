//! The state of a task that is added, replaced or changed: when it runs next.

use chrono::{DateTime, Utc};

use super::times::{Times, left};
use super::{PlanError, rezone};
use crate::task::{
    Fire, FirstRun, Kept, StoredTask, TaskError, TaskSpec, TaskState, WhenFinished, check_range,
};
use crate::trigger::{Trigger, TriggerError, Zones};

/// The state of a task that is new in its store. Its schedule counts from `since`.
pub(crate) fn add(
    spec: &TaskSpec,
    first_run: Option<FirstRun>,
    paused: bool,
    spread: bool,
    (since, now): (DateTime<Utc>, DateTime<Utc>),
    zones: &Zones,
) -> Result<TaskState, PlanError> {
    let mut state = TaskState::new(since);
    state.paused = paused;
    if spread && let Some(at) = place(spec, first_run, since) {
        (state.anchor, state.set_at) = (at, Some(since));
    }
    state.next = first_fire(spec, &state, first_run, (since, now), zones)?;
    state.begins = state.next.filter(|_| first_run.is_some()).map(|next| next.nominal);
    rezone::note_offsets(spec, None, &mut state, zones);
    Ok(state)
}

/// Where an interval that is spread begins; `None` of whatever else says when it runs first.
fn place(spec: &TaskSpec, first_run: Option<FirstRun>, since: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let told = first_run.is_some() || spec.start_at.is_some();
    if told { None } else { spec.trigger.spread_start(spec.id.as_str(), since) }
}

/// Whether a task that is added at `now` would never run, because its time is over.
#[cfg(feature = "cli")]
pub(crate) fn is_over(spec: TaskSpec, now: DateTime<Utc>, zones: &Zones) -> bool {
    let spec = TaskSpec { when_finished: crate::task::WhenFinished::Remove, ..spec };
    let added = add(&spec, None, false, false, (now, now), zones);
    let never = |error: &PlanError| {
        matches!(error, PlanError::Task(TaskError::Trigger(crate::trigger::TriggerError::NeverFires { .. })))
    };
    added.is_err_and(|error| never(&error))
}

/// The state of a task that takes the place of `existing`: its runs, its paused flag and, as far as
/// the schedule did not change, its next run stay. `None` when nothing changes at all.
///
/// A finished task that is given another trigger begins to count its runs anew: otherwise nothing
/// but a higher `max_runs` could bring it back.
pub(crate) fn replace(
    existing: &StoredTask,
    spec: &TaskSpec,
    first_run: Option<FirstRun>,
    spread: bool,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<Option<TaskState>, PlanError> {
    let StoredTask { spec: before, state } = existing;
    if **before == *spec {
        return Ok(None);
    }
    let mut state = TaskState { revision: state.revision + 1, modified_at: now, ..state.clone() };
    let due = state.next.is_some_and(|next| next.due <= now);
    let same = spec.trigger.has_same_times(spec.timezone, &before.trigger, before.timezone);
    if !same {
        state.begun = None;
        if state.is_finished(before) {
            state.fired = 0;
        }
        // What has run goes on from there: an interval of another length counts from the latest run.
        let ran = state.last_run.filter(|_| !spec.trigger.is_at_once());
        let fresh = || place(spec, first_run, now).filter(|_| spread);
        state.anchor = ran.or_else(fresh).unwrap_or(now);
        state.set_at = (state.anchor != now).then_some(now);
        state.next = first_fire(spec, &state, first_run, (now, now), zones)?;
        state.begins = state.next.filter(|_| first_run.is_some()).map(|next| next.nominal);
        // No other schedule makes a task run at once that has run.
        let at_once = state.next.filter(|next| next.nominal <= now && !due && ran.is_some());
        if at_once.is_some() {
            (state.next, state.begins) = (Times::of_task(spec, &state, zones).after(now)?, None);
        }
        // An interval has no run times before it was set.
        if let (Some(next), Some(_), Trigger::Interval(_)) = (state.next, ran, &spec.trigger)
            && state.begins.is_none()
        {
            state.anchor = next.nominal;
            state.set_at = Some(now).filter(|now| *now != state.anchor);
        }
    } else if (before.start_at, before.end_at, before.max_runs, before.when_finished)
        != (spec.start_at, spec.end_at, spec.max_runs, spec.when_finished)
    {
        // A run that is due, or that the former window allowed as well, is not for another one.
        let stays = |next: &Fire| {
            Times::of(spec, state.anchor, zones).contains(next.nominal)
                && left(spec, &state) > 0
                && (before.start_at == spec.start_at || next.due <= now)
        };
        if !state.next.is_some_and(|next| stays(&next)) {
            state.next = first_fire(spec, &state, None, (now, now), zones)?;
        }
    }
    // Another trigger reads other clocks, also where its next run is the same.
    let known = existing.state.next.filter(|_| same);
    rezone::note_offsets(spec, known, &mut state, zones);
    Ok(Some(state))
}

/// What is asked for of a task that is there already, and stays as it is: only a new task takes it.
pub(crate) fn kept(
    existing: &StoredTask,
    spec: &TaskSpec,
    first_run: Option<FirstRun>,
    paused: bool,
    after: &TaskState,
    now: DateTime<Utc>,
) -> Vec<Kept> {
    let mut kept = Vec::new();
    if let Some(FirstRun::At(at)) = first_run
        && at > now
        && after.begins != Some(at)
    {
        let next = after.next.map_or_else(|| "it has none".to_owned(), |next| next.nominal.to_rfc3339());
        let reason = format!(
            "the task is there already, and its next run stays as it is ({next}): {} is not taken; set the next \
             run with `next_run`",
            at.to_rfc3339()
        );
        kept.push(Kept { option: "first_run", reason });
    }
    if paused && !after.paused {
        let reason =
            "the task is there already and is not paused; pause it to keep it from running".to_owned();
        kept.push(Kept { option: "paused", reason });
    }
    let StoredTask { spec: before, .. } = existing;
    if before.timezone != spec.timezone
        && before.trigger == spec.trigger
        && spec.trigger.has_same_times(spec.timezone, &before.trigger, before.timezone)
    {
        let reason = format!(
            "the run times stay as they are: the trigger `{}` does not read the zone of the task",
            spec.trigger
        );
        kept.push(Kept { option: "timezone", reason });
    }
    kept
}

/// The state after a change of options from `before` to `after`, with its next run at `next_run`
/// when somebody sets that.
pub(crate) fn update(
    before: &StoredTask,
    after: &TaskSpec,
    next_run: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<TaskState, PlanError> {
    let state = replace(before, after, None, false, now, zones)?;
    let mut state =
        state.unwrap_or_else(|| TaskState { revision: before.state.revision + 1, ..before.state.clone() });
    if let Some(at) = next_run {
        set_next_run(after, &mut state, at, now, zones)?;
    }
    Ok(state)
}

/// Sets the next run of a task apart from its trigger, which says what comes after it.
fn set_next_run(
    spec: &TaskSpec,
    state: &mut TaskState,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
    zones: &Zones,
) -> Result<(), PlanError> {
    let field = "next_run";
    let refused = |reason: String| TaskError::Invalid { field, reason };
    check_range(field, at)?;
    if at < now {
        let reason = format!(
            "is {}, which is past; choose a time to come, or run the task now besides its schedule",
            at.to_rfc3339()
        );
        return Err(refused(reason).into());
    }
    if !Times::of_task(spec, state, zones).contains(at) {
        return Err(outside(spec, field, at).into());
    }
    if left(spec, state) == 0 {
        let reason = format!(
            "is {}, and the task has had its {} scheduled runs; raise max_runs",
            at.to_rfc3339(),
            state.fired
        );
        return Err(refused(reason).into());
    }
    let before = state.next.replace(Fire { nominal: at, due: at });
    rezone::note_offsets(spec, before, state, zones);
    state.begins = Some(at);
    state.modified_at = now;
    Ok(())
}

/// The first run, at or after `from`, of a schedule that is set at `now`: never the run time that
/// ran last, again. `None` only for a task that is kept without one.
fn first_fire(
    spec: &TaskSpec,
    state: &TaskState,
    first_run: Option<FirstRun>,
    (from, now): (DateTime<Utc>, DateTime<Utc>),
    zones: &Zones,
) -> Result<Option<Fire>, PlanError> {
    let times = Times::of_task(spec, state, zones);
    let soonest = spec.start_at.map_or(now, |start| start.max(now));
    if left(spec, state) > 0 {
        // A first run that was had, or passed, in an earlier schedule of the task does not come again.
        let first_run = first_run.filter(|first| match (first, state.last_run) {
            (_, None) => true,
            (FirstRun::At(at), Some(last)) => *at > last && *at > now,
            (FirstRun::Now, Some(_)) => false,
            (FirstRun::Soonest, Some(last)) => soonest > last && soonest > now,
        });
        let next = match first_run {
            Some(FirstRun::At(at)) if !times.contains(at) => {
                return Err(outside(spec, "first_run", at).into());
            }
            Some(FirstRun::At(at)) => Some(Fire { nominal: at, due: at }),
            Some(FirstRun::Now) if times.contains(now) => Some(Fire { nominal: now, due: now }),
            Some(FirstRun::Soonest) if times.contains(soonest) => {
                Some(Fire { nominal: soonest, due: soonest })
            }
            _ => match state.last_run.filter(|last| *last >= from) {
                Some(last) => times.after(last)?,
                None => times.from(from)?,
            },
        };
        if next.is_some() || spec.trigger.on_shutdown() {
            return Ok(next);
        }
    }
    // What could never run is a mistake even in a task that is kept.
    if spec.when_finished == WhenFinished::Keep && spec.trigger.check(DateTime::UNIX_EPOCH, &times.cx).is_ok()
    {
        return Ok(None);
    }
    Err(never(spec, state, &times, from).into())
}

fn outside(spec: &TaskSpec, field: &'static str, at: DateTime<Utc>) -> TaskError {
    let bound = match (spec.start_at, spec.end_at) {
        (Some(start), _) if at < start => format!("before start_at {}", start.to_rfc3339()),
        (_, Some(end)) => format!("after end_at {}", end.to_rfc3339()),
        _ => "outside the window".to_owned(),
    };
    let reason = format!("is {}, {bound}; choose a time within the window, or widen it", at.to_rfc3339());
    TaskError::Invalid { field, reason }
}

/// Why a schedule has no run at or after `from`.
fn never(spec: &TaskSpec, state: &TaskState, times: &Times<'_>, from: DateTime<Utc>) -> TriggerError {
    if let Some(max) = spec.max_runs.filter(|_| left(spec, state) == 0) {
        let reason = format!(
            "it has had {} scheduled runs, and max_runs is {max}; raise max_runs, delete the task, or keep \
             it with when_finished",
            state.fired
        );
        return TriggerError::NeverFires { reason };
    }
    match spec.trigger.check(from, &times.cx) {
        Err(error) => error,
        Ok(()) => {
            let end = spec.end_at.map_or_else(|| "the end".to_owned(), |end| end.to_rfc3339());
            let reason = format!("its next run time is after end_at, {end}; move end_at, or leave it out");
            TriggerError::NeverFires { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Task, TaskChanges, TaskDefaults};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn spec(trigger: &str) -> TaskSpec {
        Task::new("x")
            .id("x")
            .trigger(trigger)
            .resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC)
            .unwrap()
    }

    fn added(spec: TaskSpec) -> StoredTask {
        let state = add(&spec, None, false, false, (at(0), at(0)), Zones::bundled()).unwrap();
        StoredTask { spec: spec.into(), state }
    }

    /// Runs what is due up to `until`, without a store.
    fn ran(mut task: StoredTask, until: DateTime<Utc>) -> StoredTask {
        while let Some(due) = task.state.due().filter(|due| *due <= until) {
            match super::super::tick(&task, Zones::bundled(), due, || 0).then {
                crate::store::message::Then::State(state) => task.state = state,
                other => panic!("{other:?}"),
            }
        }
        task
    }

    fn next(task: &StoredTask, changes: TaskChanges, now: DateTime<Utc>) -> Result<TaskState, PlanError> {
        update(
            task,
            &changes.clone().apply(&task.spec).unwrap(),
            changes.get_next_run(),
            now,
            Zones::bundled(),
        )
    }

    #[test]
    fn a_zone_means_nothing_to_an_interval_and_a_length_counts_from_the_latest_run() {
        let task = ran(added(spec("every 1h")), at(7300));
        let zone = next(&task, TaskChanges::new().timezone(Tz::Europe__Lisbon), at(7300)).unwrap();
        assert_eq!((zone.next, zone.anchor), (task.state.next, task.state.anchor));
        for (length, runs_at) in
            [("every 10m", 7800), ("every 2h", 14_400), ("every 1s", 7301), ("every 50s", 7350)]
        {
            let length = next(&task, TaskChanges::new().trigger(length), at(7300)).unwrap();
            assert_eq!(length.next.unwrap().nominal, at(runs_at));
            assert_eq!(length.trigger_since(), at(7300));
        }
        // Nothing was there to count from.
        let fresh = StoredTask {
            state: add(&task.spec, None, true, false, (at(0), at(0)), Zones::bundled()).unwrap(),
            ..task
        };
        let length = next(&fresh, TaskChanges::new().trigger("every 2h"), at(7300)).unwrap();
        assert_eq!(length.next.unwrap().nominal, at(7300));
    }

    #[test]
    fn equal_intervals_are_spread_by_their_ids_over_one_length() {
        let mut places = Vec::new();
        for n in 0..1000 {
            let task =
                TaskSpec { id: crate::task::TaskId::new(format!("t{n}")).unwrap(), ..spec("every 1h") };
            let first = |since| {
                add(&task, None, false, true, (since, since), Zones::bundled()).unwrap().next.unwrap().nominal
            };
            let place = (first(at(0)) - at(0)).num_seconds();
            assert!((0..=3600).contains(&place));
            assert_eq!(first(at(7200)), first(at(0)) + TimeDelta::hours(2), "whenever it is added");
            places.push(place / 360);
        }
        assert!((0..10).all(|tenth| places.iter().filter(|place| **place == tenth).count() > 50));
        // Another length for one that has not run: a place within that.
        let fresh = |spread| {
            let state =
                add(&spec("every 1h"), None, false, spread, (at(0), at(0)), Zones::bundled()).unwrap();
            let fresh = StoredTask { spec: spec("every 1h").into(), state };
            let state = replace(&fresh, &spec("every 2h"), None, spread, at(1), Zones::bundled()).unwrap();
            state.unwrap().next.unwrap().nominal
        };
        let new = add(&spec("every 2h"), None, false, true, (at(1), at(1)), Zones::bundled()).unwrap();
        assert_eq!((fresh(true), fresh(false)), (new.next.unwrap().nominal, at(1)));
        let plain = TaskSpec { start_at: Some(at(0)), ..spec("every 1h") };
        for (task, first) in [
            (plain, None),
            (spec("every 1h from 2027-01-15T08:00:00Z"), None),
            (spec("every 1h"), Some(FirstRun::At(at(0)))),
        ] {
            let state = add(&task, first, false, true, (at(0), at(0)), Zones::bundled()).unwrap();
            assert_eq!(state.next.unwrap().nominal, at(0));
        }
    }

    #[test]
    fn a_first_run_is_for_a_task_that_has_not_run() {
        let task = ran(added(spec("every 1h")), at(10));
        let other = spec("every 2h");
        for first in [FirstRun::Now, FirstRun::Soonest, FirstRun::At(at(5)), FirstRun::At(at(20))] {
            let state =
                replace(&task, &other, Some(first), false, at(20), Zones::bundled()).unwrap().unwrap();
            assert_eq!(state.next.unwrap().nominal, at(7200), "{first:?}");
        }
        let later = replace(&task, &other, Some(FirstRun::At(at(30))), false, at(20), Zones::bundled())
            .unwrap()
            .unwrap();
        assert_eq!(later.next.unwrap().nominal, at(30));
    }

    #[test]
    fn what_is_not_taken_is_said() {
        let task = ran(added(spec("every 1h")), at(10));
        let said = |spec: &TaskSpec, first, paused| {
            let state = replace(&task, spec, first, false, at(20), Zones::bundled()).unwrap();
            let after = state.as_ref().unwrap_or(&task.state);
            let said = kept(&task, spec, first, paused, after, at(20));
            said.iter().map(|kept| kept.option).collect::<Vec<_>>()
        };
        let same = spec("every 1h");
        let elsewhere = TaskSpec { timezone: Tz::Europe__Lisbon.into(), ..same.clone() };
        assert_eq!(said(&same, None, false), [""; 0]);
        assert_eq!(said(&same, Some(FirstRun::At(at(100))), true), ["first_run", "paused"]);
        assert_eq!(said(&same, Some(FirstRun::At(at(0))), false), [""; 0], "it was had");
        assert_eq!(said(&spec("every 2h"), Some(FirstRun::At(at(100))), false), [""; 0], "it was taken");
        assert_eq!(said(&elsewhere, None, false), ["timezone"]);
    }

    #[test]
    fn the_next_run_can_be_set_within_the_schedule() {
        let limited = TaskSpec { end_at: Some(at(10_000)), max_runs: Some(3), ..spec("every 1h") };
        let task = ran(added(limited), at(10));
        let set = |seconds| next(&task, TaskChanges::new().next_run(at(seconds)), at(20));
        let fire = |seconds| Some(Fire { nominal: at(seconds), due: at(seconds) });
        assert_eq!(set(20).unwrap().next, fire(20), "an instant that is now is not past");
        let state = set(5000).unwrap();
        assert_eq!((state.next, state.begins), (fire(5000), Some(at(5000))));
        let after = ran(StoredTask { state, ..task.clone() }, at(5000));
        assert_eq!(after.state.next, fire(7200), "the trigger goes on as it did");
        let refused = |seconds: i64, part: &str| {
            let error = set(seconds).unwrap_err().to_string();
            assert!(error.contains("next_run") && error.contains(part), "{error}");
        };
        refused(19, "is past");
        refused(10_001, "after end_at");
        let spent = StoredTask { state: TaskState { fired: 3, ..task.state.clone() }, ..task.clone() };
        let error = next(&spent, TaskChanges::new().next_run(at(30)), at(20)).unwrap_err().to_string();
        assert!(error.contains("raise max_runs"), "{error}");
    }

    const TRIGGERS: [&str; 12] = [
        "every 1h",
        "every 7m",
        "every 1s",
        "every 90m in Europe/Lisbon",
        "every 1h from 2027-01-15T08:00:00",
        "every 1h jitter 5m",
        "*/5 * * * *",
        "0 9 * * *",
        "or(every 1h; 0 9 * * *)",
        "and(every 1h; every 90m)",
        "except(every 1h; 12-25)",
        "calendar 1d at 08:00:00",
    ];

    fn change() -> impl Strategy<Value = TaskChanges> {
        let window = |ahead: i64| (ahead > 0).then(|| at(0) + TimeDelta::days(ahead));
        prop_oneof![
            (0..TRIGGERS.len()).prop_map(|n| TaskChanges::new().trigger(TRIGGERS[n])),
            Just(TaskChanges::new().timezone(Tz::Europe__Berlin)),
            Just(TaskChanges::new().timezone(Tz::America__New_York)),
            Just(TaskChanges::new().name("new").args(7)),
            (0i64..3).prop_map(move |days| TaskChanges::new().start_at(window(days))),
            (8i64..9).prop_map(move |days| TaskChanges::new().end_at(window(days))),
            (1_000_000u64..1_000_002).prop_map(|runs| TaskChanges::new().max_runs(runs)),
        ]
    }

    proptest! {
        /// However a definition is edited, and however often: a task that has run does not run at once
        /// because of it, and no run time runs twice.
        #[test]
        fn no_edit_makes_a_task_run_at_once(
            first in 0..TRIGGERS.len(),
            edits in prop::collection::vec((change(), 0i64..20_000), 1..6),
        ) {
            let mut task = added(spec(TRIGGERS[first]));
            let mut now = at(0) + TimeDelta::days(1);
            task = ran(task, now);
            for (changes, pass) in edits {
                now += TimeDelta::seconds(pass);
                task = ran(task, now);
                let before = (task.state.next, task.state.last_run);
                prop_assume!(before.1.is_some());
                let edited = changes.clone().apply(&task.spec).unwrap();
                let same = task.spec.trigger == edited.trigger && task.spec.timezone == edited.timezone;
                let Ok(state) = update(&task, &edited, None, now, Zones::bundled()) else { continue };
                if state.next != before.0 {
                    let next = state.next.unwrap();
                    // What is no other schedule may have a run time at this very instant.
                    let comes = next.nominal > now || (same && next.nominal == now);
                    prop_assert!(comes, "{:?}: {next:?} at {now}", changes);
                }
                task = StoredTask { spec: edited.into(), state };
            }
        }
    }
}
