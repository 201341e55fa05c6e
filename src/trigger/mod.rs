//! WHEN a task runs. Pure: no actor, no I/O, no clock, no randomness.
//!
//! A [`Trigger`] is a value. It is built in code ([`Cron::builder`], [`Interval::minutes`], …), read
//! from text (`"30 8 * * mon-fri".parse()`) or from JSON (serde, tagged by `type`), and asked for
//! the first run at or after an instant: [`Trigger::next`]. The rules, with worked dates, are in
//! the guide (`src/guide/time.md`).
//!
//! | module | what |
//! |---|---|
//! | `zone` | wall time and real time: gaps, folds, the rules of a zone |
//! | `zones` `tzif` `zoned` | zones by name and sets of rules, rules from bytes, times as they are handed out |
//! | `cron` | patterns: one field, crontab, Quartz, and the search |
//! | `date` `interval` `calendar` | the plain triggers |
//! | `combine` `except` `custom` | triggers made of others, or by users |
//! | `footprint` | arithmetic: whether triggers can ever meet |
//! | `jitter` | numbers derived from a task's id |
//! | `same` | whether two triggers have the same run times |
//! | `reread` | which run times are open when the rules of clocks have changed |
//! | `text` `json` `jsonl` | text, JSON, and questions as JSON lines |
//! | `describe` `warn` | plain English, and what may surprise |

mod calendar;
mod combine;
mod cron;
mod custom;
mod date;
mod describe;
mod error;
mod except;
mod footprint;
mod interval;
mod jitter;
mod json;
mod jsonl;
mod limits;
pub(crate) mod meant;
mod moment;
mod reread;
mod same;
mod text;
mod tzif;
mod warn;
mod zone;
mod zoned;
mod zones;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use combine::Budget;
use limits::Limits;

pub use calendar::{CalendarInterval, CalendarIntervalBuilder};
pub use combine::{And, AndBuilder, Or, OrBuilder};
pub use cron::{Cron, CronBuilder, Crontab, CrontabBuilder, FieldValue, Quartz, QuartzBuilder};
pub use custom::{Custom, CustomTrigger};
pub use date::Date;
pub use error::{SearchError, SearchErrorKind, TriggerError};
pub use except::{Except, ExceptBuilder, ExceptDate, ExceptRange};
pub use interval::Interval;
pub(crate) use jitter::hash;
pub use jsonl::{answer, answer_by};
pub use moment::Moment;
pub use reread::Offsets;
pub(crate) use reread::Reread;
pub use warn::{Warning, WarningKind};
use zone::ceil_seconds;
pub use zone::{Fold, Gap, Rules};
pub use zoned::ZonedTime;
#[cfg(feature = "process")]
pub(crate) use zones::Learned;
pub use zones::{DamagedZone, UnknownZone, Zone, Zones};

/// What a trigger is told: about the task it belongs to, and by which rules clocks are read.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The zone in which naive times and wall-clock patterns without a zone of their own are read.
    pub zone: Zone,
    /// The rules of all zones.
    pub zones: &'a Zones,
    /// The instant an omitted `run_at` or `start_at` stands for: when the trigger was set.
    pub anchor: DateTime<Utc>,
    /// The task's id: seeds jitter and `H` fields.
    pub key: &'a str,
}

impl<'a> Context<'a> {
    /// A context in which clocks are read by the rules that are compiled in ([`Zones::bundled`]).
    pub fn new(zone: impl Into<Zone>, anchor: DateTime<Utc>, key: &'a str) -> Self {
        Self { zone: zone.into(), zones: Zones::bundled(), anchor, key }
    }

    /// The same with other rules.
    pub fn with_zones(self, zones: &'a Zones) -> Self {
        Self { zones, ..self }
    }

    /// What the clocks of [`zone`](Self::zone) show at an instant.
    pub fn time(&self, at: DateTime<Utc>) -> ZonedTime {
        self.zones.time(at, self.zone)
    }

    /// The rules of a zone.
    #[inline]
    pub(crate) fn rules(&self, zone: Zone) -> Result<&'a Rules, SearchError> {
        match self.zones.rules(zone) {
            Some(rules) => Ok(rules),
            None => Err(SearchError::unknown_zone(zone, self.zones)),
        }
    }
}

/// When a task runs: a value that can be stored, compared, printed and parsed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// Once, at a given instant.
    Date(Arc<Date>),
    /// Every so often, in elapsed time.
    Interval(Arc<Interval>),
    /// A wall-clock pattern by fields.
    Cron(Arc<Cron>),
    /// A wall-clock pattern as a crontab line.
    Crontab(Arc<Crontab>),
    /// A wall-clock pattern in Quartz's dialect.
    Quartz(Arc<Quartz>),
    /// Every so many years, months, weeks and days, at a wall-clock time.
    CalendarInterval(Arc<CalendarInterval>),
    /// Whenever all of its parts run at once.
    And(Arc<And>),
    /// Whenever any of its parts runs.
    Or(Arc<Or>),
    /// A trigger minus dates, ranges and other triggers.
    Except(Arc<Except>),
    /// A trigger of the user's own making, found by name.
    Custom(Arc<Custom>),
    /// When the scheduler shuts down: no run times, but see [`Trigger::on_shutdown`].
    Shutdown,
}

impl Trigger {
    /// The first nominal run time at or after `from`; `None` when there is none ever again.
    ///
    /// Pure, and the same answer whichever way one gets to `from`.
    ///
    /// # Errors
    /// [`SearchError`] when the search gave up; never to be taken for "finished".
    pub fn next(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Result<Option<DateTime<Utc>>, SearchError> {
        self.seek(from, cx, &mut Budget::new())
    }

    /// [`Trigger::next`], with the steps that it took added to `effort`.
    #[inline]
    pub(crate) fn next_counted(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
        effort: &Cell<u64>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let mut budget = Budget::new();
        let next = self.seek(from, cx, &mut budget);
        effort.set(effort.get() + 1 + u64::from(budget.spent()));
        next
    }

    /// [`Trigger::next`] within the steps that are left.
    #[inline]
    fn seek(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        match self {
            Trigger::Date(date) => date.next(from, cx),
            Trigger::Interval(interval) => interval.next(from, cx),
            Trigger::Cron(cron) => cron.pattern().run(cron.limits(), ceil_seconds(from), cx),
            Trigger::Crontab(crontab) => crontab.pattern().run(crontab.limits(), ceil_seconds(from), cx),
            Trigger::Quartz(quartz) => quartz.pattern().run(quartz.limits(), ceil_seconds(from), cx),
            Trigger::CalendarInterval(interval) => interval.next(from, cx),
            Trigger::And(and) => and.next(from, cx, budget),
            Trigger::Or(or) => or.next(from, cx, budget),
            Trigger::Except(except) => except.next(from, cx, budget),
            Trigger::Custom(custom) => custom.next(from, cx),
            Trigger::Shutdown => Ok(None),
        }
    }

    /// The first nominal run time strictly later than `time`.
    ///
    /// # Errors
    /// As for [`Trigger::next`].
    pub fn after(&self, time: DateTime<Utc>, cx: &Context<'_>) -> Result<Option<DateTime<Utc>>, SearchError> {
        // Patterns run at whole seconds, which spares them the arithmetic.
        let (pattern, limits) = match self {
            Trigger::Cron(cron) => (cron.pattern(), cron.limits()),
            Trigger::Crontab(crontab) => (crontab.pattern(), crontab.limits()),
            Trigger::Quartz(quartz) => (quartz.pattern(), quartz.limits()),
            _ => {
                return match time.checked_add_signed(TimeDelta::nanoseconds(1)) {
                    Some(later) => self.next(later, cx),
                    None => Ok(None),
                };
            }
        };
        pattern.run(limits, time.timestamp() + 1, cx)
    }

    /// The run times from `from` on, one by one.
    ///
    /// ```
    /// use callboard::trigger::{Context, Trigger};
    /// use chrono::{DateTime, Utc};
    ///
    /// let trigger: Trigger = "0 9 * * mon".parse()?;
    /// let from: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    /// let cx = Context::new(chrono_tz::UTC, from, "task");
    /// let mondays: Vec<_> = trigger.times(from, &cx).take(2).map(|run| run.unwrap().to_string()).collect();
    /// assert_eq!(mondays, ["2026-01-05 09:00:00 UTC", "2026-01-12 09:00:00 UTC"]);
    /// # Ok::<(), callboard::trigger::TriggerError>(())
    /// ```
    pub fn times<'a>(&'a self, from: DateTime<Utc>, cx: &Context<'a>) -> Times<'a> {
        Times { trigger: self, cx: *cx, from: Some(from) }
    }

    /// When the run of `nominal` is due: the nominal time plus the trigger's jitter for this task.
    ///
    /// The jitter is derived from the task's id and the nominal time, so it is the same whenever
    /// it is asked. It lies in `[0, jitter]`; it never passes the trigger's end and always stays
    /// before the next nominal time, so that it neither reorders nor merges two runs.
    pub fn due(&self, nominal: DateTime<Utc>, cx: &Context<'_>) -> DateTime<Utc> {
        self.due_counted(nominal, cx, &Cell::default())
    }

    /// [`Trigger::due`], with the steps that it took added to `effort`.
    #[inline]
    pub(crate) fn due_counted(
        &self,
        nominal: DateTime<Utc>,
        cx: &Context<'_>,
        effort: &Cell<u64>,
    ) -> DateTime<Utc> {
        let mut budget = Budget::new();
        let due = self.with_jitter(nominal, cx, &mut budget);
        effort.set(effort.get() + u64::from(budget.spent()));
        due
    }

    fn with_jitter(&self, nominal: DateTime<Utc>, cx: &Context<'_>, budget: &mut Budget) -> DateTime<Utc> {
        let Ok((jitter, end)) = self.spread(nominal, cx, budget) else {
            return nominal;
        };
        let Ok(jitter) = TimeDelta::from_std(jitter) else {
            return nominal;
        };
        if jitter.is_zero() {
            return nominal;
        }
        let mut most = jitter;
        let later = nominal.checked_add_signed(TimeDelta::nanoseconds(1));
        match later.map_or(Ok(None), |later| self.seek(later, cx, budget)) {
            Ok(Some(next)) => most = most.min(next - nominal - TimeDelta::milliseconds(1)),
            Ok(None) => {}
            // Whether there is room is not known.
            Err(_) => return nominal,
        }
        if let Some(end) = end {
            most = most.min(end - nominal);
        }
        let top = u64::try_from(most.num_milliseconds()).unwrap_or(0);
        let picked = jitter::pick(cx.key, nominal.timestamp_millis(), top);
        let delay = i64::try_from(picked).unwrap_or(0);
        nominal.checked_add_signed(TimeDelta::milliseconds(delay)).unwrap_or(nominal)
    }

    /// Whether run times depend on the task's id, because a field of it says `H`.
    ///
    /// ```
    /// use callboard::trigger::Trigger;
    ///
    /// assert!("H 3 * * *".parse::<Trigger>()?.is_hashed());
    /// assert!(!"5 3 * * *".parse::<Trigger>()?.is_hashed());
    /// # Ok::<(), callboard::trigger::TriggerError>(())
    /// ```
    pub fn is_hashed(&self) -> bool {
        match self {
            Trigger::Cron(cron) => cron.pattern().is_hashed(),
            Trigger::Crontab(crontab) => crontab.pattern().is_hashed(),
            Trigger::Quartz(quartz) => quartz.pattern().is_hashed(),
            Trigger::Or(or) => or.triggers().iter().any(Self::is_hashed),
            Trigger::And(and) => and.triggers().iter().any(Self::is_hashed),
            Trigger::Except(except) => {
                except.trigger().is_hashed() || except.triggers().iter().any(Self::is_hashed)
            }
            Trigger::Date(_)
            | Trigger::Interval(_)
            | Trigger::CalendarInterval(_)
            | Trigger::Custom(_)
            | Trigger::Shutdown => false,
        }
    }

    /// The jitter that applies to a run, and the end it must not pass.
    fn spread(
        &self,
        nominal: DateTime<Utc>,
        cx: &Context<'_>,
        budget: &mut Budget,
    ) -> Result<(Duration, Option<DateTime<Utc>>), SearchError> {
        let of = |limits: &Limits| (limits.jitter, limits.end(cx));
        Ok(match self {
            Trigger::Interval(interval) => of(interval.limits()),
            Trigger::Cron(cron) => of(cron.limits()),
            Trigger::Crontab(crontab) => of(crontab.limits()),
            Trigger::Quartz(quartz) => of(quartz.limits()),
            Trigger::CalendarInterval(interval) => (interval.jitter(), interval.last_moment(cx)),
            // Of the parts that run now the one that waits least.
            Trigger::Or(or) => {
                let mut least: Option<(Duration, Option<DateTime<Utc>>)> = None;
                budget.spend(or.triggers().len() as u32, "an `or`")?;
                for part in or.triggers() {
                    if part.seek(nominal, cx, budget) == Ok(Some(nominal)) {
                        let spread = part.spread(nominal, cx, budget)?;
                        least = Some(least.filter(|least| least.0 <= spread.0).unwrap_or(spread));
                    }
                }
                least.unwrap_or_default()
            }
            // All parts agree on the run, so the strictest one decides.
            Trigger::And(and) => {
                let mut strictest: Option<(Duration, Option<DateTime<Utc>>)> = None;
                for part in and.triggers() {
                    let (jitter, end) = part.spread(nominal, cx, budget)?;
                    strictest = Some(strictest.map_or((jitter, end), |(least, first)| {
                        (least.min(jitter), [first, end].into_iter().flatten().min())
                    }));
                }
                strictest.unwrap_or_default()
            }
            Trigger::Except(except) => except.trigger().spread(nominal, cx, budget)?,
            Trigger::Date(_) | Trigger::Custom(_) | Trigger::Shutdown => Default::default(),
        })
    }

    /// The zone the trigger thinks in: its own, else the scheduler's. An `and` or `or` has none of
    /// its own, an `except` has that of its base.
    pub fn zone(&self, cx: &Context<'_>) -> Zone {
        match self {
            Trigger::Date(date) => date.zone(cx),
            Trigger::Interval(interval) => interval.limits().zone(cx),
            Trigger::Cron(cron) => cron.limits().zone(cx),
            Trigger::Crontab(crontab) => crontab.limits().zone(cx),
            Trigger::Quartz(quartz) => quartz.limits().zone(cx),
            Trigger::CalendarInterval(interval) => interval.zone(cx),
            Trigger::Except(except) => except.trigger().zone(cx),
            Trigger::And(_) | Trigger::Or(_) | Trigger::Custom(_) | Trigger::Shutdown => cx.zone,
        }
    }

    /// Whether this trigger (or a part of it) asks for a run when the scheduler shuts down.
    pub fn on_shutdown(&self) -> bool {
        match self {
            Trigger::Shutdown => true,
            Trigger::Or(or) => or.triggers().iter().any(Trigger::on_shutdown),
            Trigger::And(and) => and.triggers().iter().all(Trigger::on_shutdown),
            Trigger::Except(except) => except.trigger().on_shutdown(),
            _ => false,
        }
    }

    /// Whether every custom trigger in it has its implementation.
    pub fn is_resolved(&self) -> bool {
        match self {
            Trigger::Custom(custom) => custom.is_resolved(),
            Trigger::Or(or) => or.triggers().iter().all(Trigger::is_resolved),
            Trigger::And(and) => and.triggers().iter().all(Trigger::is_resolved),
            Trigger::Except(except) => {
                except.trigger().is_resolved() && except.triggers().iter().all(Trigger::is_resolved)
            }
            _ => true,
        }
    }

    /// The same trigger with its custom triggers, at any depth, given their implementations.
    ///
    /// # Errors
    /// [`TriggerError::UnknownCustom`] when `lookup` does not know a name;
    /// [`TriggerError::Invalid`] when an implementation refuses its parameters.
    pub fn resolve(
        &self,
        lookup: &dyn Fn(&str) -> Option<Arc<dyn CustomTrigger>>,
    ) -> Result<Trigger, TriggerError> {
        if self.is_resolved() {
            return Ok(self.clone());
        }
        let resolve = |part: &Trigger| part.resolve(lookup);
        match self {
            Trigger::Custom(custom) => {
                let unknown = || TriggerError::UnknownCustom { name: custom.name().into() };
                let found = lookup(custom.name()).ok_or_else(unknown)?;
                Ok(Trigger::Custom(Arc::new(Custom::clone(custom).with(found).checked()?)))
            }
            Trigger::Or(or) => Ok(Trigger::Or(Arc::new(or.map(&resolve)?))),
            Trigger::And(and) => Ok(Trigger::And(Arc::new(and.map(&resolve)?))),
            Trigger::Except(except) => Ok(Trigger::Except(Arc::new(except.map(&resolve)?))),
            other => Ok(other.clone()),
        }
    }

    /// Whether this trigger, read in `zone` where it names none, has the same run times as `other`, read
    /// in `other_zone`: a zone means nothing to an interval.
    pub(crate) fn has_same_times(&self, zone: Zone, other: &Trigger, other_zone: Zone) -> bool {
        same::times((self, zone), (other, other_zone))
    }

    /// The first run, at or after `since`, of the task of this id whose interval is
    /// [spread](crate::task::Task::spread): `None` unless this is an interval that names no start.
    pub(crate) fn spread_start(&self, id: &str, since: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Trigger::Interval(interval) => interval.spread(id, since),
            _ => None,
        }
    }

    /// Refuses a trigger with an interval or a jitter in it that is too short. What is stored may have one:
    /// such an interval counts as the shortest there is, such a jitter as none.
    pub(crate) fn check_lengths(&self) -> Result<(), TriggerError> {
        let all = |parts: &[Trigger]| parts.iter().try_for_each(Trigger::check_lengths);
        match self {
            Trigger::Interval(interval) => {
                interval.check_length()?;
                limits::check_jitter(interval.limits().jitter)
            }
            Trigger::Cron(cron) => limits::check_jitter(cron.limits().jitter),
            Trigger::Crontab(crontab) => limits::check_jitter(crontab.limits().jitter),
            Trigger::Quartz(quartz) => limits::check_jitter(quartz.limits().jitter),
            Trigger::CalendarInterval(interval) => limits::check_jitter(interval.jitter()),
            Trigger::And(and) => all(and.triggers()),
            Trigger::Or(or) => all(or.triggers()),
            Trigger::Except(except) => {
                except.trigger().check_lengths()?;
                all(except.triggers())
            }
            _ => Ok(()),
        }
    }

    /// Whether it (or a part of it) answers in words of its own, as dense as it likes.
    pub(crate) fn is_custom(&self) -> bool {
        match self {
            Trigger::Custom(_) => true,
            Trigger::And(and) => and.triggers().iter().any(Trigger::is_custom),
            Trigger::Or(or) => or.triggers().iter().any(Trigger::is_custom),
            Trigger::Except(except) => except.trigger().is_custom(),
            _ => false,
        }
    }

    /// Whether it (or a part of it) runs at the [anchor](Context::anchor) itself, and there only: it was
    /// asked for at once.
    pub(crate) fn is_at_once(&self) -> bool {
        match self {
            Trigger::Date(date) => date.run_at().is_none(),
            Trigger::Or(or) => or.triggers().iter().any(Trigger::is_at_once),
            Trigger::And(and) => and.triggers().iter().any(Trigger::is_at_once),
            Trigger::Except(except) => except.trigger().is_at_once(),
            _ => false,
        }
    }

    /// Refuses a trigger that has no run at or after `from`.
    ///
    /// # Errors
    /// [`TriggerError::NeverFires`] with the reason.
    pub fn check(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Result<(), TriggerError> {
        match self.next(from, cx)? {
            None if !self.on_shutdown() => {
                Err(TriggerError::NeverFires { reason: warn::never(self, from, cx) })
            }
            _ => Ok(()),
        }
    }

    /// Plain English, with the zone: `at 08:30 on Monday to Friday, Europe/Lisbon`.
    ///
    /// ```
    /// use callboard::trigger::{Context, Trigger};
    ///
    /// let trigger: Trigger = "30 8 * * mon-fri".parse()?;
    /// let cx = Context::new(chrono_tz::Europe::Lisbon, chrono::DateTime::UNIX_EPOCH, "task");
    /// assert_eq!(trigger.describe(&cx), "at 08:30 on Monday to Friday, Europe/Lisbon");
    /// # Ok::<(), callboard::trigger::TriggerError>(())
    /// ```
    pub fn describe(&self, cx: &Context<'_>) -> String {
        describe::trigger(self, cx)
    }

    /// What its author may not have meant, as seen from the [anchor](Context::anchor).
    ///
    /// ```
    /// use callboard::trigger::{Context, Trigger};
    ///
    /// let trigger: Trigger = "30 2 * * *".parse()?;
    /// let anchor = "2027-01-01T00:00:00Z".parse().unwrap();
    /// let cx = Context::new(chrono_tz::Europe::Berlin, anchor, "task");
    /// let warnings = trigger.warnings(&cx);
    /// assert_eq!(warnings[0].to_string(), "02:30 does not exist on 2027-03-28 in Europe/Berlin: the run is at 03:00 that day");
    /// # Ok::<(), callboard::trigger::TriggerError>(())
    /// ```
    pub fn warnings(&self, cx: &Context<'_>) -> Vec<Warning> {
        warn::of(self, cx)
    }
}

impl fmt::Display for Trigger {
    /// Text that [parses](str::parse) back to the same trigger.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Date(date) => date.fmt(f),
            Trigger::Interval(interval) => interval.fmt(f),
            Trigger::Cron(cron) => cron.fmt(f),
            Trigger::Crontab(crontab) => crontab.fmt(f),
            Trigger::Quartz(quartz) => quartz.fmt(f),
            Trigger::CalendarInterval(interval) => interval.fmt(f),
            Trigger::And(and) => and.fmt(f),
            Trigger::Or(or) => or.fmt(f),
            Trigger::Except(except) => except.fmt(f),
            Trigger::Custom(custom) => custom.fmt(f),
            Trigger::Shutdown => f.write_str("shutdown"),
        }
    }
}

/// The run times of a trigger: see [`Trigger::times`]. Ends after an error.
#[derive(Debug, Clone)]
pub struct Times<'a> {
    trigger: &'a Trigger,
    cx: Context<'a>,
    from: Option<DateTime<Utc>>,
}

impl Iterator for Times<'_> {
    type Item = Result<DateTime<Utc>, SearchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.trigger.next(self.from?, &self.cx).transpose();
        self.from = match &next {
            Some(Ok(run)) => run.checked_add_signed(TimeDelta::nanoseconds(1)),
            _ => None,
        };
        next
    }
}

impl std::iter::FusedIterator for Times<'_> {}

/// Anything a task can be given as its trigger: a finished trigger, a builder, or text.
pub trait IntoTrigger {
    /// The trigger, or what is wrong with it.
    ///
    /// # Errors
    /// [`TriggerError`], deferred until here so that builders chain without question marks.
    fn into_trigger(self) -> Result<Trigger, TriggerError>;
}

macro_rules! into_trigger {
    ($($from:ty: |$value:ident| $make:expr;)*) => {$(
        impl IntoTrigger for $from {
            fn into_trigger(self) -> Result<Trigger, TriggerError> {
                let $value = self;
                $make
            }
        }
    )*};
}

into_trigger! {
    Trigger: |trigger| Ok(trigger);
    &Trigger: |trigger| Ok(trigger.clone());
    &str: |text| text.parse();
    String: |text| text.parse();
    Date: |date| Ok(Trigger::Date(Arc::new(date)));
    Interval: |interval| Ok(Trigger::Interval(Arc::new(interval.checked()?)));
    Cron: |cron| Ok(Trigger::Cron(Arc::new(cron)));
    CronBuilder: |cron| Ok(Trigger::Cron(Arc::new(cron.build()?)));
    Crontab: |crontab| Ok(Trigger::Crontab(Arc::new(crontab)));
    CrontabBuilder: |crontab| Ok(Trigger::Crontab(Arc::new(crontab.build()?)));
    Quartz: |quartz| Ok(Trigger::Quartz(Arc::new(quartz)));
    QuartzBuilder: |quartz| Ok(Trigger::Quartz(Arc::new(quartz.build()?)));
    CalendarInterval: |interval| Ok(Trigger::CalendarInterval(Arc::new(interval)));
    CalendarIntervalBuilder: |interval| Ok(Trigger::CalendarInterval(Arc::new(interval.build()?)));
    And: |and| Ok(Trigger::And(Arc::new(and)));
    AndBuilder: |and| Ok(Trigger::And(Arc::new(and.build()?)));
    Or: |or| Ok(Trigger::Or(Arc::new(or)));
    OrBuilder: |or| Ok(Trigger::Or(Arc::new(or.build()?)));
    Except: |except| Ok(Trigger::Except(Arc::new(except)));
    ExceptBuilder: |except| Ok(Trigger::Except(Arc::new(except.build()?)));
    Custom: |custom| Ok(Trigger::Custom(Arc::new(custom.checked()?)));
}

impl<T: IntoTrigger> IntoTrigger for Result<T, TriggerError> {
    fn into_trigger(self) -> Result<Trigger, TriggerError> {
        self?.into_trigger()
    }
}
