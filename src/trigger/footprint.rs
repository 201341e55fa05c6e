//! Arithmetic over triggers: which moments of the week they can run at, and whether two of them
//! can ever meet.
//!
//! A [`Footprint`] is a superset: the minutes of the week and the seconds of the minute, in UTC,
//! at which a trigger can run at all. Where two footprints have nothing in common the triggers
//! never meet; where they have, the search has to find out.

use std::ops::{BitAnd, BitOr};

use chrono::{DateTime, TimeDelta, Utc};

use super::combine::HORIZON;
use super::cron::search::{Pattern, Sets};
use super::interval::nanos;
use super::limits::Limits;
use super::zone::{DAY, Gap, Rules, ceil_seconds};
use super::{Context, Trigger, Zone};

const MINUTES: i64 = 7 * 24 * 60;
const WEEK: i64 = 7 * DAY;
const SECONDS: u64 = (1 << 60) - 1;
const WORDS: usize = 158;

#[derive(Clone, Copy)]
struct Footprint {
    minutes: [u64; WORDS],
    seconds: u64,
}

impl Footprint {
    const NOTHING: Footprint = Footprint { minutes: [0; WORDS], seconds: 0 };
    const EVERYTHING: Footprint = Footprint { minutes: [u64::MAX; WORDS], seconds: SECONDS };

    fn mark(&mut self, minute: i64) {
        let minute = minute.rem_euclid(MINUTES) as usize;
        self.minutes[minute / 64] |= 1 << (minute % 64);
    }

    fn has(&self, minute: i64) -> bool {
        let minute = minute.rem_euclid(MINUTES) as usize;
        self.minutes[minute / 64] >> (minute % 64) & 1 == 1
    }

    /// A moment, in seconds since 1970, which began on a Thursday.
    fn instant(&mut self, at: i64) {
        let second = (at + 3 * DAY).rem_euclid(WEEK);
        self.mark(second / 60);
        self.seconds |= 1 << (second % 60);
    }

    /// Whether two can be within `tolerance` seconds of each other. Hours are not looked into.
    fn near(&self, other: &Footprint, tolerance: i64) -> bool {
        let same_second = self.seconds == other.seconds && self.seconds.count_ones() == 1;
        let minutes = if same_second { tolerance / 60 } else { tolerance.saturating_add(59) / 60 };
        if minutes > 120 {
            return !self.is_empty() && !other.is_empty();
        }
        let near = |minute: i64| (-minutes..=minutes).any(|away| other.has(minute + away));
        (0..MINUTES).any(|minute| self.has(minute) && near(minute))
    }

    fn is_empty(&self) -> bool {
        self.seconds == 0 || self.minutes.iter().all(|word| *word == 0)
    }

    fn of(trigger: &Trigger, at: i64, cx: &Context<'_>) -> Footprint {
        let mut marks = Footprint::NOTHING;
        match trigger {
            Trigger::Date(date) => match date.instant(cx) {
                Ok(at) => marks.instant(at.timestamp()),
                Err(_) => return Footprint::EVERYTHING,
            },
            Trigger::Interval(interval) => {
                let length = interval.step();
                let Ok(start) = interval.start(cx) else { return Footprint::EVERYTHING };
                if start.timestamp_subsec_nanos() != 0
                    || length.subsec_nanos() != 0
                    || length <= TimeDelta::zero()
                {
                    return Footprint::EVERYTHING;
                }
                let step = gcd(length.num_seconds().into(), WEEK.into()) as i64;
                let first = start.timestamp().rem_euclid(step);
                if step <= 60 {
                    marks = Footprint::EVERYTHING;
                    marks.seconds = 0;
                    let step = gcd(step.into(), 60) as i64;
                    (0..60)
                        .filter(|second| (second - first) % step == 0)
                        .for_each(|second| marks.seconds |= 1 << second);
                } else {
                    (0..WEEK / step).for_each(|k| marks.instant(first + k * step));
                }
            }
            Trigger::Cron(cron) => marks.pattern(cron.pattern(), cron.limits(), at, cx),
            Trigger::Crontab(crontab) => marks.pattern(crontab.pattern(), crontab.limits(), at, cx),
            Trigger::Quartz(quartz) => marks.pattern(quartz.pattern(), quartz.limits(), at, cx),
            Trigger::CalendarInterval(interval) => {
                let time = interval.time();
                let times = (0..7).map(|day| day * 1440 + time / 60);
                marks.walls(times, 1 << (time % 60), interval.zone(cx), at, cx);
            }
            Trigger::Or(or) => {
                for part in or.triggers() {
                    marks = marks | Footprint::of(part, at, cx);
                }
            }
            Trigger::And(and) if and.tolerance().is_zero() => {
                marks = Footprint::EVERYTHING;
                for part in and.triggers() {
                    marks = marks & Footprint::of(part, at, cx);
                }
            }
            Trigger::Except(except) => return Footprint::of(except.trigger(), at, cx),
            Trigger::Shutdown => {}
            Trigger::And(_) | Trigger::Custom(_) => return Footprint::EVERYTHING,
        }
        marks
    }

    fn pattern(&mut self, pattern: &Pattern, limits: &Limits, at: i64, cx: &Context<'_>) {
        let sets = pattern.resolved(cx.key);
        let mut weekdays = sets.weekdays | sets.last_of;
        for (weekday, nth) in sets.nth.iter().enumerate() {
            weekdays |= u8::from(*nth != 0) << weekday;
        }
        if sets.either {
            weekdays = 0x7f;
        }
        let times = (0..MINUTES).filter(|minute| {
            let (day, hour, minute) = (minute / 1440, minute / 60 % 24, minute % 60);
            weekdays >> day & 1 == 1 && sets.hours >> hour & 1 == 1 && sets.minutes >> minute & 1 == 1
        });
        self.walls(times, sets.seconds, limits.zone(cx), at, cx);
    }

    /// Minutes of the week on the wall clock of a zone, by the offset it has at an instant.
    fn walls(
        &mut self,
        minutes: impl Iterator<Item = i64>,
        seconds: u64,
        zone: Zone,
        at: i64,
        cx: &Context<'_>,
    ) {
        let Ok(rules) = cx.rules(zone) else {
            *self = Footprint::EVERYTHING;
            return;
        };
        let offset = rules.segment(rules.at(at)).offset;
        for minute in minutes {
            let second = minute * 60 - offset;
            self.mark(second.div_euclid(60));
            if offset % 60 != 0 {
                self.mark(second.div_euclid(60) + 1);
            }
        }
        self.seconds |= if offset % 60 == 0 { seconds } else { SECONDS };
    }
}

impl BitOr for Footprint {
    type Output = Footprint;

    fn bitor(mut self, other: Footprint) -> Footprint {
        self.minutes.iter_mut().zip(other.minutes).for_each(|(a, b)| *a |= b);
        self.seconds |= other.seconds;
        self
    }
}

impl BitAnd for Footprint {
    type Output = Footprint;

    fn bitand(mut self, other: Footprint) -> Footprint {
        self.minutes.iter_mut().zip(other.minutes).for_each(|(a, b)| *a &= b);
        self.seconds &= other.seconds;
        self
    }
}

/// Whether triggers can run within `tolerance` of each other from some time on.
///
/// Offsets from UTC matter, so time is cut where one of the zones changes its clock; each
/// combination of offsets is looked at once.
pub(super) fn can_meet(
    triggers: &[Trigger],
    tolerance: TimeDelta,
    from: DateTime<Utc>,
    cx: &Context<'_>,
) -> bool {
    let mut zones = Vec::new();
    triggers.iter().for_each(|trigger| collect_zones(trigger, cx, &mut zones));
    let from = ceil_seconds(from);
    // No search for a meeting goes farther.
    let until = from.saturating_add(HORIZON.num_seconds());
    let ends = zones.iter().flat_map(|zone| zone.changes(from, until));
    let mut cuts: Vec<i64> = ends.chain([from]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut known: Vec<Vec<i64>> = Vec::new();
    let mut before: Vec<Footprint> = Vec::new();
    for cut in cuts {
        // Runs that a gap moved to its end are in no footprint.
        let change = cut > from;
        if change && triggers.iter().all(|trigger| meets_at(trigger, cut, tolerance, cx)) {
            return true;
        }
        let offsets: Vec<i64> = zones.iter().map(|zone| zone.segment(zone.at(cut)).offset).collect();
        if known.contains(&offsets) {
            continue;
        }
        known.push(offsets);
        let footprints: Vec<Footprint> =
            triggers.iter().map(|trigger| Footprint::of(trigger, cut, cx)).collect();
        if tolerance.is_zero() {
            if !footprints.iter().fold(Footprint::EVERYTHING, |all, one| all & *one).is_empty() {
                return true;
            }
            continue;
        }
        // Runs on both sides of a change can be near each other: all offsets go together.
        before = match before.is_empty() {
            true => footprints,
            false => before.into_iter().zip(footprints).map(|(a, b)| a | b).collect(),
        };
    }
    // Fractions of a second count as a whole one.
    let seconds = tolerance.num_seconds().saturating_add(i64::from(tolerance.subsec_nanos() > 0));
    let mut pairs = before.iter().enumerate().flat_map(|(n, a)| before[n + 1..].iter().map(move |b| (a, b)));
    !before.is_empty() && pairs.all(|(a, b)| a.near(b, seconds))
}

/// The zones whose wall clocks a trigger looks at.
fn collect_zones<'a>(trigger: &Trigger, cx: &Context<'a>, zones: &mut Vec<&'a Rules>) {
    let zone = match trigger {
        Trigger::Cron(cron) => cron.limits().zone(cx),
        Trigger::Crontab(crontab) => crontab.limits().zone(cx),
        Trigger::Quartz(quartz) => quartz.limits().zone(cx),
        Trigger::CalendarInterval(interval) => interval.zone(cx),
        Trigger::Or(or) => {
            return or.triggers().iter().for_each(|part| collect_zones(part, cx, zones));
        }
        Trigger::And(and) => {
            return and.triggers().iter().for_each(|part| collect_zones(part, cx, zones));
        }
        Trigger::Except(except) => return collect_zones(except.trigger(), cx, zones),
        Trigger::Date(_) | Trigger::Interval(_) | Trigger::Custom(_) | Trigger::Shutdown => return,
    };
    zones.extend(cx.rules(zone));
}

/// Whether a trigger may run at an instant, or as near to it as the tolerance says.
fn meets_at(trigger: &Trigger, at: i64, tolerance: TimeDelta, cx: &Context<'_>) -> bool {
    let meets = |part: &Trigger| meets_at(part, at, tolerance, cx);
    let Some(at) = DateTime::from_timestamp(at, 0) else {
        return false;
    };
    let first = at.checked_sub_signed(tolerance).unwrap_or(at);
    let run = match trigger {
        Trigger::Or(or) => return or.triggers().iter().any(meets),
        Trigger::And(and) => return and.triggers().iter().all(meets),
        Trigger::Except(except) => return meets(except.trigger()),
        Trigger::Custom(_) => return true,
        simple => simple.next(first, cx),
    };
    run.ok().flatten().is_some_and(|run| run - at <= tolerance)
}

/// Two intervals that have no moment in common.
#[derive(Debug)]
pub(super) struct NeverMeet;

/// The moments that several intervals have in common: themselves an interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lattice {
    /// Nanoseconds since 1970.
    start: i128,
    step: i128,
}

impl Lattice {
    pub(super) fn next(&self, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let from = nanos(from - DateTime::UNIX_EPOCH);
        let behind = (self.start - from).rem_euclid(self.step);
        let at = from.checked_add(behind)?;
        let seconds = i64::try_from(at.div_euclid(1_000_000_000)).ok()?;
        DateTime::from_timestamp(seconds, at.rem_euclid(1_000_000_000) as u32)
    }
}

/// The common moments of the intervals among the triggers, by the Chinese remainder theorem.
/// `None` when there are none to combine, or the numbers grow too large.
pub(super) fn lattice(triggers: &[Trigger], cx: &Context<'_>) -> Result<Option<Lattice>, NeverMeet> {
    let mut all: Option<Lattice> = None;
    for trigger in triggers {
        let Trigger::Interval(interval) = trigger else {
            continue;
        };
        let Ok(start) = interval.start(cx) else { return Ok(None) };
        let one = Lattice { start: nanos(start - DateTime::UNIX_EPOCH), step: nanos(interval.step()) };
        if one.step <= 0 {
            continue;
        }
        let Some(both) = all else {
            all = Some(one);
            continue;
        };
        let (common, inverse) = extended_gcd(both.step, one.step);
        let apart = one.start - both.start;
        if apart % common != 0 {
            return Err(NeverMeet);
        }
        let turns = (apart / common).checked_mul(inverse).map(|turns| turns.rem_euclid(one.step / common));
        let start = turns
            .and_then(|turns| turns.checked_mul(both.step))
            .and_then(|offset| both.start.checked_add(offset));
        let step = (both.step / common).checked_mul(one.step);
        match (start, step) {
            (Some(start), Some(step)) => all = Some(Lattice { start, step }),
            _ => return Ok(None),
        }
    }
    Ok(all)
}

fn gcd(a: i128, b: i128) -> i128 {
    extended_gcd(a, b).0
}

/// The greatest common divisor of a and b, and x with a·x ≡ gcd (mod b).
fn extended_gcd(a: i128, b: i128) -> (i128, i128) {
    let (mut old, mut rest) = (a, b);
    let (mut x, mut next) = (1i128, 0i128);
    while rest != 0 {
        let quotient = old / rest;
        (old, rest) = (rest, old - quotient * rest);
        (x, next) = (next, x - quotient * next);
    }
    (old, x)
}

/// Whether every run of `inner` is also one of `outer`, as far as the fields tell.
pub(super) fn covers(outer: &Trigger, inner: &Trigger, cx: &Context<'_>) -> bool {
    if outer == inner {
        return true;
    }
    let part = |trigger: &Trigger| -> Option<(Sets, bool, Limits, Gap, super::Fold)> {
        let (pattern, limits) = match trigger {
            Trigger::Cron(cron) => (cron.pattern(), cron.limits()),
            Trigger::Crontab(crontab) => (crontab.pattern(), crontab.limits()),
            Trigger::Quartz(quartz) => (quartz.pattern(), quartz.limits()),
            _ => return None,
        };
        Some((
            pattern.resolved(cx.key),
            pattern.years().is_empty(),
            limits.clone(),
            pattern.gap,
            pattern.fold,
        ))
    };
    let (Some(outer), Some(inner)) = (part(outer), part(inner)) else {
        return false;
    };
    let (sets, every_year, limits, gap, fold) = outer;
    let unbounded = every_year && limits.start_at.is_none() && limits.end_at.is_none();
    let whole_day = |sets: &Sets| {
        sets.days == Sets::MIDNIGHT.days && sets.weekdays == 0x7f && sets.weeks == Sets::MIDNIGHT.weeks
    };
    let same_days = Sets { seconds: 0, minutes: 0, hours: 0, ..sets }
        == Sets { seconds: 0, minutes: 0, hours: 0, ..inner.0 };
    let days = same_days || (whole_day(&sets) && sets.months & inner.0.months == inner.0.months);
    let times = sets.seconds & inner.0.seconds == inner.0.seconds
        && sets.minutes & inner.0.minutes == inner.0.minutes
        && sets.hours & inner.0.hours == inner.0.hours;
    let clock = limits.zone(cx) == inner.2.zone(cx) && (gap, fold) == (inner.3, inner.4);
    unbounded && days && times && clock
}
