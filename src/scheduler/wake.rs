//! The one timer: it rings at the earliest due time of all stores, and often enough to notice that
//! somebody moved the clock.

use std::time::Duration;

use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};

use super::actor::Scheduler;
use crate::clock::Clock;
use crate::timer::{LONGEST_SLEEP, nap_until};

/// A wall clock that strays from elapsed time by more than this was moved.
const JUMP: TimeDelta = TimeDelta::seconds(1);

/// The shortest nap: what becomes due within it is dealt with in one batch instead of many.
const BREATH: Duration = Duration::from_millis(1);

/// A length of time in its two largest units: `1 h`, `2 d 3 h`.
pub(super) fn readable(length: TimeDelta) -> String {
    let exact = length.num_milliseconds().unsigned_abs();
    // A look takes its time: an hour is not 59 min 59 s.
    let ms = if exact < 60_000 { exact } else { exact.saturating_add(500) / 1000 * 1000 };
    let units =
        [(31_557_600_000, "y"), (86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if parts.len() == 2 || (unit == 1 && ms >= 60_000) {
            break;
        }
        match rest / unit {
            // `2 d 5 min` would look more exact than it is said.
            0 if !parts.is_empty() => break,
            0 => {}
            count => parts.push(format!("{count} {name}")),
        }
        rest %= unit;
    }
    if parts.is_empty() { "0 ms".to_owned() } else { parts.join(" ") }
}

#[derive(Default)]
pub(super) struct Wake {
    armed: Option<(DateTime<Utc>, SpawnHandle)>,
}

/// What the wall clock showed at the last look, and how much time had passed then. A successor of the
/// scheduler's actor has it: the clock may be set while there is none.
#[derive(Default)]
pub(super) struct Seen(Option<(DateTime<Utc>, Duration)>);

impl Seen {
    /// Looks for the first time.
    pub(super) fn begin(&mut self, clock: &Clock) {
        self.0.get_or_insert_with(|| (clock.now(), clock.monotonic()));
    }

    /// By how much the wall clock moved against elapsed time since the last look, if it jumped.
    pub(super) fn look(&mut self, clock: &Clock) -> Option<TimeDelta> {
        let present = (clock.now(), clock.monotonic());
        self.0.replace(present).and_then(|then| jump(then, present))
    }

    /// Whether the wall clock jumped since the last look.
    pub(super) fn strays(&self, clock: &Clock) -> bool {
        self.0.is_some_and(|then| jump(then, (clock.now(), clock.monotonic())).is_some())
    }
}

/// By how much the wall clock moved against elapsed time from one look to another, if it jumped.
fn jump(then: (DateTime<Utc>, Duration), present: (DateTime<Utc>, Duration)) -> Option<TimeDelta> {
    let passed = TimeDelta::from_std(present.1.saturating_sub(then.1)).ok()?;
    let jump = (present.0 - then.0) - passed;
    (jump.abs() > JUMP).then_some(jump)
}

impl Wake {
    /// Arms the timer for `due`. Without one the scheduler still looks at a real clock now and
    /// then; a virtual clock says by itself when it was moved.
    pub(super) fn arm(&mut self, due: Option<DateTime<Utc>>, clock: &Clock, ctx: &mut Context<Scheduler>) {
        let at = if clock.is_virtual() {
            due
        } else {
            let now = clock.now();
            let latest = now + LONGEST_SLEEP;
            Some(due.map_or(latest, |due| due.clamp(now + BREATH, latest)))
        };
        match (at, &self.armed) {
            (Some(at), Some((armed, _))) if *armed <= at => {}
            (None, _) => self.disarm(ctx),
            (Some(at), _) => {
                self.disarm(ctx);
                let nap = actix::fut::wrap_future::<_, Scheduler>(nap_until(clock, at));
                let nap = nap.map(|busy, scheduler, ctx| scheduler.woke(busy, ctx));
                self.armed = Some((at, ctx.spawn(nap)));
            }
        }
    }

    pub(super) fn disarm(&mut self, ctx: &mut Context<Scheduler>) {
        if let Some((_, nap)) = self.armed.take() {
            ctx.cancel_future(nap);
        }
    }

    /// The timer has rung.
    pub(super) fn rung(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_readable() {
        for (seconds, text) in [
            (3600, "1 h"),
            (-3600, "1 h"),
            (5400, "1 h 30 min"),
            (86_400, "1 d"),
            (10 * 31_557_600 + 86_400, "10 y 1 d"),
            (59, "59 s"),
            (3605, "1 h"),
        ] {
            assert_eq!(readable(TimeDelta::seconds(seconds)), text);
        }
        assert_eq!(readable(TimeDelta::milliseconds(1500)), "1 s 500 ms");
        assert_eq!(readable(TimeDelta::milliseconds(3_599_999)), "1 h");
    }
}
