//! Wall-clock patterns: by fields, as a crontab line, in Quartz's dialect.

mod crontab;
pub(crate) mod field;
mod quartz;
pub(crate) mod search;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::field::{Collected, Dialect, Field, Kind};
use self::search::{LAST_WALL, Pattern};
use super::limits::Limits;
use super::zone::{Fold, Gap, ceil_seconds};
use super::{Context, Moment, SearchError, TriggerError};

pub use crontab::{Crontab, CrontabBuilder};
pub use quartz::{Quartz, QuartzBuilder};

impl Pattern {
    /// The first run within the limits at or after an instant, given in whole seconds.
    #[inline]
    pub(crate) fn run(
        &self,
        limits: &Limits,
        from: i64,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let rules = limits.rules(cx)?;
        let from = match limits.start_at {
            Some(start) => from.max(ceil_seconds(start.instant(rules))),
            None => from,
        };
        let found = self.next(from, rules, cx.key).and_then(|found| DateTime::from_timestamp(found, 0));
        Ok(match limits.end_at {
            Some(end) => found.filter(|found| *found <= end.instant(rules)),
            None => found,
        })
    }

    /// Whether the pattern matches any wall time at all.
    pub(crate) fn possible(&self, key: &str) -> bool {
        self.wall(-LAST_WALL, key).is_some()
    }
}

/// One blank between words and none around them.
fn tidy(line: &str) -> String {
    let mut tidy = String::with_capacity(line.len());
    for word in line.split_whitespace() {
        if !tidy.is_empty() {
            tidy.push(' ');
        }
        tidy.push_str(word);
    }
    tidy
}

/// The kind of a pattern decides how clock changes are treated: a `*` in one of the time fields
/// makes it follow real time. An option given by the user goes before the kind.
fn policy(follows: bool, limits: &Limits) -> (Gap, Fold) {
    let (gap, fold) = if follows { (Gap::Skip, Fold::Both) } else { (Gap::FireAfter, Fold::First) };
    (limits.gap.unwrap_or(gap), limits.fold.unwrap_or(fold))
}

/// The value of one field as the user gave it: `8`, `"*/15"`, `"mon-fri"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldValue(Box<str>);

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self(text.trim().into())
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for FieldValue {
            fn from(number: $number) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}
from_number!(i32, u32, i64, u64, u8, u16);

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u32>() {
            Ok(number) if number.to_string() == *self.0 => serializer.serialize_u32(number),
            _ => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = FieldValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or text")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<FieldValue, E> {
                Ok(number.into())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<FieldValue, E> {
                Ok(number.into())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldValue, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Cron by fields, in the manner of APScheduler and asyncz.
///
/// Fields are given by name. The weekday counts from **0 = Monday** (a [`Crontab`] counts from
/// Sunday), and day, week and weekday must all match. Each field takes numbers, lists (`1,15`),
/// ranges (`9-17`), steps (`*/15`, `9-17/2`, `5/20`), month and weekday names (`jan`, `mon`, in
/// any case); the day also `last`, `1st mon` to `5th sun` and `last fri`.
///
/// | field | values |
/// |---|---|
/// | `year` | 1970–9999 |
/// | `month` | 1–12, `jan`–`dec` |
/// | `day` | 1–31, `last`, `3rd fri`, `last sun` |
/// | `week` | 1–53, ISO 8601 |
/// | `day_of_week` | 0–6, `mon`–`sun` |
/// | `hour`, `minute`, `second` | 0–23, 0–59, 0–59 |
///
/// Fields left out: those after the last one given (in the order above) are at their minimum,
/// `week` and `day_of_week` at `*`; those before it are `*`. So `hour(8)` is 08:00:00 every day,
/// `minute(30)` half past each hour, and `year(2027)` midnight on 1 January 2027.
///
/// Clock changes: a pattern whose resolved hour, minute or second has a `*` follows real time;
/// the others run once after a gap and in the first pass of a fold. See [`Gap`] and [`Fold`] to
/// choose otherwise.
///
/// ```
/// use callboard::trigger::{Context, Cron, IntoTrigger};
/// use chrono::{DateTime, Utc};
///
/// let trigger = Cron::builder().day_of_week("mon-fri").hour(8).minute(30).into_trigger()?;
/// let from: DateTime<Utc> = "2026-01-02T10:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::Europe::Lisbon, from, "report");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-01-05T08:30:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CronBuilder", into = "CronBuilder")]
pub struct Cron {
    given: CronBuilder,
    pattern: Pattern,
}

impl Cron {
    /// A pattern without fields: give it at least one.
    pub fn builder() -> CronBuilder {
        CronBuilder::default()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.given.limits
    }

    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The fields with omitted ones filled in.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let resolved = self.given.resolved().ok();
        let parse = |(kind, text)| Field::parse(kind, Dialect::Fields, text).ok();
        resolved.into_iter().flatten().filter_map(parse).collect()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cron")?;
        for (kind, value) in Kind::ALL.into_iter().zip(self.given.values()) {
            match value {
                Some(FieldValue(text)) if text.contains(|c: char| c.is_whitespace()) => {
                    write!(f, " {}=\"{text}\"", kind.name())?;
                }
                Some(FieldValue(text)) => write!(f, " {}={text}", kind.name())?,
                None => {}
            }
        }
        self.given.limits.write(f)
    }
}

/// Makes a [`Cron`]; errors come when it is built or handed to a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronBuilder {
    #[serde(skip_serializing_if = "Option::is_none")]
    year: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    month: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    week: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day_of_week: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hour: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minute: Option<FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<FieldValue>,
    #[serde(flatten)]
    limits: Limits,
}

/// The options that the wall-clock builders share.
macro_rules! limit_setters {
    ($field:ident) => {
        /// No run before this; inclusive. Naive times are read in the trigger's own zone, else in
        /// the scheduler's.
        pub fn start_at(mut self, start: impl Into<Moment>) -> Self {
            self.$field.start_at = Some(start.into());
            self
        }

        /// No run after this; inclusive.
        pub fn end_at(mut self, end: impl Into<Moment>) -> Self {
            self.$field.end_at = Some(end.into());
            self
        }

        /// The zone the pattern is read in; default: the scheduler's.
        pub fn timezone(mut self, zone: impl Into<$crate::trigger::Zone>) -> Self {
            self.$field.zone = Some(zone.into());
            self
        }

        /// Each run is due up to this much later than its nominal time, by an amount derived from
        /// the task's id and that time. Default: none.
        pub fn jitter(mut self, most: Duration) -> Self {
            self.$field.jitter = most;
            self
        }

        /// What becomes of runs inside a gap; default: by the kind of the pattern.
        pub fn gap(mut self, gap: Gap) -> Self {
            self.$field.gap = Some(gap);
            self
        }

        /// Which pass of a fold counts; default: by the kind of the pattern.
        pub fn fold(mut self, fold: Fold) -> Self {
            self.$field.fold = Some(fold);
            self
        }
    };
}
pub(crate) use limit_setters;

macro_rules! field_setters {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, value: impl Into<FieldValue>) -> Self {
            self.$name = Some(value.into());
            self
        }
    )*};
}

impl CronBuilder {
    field_setters! {
        /// 1970–9999.
        year
        /// 1–12 or `jan`–`dec`.
        month
        /// Day of the month: 1–31, `last`, `3rd fri`, `last sun`.
        day
        /// ISO week, 1–53.
        week
        /// 0–6 from Monday, or `mon`–`sun`.
        day_of_week
        /// 0–23.
        hour
        /// 0–59.
        minute
        /// 0–59.
        second
    }

    limit_setters!(limits);

    /// The finished trigger.
    ///
    /// # Errors
    /// [`TriggerError::Invalid`] names the field, what is wrong with it and what is allowed.
    pub fn build(self) -> Result<Cron, TriggerError> {
        let mut collected = Collected::new();
        for (kind, text) in self.resolved()? {
            collected.field(kind, Dialect::Fields, text).map_err(|fault| {
                let at = text.get(..fault.offset).unwrap_or_default().chars().count() + 1;
                TriggerError::invalid(
                    kind.name(),
                    format!("{} (at character {at} of `{text}`)", fault.reason),
                )
            })?;
        }
        let (gap, fold) = policy(collected.follows, &self.limits);
        Ok(Cron { pattern: Pattern::new(collected, gap, fold), given: self })
    }

    fn values(&self) -> [Option<&FieldValue>; 8] {
        [
            &self.year,
            &self.month,
            &self.day,
            &self.week,
            &self.day_of_week,
            &self.hour,
            &self.minute,
            &self.second,
        ]
        .map(Option::as_ref)
    }

    pub(crate) fn set(&mut self, name: &str, value: FieldValue) -> bool {
        let slot = match name {
            "year" => &mut self.year,
            "month" => &mut self.month,
            "day" => &mut self.day,
            "week" => &mut self.week,
            "day_of_week" => &mut self.day_of_week,
            "hour" => &mut self.hour,
            "minute" => &mut self.minute,
            "second" => &mut self.second,
            _ => return false,
        };
        slot.replace(value).is_none()
    }

    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The text of each field, omitted ones filled in.
    fn resolved(&self) -> Result<[(Kind, &str); 8], TriggerError> {
        let values = self.values();
        let Some(last) = values.iter().rposition(Option::is_some) else {
            let names = Kind::ALL.map(Kind::name).join(", ");
            return Err(TriggerError::invalid(
                "cron",
                format!("no field is given; give at least one of {names}"),
            ));
        };
        let mut index = 0;
        Ok(Kind::ALL.map(|kind| {
            let text = match (values[index], kind) {
                (Some(FieldValue(text)), _) => text,
                (None, Kind::Week | Kind::DayOfWeek) => "*",
                (None, Kind::Month | Kind::Day) if index > last => "1",
                (None, _) if index > last => "0",
                (None, _) => "*",
            };
            index += 1;
            (kind, text)
        }))
    }
}

impl TryFrom<CronBuilder> for Cron {
    type Error = TriggerError;

    fn try_from(given: CronBuilder) -> Result<Self, TriggerError> {
        given.build()
    }
}

impl From<Cron> for CronBuilder {
    fn from(cron: Cron) -> CronBuilder {
        cron.given
    }
}
