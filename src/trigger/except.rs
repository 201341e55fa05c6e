//! A trigger minus dates, ranges and other triggers: holidays, blackout windows.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::combine::{Budget, HORIZON, PATIENCE};
use super::footprint;
use super::zone::Rules;
use super::{Context, IntoTrigger, Moment, SearchError, Trigger, TriggerError};

/// A trigger minus dates, ranges and the runs of other triggers.
///
/// Dates and naive times are read in the zone of the base trigger. As JSON:
/// `{"type": "except", "trigger": …, "dates": ["2026-12-25", "01-01"], "ranges": ["2026-08-01..2026-08-15"], "triggers": […]}`.
///
/// The search steps over what is left out: whole days and ranges in one step each, the runs of
/// other triggers one by one. It ends at the horizon and the limit of an [`And`](super::And).
///
/// ```
/// use callboard::trigger::{Context, Cron, Except, IntoTrigger};
/// use chrono::{DateTime, Utc};
///
/// // Weekdays at 9, but not on Christmas Day, whichever year.
/// let trigger = Except::of(Cron::builder().day_of_week("mon-fri").hour(9)).date("12-25").into_trigger()?;
/// let from: DateTime<Utc> = "2026-12-24T10:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "task");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-12-28T09:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Except {
    trigger: Trigger,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dates: Vec<ExceptDate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<ExceptRange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    triggers: Vec<Trigger>,
}

/// A date that is left out, in one year (`2026-12-25`) or in every year (`12-25`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ExceptDate {
    /// One date.
    Once(NaiveDate),
    /// Month and day, every year.
    Yearly(u32, u32),
}

/// A range of time that is left out, both ends inclusive: `2026-08-01..2026-08-15` or
/// `2026-08-01T22:00:00..2026-08-02T06:00:00`. An end without a time means the whole day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExceptRange {
    from: Moment,
    to: Edge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    At(Moment),
    EndOf(NaiveDate),
}

impl Except {
    /// Begins with the trigger from which something is left out.
    pub fn of(base: impl IntoTrigger) -> ExceptBuilder {
        let (trigger, error) = match base.into_trigger() {
            Ok(trigger) => (trigger, None),
            Err(error) => (Trigger::Shutdown, Some(error)),
        };
        ExceptBuilder {
            except: Except { trigger, dates: Vec::new(), ranges: Vec::new(), triggers: Vec::new() },
            error,
        }
    }

    /// The trigger from which something is left out.
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// The triggers whose runs are left out.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    pub(super) fn map(
        &self,
        change: &dyn Fn(&Trigger) -> Result<Trigger, TriggerError>,
    ) -> Result<Self, TriggerError> {
        Ok(Except {
            trigger: change(&self.trigger)?,
            dates: self.dates.clone(),
            ranges: self.ranges.clone(),
            triggers: self.triggers.iter().map(change).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let zone = cx.rules(self.trigger.zone(cx))?;
        let horizon = from.checked_add_signed(HORIZON).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut at = from;
        for step in 0u32.. {
            let Some(next) = self.trigger.seek(at, cx, budget)? else {
                return Ok(None);
            };
            let Some(resume) = self.left_out(next, zone, cx, budget)? else {
                return Ok(Some(next));
            };
            at = resume;
            if at > horizon || (step == PATIENCE && self.nothing_left(cx)) {
                return Ok(None);
            }
            budget.spend(1 + self.triggers.len() as u32, "an `except`")?;
        }
        Ok(None)
    }

    /// Where to go on when a run is left out.
    fn left_out(
        &self,
        run: DateTime<Utc>,
        zone: &Rules,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let just_after =
            || run.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        for range in &self.ranges {
            let end = range.end(zone);
            if range.from.instant(zone) <= run && run <= end {
                return Ok(Some(
                    end.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(end).max(just_after()),
                ));
            }
        }
        if !self.dates.is_empty() {
            let date = zone.local(run).date();
            if self.dates.iter().any(|left_out| left_out.is(date)) {
                // A fold at midnight can show the date again after the next one has begun, so the
                // jump is only taken when it does not pass over part of the next date.
                let next = date.checked_add_days(Days::new(1)).map(|next| Moment::from(next).instant(zone));
                return Ok(Some(next.filter(|next| *next > run).unwrap_or_else(just_after)));
            }
        }
        for trigger in &self.triggers {
            if trigger.seek(run, cx, budget)? == Some(run) {
                return Ok(Some(just_after()));
            }
        }
        Ok(None)
    }

    /// One of the other triggers covers the base whole.
    fn nothing_left(&self, cx: &Context<'_>) -> bool {
        self.triggers.iter().any(|trigger| footprint::covers(trigger, &self.trigger, cx))
    }
}

impl ExceptDate {
    fn is(self, date: NaiveDate) -> bool {
        match self {
            ExceptDate::Once(once) => once == date,
            ExceptDate::Yearly(month, day) => (date.month(), date.day()) == (month, day),
        }
    }
}

impl ExceptRange {
    /// From one time to another, both inclusive.
    pub fn new(from: impl Into<Moment>, to: impl Into<Moment>) -> Self {
        Self { from: from.into(), to: Edge::At(to.into()) }
    }

    /// From the beginning of one date to the end of another.
    pub fn days(from: NaiveDate, to: NaiveDate) -> Self {
        Self { from: from.into(), to: Edge::EndOf(to) }
    }

    fn end(&self, zone: &Rules) -> DateTime<Utc> {
        match self.to {
            Edge::At(moment) => moment.instant(zone),
            Edge::EndOf(date) => {
                let next = date.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
                Moment::from(next).instant(zone) - TimeDelta::nanoseconds(1)
            }
        }
    }
}

/// Makes an [`Except`]; errors come when it is built or handed to a task.
#[derive(Debug, Clone)]
pub struct ExceptBuilder {
    except: Except,
    error: Option<TriggerError>,
}

impl ExceptBuilder {
    /// Leaves out a date: a [`NaiveDate`], `"2026-12-25"`, or `"12-25"` for every year.
    pub fn date<D>(mut self, date: D) -> Self
    where
        D: TryInto<ExceptDate>,
        D::Error: Into<TriggerError>,
    {
        match date.try_into() {
            Ok(date) => self.except.dates.push(date),
            Err(error) => self.error = self.error.or(Some(error.into())),
        }
        self
    }

    /// Leaves out several dates.
    pub fn dates<D>(self, dates: impl IntoIterator<Item = D>) -> Self
    where
        D: TryInto<ExceptDate>,
        D::Error: Into<TriggerError>,
    {
        dates.into_iter().fold(self, ExceptBuilder::date)
    }

    /// Leaves out all runs from one time to another, both inclusive.
    pub fn range(mut self, from: impl Into<Moment>, to: impl Into<Moment>) -> Self {
        self.except.ranges.push(ExceptRange::new(from, to));
        self
    }

    /// Leaves out whole days, both inclusive.
    pub fn days(mut self, from: NaiveDate, to: NaiveDate) -> Self {
        self.except.ranges.push(ExceptRange::days(from, to));
        self
    }

    pub(super) fn push(mut self, range: ExceptRange) -> Self {
        self.except.ranges.push(range);
        self
    }

    /// Leaves out the runs of another trigger.
    pub fn trigger(mut self, trigger: impl IntoTrigger) -> Self {
        match trigger.into_trigger() {
            Ok(trigger) => self.except.triggers.push(trigger),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// The finished trigger.
    ///
    /// # Errors
    /// The first error met in the base, a date or a trigger.
    pub fn build(self) -> Result<Except, TriggerError> {
        self.error.map_or(Ok(self.except), Err)
    }
}

impl From<NaiveDate> for ExceptDate {
    fn from(date: NaiveDate) -> Self {
        ExceptDate::Once(date)
    }
}

impl From<std::convert::Infallible> for TriggerError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl FromStr for ExceptDate {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let text = text.trim();
        if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Ok(ExceptDate::Once(date));
        }
        // 2024 has all days there are.
        match NaiveDate::parse_from_str(&format!("2024-{text}"), "%Y-%m-%d") {
            Ok(date) => Ok(ExceptDate::Yearly(date.month(), date.day())),
            Err(_) => Err(TriggerError::invalid(
                "dates",
                format!("`{text}` is not a date; write 2026-12-25, or 12-25 for every year"),
            )),
        }
    }
}

impl TryFrom<&str> for ExceptDate {
    type Error = TriggerError;

    fn try_from(text: &str) -> Result<Self, TriggerError> {
        text.parse()
    }
}

impl TryFrom<String> for ExceptDate {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, TriggerError> {
        text.parse()
    }
}

impl fmt::Display for ExceptDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExceptDate::Once(date) => write!(f, "{date}"),
            ExceptDate::Yearly(month, day) => write!(f, "{month:02}-{day:02}"),
        }
    }
}

impl From<ExceptDate> for String {
    fn from(date: ExceptDate) -> String {
        date.to_string()
    }
}

impl FromStr for ExceptRange {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let wrong = || {
            let reason = format!(
                "`{text}` is not a range; write 2026-08-01..2026-08-15 or two times with `..` between"
            );
            TriggerError::invalid("ranges", reason)
        };
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let to = to.trim();
        let end = match NaiveDate::parse_from_str(to, "%Y-%m-%d") {
            Ok(date) => Edge::EndOf(date),
            Err(_) => Edge::At(to.parse()?),
        };
        Ok(ExceptRange { from: from.parse()?, to: end })
    }
}

impl TryFrom<String> for ExceptRange {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, TriggerError> {
        text.parse()
    }
}

impl fmt::Display for ExceptRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Edge::At(to) => write!(f, "{}..{to}", self.from),
            Edge::EndOf(date) => write!(f, "{}..{date}", self.from),
        }
    }
}

impl From<ExceptRange> for String {
    fn from(range: ExceptRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for Except {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "except({}", self.trigger)?;
        for date in &self.dates {
            write!(f, "; {date}")?;
        }
        for range in &self.ranges {
            write!(f, "; {range}")?;
        }
        for trigger in &self.triggers {
            write!(f, "; {trigger}")?;
        }
        f.write_str(")")
    }
}

impl Except {
    pub(super) fn dates(&self) -> &[ExceptDate] {
        &self.dates
    }

    pub(super) fn ranges(&self) -> &[ExceptRange] {
        &self.ranges
    }
}
