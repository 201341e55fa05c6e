//! Quartz's dialect, as the `cron` crate reads it: the crate parses, our own search answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cron::{Schedule, TimeUnitSpec};
use serde::{Deserialize, Serialize};

use super::field::{Collected, Dialect, Field, Item, Kind};
use super::search::{Pattern, YearRange};
use super::{limit_setters, policy, tidy};
use crate::trigger::limits::Limits;
use crate::trigger::{Fold, Gap, Moment, TriggerError};

/// A Quartz-style line, in the dialect of the `cron` crate.
///
/// Six fields — second, minute, hour, day of month, month, weekday — and optionally the year.
/// The weekday counts from **1 = Sunday** to 7 = Saturday; day of month and weekday must *both*
/// match. Names and `@hourly` … `@yearly` are known; `L`, `W` and `#` are not (a
/// [`Crontab`](super::Crontab) has them). Years that are given end in 2100, as the crate's do.
///
/// Only the syntax is the crate's. The runs are found by the same search as for a crontab, by
/// the same rule for clock changes.
///
/// ```
/// use callboard::trigger::{Context, IntoTrigger, Quartz};
/// use chrono::{DateTime, Utc};
///
/// let trigger = Quartz::parse("0 30 8 ? * 2-6")?.into_trigger()?; // Monday to Friday
/// let from: DateTime<Utc> = "2026-01-03T00:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "report");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-01-05T08:30:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "QuartzBuilder", into = "QuartzBuilder")]
pub struct Quartz {
    given: QuartzBuilder,
    pattern: Pattern,
}

impl Quartz {
    /// A line as it stands.
    ///
    /// # Errors
    /// [`TriggerError::Invalid`] names the field, where in the line the fault is, and what is
    /// allowed.
    pub fn parse(expression: &str) -> Result<Quartz, TriggerError> {
        Quartz::builder(expression).build()
    }

    /// A line to which a zone, bounds or options are added.
    pub fn builder(expression: impl AsRef<str>) -> QuartzBuilder {
        QuartzBuilder { expression: tidy(expression.as_ref()), limits: Limits::default() }
    }

    /// The line, its blanks tidied.
    pub fn expression(&self) -> &str {
        &self.given.expression
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.given.limits
    }

    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

impl Quartz {
    /// The fields of the line, as far as they read like a crontab's; a nickname has none. Weekdays by
    /// number are left out, because they count from another day.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let texts = self.given.expression.split(' ').zip(FIELDS);
        let read = texts.filter_map(|(text, (kind, _))| Field::parse(kind, Dialect::Crontab, text).ok());
        let shifted = |field: &Field| {
            field.kind == Kind::DayOfWeek && !field.items.iter().all(|item| matches!(item, Item::Star { .. }))
        };
        read.filter(|field| !shifted(field)).collect()
    }
}

impl fmt::Display for Quartz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quartz {}", self.given.expression)?;
        self.given.limits.write(f)
    }
}

/// Makes a [`Quartz`]; errors come when it is built or handed to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuartzBuilder {
    expression: String,
    #[serde(flatten)]
    limits: Limits,
}

impl QuartzBuilder {
    limit_setters!(limits);

    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// As for [`Quartz::parse`].
    pub fn build(mut self) -> Result<Quartz, TriggerError> {
        self.expression = tidy(&self.expression);
        let fields = self.expression.split_whitespace().count();
        if !self.expression.starts_with('@') && !(6..=7).contains(&fields) {
            let reason = format!(
                "`{}` has {fields} field{}; 6 are needed with the second in front, or 7 with the year at the end",
                self.expression,
                if fields == 1 { "" } else { "s" }
            );
            return Err(TriggerError::invalid("quartz", reason));
        }
        let schedule = Schedule::from_str(&self.expression).map_err(|_| fault(&self.expression))?;
        let bits =
            |unit: &dyn Fn(u32) -> bool| (0..64).filter(|n| unit(*n)).fold(0u64, |bits, n| bits | 1 << n);
        let weekdays = bits(&|n| schedule.days_of_week().includes(n)) as u32;
        let mut collected = Collected::new();
        let sets = &mut collected.sets;
        sets.seconds = bits(&|n| schedule.seconds().includes(n));
        sets.minutes = bits(&|n| schedule.minutes().includes(n));
        sets.hours = bits(&|n| schedule.hours().includes(n)) as u32;
        sets.days = bits(&|n| schedule.days_of_month().includes(n)) as u32;
        sets.months = bits(&|n| schedule.months().includes(n)) as u16;
        // From Sunday = 1 to Monday = 0.
        sets.weekdays = (weekdays >> 2 & 0x3f | (weekdays >> 1 & 1) << 6) as u8;
        collected.years = match schedule.years().is_all() {
            true => Vec::new(),
            false => schedule
                .years()
                .iter()
                .map(|year| YearRange { from: year as u16, to: year as u16, step: 1 })
                .collect(),
        };
        let hourly = self.expression.eq_ignore_ascii_case("@hourly");
        let follows = hourly || self.expression.split(' ').take(3).any(|field| field.contains('*'));
        let (gap, fold) = policy(follows, &self.limits);
        Ok(Quartz { pattern: Pattern::new(collected, gap, fold), given: self })
    }
}

const FIELDS: [(Kind, &str); 7] = [
    (Kind::Second, "0-59"),
    (Kind::Minute, "0-59"),
    (Kind::Hour, "0-23"),
    (Kind::Day, "1-31, ?"),
    (Kind::Month, "1-12, jan-dec"),
    (Kind::DayOfWeek, "1-7 (1 is Sunday), sun-sat, ?"),
    (Kind::Year, "1970-2100"),
];

/// What is wrong with a line that the `cron` crate refuses. The crate itself says only where it
/// gave up, so each item is shown to it alone, in a line of stars.
fn fault(line: &str) -> TriggerError {
    if line.starts_with('@') {
        let reason = "is not known; the nicknames are @hourly, @daily, @weekly, @monthly, @yearly";
        return TriggerError::invalid("quartz", format!("`{line}` {reason} (at character 1 of `{line}`)"));
    }
    for (index, field) in line.split(' ').enumerate().take(FIELDS.len()) {
        let (kind, allowed) = FIELDS[index];
        for item in field.split(',') {
            let mut stars = ["*"; 7];
            stars[index] = item;
            if !item.is_empty() && Schedule::from_str(&stars.join(" ")).is_ok() {
                continue;
            }
            let at = line[..item.as_ptr() as usize - line.as_ptr() as usize].chars().count() + 1;
            let what =
                if item.is_empty() { "an item is empty".into() } else { format!("`{item}` is not valid") };
            let reason = format!(
                "{what}; allowed are {allowed}, *, lists, ranges a-b that run upwards and steps /n from 1 (at character {at} of `{line}`)"
            );
            return TriggerError::invalid(kind.name(), reason);
        }
    }
    let reason = "6 fields are needed: second, minute, hour, day of month, month, weekday; a year may follow";
    TriggerError::invalid("quartz", format!("`{line}` is not valid; {reason}"))
}

impl TryFrom<QuartzBuilder> for Quartz {
    type Error = TriggerError;

    fn try_from(given: QuartzBuilder) -> Result<Self, TriggerError> {
        given.build()
    }
}

impl From<Quartz> for QuartzBuilder {
    fn from(quartz: Quartz) -> QuartzBuilder {
        quartz.given
    }
}
