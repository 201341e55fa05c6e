//! What every repeating trigger can carry besides its pattern: zone, bounds, jitter, and how
//! clock changes are treated. Kept in one place so that builders, JSON and text agree.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::moment::named;
use super::zone::{Fold, Gap, Rules};
use super::{Context, Moment, SearchError, TriggerError, Zone, Zones, text};

/// By more than this no law moves a clock.
const ABOUT: TimeDelta = TimeDelta::hours(3);

/// Refuses a jitter that is shorter than what a jitter is counted in.
pub(super) fn check_jitter(jitter: Duration) -> Result<(), TriggerError> {
    if jitter.is_zero() || jitter >= Duration::from_millis(1) {
        return Ok(());
    }
    let jitter = text::duration(jitter);
    Err(TriggerError::invalid("jitter", format!("it is {jitter}; give it 1ms or more, or leave it out")))
}

/// The options as stored; JSON members of the same names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named::start_at")]
    pub(crate) start_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named::end_at")]
    pub(crate) end_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "timezone")]
    pub(crate) zone: Option<Zone>,
    #[serde(default, skip_serializing_if = "Duration::is_zero", with = "seconds")]
    pub(crate) jitter: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gap: Option<Gap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fold: Option<Fold>,
}

impl Limits {
    #[inline]
    pub(crate) fn zone(&self, cx: &Context<'_>) -> Zone {
        self.zone.unwrap_or(cx.zone)
    }

    /// The rules of its zone.
    #[inline]
    pub(crate) fn rules<'a>(&self, cx: &Context<'a>) -> Result<&'a Rules, SearchError> {
        cx.rules(self.zone(cx))
    }

    /// The end, where there is one and it can be told.
    pub(crate) fn end(&self, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        self.end_at?.known(|| self.rules(cx).ok())
    }

    /// The start, where there is one and it can be told.
    pub(crate) fn start(&self, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        self.start_at?.known(|| self.rules(cx).ok())
    }

    /// Refuses an end before the start, where both can be compared without a scheduler's zone.
    pub(crate) fn ordered(&self) -> Result<(), TriggerError> {
        let before = match (self.start_at, self.end_at) {
            (Some(Moment::Naive(start)), Some(Moment::Naive(end))) => end < start,
            (Some(Moment::Exact(start)), Some(Moment::Exact(end))) => end < start,
            // By which rules a wall time will be read is not known here, only about when it is.
            (Some(start), Some(end)) => {
                let rules = || Zones::bundled().rules(self.zone?);
                let about = |moment: Moment| moment.known(rules);
                about(end).zip(about(start)).is_some_and(|(end, start)| end + ABOUT < start)
            }
            _ => false,
        };
        match (before, self.start_at, self.end_at) {
            (true, Some(start), Some(end)) => Err(TriggerError::invalid(
                "end_at",
                format!("{end} lies before start_at {start}; it has to be at or after it"),
            )),
            _ => Ok(()),
        }
    }

    /// The text after a pattern: ` in Europe/Lisbon from … until … jitter 30s`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(zone) = self.zone {
            write!(f, " in {}", zone.name())?;
        }
        if let Some(start) = self.start_at {
            write!(f, " from {start}")?;
        }
        if let Some(end) = self.end_at {
            write!(f, " until {end}")?;
        }
        if !self.jitter.is_zero() {
            write!(f, " jitter {}", text::duration(self.jitter))?;
        }
        match self.gap {
            Some(Gap::FireAfter) => f.write_str(" gap fire_after")?,
            Some(Gap::Skip) => f.write_str(" gap skip")?,
            None => {}
        }
        match self.fold {
            Some(Fold::First) => f.write_str(" fold first"),
            Some(Fold::Second) => f.write_str(" fold second"),
            Some(Fold::Both) => f.write_str(" fold both"),
            None => Ok(()),
        }
    }
}

/// Durations in JSON: a number of seconds, with a fraction where needed.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match length.subsec_nanos() {
            0 => serializer.serialize_u64(length.as_secs()),
            _ => serializer.serialize_f64(length.as_secs_f64()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?.unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom(format!("{seconds} is not a length of time in seconds, 0 or more")))
    }
}
