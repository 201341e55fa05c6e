//! Every so many years, months, weeks and days, at a wall-clock time.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{Deserialize, Serialize};

use super::cron::search::{LAST_WALL, civil, day_number, month_length};
use super::limits::seconds;
use super::moment::named;
use super::zone::{DAY, Fold, Gap, Rules, ceil_seconds};
use super::{Context, SearchError, TriggerError, Zone, text};

/// Every so many years, months, weeks and days, at a wall-clock time.
///
/// The dates form a series from `start_date`. From the date before: first the years and months
/// are added, the day kept; a date the calendar lacks (31 February) is stepped over by years and
/// months again; then the weeks and days are added. So "every month from 31 January" runs in the
/// months that have a 31st. Without `start_date` the series begins on the day of the
/// [anchor](Context::anchor).
///
/// Clock changes: the time is on the wall clock, and fixed: it runs once after a gap and in the
/// first pass of a fold. A date that the zone skipped altogether is left out, and the series goes
/// on from it.
///
/// ```
/// use callboard::trigger::{CalendarInterval, Context, IntoTrigger};
/// use chrono::{DateTime, NaiveDate, Utc};
///
/// // Every second Friday at 17:00, from 2 January 2026.
/// let trigger = CalendarInterval::builder()
///     .weeks(2)
///     .at(17, 0, 0)
///     .start_date(NaiveDate::from_ymd_opt(2026, 1, 2).unwrap())
///     .into_trigger()?;
/// let from: DateTime<Utc> = "2026-03-20T00:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::Europe::Berlin, from, "pay");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-03-27T16:00:00+00:00");
/// let after = trigger.after("2026-03-27T16:00:00Z".parse().unwrap(), &cx)?;
/// assert_eq!(after.unwrap().to_rfc3339(), "2026-04-10T15:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CalendarIntervalBuilder", into = "CalendarIntervalBuilder")]
pub struct CalendarInterval {
    given: CalendarIntervalBuilder,
}

/// Makes a [`CalendarInterval`]; errors come when it is built or handed to a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalendarIntervalBuilder {
    #[serde(skip_serializing_if = "is_zero")]
    years: i64,
    #[serde(skip_serializing_if = "is_zero")]
    months: i64,
    #[serde(skip_serializing_if = "is_zero")]
    weeks: i64,
    #[serde(skip_serializing_if = "is_zero")]
    days: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hour: i64,
    #[serde(skip_serializing_if = "is_zero")]
    minute: i64,
    #[serde(skip_serializing_if = "is_zero")]
    second: i64,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "named::start_date")]
    start_date: Option<NaiveDate>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "named::end_date")]
    end_date: Option<NaiveDate>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "timezone")]
    zone: Option<Zone>,
    #[serde(skip_serializing_if = "Duration::is_zero", with = "seconds")]
    jitter: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fold: Option<Fold>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// More than this in any unit leaves the calendar at the first step.
const MOST: i64 = 4_000_000;

impl CalendarIntervalBuilder {
    /// Years between two runs; default 0.
    pub fn years(mut self, n: u32) -> Self {
        self.years = n.into();
        self
    }

    /// Months between two runs; default 0.
    pub fn months(mut self, n: u32) -> Self {
        self.months = n.into();
        self
    }

    /// Weeks between two runs; default 0.
    pub fn weeks(mut self, n: u32) -> Self {
        self.weeks = n.into();
        self
    }

    /// Days between two runs; default 0.
    pub fn days(mut self, n: u32) -> Self {
        self.days = n.into();
        self
    }

    /// The time on the wall clock; default midnight.
    pub fn at(mut self, hour: u32, minute: u32, second: u32) -> Self {
        (self.hour, self.minute, self.second) = (hour.into(), minute.into(), second.into());
        self
    }

    /// The first date of the series; default: the day of the [anchor](Context::anchor).
    pub fn start_date(mut self, date: NaiveDate) -> Self {
        self.start_date = Some(date);
        self
    }

    /// No run is meant for a date after this one; inclusive. Default: none.
    pub fn end_date(mut self, date: NaiveDate) -> Self {
        self.end_date = Some(date);
        self
    }

    /// The zone of the wall clock; default: the scheduler's.
    pub fn timezone(mut self, zone: impl Into<Zone>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Each run is due up to this much later than its nominal time. Default: none.
    pub fn jitter(mut self, most: Duration) -> Self {
        self.jitter = most;
        self
    }

    /// What becomes of a run inside a gap; default [`Gap::FireAfter`].
    pub fn gap(mut self, gap: Gap) -> Self {
        self.gap = Some(gap);
        self
    }

    /// Which pass of a fold counts; default [`Fold::First`].
    pub fn fold(mut self, fold: Fold) -> Self {
        self.fold = Some(fold);
        self
    }

    pub(crate) fn with_options(
        mut self,
        zone: Option<Zone>,
        jitter: Duration,
        gap: Option<Gap>,
        fold: Option<Fold>,
    ) -> Self {
        (self.zone, self.jitter, self.gap, self.fold) = (zone, jitter, gap, fold);
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// [`TriggerError::Invalid`] when there is no interval, a number is out of range, or the end
    /// lies before the start.
    pub fn build(self) -> Result<CalendarInterval, TriggerError> {
        let units =
            [("years", self.years), ("months", self.months), ("weeks", self.weeks), ("days", self.days)];
        for (name, n) in units {
            if !(0..=MOST).contains(&n) {
                return Err(TriggerError::invalid(name, format!("{n} is not between 0 and {MOST}")));
            }
        }
        if units.iter().all(|(_, n)| *n == 0) {
            let reason = "no interval is given; give years, months, weeks or days";
            return Err(TriggerError::invalid("calendar_interval", reason));
        }
        for (name, n, most) in
            [("hour", self.hour, 23), ("minute", self.minute, 59), ("second", self.second, 59)]
        {
            if !(0..=most).contains(&n) {
                return Err(TriggerError::invalid(name, format!("{n} is not between 0 and {most}")));
            }
        }
        for (name, date) in [("start_date", self.start_date), ("end_date", self.end_date)] {
            if date.is_some_and(|date| !(1..=9999).contains(&date.year())) {
                return Err(TriggerError::invalid(name, "it has to lie in the years 1 to 9999"));
            }
        }
        match (self.start_date, self.end_date) {
            (Some(start), Some(end)) if end < start => {
                let reason = format!("{end} lies before start_date {start}; it has to be on or after it");
                Err(TriggerError::invalid("end_date", reason))
            }
            _ => Ok(CalendarInterval { given: self }),
        }
    }
}

impl TryFrom<CalendarIntervalBuilder> for CalendarInterval {
    type Error = TriggerError;

    fn try_from(given: CalendarIntervalBuilder) -> Result<Self, TriggerError> {
        given.build()
    }
}

impl From<CalendarInterval> for CalendarIntervalBuilder {
    fn from(interval: CalendarInterval) -> CalendarIntervalBuilder {
        interval.given
    }
}

fn number(date: NaiveDate) -> i64 {
    day_number(date.year().into(), date.month(), date.day())
}

impl CalendarInterval {
    /// An interval without a length: give it years, months, weeks or days.
    pub fn builder() -> CalendarIntervalBuilder {
        CalendarIntervalBuilder::default()
    }

    pub(crate) fn zone(&self, cx: &Context<'_>) -> Zone {
        self.given.zone.unwrap_or(cx.zone)
    }

    /// The same with all that may be left out written down, in `zone` where it names none.
    pub(super) fn in_zone(&self, zone: Zone) -> CalendarIntervalBuilder {
        CalendarIntervalBuilder {
            zone: Some(self.given.zone.unwrap_or(zone)),
            gap: Some(self.gap()),
            fold: Some(self.given.fold.unwrap_or(Fold::First)),
            ..self.given.clone()
        }
    }

    pub(crate) fn jitter(&self) -> Duration {
        self.given.jitter
    }

    /// What the user chose about gaps and folds.
    pub(crate) fn chosen(&self) -> (Option<Gap>, Option<Fold>) {
        (self.given.gap, self.given.fold)
    }

    pub(crate) fn gap(&self) -> Gap {
        self.given.gap.unwrap_or(Gap::FireAfter)
    }

    /// Seconds from midnight.
    pub(crate) fn time(&self) -> i64 {
        self.given.hour * 3600 + self.given.minute * 60 + self.given.second
    }

    /// Years and months, weeks and days.
    pub(crate) fn parts(&self) -> [i64; 4] {
        [self.given.years, self.given.months, self.given.weeks, self.given.days]
    }

    pub(crate) fn dates(&self) -> (Option<NaiveDate>, Option<NaiveDate>) {
        (self.given.start_date, self.given.end_date)
    }

    /// The last moment of the last date.
    pub(crate) fn last_moment(&self, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        let end = super::Moment::from(self.given.end_date?.succ_opt()?);
        end.known(|| cx.rules(self.zone(cx)).ok())?.checked_sub_signed(chrono::TimeDelta::nanoseconds(1))
    }

    fn months(&self) -> i64 {
        self.given.years * 12 + self.given.months
    }

    fn days(&self) -> i64 {
        self.given.weeks * 7 + self.given.days
    }

    /// The date after `day` in the series.
    fn step(&self, day: i64) -> Option<i64> {
        let moved = match self.months() {
            0 => day,
            months => {
                let (year, month, of_month) = civil(day);
                same_day(year * 12 + i64::from(month) - 1 + months, months, of_month)?
            }
        };
        Some(moved + self.days())
    }

    /// The first date of the series at or after `day`.
    fn date_from(&self, start: i64, day: i64) -> Option<i64> {
        if day <= start {
            return Some(start);
        }
        match (self.months(), self.days()) {
            (0, days) => Some(start + (day - start + days - 1) / days * days),
            (months, 0) => {
                // Every date has the day of the first one: go to the month, then forward.
                let (year, month, of_month) = civil(start);
                let first = year * 12 + i64::from(month) - 1;
                let (year, month, _) = civil(day);
                let wanted = year * 12 + i64::from(month) - 1;
                let mut at = first + (wanted - first) / months * months;
                loop {
                    let found = same_day(at, months, of_month)?;
                    if found >= day {
                        return Some(found);
                    }
                    let (year, month, _) = civil(found);
                    at = year * 12 + i64::from(month) - 1 + months;
                }
            }
            _ => {
                // The day wanders, so the series has to be walked: some hundred thousand steps
                // for the whole calendar at the very most.
                let mut at = start;
                while at < day {
                    at = self.step(at)?;
                }
                Some(at)
            }
        }
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        Ok(self.next_by(cx.rules(self.zone(cx))?, from, cx))
    }

    fn next_by(&self, zone: &Rules, from: DateTime<Utc>, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        let start = match self.given.start_date {
            Some(date) => number(date),
            None => zone.wall(cx.anchor.timestamp()).div_euclid(DAY),
        };
        let from = ceil_seconds(from);
        // An anchor or a question outside of the calendar.
        if from > LAST_WALL + DAY || !(-LAST_WALL..=LAST_WALL).contains(&(start * DAY)) {
            return None;
        }
        let (gap, fold) = (self.gap(), self.given.fold.unwrap_or(Fold::First));
        // A run may be moved past midnight by a gap, or lie on the other side of a fold.
        let mut day = self.date_from(start, zone.wall(from).div_euclid(DAY) - 2)?;
        loop {
            let wall = day * DAY + self.time();
            if wall > LAST_WALL || self.given.end_date.is_some_and(|end| day > number(end)) {
                return None;
            }
            for instant in zone.instants(wall, gap, fold).into_iter().flatten() {
                if instant >= from {
                    return DateTime::from_timestamp(instant, 0);
                }
            }
            day = self.step(day)?;
        }
    }
}

/// The day `of_month` in month `at` (years × 12 + months from 0), or in the first of the months
/// after it, `months` apart, that has such a day.
fn same_day(mut at: i64, months: i64, of_month: u32) -> Option<i64> {
    loop {
        let (year, month) = (at.div_euclid(12), at.rem_euclid(12) as u32 + 1);
        if year > 9999 {
            return None;
        }
        if of_month <= month_length(year, month) {
            return Some(day_number(year, month, of_month));
        }
        at += months;
    }
}

impl fmt::Display for CalendarInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = &self.given;
        f.write_str("calendar")?;
        for (n, unit) in self.parts().into_iter().zip(["y", "mo", "w", "d"]) {
            if n > 0 {
                write!(f, " {n}{unit}")?;
            }
        }
        write!(f, " at {:02}:{:02}:{:02}", given.hour, given.minute, given.second)?;
        super::limits::Limits {
            start_at: given.start_date.map(Into::into),
            end_at: given.end_date.map(Into::into),
            zone: given.zone,
            jitter: given.jitter,
            gap: given.gap,
            fold: given.fold,
        }
        .write(f)
    }
}

/// Reads what `Display` writes: `1y 2mo 3w 4d at 09:30` and the options split off before.
pub(super) fn parse(
    head: &str,
    limits: super::limits::Limits,
    line: &str,
) -> Result<CalendarInterval, TriggerError> {
    let wrong = |part: &str| {
        let reason = "a calendar interval is written in y, mo, w and d, for instance `calendar 1mo at 09:30`";
        text::placed(line, part)(TriggerError::invalid(
            "calendar",
            format!("`{part}` is not valid; {reason}"),
        ))
    };
    let (parts, time) = match head.rsplit_once(" at ") {
        Some((parts, time)) => (parts, Some(time.trim())),
        None => (head, None),
    };
    let mut builder = CalendarInterval::builder();
    for part in parts.split_whitespace() {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (n, unit) = part.split_at(digits);
        let n: u32 = n.parse().map_err(|_| wrong(part))?;
        let slot = match unit {
            "y" => &mut builder.years,
            "mo" => &mut builder.months,
            "w" => &mut builder.weeks,
            "d" => &mut builder.days,
            _ => return Err(wrong(part)),
        };
        *slot = n.into();
    }
    if let Some(time) = time {
        let time = text::parse_time(time).map_err(text::placed(line, time))?;
        builder = builder.at(time.hour(), time.minute(), time.second());
    }
    let date = |name: &str, moment: Option<super::Moment>| match moment {
        None => Ok(None),
        Some(super::Moment::Naive(at)) if at.time() == chrono::NaiveTime::MIN => Ok(Some(at.date())),
        Some(at) => {
            Err(TriggerError::invalid(name, format!("{at}: a calendar interval begins and ends on dates")))
        }
    };
    builder.start_date = date("from", limits.start_at)?;
    builder.end_date = date("until", limits.end_at)?;
    builder
        .with_options(limits.zone, limits.jitter, limits.gap, limits.fold)
        .build()
        .map_err(text::placed(line, line))
}
