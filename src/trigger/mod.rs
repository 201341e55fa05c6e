//! WHEN a task runs. Pure: no actor, no I/O, no clock, no randomness.

mod cron;
mod date;
mod error;
mod interval;
mod jitter;
mod jsonl;
mod limits;
mod moment;
mod text;
mod zone;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use cron::{Cron, CronBuilder, Crontab, CrontabBuilder, FieldValue, Quartz, QuartzBuilder};
pub use date::Date;
pub use error::{SearchError, SearchErrorKind, TriggerError};
pub use interval::Interval;
pub use jsonl::answer;
pub use moment::Moment;
pub use zone::{Fold, Gap};

/// What a trigger is told about the task it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The zone in which naive times and wall-clock patterns without a zone of their own are read.
    pub zone: Tz,
    /// The instant an omitted `run_at` or `start_at` stands for: when the trigger was set.
    pub anchor: DateTime<Utc>,
    /// The task's id: seeds jitter and `H` fields.
    pub key: &'a str,
}

/// When a task runs: a value that can be stored, compared, printed and parsed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// When the scheduler shuts down.
    Shutdown,
}

impl Trigger {
    /// The first nominal run time at or after `from`; `None` when there is none ever again.
    ///
    /// Pure, and the same answer whichever way one gets to `from`.
    ///
    /// # Errors
    /// [`SearchError`] when the search gave up; never to be taken for "finished".
    pub fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        match self {
            Trigger::Date(date) => Ok(date.next(from, cx)),
            Trigger::Interval(interval) => Ok(interval.next(from, cx)),
            Trigger::Cron(cron) => Ok(cron.pattern().run(cron.limits(), from, cx)),
            Trigger::Crontab(crontab) => Ok(crontab.pattern().run(crontab.limits(), from, cx)),
            Trigger::Quartz(quartz) => Ok(quartz.pattern().run(quartz.limits(), from, cx)),
            Trigger::Shutdown => Ok(None),
        }
    }

    /// The first nominal run time strictly later than `time`.
    ///
    /// # Errors
    /// As for [`Trigger::next`].
    pub fn after(
        &self,
        time: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        match time.checked_add_signed(TimeDelta::nanoseconds(1)) {
            Some(later) => self.next(later, cx),
            None => Ok(None),
        }
    }

    /// When the run of `nominal` is due: the nominal time plus the trigger's jitter for this task.
    pub fn due(&self, nominal: DateTime<Utc>, _cx: &Context<'_>) -> DateTime<Utc> {
        nominal
    }

    /// The zone the trigger thinks in.
    pub fn zone(&self, cx: &Context<'_>) -> Tz {
        match self {
            Trigger::Date(date) => date.zone(cx),
            Trigger::Interval(interval) => interval.limits().zone(cx),
            Trigger::Cron(cron) => cron.limits().zone(cx),
            Trigger::Crontab(crontab) => crontab.limits().zone(cx),
            Trigger::Quartz(quartz) => quartz.limits().zone(cx),
            Trigger::Shutdown => cx.zone,
        }
    }

    /// Whether this trigger (or a part of it) asks for a run when the scheduler shuts down.
    pub fn on_shutdown(&self) -> bool {
        matches!(self, Trigger::Shutdown)
    }

    /// Refuses a trigger that has no run at or after `from`.
    ///
    /// # Errors
    /// [`TriggerError::NeverFires`] with the reason.
    pub fn check(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Result<(), TriggerError> {
        match self.next(from, cx)? {
            None if !self.on_shutdown() => Err(TriggerError::NeverFires {
                reason: "no run time lies ahead".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Plain English.
    pub fn describe(&self, _cx: &Context<'_>) -> String {
        self.to_string()
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
            Trigger::Shutdown => f.write_str("shutdown"),
        }
    }
}

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
}

impl<T: IntoTrigger> IntoTrigger for Result<T, TriggerError> {
    fn into_trigger(self) -> Result<Trigger, TriggerError> {
        self?.into_trigger()
    }
}
