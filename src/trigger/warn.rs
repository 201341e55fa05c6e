//! Warnings: triggers that are valid and yet may not mean what they say; and why one never fires.

use std::fmt::{self, Write as _};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::cron::field::{Field, Item};
use super::cron::search::{Pattern, Sets, month_length};
use super::describe::clock;
use super::limits::Limits;
use super::zone::{DAY, Fold, Gap, Zone};
use super::{Context, Trigger};

/// Something about a trigger that its author may not have meant. It fires all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// In words, with the dates and what to write instead.
    pub message: String,
}

/// The kinds of [`Warning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// It has no run at or after the [anchor](Context::anchor).
    NeverFires,
    /// A fixed time falls into a stretch that the clock will skip; the run moves to its end.
    InGap,
    /// A pattern that follows real time has no run on a day because all of them lie in a gap.
    LostInGap,
    /// A fixed time falls into a stretch that the clock will repeat; it runs once.
    InFold,
    /// A fixed-time pattern covers all hours, and so is silent while the clock repeats one.
    CoversAllHours,
    /// A day of the month that some months do not have.
    ShortMonths,
    /// Day of month and weekday are both restricted: either one suffices.
    BothDays,
    /// A `*` in a list makes the other items of the list pointless.
    StarInList,
    /// It runs every second.
    EverySecond,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn warn(kind: WarningKind, message: impl Into<String>) -> Warning {
    Warning { kind, message: message.into() }
}

/// How far ahead changes of the clock are looked at.
const AHEAD: i64 = 3 * 366 * DAY;

pub(super) fn of(trigger: &Trigger, cx: &Context<'_>) -> Vec<Warning> {
    if let Ok(None) = trigger.next(cx.anchor, cx)
        && !trigger.on_shutdown()
    {
        let message = format!("it never fires: {}", never(trigger, cx.anchor, cx));
        return vec![warn(WarningKind::NeverFires, message)];
    }
    let mut list = Vec::new();
    collect(trigger, cx, &mut list);
    list.dedup();
    list
}

fn collect(trigger: &Trigger, cx: &Context<'_>, list: &mut Vec<Warning>) {
    match trigger {
        Trigger::Cron(cron) => {
            stars(&cron.fields(), list);
            pattern(cron.pattern(), cron.limits(), cx, list);
        }
        Trigger::Crontab(crontab) => {
            stars(&crontab.fields(), list);
            pattern(crontab.pattern(), crontab.limits(), cx, list);
        }
        Trigger::Quartz(quartz) => pattern(quartz.pattern(), quartz.limits(), cx, list),
        Trigger::CalendarInterval(interval) => {
            let time = interval.time();
            let at = |wall: i64| wall.div_euclid(DAY) * DAY + time;
            changes(
                interval.zone(cx).name(),
                Zone::of(interval.zone(cx)),
                cx,
                interval.gap(),
                Fold::First,
                &at,
                list,
            );
        }
        Trigger::Interval(interval) if interval.length() <= TimeDelta::seconds(1) => {
            list.push(every_second())
        }
        Trigger::And(and) => and.triggers().iter().for_each(|part| collect(part, cx, list)),
        Trigger::Or(or) => or.triggers().iter().for_each(|part| collect(part, cx, list)),
        Trigger::Except(except) => collect(except.trigger(), cx, list),
        Trigger::Interval(_) | Trigger::Date(_) | Trigger::Custom(_) | Trigger::Shutdown => {}
    }
}

fn every_second() -> Warning {
    warn(WarningKind::EverySecond, "it runs every second")
}

fn stars(fields: &[Field], list: &mut Vec<Warning>) {
    for field in fields {
        let star = field.items.iter().any(|item| matches!(item, Item::Star { .. }));
        if !star || field.items.len() < 2 {
            continue;
        }
        let name = field.kind.name();
        let message = match field.items.contains(&Item::Star { step: 1 }) {
            true => format!("{name}: `*` stands in a list, so the other items say nothing"),
            false => format!(
                "{name}: one item of the list is written with `*`, so the whole pattern follows real time through changes of the clock"
            ),
        };
        list.push(warn(WarningKind::StarInList, message));
    }
}

fn pattern(pattern: &Pattern, limits: &Limits, cx: &Context<'_>, list: &mut Vec<Warning>) {
    let sets = pattern.resolved(cx.key);
    if sets.seconds.count_ones() == 60 {
        list.push(every_second());
    }
    if sets.either {
        let message = "day of month and weekday are both restricted: it runs on days that match either; write `+` before the weekday for both";
        list.push(warn(WarningKind::BothDays, message));
    }
    short_months(&sets, list);
    if pattern.fold == Fold::First && sets.hours == 0xff_ffff && limits.fold.is_none() {
        let message = "its hours are fixed and cover the whole day: it is silent while the clock repeats an hour; write `*` for the hour to run then too";
        list.push(warn(WarningKind::CoversAllHours, message));
    }
    let zone = limits.zone(cx);
    if sets.hours == 0xff_ffff && pattern.gap == Gap::Skip {
        // Every hour of the day: a change of the clock has no surprise in it.
        return;
    }
    let next = |wall: i64| pattern.wall(wall, cx.key).unwrap_or(i64::MAX);
    changes(zone.name(), Zone::of(zone), cx, pattern.gap, pattern.fold, &next, list);
}

fn short_months(sets: &Sets, list: &mut Vec<Warning>) {
    // A range or a step that goes to the end of the month is meant to.
    let days = if sets.days.count_ones() <= 7 { sets.days } else { 0 };
    let days = days | sets.nearest;
    let months: Vec<u32> = (1..=12).filter(|month| sets.months >> month & 1 == 1).collect();
    for day in (29..=31).filter(|day| days >> day & 1 == 1) {
        let without: Vec<u32> =
            months.iter().copied().filter(|month| month_length(2025, *month) < day).collect();
        if without.is_empty() || (days == sets.days && sets.from_last & 1 == 1) {
            continue;
        }
        let message = if day == 29 {
            "29 February comes in leap years only; write `L` for the last day of the month".to_string()
        } else {
            format!(
                "{} of its months have no day {day} and no run; write `L` for the last day of the month",
                without.len()
            )
        };
        list.push(warn(WarningKind::ShortMonths, message));
    }
}

/// Looks at the coming changes of the clock; `next` gives the first wall time that matches.
fn changes(
    name: &str,
    zone: &Zone,
    cx: &Context<'_>,
    gap: Gap,
    fold: Fold,
    next: &dyn Fn(i64) -> i64,
    list: &mut Vec<Warning>,
) {
    let now = cx.anchor.timestamp();
    let (mut in_gap, mut in_fold) = (false, false);
    for k in zone.at(now) + 1..zone.segments().len() {
        let (before, after) = (zone.segment(k - 1), zone.segment(k));
        if before.end > now + AHEAD {
            break;
        }
        let date =
            |wall: i64| DateTime::from_timestamp(wall, 0).map(|at| at.date_naive()).unwrap_or(NaiveDate::MIN);
        let time = |wall: i64| clock(wall.rem_euclid(DAY) as u32);
        if before.wall_end < after.wall_start && !in_gap {
            let found = next(before.wall_end);
            if !(before.wall_end..after.wall_start).contains(&found) || zone.date_skipped(k, found) {
                continue;
            }
            if gap == Gap::FireAfter {
                in_gap = true;
                let message = format!(
                    "{} does not exist on {} in {name}: the run is at {} that day",
                    time(found),
                    date(found),
                    time(after.wall_start)
                );
                list.push(warn(WarningKind::InGap, message));
            } else {
                let midnight = before.wall_end.div_euclid(DAY) * DAY;
                let earlier = next(midnight) < before.wall_end;
                let later = next(after.wall_start) < midnight + DAY;
                if !earlier && !later {
                    in_gap = true;
                    let message = format!(
                        "it has no run on {} in {name}, because the clock skips {} to {}; a list of minutes in place of `*` would run once",
                        date(found),
                        time(before.wall_end),
                        time(after.wall_start)
                    );
                    list.push(warn(WarningKind::LostInGap, message));
                }
            }
        } else if before.wall_end > after.wall_start && fold != Fold::Both && !in_fold {
            let found = next(after.wall_start);
            if (after.wall_start..before.wall_end).contains(&found) {
                in_fold = true;
                let pass = if fold == Fold::First { "first" } else { "second" };
                let message = format!(
                    "{} comes twice on {} in {name}: it runs the {pass} time only",
                    time(found),
                    date(found)
                );
                list.push(warn(WarningKind::InFold, message));
            }
        }
    }
}

/// Why a trigger has no run at or after `from`.
pub(super) fn never(trigger: &Trigger, from: DateTime<Utc>, cx: &Context<'_>) -> String {
    match trigger {
        Trigger::Date(date) => format!("its only time, {}, has passed", date.instant(cx)),
        Trigger::Interval(interval) => match interval.limits().end(interval.limits().zone(cx)) {
            _ if interval.length() <= TimeDelta::zero() => "its length is zero".into(),
            Some(end) if end < interval.start(cx) => {
                format!("its end, {end}, lies before its start")
            }
            Some(end) => format!("its end, {end}, leaves no run"),
            None => "the calendar ends with the year 9999".into(),
        },
        Trigger::Cron(cron) => never_pattern(cron.pattern(), cron.limits(), cx),
        Trigger::Crontab(crontab) => never_pattern(crontab.pattern(), crontab.limits(), cx),
        Trigger::Quartz(quartz) => never_pattern(quartz.pattern(), quartz.limits(), cx),
        Trigger::CalendarInterval(interval) => match interval.dates().1 {
            Some(end) => format!("no date of the series is left before its end, {end}"),
            None => "no date of the series is left before the year 10000".into(),
        },
        Trigger::And(and) => {
            let ended = and.triggers().iter().find(|part| part.next(from, cx) == Ok(None));
            match ended {
                Some(part) => format!("one of its parts never fires: {}", never(part, from, cx)),
                None => {
                    let mut reason = "its parts never run at the same time".to_string();
                    if let Some(floating) = and.triggers().iter().find_map(floating) {
                        let _ = write!(
                            reason,
                            "; `{floating}` counts from the moment it was set, so give it a start: `{floating} from 2026-01-01T00:00:00`"
                        );
                    }
                    reason
                }
            }
        }
        Trigger::Or(or) => {
            let reasons: Vec<String> = or.triggers().iter().map(|part| never(part, from, cx)).collect();
            reasons.join("; ")
        }
        Trigger::Except(except) => match except.trigger().next(from, cx) {
            Ok(None) => never(except.trigger(), from, cx),
            _ => "every run is left out".into(),
        },
        Trigger::Custom(custom) => {
            format!("the custom trigger `{}` has no more runs", custom.name())
        }
        Trigger::Shutdown => "it runs when the scheduler shuts down only".into(),
    }
}

/// The length of an interval, at any depth, whose grid hangs on the anchor.
fn floating(trigger: &Trigger) -> Option<String> {
    match trigger {
        Trigger::Interval(interval) if interval.limits().start_at.is_none() => {
            Some(format!("every {}", super::text::duration(interval.length().to_std().unwrap_or_default())))
        }
        Trigger::And(and) => and.triggers().iter().find_map(floating),
        Trigger::Or(or) => or.triggers().iter().find_map(floating),
        Trigger::Except(except) => floating(except.trigger()),
        _ => None,
    }
}

fn never_pattern(pattern: &Pattern, limits: &Limits, cx: &Context<'_>) -> String {
    if !pattern.possible(cx.key) {
        return impossible(&pattern.resolved(cx.key));
    }
    let zone = limits.zone(cx);
    match (limits.start_at.map(|start| start.instant(zone)), limits.end(zone)) {
        (Some(start), Some(end)) if end < start => {
            format!("its end, {end}, lies before its start, {start}")
        }
        (_, Some(end)) => format!("its end, {end}, leaves no run"),
        _ if !pattern.years().is_empty() => "no date of its years lies ahead".into(),
        _ => "no date lies ahead".into(),
    }
}

/// Why no date of the calendar matches.
fn impossible(sets: &Sets) -> String {
    let months: Vec<u32> = (1..=12).filter(|month| sets.months >> month & 1 == 1).collect();
    let longest = months.iter().map(|month| month_length(2024, *month)).max().unwrap_or(0);
    let first = (sets.days | sets.nearest).trailing_zeros();
    let by_day = sets.from_last == 0 && !sets.last_workday && sets.day_nth == [0; 7] && sets.day_last_of == 0;
    if by_day && first > longest {
        let names: Vec<&str> =
            months.iter().map(|month| super::describe::MONTHS[*month as usize - 1]).collect();
        let has = if names.len() == 1 { "has" } else { "have" };
        return format!("{} {has} no day {first}", names.join(", "));
    }
    "no date of the calendar matches all of its fields".into()
}
