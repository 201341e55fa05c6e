//! Times as they are handed out: an instant, and what the clocks of a zone show then.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{TriggerError, Zone};

/// An instant, with the offset that its zone had by the rules in force when it was told, and the name
/// of the zone.
///
/// It keeps its offset: rules that change afterwards do not change it. As text and in JSON it is
/// RFC 9557, `2026-11-30T09:00:00-07:00[America/Vancouver]`; [`to_rfc3339`](Self::to_rfc3339) leaves
/// the name out. Times are ordered by their instants.
///
/// ```
/// use callboard::trigger::{ZonedTime, Zones};
/// use chrono::{DateTime, Utc};
///
/// let at: DateTime<Utc> = "2026-11-30T16:00:00Z".parse().unwrap();
/// let time = Zones::bundled().time(at, chrono_tz::America::Vancouver);
/// assert_eq!(time.to_string(), "2026-11-30T09:00:00-07:00[America/Vancouver]");
/// assert_eq!(time.to_string().parse::<ZonedTime>()?, time);
/// assert_eq!(DateTime::<Utc>::from(time), at);
/// # Ok::<(), callboard::trigger::TriggerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZonedTime {
    at: DateTime<Utc>,
    offset: FixedOffset,
    zone: Zone,
}

impl ZonedTime {
    pub(crate) fn new(at: DateTime<Utc>, offset: FixedOffset, zone: Zone) -> Self {
        Self { at, offset, zone }
    }

    pub(super) fn utc(at: DateTime<Utc>) -> Self {
        Self::new(at, Utc.fix(), Zone::UTC)
    }

    /// The instant.
    pub fn to_utc(&self) -> DateTime<Utc> {
        self.at
    }

    /// The instant with the offset.
    pub fn fixed_offset(&self) -> DateTime<FixedOffset> {
        self.at.with_timezone(&self.offset)
    }

    /// The offset from UTC that was in force.
    pub fn offset(&self) -> FixedOffset {
        self.offset
    }

    /// The zone.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// What the clock shows.
    pub fn naive_local(&self) -> NaiveDateTime {
        self.at.naive_utc().checked_add_offset(self.offset).unwrap_or(self.at.naive_utc())
    }

    /// `2026-11-30T09:00:00-07:00`. An offset with seconds (local mean time) keeps them.
    pub fn to_rfc3339(&self) -> String {
        format!("{}{}", self.naive_local().format("%Y-%m-%dT%H:%M:%S%.f"), self.offset)
    }

    /// The wall time in a format of chrono's `strftime`.
    #[cfg(feature = "cli")]
    pub(crate) fn format(&self, format: &str) -> String {
        self.fixed_offset().format(format).to_string()
    }
}

impl PartialOrd for ZonedTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ZonedTime {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |time: &Self| (time.at, time.zone, time.offset.local_minus_utc());
        key(self).cmp(&key(other))
    }
}

impl<Z: TimeZone> PartialEq<DateTime<Z>> for ZonedTime {
    fn eq(&self, other: &DateTime<Z>) -> bool {
        self.at == *other
    }
}

impl From<ZonedTime> for DateTime<Utc> {
    fn from(time: ZonedTime) -> Self {
        time.at
    }
}

impl From<ZonedTime> for DateTime<FixedOffset> {
    fn from(time: ZonedTime) -> Self {
        time.fixed_offset()
    }
}

impl fmt::Display for ZonedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.to_rfc3339(), self.zone)
    }
}

impl FromStr for ZonedTime {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let invalid = || {
            let reason = format!(
                "`{text}` is no time with a zone; write it like 2026-11-30T09:00:00-07:00[America/Vancouver]"
            );
            TriggerError::invalid("time", reason)
        };
        let (time, zone) =
            text.strip_suffix(']').and_then(|text| text.split_once('[')).ok_or_else(invalid)?;
        let zone = Zone::named(zone)?;
        // An offset with seconds is beyond RFC 3339.
        let at = ["%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f%::z"]
            .into_iter()
            .find_map(|format| DateTime::parse_from_str(time, format).ok())
            .ok_or_else(invalid)?;
        Ok(Self::new(at.to_utc(), *at.offset(), zone))
    }
}

impl Serialize for ZonedTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ZonedTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
