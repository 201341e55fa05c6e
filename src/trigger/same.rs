//! Whether two triggers have the same run times, whatever they are written like.

use super::limits::Limits;
use super::{Moment, Trigger, Zone, Zones};

/// A trigger and the zone in which it is read where it names none.
type Read<'a> = (&'a Trigger, Zone);

/// Whether two triggers have the same run times for a task. A zone means nothing to an interval, nor a
/// zone by name to what had it already.
pub(super) fn times((a, zone_a): Read<'_>, (b, zone_b): Read<'_>) -> bool {
    let all = |a: &[Trigger], b: &[Trigger]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| times((a, zone_a), (b, zone_b)))
    };
    match (a, b) {
        (Trigger::Date(a), Trigger::Date(b)) => {
            let zones = (a.own_zone().unwrap_or(zone_a), b.own_zone().unwrap_or(zone_b));
            same_moment((a.run_at(), zones.0), (b.run_at(), zones.1))
        }
        (Trigger::Interval(a), Trigger::Interval(b)) => {
            a.length() == b.length() && same_limits((a.limits(), zone_a), (b.limits(), zone_b), false)
        }
        (Trigger::Cron(a), Trigger::Cron(b)) => {
            a.pattern() == b.pattern() && same_limits((a.limits(), zone_a), (b.limits(), zone_b), true)
        }
        (Trigger::Crontab(a), Trigger::Crontab(b)) => {
            a.pattern() == b.pattern() && same_limits((a.limits(), zone_a), (b.limits(), zone_b), true)
        }
        (Trigger::Quartz(a), Trigger::Quartz(b)) => {
            a.pattern() == b.pattern() && same_limits((a.limits(), zone_a), (b.limits(), zone_b), true)
        }
        (Trigger::CalendarInterval(a), Trigger::CalendarInterval(b)) => {
            a.in_zone(zone_a) == b.in_zone(zone_b)
        }
        (Trigger::And(a), Trigger::And(b)) => {
            a.tolerance() == b.tolerance() && all(a.triggers(), b.triggers())
        }
        (Trigger::Or(a), Trigger::Or(b)) => all(a.triggers(), b.triggers()),
        (Trigger::Except(a), Trigger::Except(b)) => {
            let read = |trigger: &Trigger, zone| {
                trigger.zone(&super::Context::new(zone, chrono::DateTime::UNIX_EPOCH, ""))
            };
            let dated = !(a.dates().is_empty() && a.ranges().is_empty());
            let days = !dated || read(a.trigger(), zone_a) == read(b.trigger(), zone_b);
            days && a.dates() == b.dates()
                && a.ranges() == b.ranges()
                && times((a.trigger(), zone_a), (b.trigger(), zone_b))
                && all(a.triggers(), b.triggers())
        }
        // What it makes of the zone is its own affair.
        (Trigger::Custom(a), Trigger::Custom(b)) => a == b && zone_a == zone_b,
        (Trigger::Shutdown, Trigger::Shutdown) => true,
        _ => false,
    }
}

fn same_moment((a, zone_a): (Option<Moment>, Zone), (b, zone_b): (Option<Moment>, Zone)) -> bool {
    match (a, b) {
        // By whatever rules they are read.
        (Some(Moment::Naive(a)), Some(Moment::Naive(b))) if zone_a == zone_b => a == b,
        _ => {
            let at = |moment: Option<Moment>, zone: Zone| moment?.known(|| Zones::bundled().rules(zone));
            a.is_some() == b.is_some() && at(a, zone_a) == at(b, zone_b)
        }
    }
}

fn same_limits((a, zone_a): (&Limits, Zone), (b, zone_b): (&Limits, Zone), on_the_wall: bool) -> bool {
    let (zone_a, zone_b) = (a.zone.unwrap_or(zone_a), b.zone.unwrap_or(zone_b));
    (!on_the_wall || zone_a == zone_b)
        && same_moment((a.start_at, zone_a), (b.start_at, zone_b))
        && same_moment((a.end_at, zone_a), (b.end_at, zone_b))
        && (a.jitter, a.gap, a.fold) == (b.jitter, b.gap, b.fold)
}

#[cfg(test)]
mod tests {
    use chrono_tz::{
        Europe::{Berlin, Lisbon},
        Tz, UTC,
    };

    use super::*;

    fn same(a: &str, zone_a: Tz, b: &str, zone_b: Tz) -> bool {
        let (zone_a, zone_b) = (zone_a.into(), zone_b.into());
        let (a, b): (Trigger, Trigger) = (a.parse().unwrap(), b.parse().unwrap());
        times((&a, zone_a), (&b, zone_b))
    }

    #[test]
    fn a_zone_counts_where_a_trigger_reads_it() {
        for (text, reads) in [
            ("every 1h", false),
            ("every 1h in Europe/Rome", false),
            ("every 1h from 2027-01-01T00:00:00Z", false),
            ("every 1h from 2027-01-01T00:00:00", true),
            ("every 1h until 2027-01-01T00:00:00", true),
            ("0 9 * * *", true),
            ("0 9 * * * in Europe/Rome", false),
            ("once at 2027-01-01T00:00:00Z", false),
            ("once at 2027-01-01T00:00:00", true),
            ("or(every 1h; every 7m)", false),
            ("or(every 1h; 0 9 * * *)", true),
            ("and(every 1h; every 7m)", false),
            ("except(every 1h; every 7m)", false),
            ("except(every 1h; 2027-01-01)", true),
        ] {
            assert_eq!(same(text, UTC, text, Berlin), !reads, "{text}");
            assert!(same(text, Berlin, text, Berlin), "{text}");
        }
    }

    #[test]
    fn what_is_written_differently_may_be_the_same() {
        assert!(same("0 9 * * *", Lisbon, "0 9 * * * in Europe/Lisbon", UTC));
        assert!(same("every 60m", UTC, "every 1h in Europe/Lisbon", Berlin));
        assert!(!same("every 1h", UTC, "every 1h jitter 5s", UTC));
        assert!(!same("every 1h", UTC, "every 2h", UTC));
        assert!(!same("every 1h", UTC, "0 * * * *", UTC));
    }
}
