//! Triggers in plain English.

use std::fmt::Write as _;
use std::time::Duration;

use super::cron::field::{FIRST_YEAR, LAST_YEAR};
use super::cron::search::{Pattern, Sets};
use super::limits::Limits;
use super::{Context, Trigger};

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const EVERY_DAY: &str = " every day";

/// How many times of day are named one by one.
const FEW: u32 = 6;

pub(super) fn trigger(trigger: &Trigger, cx: &Context<'_>) -> String {
    let zone = || trigger.zone(cx).name();
    match trigger {
        Trigger::Date(date) => match date.run_at() {
            Some(_) => {
                let (Ok(at), Ok(rules)) = (date.instant(cx), cx.rules(date.zone(cx))) else {
                    let given = date.run_at().map(|at| at.to_string()).unwrap_or_default();
                    return format!("once at {given}, {}", zone());
                };
                let wall = rules.local(at);
                // The offset is said where the zone leaves two to choose from.
                let offset = match rules.is_repeated(wall) {
                    true => format!(" ({})", rules.offset(at)),
                    false => String::new(),
                };
                format!("once at {wall}{offset}, {}", zone())
            }
            None => "once, when it is set".into(),
        },
        Trigger::Interval(interval) => {
            let length = interval.length().to_std().unwrap_or_default();
            format!("every {}{}", each(length), bounds(interval.limits()))
        }
        Trigger::Cron(cron) => pattern(cron.pattern(), cron.limits(), cx),
        Trigger::Crontab(crontab) => pattern(crontab.pattern(), crontab.limits(), cx),
        Trigger::Quartz(quartz) => pattern(quartz.pattern(), quartz.limits(), cx),
        Trigger::CalendarInterval(interval) => {
            let units = ["year", "month", "week", "day"];
            let parts = interval.parts().into_iter().zip(units).filter(|(n, _)| *n > 0);
            let parts: Vec<String> = parts.map(|(n, unit)| many(n as u128, unit)).collect();
            let length = match &parts[..] {
                [one] => one.strip_prefix("1 ").unwrap_or(one).to_string(),
                _ => and(&parts),
            };
            let mut text = format!("every {length} at {}", clock(interval.time() as u32));
            let (start, end) = interval.dates();
            if let Some(start) = start {
                let _ = write!(text, " from {start}");
            }
            if let Some(end) = end {
                let _ = write!(text, " to {end}");
            }
            text + &jitter(interval.jitter()) + ", " + zone()
        }
        Trigger::And(and) => {
            let parts: Vec<String> = and.triggers().iter().map(|part| self::trigger(part, cx)).collect();
            let near = match and.tolerance() {
                Duration::ZERO => String::new(),
                tolerance => format!(" within {}", words(tolerance)),
            };
            format!("whenever these meet{near}: {}", parts.join("; and "))
        }
        Trigger::Or(or) => {
            let parts: Vec<String> = or.triggers().iter().map(|part| self::trigger(part, cx)).collect();
            parts.join("; or ")
        }
        Trigger::Except(except) => {
            let dates = except.dates().iter().map(|date| format!("on {date}"));
            let ranges = except.ranges().iter().map(|range| format!("in {range}"));
            let triggers = except.triggers().iter().map(|part| self::trigger(part, cx));
            let left_out: Vec<String> = dates.chain(ranges).chain(triggers).collect();
            let base = self::trigger(except.trigger(), cx);
            if left_out.is_empty() { base } else { format!("{base}; except {}", left_out.join("; nor ")) }
        }
        Trigger::Custom(custom) => custom.describe(),
        Trigger::Shutdown => "when the scheduler shuts down".into(),
    }
}

fn pattern(pattern: &Pattern, limits: &Limits, cx: &Context<'_>) -> String {
    let sets = pattern.resolved(cx.key);
    let mut text = times(&sets);
    let days = days(&sets);
    // "every minute" needs no "every day".
    if days != EVERY_DAY || sets.hours != 0xff_ffff {
        text += &days;
    }
    if sets.months != Sets::MIDNIGHT.months {
        let names = spans(u64::from(sets.months), |month| MONTHS[month as usize - 1].into());
        let _ = write!(text, " in {}", and(&names));
    }
    if sets.weeks != Sets::MIDNIGHT.weeks {
        let _ = write!(text, " in ISO week {}", and(&spans(sets.weeks, |week| week.to_string())));
    }
    let years: Vec<String> = pattern
        .years()
        .iter()
        .map(|range| match (range.from, range.to, range.step) {
            (from, to, _) if from == to => from.to_string(),
            (from, to, 1) => format!("{from} to {to}"),
            (FIRST_YEAR, LAST_YEAR, step) => {
                format!("every {} year from {FIRST_YEAR}", nth(step.into()))
            }
            (from, LAST_YEAR, step) => format!("every {} year from {from}", nth(step.into())),
            (from, to, step) => format!("every {} year from {from} to {to}", nth(step.into())),
        })
        .collect();
    if !years.is_empty() {
        let _ = write!(text, " in {}", and(&years));
    }
    text + &bounds(limits) + ", " + limits.zone(cx).name()
}

/// What is said about the numbers of a field.
enum Said {
    Every,
    EveryNth(u32),
    These(Vec<u32>),
}

fn said(bits: u64, size: u32) -> Said {
    let numbers: Vec<u32> = (0..64).filter(|n| bits >> n & 1 == 1).collect();
    if numbers.len() as u32 == size {
        return Said::Every;
    }
    // "Every 7 minutes" would be wrong at the end of each hour.
    if let [0, step, _, ..] = numbers[..]
        && size.is_multiple_of(step)
        && numbers.iter().copied().eq((0..size).step_by(step as usize))
    {
        return Said::EveryNth(step);
    }
    Said::These(numbers)
}

fn times(sets: &Sets) -> String {
    let (seconds, minutes, hours) =
        (said(sets.seconds, 60), said(sets.minutes, 60), said(sets.hours.into(), 24));
    if let (Said::These(s), Said::These(m), Said::These(h)) = (&seconds, &minutes, &hours)
        && (s.len() * m.len() * h.len()) as u32 <= FEW
    {
        let mut list = Vec::new();
        for hour in h {
            for minute in m {
                list.extend(s.iter().map(|second| clock(hour * 3600 + minute * 60 + second)));
            }
        }
        return format!("at {}", and(&list));
    }
    let in_hours = |text: String| match &hours {
        Said::Every => text,
        Said::EveryNth(n) => format!("{text} of every {} hour", nth(*n)),
        Said::These(list) => {
            let runs = runs(bits(list));
            if runs.len() > 2 {
                let hours = spans(bits(list), |hour| hour.to_string());
                return format!("{text} in the hours {}", and(&hours));
            }
            let runs: Vec<String> =
                runs.iter().map(|(first, last)| format!("from {first:02}:00 to {last:02}:59")).collect();
            format!("{text} {}", and(&runs))
        }
    };
    let list = |name: &str, numbers: &[u32]| {
        let plural = if numbers.len() > 1 { "s" } else { "" };
        format!("{name}{plural} {}", and(&spans(bits(numbers), |n| n.to_string())))
    };
    // From the smallest unit that says something to the largest.
    let by_minute = match (&minutes, &hours) {
        (Said::Every, _) => "every minute".into(),
        (Said::EveryNth(n), _) => format!("every {n} minutes"),
        (Said::These(m), Said::Every) => format!("at {} of every hour", list("minute", m)),
        (Said::These(m), _) => format!("at {}", list("minute", m)),
    };
    match &seconds {
        Said::These(s) if s[..] == [0] => in_hours(by_minute),
        Said::These(s) => match minutes {
            Said::Every => in_hours(format!("at {} of every minute", list("second", s))),
            _ => in_hours(format!("at {} of {}", list("second", s), by_minute.trim_start_matches("at "))),
        },
        Said::Every | Said::EveryNth(_) => {
            let each = match seconds {
                Said::EveryNth(n) => format!("every {n} seconds"),
                _ => "every second".into(),
            };
            match minutes {
                Said::Every => in_hours(each),
                _ => in_hours(format!("{each} of {}", by_minute.trim_start_matches("at "))),
            }
        }
    }
}

fn days(sets: &Sets) -> String {
    if sets.takes_every_date() {
        return EVERY_DAY.to_string();
    }
    let mut of_month: Vec<String> = Vec::new();
    let any_day = sets.days == Sets::MIDNIGHT.days;
    if !any_day {
        of_month.extend(spans(sets.days.into(), |day| format!("the {}", nth(day))));
        for back in (0..31).filter(|n| sets.from_last >> n & 1 == 1) {
            of_month.push(match back {
                0 => "the last day".into(),
                n => format!("the day {} before the last", many(n, "day")),
            });
        }
        if sets.last_workday {
            of_month.push("the last day from Monday to Friday".into());
        }
        let nearest = (1..32).filter(|day| sets.nearest >> day & 1 == 1);
        of_month
            .extend(nearest.map(|day| format!("the day from Monday to Friday nearest to the {}", nth(day))));
        of_month.extend(positions(&sets.day_nth, sets.day_last_of));
    }
    let mut of_week = Vec::new();
    let any_weekday = sets.weekdays == 0x7f;
    if !any_weekday {
        of_week.extend(spans(sets.weekdays.into(), |day| WEEKDAYS[day as usize].into()));
        let positions = positions(&sets.nth, sets.last_of);
        if !positions.is_empty() {
            of_week.push(format!("{} of the month", and(&positions)));
        }
    }
    let of_month = if of_month.is_empty() { None } else { Some(format!("{} of the month", and(&of_month))) };
    let of_week = if of_week.is_empty() { None } else { Some(and(&of_week)) };
    match (of_month, of_week) {
        (None, None) => " on no day".into(),
        (Some(day), None) | (None, Some(day)) => format!(" on {day}"),
        (Some(day), Some(weekday)) if sets.either => format!(" on {day} or on {weekday}"),
        (Some(day), Some(weekday)) => format!(" on {day}, if it is {weekday}"),
    }
}

fn positions(nth_of: &[u8; 7], last_of: u8) -> Vec<String> {
    let mut list = Vec::new();
    for (weekday, name) in WEEKDAYS.iter().enumerate() {
        list.extend(
            (1..=5).filter(|n| nth_of[weekday] >> n & 1 == 1).map(|n| format!("the {} {name}", nth(n))),
        );
        if last_of >> weekday & 1 == 1 {
            list.push(format!("the last {name}"));
        }
    }
    list
}

fn bounds(limits: &Limits) -> String {
    let mut text = String::new();
    if let Some(start) = limits.start_at {
        let _ = write!(text, " from {start}");
    }
    if let Some(end) = limits.end_at {
        let _ = write!(text, " to {end}");
    }
    text + &jitter(limits.jitter)
}

fn jitter(most: Duration) -> String {
    if most.is_zero() { String::new() } else { format!(", up to {} late", words(most)) }
}

/// `08:30`, `08:30:05`
pub(super) fn clock(second: u32) -> String {
    match second % 60 {
        0 => format!("{:02}:{:02}", second / 3600, second / 60 % 60),
        rest => format!("{:02}:{:02}:{rest:02}", second / 3600, second / 60 % 60),
    }
}

fn bits(numbers: &[u32]) -> u64 {
    numbers.iter().fold(0, |bits, n| bits | 1 << n)
}

/// The numbers in words, three or more in a row as "a to b".
fn spans(bits: u64, name: impl Fn(u32) -> String) -> Vec<String> {
    let mut list = Vec::new();
    for (first, last) in runs(bits) {
        match last - first {
            0 => list.push(name(first)),
            1 => list.extend([name(first), name(last)]),
            _ => list.push(format!("{} to {}", name(first), name(last))),
        }
    }
    list
}

/// The first and last number of each unbroken run.
fn runs(bits: u64) -> Vec<(u32, u32)> {
    let mut list: Vec<(u32, u32)> = Vec::new();
    for n in (0..64).filter(|n| bits >> n & 1 == 1) {
        match list.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => list.push((n, n)),
        }
    }
    list
}

fn and(list: &[String]) -> String {
    match list {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn nth(n: u32) -> String {
    let ending = match (n % 100, n % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

fn many(n: u128, unit: &str) -> String {
    if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") }
}

/// What comes after "every": one of a unit alone is just the unit.
fn each(length: Duration) -> String {
    let text = words(length);
    match text.strip_prefix("1 ") {
        Some(unit) if !unit.contains(' ') => unit.into(),
        _ => text,
    }
}

/// `15 minutes`, `2 hours and 30 minutes`, `90 seconds`
fn words(length: Duration) -> String {
    const UNITS: [(&str, u128); 8] = [
        ("week", 604_800_000_000_000),
        ("day", 86_400_000_000_000),
        ("hour", 3_600_000_000_000),
        ("minute", 60_000_000_000),
        ("second", 1_000_000_000),
        ("millisecond", 1_000_000),
        ("microsecond", 1_000),
        ("nanosecond", 1),
    ];
    let total = length.as_nanos();
    // One of a unit and some of the next smaller one: 90 seconds.
    for pair in UNITS.windows(2) {
        let ((_, large), (unit, small)) = (pair[0], pair[1]);
        if total / large == 1 && total != large && total.is_multiple_of(small) {
            return many(total / small, unit);
        }
    }
    let mut rest = total;
    let mut parts = Vec::new();
    for (unit, nanos) in UNITS {
        if rest >= nanos {
            parts.push(many(rest / nanos, unit));
            rest %= nanos;
        }
    }
    and(&parts)
}
