//! Every so often, in elapsed time.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::moment::without_leap_second;
use super::{Context, Moment, SearchError, TriggerError, Zone, text};

const NANOS: i128 = 1_000_000_000;

/// The shortest interval. One that is shorter is refused; one that was stored before counts as this long.
pub(super) const SHORTEST: TimeDelta = TimeDelta::milliseconds(1);

/// Every so often, in elapsed time, on a grid that hangs on its start.
///
/// Run number k is at `start_at + k × length`, exactly, however late earlier runs were: nothing
/// drifts. A day is 24 hours and a week seven times that, whatever the clocks do; for "the same
/// time every day" there is [`CalendarInterval`](super::CalendarInterval). Without `start_at`
/// the grid hangs on the [anchor](Context::anchor), so the first run is at once.
///
/// ```
/// use callboard::trigger::{Context, Interval, IntoTrigger};
/// use chrono::{DateTime, Utc};
///
/// let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
/// let trigger = Interval::minutes(90).start_at(start).into_trigger()?;
/// let cx = Context::new(chrono_tz::UTC, start, "poll");
/// let from = "2026-01-01T00:00:01Z".parse().unwrap();
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-01-01T01:30:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Interval {
    length: TimeDelta,
    limits: Limits,
}

macro_rules! lengths {
    ($($unit:ident $seconds:literal)*) => {$(
        #[doc = concat!("Every `n` ", stringify!($unit), ". Zero is refused when the trigger is handed over.")]
        pub fn $unit(n: u64) -> Self {
            Self::seconds_of(n.checked_mul($seconds))
        }
    )*};
}

impl Interval {
    /// Every `length`. Zero is refused when the trigger is handed over.
    pub fn every(length: Duration) -> Self {
        // What is longer than chrono can count is longer than the calendar.
        Self { length: TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX), limits: Limits::default() }
    }

    lengths! { seconds 1 minutes 60 hours 3600 days 86_400 weeks 604_800 }

    fn seconds_of(n: Option<u64>) -> Self {
        Self::every(n.map_or(Duration::MAX, Duration::from_secs))
    }

    /// This much longer: `Interval::hours(1).plus(Duration::from_secs(90))`.
    pub fn plus(mut self, more: Duration) -> Self {
        let more = TimeDelta::from_std(more).unwrap_or(TimeDelta::MAX);
        self.length = self.length.checked_add(&more).unwrap_or(TimeDelta::MAX);
        self
    }

    /// The first run, and what the grid hangs on. Default: the [anchor](Context::anchor).
    pub fn start_at(mut self, start: impl Into<Moment>) -> Self {
        self.limits.start_at = Some(start.into());
        self
    }

    /// No run after this; inclusive. Default: none.
    pub fn end_at(mut self, end: impl Into<Moment>) -> Self {
        self.limits.end_at = Some(end.into());
        self
    }

    /// The zone in which naive times are read and runs are shown; default: the scheduler's.
    pub fn timezone(mut self, zone: impl Into<Zone>) -> Self {
        self.limits.zone = Some(zone.into());
        self
    }

    /// Each run is due up to this much later than its nominal time. Default: none.
    pub fn jitter(mut self, most: Duration) -> Self {
        self.limits.jitter = most;
        self
    }

    /// The time between two runs as they come: never shorter than the shortest interval.
    pub(super) fn step(&self) -> TimeDelta {
        self.length.max(SHORTEST)
    }

    /// Where the grid hangs for a task of this id that is added at `since`, so that many of one length do not
    /// run together: at a place of its own within each length. `None` when it names its start.
    pub(crate) fn spread(&self, id: &str, since: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.limits.start_at.is_some() {
            return None;
        }
        let length = self.step().num_milliseconds();
        let place = i64::try_from(super::jitter::pick(id, length, u64::try_from(length - 1).ok()?)).ok()?;
        let ahead = (place - since.timestamp_millis()).rem_euclid(length);
        let at = DateTime::from_timestamp_millis(since.timestamp_millis().checked_add(ahead)?)?;
        // The rest of a millisecond lies behind.
        if at >= since { Some(at) } else { at.checked_add_signed(TimeDelta::milliseconds(length)) }
    }

    #[cfg(feature = "config")]
    pub(crate) fn names_no_start(&self) -> bool {
        self.limits.start_at.is_none()
    }

    /// The time between two runs.
    pub fn length(&self) -> TimeDelta {
        self.length
    }

    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn checked(self) -> Result<Self, TriggerError> {
        let checked = self.well_formed()?;
        checked.check_length()?;
        Ok(checked)
    }

    /// Refuses an interval that is too short.
    pub(super) fn check_length(&self) -> Result<(), TriggerError> {
        if self.length >= SHORTEST {
            return Ok(());
        }
        let length = text::duration(self.length.to_std().unwrap_or_default());
        let reason = format!("its length is {length}; the shortest interval is 1ms");
        Err(TriggerError::invalid("interval", reason))
    }

    fn well_formed(self) -> Result<Self, TriggerError> {
        if self.length <= TimeDelta::zero() {
            return Err(TriggerError::invalid(
                "interval",
                "its length is zero or less; it has to be longer than nothing",
            ));
        }
        if self.limits.gap.is_some() || self.limits.fold.is_some() {
            let reason = "an interval is elapsed time and knows neither gap nor fold";
            return Err(TriggerError::invalid("interval", reason));
        }
        self.limits.ordered()?;
        Ok(self)
    }

    pub(super) fn start(&self, cx: &Context<'_>) -> Result<DateTime<Utc>, SearchError> {
        match self.limits.start_at {
            None => Ok(without_leap_second(cx.anchor)),
            Some(Moment::Exact(start)) => Ok(start.to_utc()),
            Some(Moment::Naive(wall)) => Ok(self.limits.rules(cx)?.instant(wall)),
        }
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let end = match self.limits.end_at {
            None => None,
            Some(Moment::Exact(end)) => Some(end.to_utc()),
            Some(Moment::Naive(wall)) => Some(self.limits.rules(cx)?.instant(wall)),
        };
        let found = self.on_grid(self.start(cx)?, from);
        let over = |found: &DateTime<Utc>| {
            end.is_some_and(|end| *found > end) || found.timestamp() > super::cron::search::LAST_WALL
        };
        Ok(found.filter(|found| !over(found) && self.length > TimeDelta::zero()))
    }

    /// The first point of the grid at or after `from`.
    fn on_grid(&self, start: DateTime<Utc>, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (from, length) = (without_leap_second(from), self.step());
        if from <= start {
            Some(start)
        } else if let (0, 0, Some(step @ 1..)) =
            (start.timestamp_subsec_nanos(), length.subsec_nanos(), Some(length.num_seconds()))
        {
            // Whole seconds, as nearly always.
            let passed = super::zone::ceil_seconds(from) - start.timestamp();
            let rest = passed % step;
            let behind = if rest == 0 { 0 } else { step - rest };
            DateTime::from_timestamp(start.timestamp().checked_add(passed)?.checked_add(behind)?, 0)
        } else {
            let length = nanos(length);
            let passed = nanos(from - start);
            let offset = (passed + length - 1) / length * length;
            let seconds = i64::try_from(offset.div_euclid(NANOS)).ok()?;
            start.checked_add_signed(TimeDelta::new(seconds, offset.rem_euclid(NANOS) as u32)?)
        }
    }
}

pub(super) fn nanos(length: TimeDelta) -> i128 {
    i128::from(length.num_seconds()) * NANOS + i128::from(length.subsec_nanos())
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every {}", text::duration(self.length.to_std().unwrap_or_default()))?;
        self.limits.write(f)
    }
}

/// The JSON form: parts that add up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stored {
    #[serde(skip_serializing_if = "is_zero")]
    weeks: i64,
    #[serde(skip_serializing_if = "is_zero")]
    days: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hours: i64,
    #[serde(skip_serializing_if = "is_zero")]
    minutes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<Seconds>,
    #[serde(flatten)]
    limits: Limits,
}

/// Seconds are whole as a rule; a fraction is kept to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(i64),
    Part(f64),
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl TryFrom<Stored> for Interval {
    type Error = TriggerError;

    fn try_from(stored: Stored) -> Result<Self, TriggerError> {
        let part = |n: i64, seconds: i64| i128::from(n) * i128::from(seconds) * NANOS;
        let seconds = match stored.seconds {
            None => 0,
            Some(Seconds::Whole(n)) => part(n, 1),
            Some(Seconds::Part(n)) => (n * 1e9).round() as i128,
        };
        let total = part(stored.weeks, 604_800)
            + part(stored.days, 86_400)
            + part(stored.hours, 3600)
            + part(stored.minutes, 60)
            + seconds;
        let length = i64::try_from(total.div_euclid(NANOS))
            .ok()
            .and_then(|s| TimeDelta::new(s, total.rem_euclid(NANOS) as u32));
        let length = length.ok_or_else(|| TriggerError::invalid("interval", "its length is out of range"))?;
        if total <= 0 {
            let parts = [
                ("weeks", part(stored.weeks, 1)),
                ("days", part(stored.days, 1)),
                ("hours", part(stored.hours, 1)),
                ("minutes", part(stored.minutes, 1)),
                ("seconds", seconds),
            ];
            let most = "weeks, days, hours, minutes and seconds have to add up to more than 0";
            return Err(match parts.iter().find(|(_, n)| *n < 0) {
                Some((name, _)) => TriggerError::invalid(*name, format!("it is less than 0; {most}")),
                None => TriggerError::invalid("interval", format!("its length is zero; {most}")),
            });
        }
        Interval { length, limits: stored.limits }.well_formed()
    }
}

impl From<Interval> for Stored {
    fn from(interval: Interval) -> Stored {
        let total = interval.length.num_seconds();
        let fraction = interval.length.subsec_nanos();
        let mut stored = Stored { limits: interval.limits, ..Stored::default() };
        if fraction != 0 {
            // One number: JSON readers keep a fraction of a second only to so many digits.
            stored.minutes = total / 60;
            stored.seconds = Some(Seconds::Part((total % 60) as f64 + f64::from(fraction) / 1e9));
        } else {
            (stored.weeks, stored.days) = (total / 604_800, total / 86_400 % 7);
            (stored.hours, stored.minutes) = (total / 3600 % 24, total / 60 % 60);
            stored.seconds = (total % 60 != 0 || total == 0).then_some(Seconds::Whole(total % 60));
        }
        stored
    }
}
