//! Once.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::moment::named;
use super::{Context, Moment, SearchError, Zone};

/// Once, at an instant.
///
/// Without a time it runs at the [anchor](Context::anchor): when the trigger was set. A naive
/// time is read in the trigger's own zone, else in the scheduler's; inside a fold it is the first
/// pass, inside a gap the gap's end.
///
/// ```
/// use callboard::trigger::{Context, Date, IntoTrigger, Moment};
/// use chrono::{DateTime, Utc};
///
/// let trigger = Date::at("2026-05-01 12:00".parse::<Moment>()?).timezone(chrono_tz::Europe::Berlin).into_trigger()?;
/// let from: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "party");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "2026-05-01T10:00:00+00:00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Date {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named::run_at")]
    run_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "timezone")]
    zone: Option<Zone>,
}

impl Date {
    /// At `run_at`: an instant, or a naive time.
    pub fn at(run_at: impl Into<Moment>) -> Self {
        Self { run_at: Some(run_at.into()), zone: None }
    }

    /// At the moment the trigger is set.
    pub fn now() -> Self {
        Self::default()
    }

    /// The zone a naive time is read in; default: the scheduler's.
    pub fn timezone(mut self, zone: impl Into<Zone>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The time as it was given.
    pub fn run_at(&self) -> Option<Moment> {
        self.run_at
    }

    pub(super) fn own_zone(&self) -> Option<Zone> {
        self.zone
    }

    pub(super) fn instant(&self, cx: &Context<'_>) -> Result<DateTime<Utc>, SearchError> {
        match self.run_at {
            None => Ok(cx.anchor),
            Some(Moment::Exact(at)) => Ok(at.to_utc()),
            Some(Moment::Naive(wall)) => Ok(cx.rules(self.zone(cx))?.instant(wall)),
        }
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        Ok(Some(self.instant(cx)?).filter(|at| *at >= from))
    }

    pub(super) fn zone(&self, cx: &Context<'_>) -> Zone {
        self.zone.unwrap_or(cx.zone)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("once")?;
        if let Some(at) = self.run_at {
            write!(f, " at {at}")?;
        }
        match self.zone {
            Some(zone) => write!(f, " in {}", zone.name()),
            None => Ok(()),
        }
    }
}
