//! WHEN a task runs. Pure: no actor, no I/O, no clock, no randomness.

mod date;
mod interval;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use date::Date;
pub use interval::Interval;

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
    /// When the scheduler shuts down.
    Shutdown,
}

/// Why a trigger could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// A field has a value it cannot have.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field as the user wrote it, for instance `minute`.
        field: String,
        /// What is wrong with it and what would be valid.
        reason: String,
    },
    /// The trigger is well formed but has no run at or after the moment it was asked.
    #[error("the trigger never fires: {reason}")]
    NeverFires {
        /// Why, for instance `February has no day 31`.
        reason: String,
    },
}

/// The search for the next run gave up at its bound: neither a run nor the end was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search for the next run stopped at its limit: {reason}")]
pub struct SearchError {
    /// Which limit was reached.
    pub reason: String,
}

impl Trigger {
    /// The first nominal run time at or after `from`; `None` when there is none ever again.
    pub fn next(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Result<Option<DateTime<Utc>>, SearchError> {
        match self {
            Trigger::Date(date) => Ok(date.next(from, cx)),
            Trigger::Interval(interval) => Ok(interval.next(from, cx)),
            Trigger::Shutdown => Ok(None),
        }
    }

    /// When the run of `nominal` is due: the nominal time plus the trigger's jitter for this task.
    pub fn due(&self, nominal: DateTime<Utc>, _cx: &Context<'_>) -> DateTime<Utc> {
        nominal
    }

    /// The zone the trigger thinks in.
    pub fn zone(&self, cx: &Context<'_>) -> Tz {
        cx.zone
    }

    /// Whether this trigger (or a part of it) asks for a run when the scheduler shuts down.
    pub fn on_shutdown(&self) -> bool {
        matches!(self, Trigger::Shutdown)
    }

    /// Refuses a trigger that has no run at or after `from`.
    pub fn check(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Result<(), TriggerError> {
        match self.next(from, cx) {
            Ok(None) if !self.on_shutdown() => {
                Err(TriggerError::NeverFires { reason: "no run time lies ahead".into() })
            }
            _ => Ok(()),
        }
    }

    /// Plain English.
    pub fn describe(&self, _cx: &Context<'_>) -> String {
        format!("{self:?}")
    }
}

/// Anything a task can be given as its trigger: a finished trigger, a builder, or text.
pub trait IntoTrigger {
    /// The trigger, or what is wrong with it.
    fn into_trigger(self) -> Result<Trigger, TriggerError>;
}

impl IntoTrigger for Trigger {
    fn into_trigger(self) -> Result<Trigger, TriggerError> {
        Ok(self)
    }
}

impl IntoTrigger for Interval {
    fn into_trigger(self) -> Result<Trigger, TriggerError> {
        Ok(Trigger::Interval(Arc::new(self)))
    }
}

impl IntoTrigger for Date {
    fn into_trigger(self) -> Result<Trigger, TriggerError> {
        Ok(Trigger::Date(Arc::new(self)))
    }
}
