//! A point in time as users write it, with or without an offset.

use std::fmt;
use std::str::FromStr;

use chrono::{
    DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, SecondsFormat, TimeZone, Timelike,
    Utc,
};
use serde::{Deserialize, Serialize};

use super::TriggerError;
use super::zone::Rules;

/// A point in time: an instant, or a naive wall-clock time that is read in the trigger's own
/// zone, else in the scheduler's.
///
/// A naive time inside a fold is the first pass; inside a gap it is the gap's end. As text:
/// `2026-05-01T12:00:00`, `2026-05-01 12:00`, `2026-05-01` (midnight), `2026-05-01T12:00:00Z`,
/// `2026-05-01T12:00Z`, `2026-05-01T12:00:00.5+02:00`.
///
/// ```
/// use callboard::trigger::{Moment, Zones};
///
/// let moment: Moment = "2026-05-01 12:00".parse()?;
/// assert_eq!(moment.to_string(), "2026-05-01T12:00:00");
/// let berlin = Zones::bundled().rules(chrono_tz::Europe::Berlin).unwrap();
/// assert_eq!(moment.instant(berlin).to_rfc3339(), "2026-05-01T10:00:00+00:00");
/// # Ok::<(), callboard::trigger::TriggerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Moment {
    /// A wall-clock time without a zone.
    Naive(NaiveDateTime),
    /// An instant.
    Exact(DateTime<FixedOffset>),
}

impl Moment {
    /// The instant it stands for where naive times are read in a zone that has these rules.
    pub fn instant(&self, rules: &Rules) -> DateTime<Utc> {
        match self {
            Moment::Exact(at) => at.with_timezone(&Utc),
            Moment::Naive(naive) => rules.instant(*naive),
        }
    }

    /// The instant it stands for where naive times are read in UTC.
    pub(crate) fn in_utc(&self) -> DateTime<Utc> {
        match self {
            Moment::Exact(at) => at.with_timezone(&Utc),
            Moment::Naive(naive) => naive.and_utc(),
        }
    }

    /// The same where the rules may be unknown: an instant needs none.
    pub(crate) fn known<'a>(&self, rules: impl FnOnce() -> Option<&'a Rules>) -> Option<DateTime<Utc>> {
        match self {
            Moment::Exact(at) => Some(at.with_timezone(&Utc)),
            Moment::Naive(naive) => Some(rules()?.instant(*naive)),
        }
    }
}

/// The second :60 does not exist on the clocks that schedules run by: it is the next one.
pub(crate) fn without_leap_second(at: DateTime<Utc>) -> DateTime<Utc> {
    match at.timestamp_subsec_nanos() {
        1_000_000_000.. => DateTime::from_timestamp(at.timestamp() + 1, 0).unwrap_or(at),
        _ => at,
    }
}

impl<Z: TimeZone> From<DateTime<Z>> for Moment {
    fn from(at: DateTime<Z>) -> Self {
        let offset = at.offset().fix();
        // Text has offsets in whole minutes: a local mean time is kept as UTC.
        let offset = if offset.local_minus_utc() % 60 == 0 { offset } else { Utc.fix() };
        Moment::Exact(without_leap_second(at.to_utc()).with_timezone(&offset))
    }
}

impl From<NaiveDateTime> for Moment {
    fn from(naive: NaiveDateTime) -> Self {
        Moment::Naive(without_leap_second(naive.and_utc()).naive_utc())
    }
}

impl From<NaiveDate> for Moment {
    fn from(date: NaiveDate) -> Self {
        Moment::Naive(date.into())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Naive(naive) if naive.nanosecond() == 0 => {
                write!(f, "{}", naive.format("%Y-%m-%dT%H:%M:%S"))
            }
            Moment::Naive(naive) => write!(f, "{}", naive.format("%Y-%m-%dT%H:%M:%S%.f")),
            Moment::Exact(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

impl FromStr for Moment {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let text = text.trim();
        let (naive, offset) = split_offset(text);
        let moment = parse_naive(naive).and_then(|naive| match offset {
            None => Some(naive.into()),
            // A date alone is no instant, whatever stands behind it.
            Some(_) if !text.contains(':') => None,
            Some(offset) => Some(parse_offset(offset)?.from_local_datetime(&naive).single()?.into()),
        });
        if let Some(moment) = moment {
            return Ok(moment);
        }
        Err(TriggerError::invalid(
            "time",
            format!(
                "`{text}` is not a date and time; write 2026-05-01T12:00:00, with Z or +02:00 after it for an instant"
            ),
        ))
    }
}

/// The offset at the end of a date and time, set apart.
fn split_offset(text: &str) -> (&str, Option<&str>) {
    // What has a sign before the time of day is the date.
    let sign = text.rfind(['+', '-']).filter(|at| text[..*at].contains(':'));
    let zulu = text.strip_suffix(['Z', 'z']).map(str::len);
    match zulu.or(sign) {
        Some(at) => (text[..at].trim_end(), Some(&text[at..])),
        None => (text, None),
    }
}

/// `2026-05-01T12:00:00.5`, without the fraction, without the seconds, or the date alone; a space may
/// stand for the `T`.
fn parse_naive(text: &str) -> Option<NaiveDateTime> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.into());
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time =
        ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|format| NaiveTime::parse_from_str(time, format).ok());
    Some(date.and_time(time?))
}

/// `Z`, `+02:00`, `-0330`.
fn parse_offset(text: &str) -> Option<FixedOffset> {
    if text.eq_ignore_ascii_case("z") {
        return Some(Utc.fix());
    }
    let (sign, rest) = text.split_at_checked(1)?;
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None => rest.split_at_checked(2)?,
    };
    let number = |text: &str| match text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<i32>().ok(),
        false => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?);
    let seconds = hours * 3600 + minutes * 60;
    FixedOffset::east_opt(if sign == "-" { -seconds } else { seconds })
}

impl TryFrom<String> for Moment {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, TriggerError> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.to_string()
    }
}

/// Deserializers that name the member in their errors.
pub(crate) mod named {
    use chrono::NaiveDate;
    use serde::{Deserialize, Deserializer, de::Error};

    use super::Moment;

    macro_rules! named {
        ($($name:ident: $type:ty, $parse:expr;)*) => {$(
            pub(crate) fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
                let text = Option::<String>::deserialize(deserializer)?;
                let parse = |text: String| $parse(&text).map_err(|why| D::Error::custom(format!("{}: {why}", stringify!($name))));
                text.map(parse).transpose()
            }
        )*};
    }

    fn moment(text: &str) -> Result<Moment, String> {
        text.parse().map_err(|error| match error {
            crate::trigger::TriggerError::Invalid { reason, .. } => reason,
            other => other.to_string(),
        })
    }

    fn date(text: &str) -> Result<NaiveDate, String> {
        NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d")
            .map_err(|_| format!("`{text}` is no date of the calendar; write 2026-05-01"))
    }

    named! {
        run_at: Moment, moment;
        start_at: Moment, moment;
        end_at: Moment, moment;
        start_date: NaiveDate, date;
        end_date: NaiveDate, date;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_seconds_and_an_offset_or_not() {
        for (text, read) in [
            ("2026-12-31T09:00Z", "2026-12-31T09:00:00Z"),
            ("2026-12-31t09:00z", "2026-12-31T09:00:00Z"),
            ("2026-12-31 09:00Z", "2026-12-31T09:00:00Z"),
            ("2026-12-31T09:00+02:00", "2026-12-31T09:00:00+02:00"),
            ("2026-12-31 09:00 -03:30", "2026-12-31T09:00:00-03:30"),
            ("2026-12-31T09:00:05-0330", "2026-12-31T09:00:05-03:30"),
            ("2026-12-31T09:00:05.5Z", "2026-12-31T09:00:05.500Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2026-12-31T09:00", "2026-12-31T09:00:00"),
            ("2026-12-31 09:00:05", "2026-12-31T09:00:05"),
            ("2026-12-31", "2026-12-31T00:00:00"),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().to_string(), read, "{text}");
        }
        for wrong in [
            "",
            "Z",
            "09:00",
            "09:00Z",
            "2026-12-31Z",
            "2026-12-31+02:00",
            "2026-12-31T09",
            "2026-12-31T09Z",
            "2026-12-31T09:00+2",
            "2026-12-31T09:00+02:60",
            "2026-12-31T09:00+24:00",
            "2026-12-31T09:00ZZ",
            "2026-12-31T25:00Z",
            "2026-02-30T09:00Z",
            "2026-12-31T09:00é",
            "2026-12-31T09:00+é0:00",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
