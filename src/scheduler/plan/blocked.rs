//! What becomes of a task whose runs cannot begin, for want of what is to run them: it waits, as it is,
//! until its grace or the patience with it is over.

use chrono::{DateTime, TimeDelta, Utc};

use super::{PlannedRun, TaskPlan, TurnedAway, settle};
use crate::store::message::{Then, Until};
use crate::task::{Coalesce, Fire, MisfireGrace, StoredTask, TaskSpec, TaskState};
use crate::trigger::Zones;

/// What is to be done about a task that is due and cannot run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Blocked {
    /// Nothing: it stays due, and is looked at again then.
    Wait(Until),
    /// What is due is turned away, or as much of it as is too late.
    Over(Box<TaskPlan>),
}

/// Decides about a task that is due at `now` and cannot run; from `limit` on that is an outcome. Its
/// back-fill is put off without an end.
pub(crate) fn blocked(
    task: &StoredTask,
    zones: &Zones,
    now: DateTime<Utc>,
    limit: Option<DateTime<Utc>>,
) -> Blocked {
    let StoredTask { spec, state } = task;
    let over = limit.is_some_and(|limit| limit <= now);
    let mut watch = Watch { spec, zones, now, over, until: limit.filter(|_| !over) };
    let mut after = TaskState { revision: state.revision + 1, ..state.clone() };
    let mut plan = TaskPlan::nothing();
    watch.attempts(&mut plan, &mut after);
    if let Some(first) = state.next.filter(|next| next.due <= now) {
        watch.schedule(&mut plan, &mut after, first);
    }
    if plan.runs().next().is_none() {
        return Blocked::Wait(watch.until.map_or(Until::Recalled, Until::At));
    }
    super::rezone::note_offsets(spec, state.next, &mut after, zones);
    (plan.then, plan.finished) = settle(spec, after);
    Blocked::Over(Box::new(plan))
}

struct Watch<'a> {
    spec: &'a TaskSpec,
    zones: &'a Zones,
    now: DateTime<Utc>,
    over: bool,
    /// When something is turned away that is not now.
    until: Option<DateTime<Utc>>,
}

impl Watch<'_> {
    /// The first instant at which a run that is due at `due` is too late.
    fn too_late(&self, due: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.spec.misfire_grace {
            MisfireGrace::Unlimited => None,
            MisfireGrace::Within(grace) => due
                .checked_add_signed(TimeDelta::from_std(grace).ok()?)?
                .checked_add_signed(TimeDelta::nanoseconds(1)),
        }
    }

    /// Whether a run that is due at `due` is turned away now; otherwise when that is so is noted.
    fn verdict(&mut self, due: DateTime<Utc>) -> Option<TurnedAway> {
        let too_late = self.too_late(due);
        if too_late.is_some_and(|at| at <= self.now) {
            return Some(TurnedAway::Missed);
        }
        if self.over {
            return Some(TurnedAway::Refused);
        }
        self.until = self.until.into_iter().chain(too_late).min();
        None
    }

    fn attempts(&mut self, plan: &mut TaskPlan, after: &mut TaskState) {
        let now = self.now;
        after.attempts.retain(|attempt| {
            let Some(at) = attempt.at.filter(|at| *at <= now) else { return true };
            let Some(turned_away) = self.verdict(at) else { return true };
            plan.earlier.push(PlannedRun {
                fire: Fire { nominal: attempt.nominal, due: at },
                coalesced: attempt.coalesced,
                source: attempt.source,
                attempt: attempt.number,
                turned_away: Some(turned_away),
            });
            false
        });
        plan.earlier.sort_by_key(|run| (run.fire.due, run.fire.nominal));
        after.runs += plan.earlier.len() as u64;
    }

    fn schedule(&mut self, plan: &mut TaskPlan, after: &mut TaskState, first: Fire) {
        let horizon = match (self.over, self.spec.coalesce) {
            (true, _) | (false, Coalesce::Latest | Coalesce::Earliest) => self.now,
            // Those that are too late are dealt with one by one.
            (false, Coalesce::All) => {
                let grace = self.too_late(self.now).map_or(TimeDelta::MAX, |at| at - self.now);
                self.now.checked_sub_signed(grace).unwrap_or(DateTime::<Utc>::MIN_UTC)
            }
        };
        if self.spec.misfire_grace == MisfireGrace::Unlimited && !self.over {
            return;
        }
        if first.due > horizon {
            self.verdict(first.due);
            return;
        }
        let (mut moved, mut trial) = (after.clone(), TaskPlan::nothing());
        trial.advance(self.spec, &mut moved, first, (horizon, self.zones), false);
        let mut kept = false;
        for run in trial.earlier.iter_mut().chain(&mut trial.run) {
            run.turned_away = self.verdict(run.fire.due);
            kept |= run.turned_away.is_none();
        }
        if kept {
            return;
        }
        plan.earlier.append(&mut trial.earlier);
        plan.effort += trial.effort;
        (plan.run, plan.missed, plan.stalled) = (trial.run, trial.missed, trial.stalled);
        *after = moved;
        plan.then = Then::Remove;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::task::{Attempt, Backfill, Retry, Source, Task, TaskDefaults};
    use crate::trigger::{Date, Interval, IntoTrigger};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn task(trigger: impl IntoTrigger, change: impl FnOnce(Task) -> Task) -> StoredTask {
        let task = change(Task::new("x").id("x").trigger(trigger));
        let spec = task.resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).unwrap();
        let mut state = TaskState::new(at(0));
        state.next = Some(Fire { nominal: at(0), due: at(0) });
        StoredTask { spec: Arc::new(spec), state }
    }

    fn every_ten(change: impl FnOnce(Task) -> Task) -> StoredTask {
        task(Interval::seconds(10), change)
    }

    fn grace(seconds: u64) -> impl FnOnce(Task) -> Task {
        move |task| task.misfire_grace(Duration::from_secs(seconds))
    }

    fn nanosecond() -> TimeDelta {
        TimeDelta::nanoseconds(1)
    }

    /// The runs that are turned away: nominal time, how many others, and why.
    fn over(blocked: Blocked) -> (Vec<(i64, u64, TurnedAway)>, Then) {
        let Blocked::Over(plan) = blocked else { panic!("{blocked:?}") };
        let told = |run: PlannedRun| {
            ((run.fire.nominal - at(0)).num_seconds(), run.coalesced, run.turned_away.unwrap())
        };
        (plan.runs().map(told).collect(), plan.then)
    }

    #[test]
    fn without_grace_and_limit_it_waits_until_it_is_recalled() {
        for coalesce in [Coalesce::Latest, Coalesce::Earliest, Coalesce::All] {
            let task = every_ten(|task| task.coalesce(coalesce));
            assert_eq!(blocked(&task, Zones::bundled(), at(1_000_000), None), Blocked::Wait(Until::Recalled));
            assert_eq!(
                blocked(&task, Zones::bundled(), at(9), Some(at(600))),
                Blocked::Wait(Until::At(at(600)))
            );
        }
    }

    #[test]
    fn after_the_limit_it_is_refused_once() {
        let (runs, then) = over(blocked(&every_ten(|task| task), Zones::bundled(), at(35), Some(at(35))));
        assert_eq!(runs, [(30, 3, TurnedAway::Refused)]);
        let Then::State(state) = then else { panic!("{then:?}") };
        assert_eq!((state.next.unwrap().nominal, state.runs, state.fired), (at(40), 1, 1));
        let (runs, then) =
            over(blocked(&task(Date::at(at(0)), |task| task), Zones::bundled(), at(35), Some(at(30))));
        assert_eq!((runs, then), (vec![(0, 0, TurnedAway::Refused)], Then::Remove));
    }

    #[test]
    fn what_is_too_late_is_missed_and_what_joins_it_is_not() {
        let task = every_ten(grace(5));
        assert_eq!(
            blocked(&task, Zones::bundled(), at(5), None),
            Blocked::Wait(Until::At(at(5) + nanosecond()))
        );
        assert_eq!(
            over(blocked(&task, Zones::bundled(), at(5) + nanosecond(), None)).0,
            [(0, 0, TurnedAway::Missed)]
        );
        // The later run time stands for the earlier one, and is in time.
        assert_eq!(
            blocked(&task, Zones::bundled(), at(12), None),
            Blocked::Wait(Until::At(at(15) + nanosecond()))
        );
        assert_eq!(over(blocked(&task, Zones::bundled(), at(16), None)).0, [(10, 1, TurnedAway::Missed)]);
        // The earliest stands for the later ones, and is not.
        let earliest = every_ten(|task| grace(5)(task).coalesce(Coalesce::Earliest));
        assert_eq!(over(blocked(&earliest, Zones::bundled(), at(12), None)).0, [(0, 1, TurnedAway::Missed)]);
    }

    #[test]
    fn of_several_that_run_each_the_late_ones_are_missed_and_the_others_wait() {
        let task = every_ten(|task| grace(15)(task).coalesce(Coalesce::All));
        let (runs, then) = over(blocked(&task, Zones::bundled(), at(31), None));
        assert_eq!(runs, [(0, 0, TurnedAway::Missed), (10, 0, TurnedAway::Missed)]);
        let Then::State(state) = then else { panic!("{then:?}") };
        let rest = StoredTask { spec: task.spec.clone(), state };
        assert_eq!(rest.state.next.unwrap().nominal, at(20));
        assert_eq!(
            blocked(&rest, Zones::bundled(), at(31), None),
            Blocked::Wait(Until::At(at(35) + nanosecond()))
        );
        let (runs, _) = over(blocked(&rest, Zones::bundled(), at(31), Some(at(31))));
        assert_eq!(runs, [(20, 0, TurnedAway::Refused), (30, 0, TurnedAway::Refused)]);
    }

    #[test]
    fn further_attempts_wait_like_others() {
        let mut task = every_ten(|task| grace(5)(task).retry(Some(Retry::times(3))));
        task.state.next = None;
        task.state.attempts.push(Attempt {
            nominal: at(-100),
            due: at(-100),
            coalesced: 0,
            source: Source::Scheduled,
            number: 2,
            interrupted: 0,
            at: Some(at(0)),
        });
        assert_eq!(
            blocked(&task, Zones::bundled(), at(3), None),
            Blocked::Wait(Until::At(at(5) + nanosecond()))
        );
        assert_eq!(over(blocked(&task, Zones::bundled(), at(6), None)).0, [(-100, 0, TurnedAway::Missed)]);
        let (runs, then) = over(blocked(&task, Zones::bundled(), at(3), Some(at(2))));
        assert_eq!((runs, then), (vec![(-100, 0, TurnedAway::Refused)], Then::Remove));
    }

    #[test]
    fn a_back_fill_is_put_off_without_an_end() {
        let mut task = every_ten(grace(5));
        task.state.next = None;
        let backfill = Backfill { next: at(-50), until: at(-10), every_ms: 1000, at: at(0) };
        task.state.backfill = Some(Box::new(backfill));
        assert_eq!(blocked(&task, Zones::bundled(), at(900), Some(at(600))), Blocked::Wait(Until::Recalled));
    }
}
