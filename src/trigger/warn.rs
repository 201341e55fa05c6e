//! Warnings: triggers that are valid and yet may not mean what they say; and why one never fires.

use std::fmt::{self, Write as _};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::cron::field::{Dialect, Field, Item, Kind};
use super::cron::search::{Pattern, Sets, month_length};
use super::describe::clock;
use super::limits::Limits;
use super::zone::{DAY, Fold, Gap};
use super::{Context, Trigger, Zone};

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
    /// A step that does not come out even at the end of its field, so that the rhythm breaks there.
    UnevenStep,
    /// It runs every second, or more often.
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
        Trigger::Cron(cron) => pattern(cron.pattern(), &cron.fields(), cron.limits(), cx, list),
        Trigger::Crontab(crontab) => {
            pattern(crontab.pattern(), &crontab.fields(), crontab.limits(), cx, list)
        }
        Trigger::Quartz(quartz) => pattern(quartz.pattern(), &quartz.fields(), quartz.limits(), cx, list),
        Trigger::CalendarInterval(interval) => {
            let time = interval.time();
            let at = |wall: i64| wall.div_euclid(DAY) * DAY + time;
            let rule = unless_chosen(interval.chosen(), (interval.gap(), Fold::First));
            changes(interval.zone(cx), cx, rule, &at, list);
        }
        Trigger::Interval(interval) if interval.length() < TimeDelta::seconds(1) => {
            list.push(warn(WarningKind::EverySecond, "it runs more than once a second"))
        }
        Trigger::Interval(interval) if interval.length() == TimeDelta::seconds(1) => {
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

/// Lists with a `*` among their items.
fn stars(fields: &[Field], limits: &Limits, list: &mut Vec<Warning>) {
    let is_star = |item: &Item| matches!(item, Item::Star { .. });
    let of_time = |field: &&Field| matches!(field.kind, Kind::Hour | Kind::Minute | Kind::Second);
    for field in fields {
        if field.items.len() < 2 || !field.items.iter().any(is_star) {
            continue;
        }
        let name = field.kind.name();
        if field.items.contains(&Item::Star { step: 1 }) {
            let message = format!("{name}: `*` stands in a list, so the other items say nothing");
            list.push(warn(WarningKind::StarInList, message));
            continue;
        }
        // Only a field of the time of day makes a pattern follow real time, and only what nothing else
        // does is a surprise.
        let others = fields.iter().filter(of_time).filter(|other| other.kind != field.kind);
        let alone = !others.flat_map(|other| &other.items).any(is_star);
        let chosen = limits.gap.is_some() && limits.fold.is_some();
        if of_time(&field) && alone && !chosen {
            let message = format!(
                "{name}: one item of the list is written with `*`, so the whole pattern follows real time through changes of the clock"
            );
            list.push(warn(WarningKind::StarInList, message));
        }
    }
}

/// Steps that do not come out even: `*/7` minutes are four apart at the end of the hour.
fn steps(fields: &[Field], list: &mut Vec<Warning>) {
    for field in fields {
        list.extend(field.items.iter().filter_map(|item| uneven(field.kind, *item)));
    }
}

fn uneven(kind: Kind, item: Item) -> Option<Warning> {
    // How many numbers come round, where that is always the same, and how an even rhythm is written.
    let (size, even) = match kind {
        Kind::Second => (Some(60), "every {}s"),
        Kind::Minute => (Some(60), "every {}m"),
        Kind::Hour => (Some(24), "every {}h"),
        Kind::DayOfWeek => (Some(7), "every {}d"),
        Kind::Month => (Some(12), "calendar {}mo at 09:00"),
        Kind::Day => (None, "calendar {}d at 09:00"),
        Kind::Week => (None, "calendar {}w at 09:00"),
        // Years do not come round.
        Kind::Year => return None,
    };
    let (min, max) = match kind {
        Kind::DayOfWeek => (0, 6),
        _ => kind.range(Dialect::Fields),
    };
    let (from, to, step) = match item {
        Item::Star { step } => (min, max, step),
        Item::Range { from, to, step } => (from, to, step),
        // Where the first number lies is up to the task's id: only the step tells.
        Item::Hash { from, to, step } if (from, to) == (min, max) && step > 0 => {
            return (size? % step != 0).then(|| step_warning(kind, step, even, "where the range ends"));
        }
        _ => return None,
    };
    if step < 2 {
        return None;
    }
    if to < max {
        // A range that its author has ended: that the rhythm ends there is what it says.
        let message = format!(
            "{}: the step {step} is larger than the range {from}-{to}: only {from} matches",
            kind.name()
        );
        return (from < to && step > to - from).then(|| warn(WarningKind::UnevenStep, message));
    }
    let mut last = from + (to - from) / step * step;
    if kind == Kind::DayOfWeek && last - from == 7 {
        // Sunday as 0 and as 7.
        last -= step;
    }
    if size.is_some_and(|size| from + size - last == step) {
        return None;
    }
    let breaks = match last == from {
        true => format!("only {from} matches"),
        false => format!("after {last} comes {from} again"),
    };
    Some(step_warning(kind, step, even, &breaks))
}

fn step_warning(kind: Kind, step: u32, even: &str, breaks: &str) -> Warning {
    let name = kind.name();
    let even = even.replace("{}", &step.to_string());
    let message = format!(
        "{name}: the step {step} does not come out even, {breaks}; for an even rhythm write `{even}`"
    );
    warn(WarningKind::UnevenStep, message)
}

fn pattern(pattern: &Pattern, fields: &[Field], limits: &Limits, cx: &Context<'_>, list: &mut Vec<Warning>) {
    stars(fields, limits, list);
    steps(fields, list);
    let sets = pattern.resolved(cx.key);
    if sets.seconds.count_ones() == 60 {
        list.push(every_second());
    }
    if sets.either {
        let days = match sets.takes_every_date() {
            true => "it runs every day, because one of them names them all",
            false => "it runs on days that match either",
        };
        let message = format!(
            "day of month and weekday are both restricted: {days}; write `+` before the weekday for both"
        );
        list.push(warn(WarningKind::BothDays, message));
    }
    short_months(&sets, fields, list);
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
    let rule = unless_chosen((limits.gap, limits.fold), (pattern.gap, pattern.fold));
    changes(zone, cx, rule, &next, list);
}

/// The rule for changes of the clock, as far as its author did not choose it: what was asked for is no
/// surprise.
fn unless_chosen(
    (chosen_gap, chosen_fold): (Option<Gap>, Option<Fold>),
    (gap, fold): (Gap, Fold),
) -> (Option<Gap>, Option<Fold>) {
    (chosen_gap.is_none().then_some(gap), chosen_fold.is_none().then_some(fold))
}

/// Days that some of the pattern's months do not have.
fn short_months(sets: &Sets, fields: &[Field], list: &mut Vec<Warning>) {
    if sets.either && sets.takes_every_date() {
        return;
    }
    // The days that stand for themselves: a range that begins early enough, and a step, are meant to end
    // with the month.
    let items = fields.iter().filter(|field| field.kind == Kind::Day).flat_map(|field| &field.items);
    let single = items.filter_map(|item| match item {
        Item::One(day) | Item::Nearest(day) => Some(*day),
        Item::Range { from, step: 1, .. } => Some(*from),
        _ => None,
    });
    let single = single.fold(0u32, |days, day| days | 1 << day);
    let months: Vec<u32> = (1..=12).filter(|month| sets.months >> month & 1 == 1).collect();
    for day in (29..=31).filter(|day| single >> day & 1 == 1) {
        // Part of an unbroken stretch of days: the month ends within it.
        if sets.days >> (day - 1) & 1 == 1 && sets.nearest >> day & 1 == 0 {
            continue;
        }
        let without = months.iter().filter(|month| month_length(2025, **month) < day).count();
        let at_end = if sets.nearest >> day & 1 == 1 {
            (sets.last_workday, "`LW` for the last working day of the month")
        } else {
            (sets.from_last & 1 == 1, "`L` for the last day of the month")
        };
        let (covered, instead) = at_end;
        if without == 0 || covered {
            continue;
        }
        let message = match (day, without) {
            (29, _) => format!("29 February comes in leap years only; write {instead}"),
            (_, 1) => format!("1 of its months has no day {day} and no run; write {instead}"),
            (_, n) => format!("{n} of its months have no day {day} and no run; write {instead}"),
        };
        list.push(warn(WarningKind::ShortMonths, message));
    }
}

/// Looks at the coming changes of the clock; `next` gives the first wall time that matches. Nothing is
/// said about gaps, or folds, without a rule for them.
fn changes(
    zone: Zone,
    cx: &Context<'_>,
    (gap, fold): (Option<Gap>, Option<Fold>),
    next: &dyn Fn(i64) -> i64,
    list: &mut Vec<Warning>,
) {
    let name = zone.name();
    let Ok(zone) = cx.rules(zone) else { return };
    let now = cx.anchor.timestamp();
    let (mut in_gap, mut in_fold) = (false, false);
    for k in zone.at(now) + 1.. {
        let before = zone.segment(k - 1);
        if before.end > now + AHEAD {
            break;
        }
        let Some(after) = zone.get(k) else { break };
        let date =
            |wall: i64| DateTime::from_timestamp(wall, 0).map(|at| at.date_naive()).unwrap_or(NaiveDate::MIN);
        let time = |wall: i64| clock(wall.rem_euclid(DAY) as u32);
        if before.wall_end < after.wall_start
            && !in_gap
            && let Some(gap) = gap
        {
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
        } else if before.wall_end > after.wall_start
            && !in_fold
            && let Some(fold) = fold.filter(|fold| *fold != Fold::Both)
        {
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
        Trigger::Date(date) => match date.instant(cx) {
            Ok(at) => format!("its only time, {at}, has passed"),
            Err(error) => error.to_string(),
        },
        Trigger::Interval(interval) => match interval.limits().end(cx) {
            _ if interval.length() <= TimeDelta::zero() => "its length is zero".into(),
            Some(end) if interval.start(cx).is_ok_and(|start| end < start) => {
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
    match (limits.start(cx), limits.end(cx)) {
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
