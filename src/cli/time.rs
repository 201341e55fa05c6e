//! Times as people write and read them.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};

use super::out;
use super::protocol::Rules;
use crate::clock::Clock;
use crate::timezones::{self, Timezones, TimezonesError};
use crate::trigger::{Moment, Zone, Zones};

/// For what is shown; what is planned has its own.
static RULES: RwLock<Option<Arc<Zones>>> = RwLock::new(None);

/// The rules by which the program reads clocks: the newest on the machine, unless others were set.
pub(super) fn rules() -> Arc<Zones> {
    let known = || RULES.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(rules) = known() {
        return rules;
    }
    let newest = match Timezones::Newest.load(Clock::system().now()) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| out::note(&format!("warning: {warning}")));
            loaded.zones
        }
        Err(_) => Zones::bundled().clone(),
    };
    RULES.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(newest).clone()
}

/// Has the program read clocks by these rules from now on.
pub(super) fn use_rules(rules: Arc<Zones>) {
    *RULES.write().unwrap_or_else(PoisonError::into_inner) = Some(rules);
}

/// Has the program show times by the rules that a service has in force, where they can be found.
pub(super) fn use_those_of(service: &Rules) {
    let Some(digest) = service.digest() else { return };
    let known = RULES.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|zones| zones.digest());
    if known == Some(digest) {
        return;
    }
    match timezones::of_digest(&service.release, digest) {
        Some(zones) => use_rules(zones),
        None => out::note(&format!(
            "warning: the service reads clocks by rules of time zones that are not found here ({}); times are shown \
             by those of {}",
            service.release,
            timezones::named(&rules())
        )),
    }
}

/// Has the program read clocks by the rules of a source, if it has not begun to yet.
pub(super) fn set_rules(source: &Timezones) -> Result<Arc<Zones>, TimezonesError> {
    let loaded = source.load(Clock::system().now())?;
    loaded.warnings.iter().for_each(|warning| out::note(&format!("warning: {warning}")));
    Ok(RULES.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(loaded.zones).clone())
}

/// A time with an offset, or one without that is read in `zone`.
pub(super) fn parse(text: &str, zone: Zone) -> Result<DateTime<Utc>, String> {
    let moment = text.parse::<Moment>().map_err(|_| {
        format!(
            "{text:?} is no time; write for instance 2027-03-28T02:30:00+02:00, or 2027-03-28T02:30 for the zone's own clock"
        )
    })?;
    // As in a trigger: the first pass of a repeated hour, the end of a skipped one.
    let rules = rules();
    let rules = rules.rules(zone).ok_or_else(|| format!("the database in use has no zone {zone}"))?;
    Ok(moment.instant(rules))
}

/// `Sat 2026-11-21 10:00:05 +00:00`.
pub(super) fn shown(time: DateTime<Utc>, zone: Zone) -> String {
    format!("{} {}", rules().time(time, zone).format("%a"), stamp(time, zone))
}

/// `2026-11-21 10:00:05 +00:00`.
pub(super) fn stamp(time: DateTime<Utc>, zone: Zone) -> String {
    let time = rules().time(time, zone);
    // The offset as it is: chrono's own form of it rounds those that have seconds.
    format!("{} {}", time.format("%Y-%m-%d %H:%M:%S"), time.offset())
}

/// The same with the offset that the clock had, where that is on record.
pub(super) fn shown_by(time: DateTime<Utc>, offset: Option<i64>, zone: Zone) -> String {
    let offset = offset.and_then(|offset| chrono::FixedOffset::east_opt(i32::try_from(offset).ok()?));
    match offset {
        Some(offset) => format!("{} {offset}", time.with_timezone(&offset).format("%a %Y-%m-%d %H:%M:%S")),
        None => shown(time, zone),
    }
}

/// `in 2h 5m`, `3s ago`: the two largest units.
pub(super) fn distance(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let span = time - now;
    match span {
        span if span.abs() < TimeDelta::milliseconds(500) => "now".to_owned(),
        span if span < TimeDelta::zero() => format!("{} ago", length(-span)),
        span => format!("in {}", length(span)),
    }
}

/// `1d 2h`, `5m 3s`, `12ms`.
pub(super) fn length(span: TimeDelta) -> String {
    let seconds = span.num_seconds();
    let two = |large: i64, a: &str, small: i64, b: &str| match small {
        0 => format!("{large}{a}"),
        _ => format!("{large}{a} {small}{b}"),
    };
    match seconds {
        0 => format!("{}ms", span.num_milliseconds()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// The zone of this name, for the command line.
pub(super) fn zone(text: &str) -> Result<Zone, String> {
    // A database that is newer than this program may have a name that it does not.
    let in_database = |_| {
        rules();
        Zone::named(text)
    };
    Zone::named(text).or_else(in_database).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        let berlin = Zone::from(chrono_tz::Europe::Berlin);
        let read = |text| parse(text, berlin).map(|time| time.to_rfc3339());
        assert_eq!(read("2027-03-27T02:30:00+02:00").unwrap(), "2027-03-27T00:30:00+00:00");
        assert_eq!(read("2027-03-27T02:30Z").unwrap(), "2027-03-27T02:30:00+00:00");
        assert_eq!(read("2027-03-27 02:30").unwrap(), "2027-03-27T01:30:00+00:00");
        assert_eq!(read("2027-03-27").unwrap(), "2027-03-26T23:00:00+00:00");
        assert_eq!(read("2027-03-28T02:30").unwrap(), "2027-03-28T01:00:00+00:00", "the end of the gap");
        assert_eq!(read("2027-10-31T02:30").unwrap(), "2027-10-31T00:30:00+00:00", "the first pass");
        assert!(read("tomorrow").unwrap_err().contains("no time"));
    }

    #[test]
    fn offsets_are_shown_to_the_second() {
        let at: DateTime<Utc> = "1960-01-01T00:44:30Z".parse().unwrap();
        let monrovia = Zone::named("Africa/Monrovia").unwrap();
        for shown in [shown(at, monrovia), shown_by(at, Some(-2670), Zone::UTC)] {
            assert_eq!(shown, "Fri 1960-01-01 00:00:00 -00:44:30");
        }
        let now: DateTime<Utc> = "2026-12-01T12:00:00Z".parse().unwrap();
        assert_eq!(stamp(now, Zone::named("Asia/Kolkata").unwrap()), "2026-12-01 17:30:00 +05:30");
    }

    #[test]
    fn distances_have_two_units() {
        let now = DateTime::UNIX_EPOCH;
        let shown = |seconds| distance(now + TimeDelta::seconds(seconds), now);
        assert_eq!(shown(0), "now");
        assert_eq!(shown(-5), "5s ago");
        assert_eq!(shown(3600 * 26 + 61), "in 1d 2h");
        assert_eq!(shown(7260), "in 2h 1m");
        assert_eq!(shown(180), "in 3m");
    }
}
