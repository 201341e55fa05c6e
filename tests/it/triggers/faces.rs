//! The faces of a trigger: text, JSON, plain English, warnings.

use std::collections::HashSet;
use std::time::Duration;

use callboard::trigger::{
    And, CalendarInterval, Cron, Crontab, Custom, Date, Except, Fold, Gap, Interval, IntoTrigger, Moment, Or,
    Trigger, TriggerError, WarningKind,
};
use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use serde_json::json;

use super::{Dice, at, context, parse, seconds};

fn moment(dice: &mut Dice) -> Moment {
    let when = seconds(dice.between(0, 4_000_000_000));
    match dice.below(3) {
        0 => when.naive_utc().into(),
        1 => when.with_timezone(&dice.pick(&chrono_tz::TZ_VARIANTS)).into(),
        _ => (when + TimeDelta::milliseconds(dice.between(0, 999))).into(),
    }
}

fn any(dice: &mut Dice, depth: u32) -> Trigger {
    let zone = dice.pick(&chrono_tz::TZ_VARIANTS);
    let jitter = Duration::from_millis(dice.below(100_000));
    let date = |dice: &mut Dice| {
        NaiveDate::from_ymd_opt(
            dice.between(1990, 2100) as i32,
            dice.between(1, 12) as u32,
            dice.between(1, 28) as u32,
        )
        .unwrap()
    };
    let made = match dice.below(if depth > 0 { 11 } else { 8 }) {
        0 => Date::at(moment(dice)).timezone(zone).into_trigger(),
        1 => Date::now().into_trigger(),
        2 => {
            let length = Duration::new(
                dice.below(10_000_000),
                if dice.one_in(3) { dice.below(1_000_000_000) as u32 } else { 0 },
            );
            let interval = Interval::every(length + Duration::from_secs(1)).jitter(jitter).timezone(zone);
            if dice.one_in(2) { interval.start_at(moment(dice)) } else { interval }.into_trigger()
        }
        3 => {
            let mut cron =
                Cron::builder().day(dice.pick(&["last fri", "1-2, 4-7", "3rd sun", "*/5", "last", "12"]));
            if dice.one_in(2) {
                cron = cron.hour(dice.below(24)).day_of_week("mon-fri").year("*/2");
            }
            if dice.one_in(2) {
                cron = cron.start_at(moment(dice)).fold(Fold::Second).gap(Gap::FireAfter);
            }
            cron.timezone(zone).jitter(jitter).into_trigger()
        }
        4 => {
            let line = dice.pick(&[
                "*/5 * * * *",
                "0  9 * * MON#2",
                "@daily",
                "H(0-29)/10 H * * *",
                "0 0 0 L-3 2 ? 2030",
            ]);
            let crontab = Crontab::builder(line).gap(Gap::Skip).fold(Fold::Both);
            if dice.one_in(2) { crontab.end_at(moment(dice)).both_days() } else { crontab }.into_trigger()
        }
        5 => "quartz 0 30 8 ? * MON-FRI".into_trigger(),
        6 => CalendarInterval::builder()
            .months(dice.below(3) as u32)
            .days(dice.between(1, 40) as u32)
            .at(dice.below(24) as u32, dice.below(60) as u32, dice.below(60) as u32)
            .start_date(date(dice))
            .timezone(zone)
            .into_trigger(),
        7 => match dice.below(3) {
            0 => Ok(Trigger::Shutdown),
            1 => Custom::new("tides", json!({"port": "a; (b\" \\ {", "n": [1, 2.5, null]})).into_trigger(),
            _ => Custom::new("moon:full", json!(null)).into_trigger(),
        },
        8 => Or::of(any(dice, depth - 1)).or(any(dice, depth - 1)).into_trigger(),
        9 => And::of(any(dice, depth - 1))
            .and(any(dice, depth - 1))
            .tolerance(Duration::from_secs(dice.below(3)))
            .into_trigger(),
        _ => {
            let (a, b) = (date(dice), date(dice));
            let except = Except::of(any(dice, depth - 1)).date(a).date("12-25").days(a.min(b), a.max(b));
            except.range(moment(dice), moment(dice)).trigger(any(dice, depth - 1)).into_trigger()
        }
    };
    made.unwrap()
}

#[test]
fn text_and_json_come_back_as_the_same_trigger() {
    let mut dice = Dice(5);
    for _ in 0..4000 {
        let trigger = any(&mut dice, 3);
        let text = trigger.to_string();
        let again = parse(&text);
        assert_eq!(again, trigger, "{text}");
        assert_eq!(again.to_string(), text);
        let stored = serde_json::to_string(&trigger).unwrap();
        let read: Trigger = serde_json::from_str(&stored).unwrap_or_else(|error| panic!("{stored}: {error}"));
        assert_eq!(read, trigger, "{stored}");
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        assert_eq!(parse(&stored), trigger);
        let value = serde_json::to_value(&trigger).unwrap();
        assert_eq!(serde_json::from_value::<Trigger>(value).unwrap(), trigger);
    }
}

#[test]
fn a_trigger_is_small_and_cheap_to_clone() {
    assert_eq!(size_of::<Trigger>(), 16);
}

#[test]
fn stored_triggers_look_as_documented() {
    let stored = |trigger: Trigger| serde_json::to_value(trigger).unwrap();
    assert_eq!(
        stored(parse("cron hour=8 day_of_week=mon-fri")),
        json!({"type": "cron", "hour": 8, "day_of_week": "mon-fri"})
    );
    assert_eq!(
        stored(parse("every 1h 30m from 2026-01-01")),
        json!({"type": "interval", "hours": 1, "minutes": 30, "start_at": "2026-01-01T00:00:00"})
    );
    assert_eq!(
        stored(parse("every 1.5s".replace("1.5s", "1s 500ms").as_str())),
        json!({"type": "interval", "seconds": 1.5})
    );
    assert_eq!(
        stored(parse("0 9 * * * in Asia/Tokyo jitter 30s")),
        json!({"type": "crontab", "expression": "0 9 * * *", "timezone": "Asia/Tokyo", "jitter": 30})
    );
    assert_eq!(stored(Trigger::Shutdown), json!({"type": "shutdown"}));
    let text = |value| serde_json::from_value::<Trigger>(value).unwrap().to_string();
    assert_eq!(text(json!({"type": "cron", "hour": "8", "minute": null})), "cron hour=8");
    assert_eq!(
        text(json!({"type": "crontab", "expression": "0 9 13 * 5", "both_days": true})),
        "0 9 13 * +5"
    );
    assert_eq!(
        text(
            json!({"type": "except", "trigger": {"type": "crontab", "expression": "@daily"}, "dates": ["12-25"], "ranges": ["2026-01-01..2026-01-05"]})
        ),
        "except(@daily; 12-25; 2026-01-01T00:00:00..2026-01-05)"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let error = |trigger: Result<Trigger, TriggerError>| trigger.unwrap_err().to_string();
    assert!(error(Interval::seconds(0).into_trigger()).contains("length is zero"));
    assert!(error(Or::of("x").or("@daily").into_trigger()).contains("fields"));
    assert!(error(Except::of("@daily").date("02-30").into_trigger()).contains("02-30"));
    assert!(error(CalendarInterval::builder().at(9, 0, 0).into_trigger()).contains("no interval"));
    assert!(error(CalendarInterval::builder().days(1).at(24, 0, 0).into_trigger()).contains("hour"));
    assert!(error(Custom::new("two words", json!(null)).into_trigger()).contains("not a name"));
    assert!(error("{\"type\": \"or\", \"triggers\": []}".into_trigger()).contains("no parts"));
    assert!(
        error("{\"type\": \"interval\", \"days\": 1, \"gap\": \"skip\"}".into_trigger()).contains("elapsed")
    );
}

fn described(text: &str) -> String {
    parse(text).describe(&context(Tz::Europe__Lisbon, at("2026-01-01T00:00:00Z")))
}

#[test]
fn descriptions() {
    for (text, english) in [
        ("30 8 * * mon-fri", "at 08:30 on Monday to Friday, Europe/Lisbon"),
        ("* * * * *", "every minute, Europe/Lisbon"),
        ("*/5 9-17 * * 1-5 in UTC", "every 5 minutes from 09:00 to 17:59 on Monday to Friday, UTC"),
        ("0 * * * *", "at minute 0 of every hour, Europe/Lisbon"),
        ("0 0 1,15 * *", "at 00:00 on the 1st and the 15th of the month, Europe/Lisbon"),
        ("0 0 13 * 5", "at 00:00 on the 13th of the month or on Friday, Europe/Lisbon"),
        ("0 0 13 * +5", "at 00:00 on the 13th of the month, if it is Friday, Europe/Lisbon"),
        ("0 22 * * 5L", "at 22:00 on the last Friday of the month, Europe/Lisbon"),
        (
            "0 9 LW 1-3 *",
            "at 09:00 on the last day from Monday to Friday of the month in January to March, Europe/Lisbon",
        ),
        ("*/10 * * * * *", "every 10 seconds, Europe/Lisbon"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour, Europe/Lisbon"),
        ("*/90 * * * *", "at minute 0 of every hour, Europe/Lisbon"),
        ("30 */5 * * *", "at 00:30, 05:30, 10:30, 15:30 and 20:30 every day, Europe/Lisbon"),
        ("*/15 */5 * * *", "every 15 minutes in the hours 0, 5, 10, 15 and 20 every day, Europe/Lisbon"),
        ("0 0 1-31 * 4", "at 00:00 every day, Europe/Lisbon"),
        ("0 0 1/1 * MON", "at 00:00 every day, Europe/Lisbon"),
        ("*/20 2 * * *", "every 20 minutes from 02:00 to 02:59 every day, Europe/Lisbon"),
        (
            "*/20 8-9,14 * * *",
            "every 20 minutes from 08:00 to 09:59 and from 14:00 to 14:59 every day, Europe/Lisbon",
        ),
        ("*/20 1,3,7 * * *", "every 20 minutes in the hours 1, 3 and 7 every day, Europe/Lisbon"),
        ("* * * 2 *", "every minute in February, Europe/Lisbon"),
        ("* * * * fri", "every minute on Friday, Europe/Lisbon"),
        ("15 30 8 * * * 2027-2028", "at 08:30:15 every day in 2027 to 2028, Europe/Lisbon"),
        ("0 */2 * * *", "at minute 0 of every 2nd hour every day, Europe/Lisbon"),
        ("cron day=\"3rd fri\" hour=17", "at 17:00 on the 3rd Friday of the month, Europe/Lisbon"),
        ("quartz 0 0 12 ? * 1", "at 12:00 on Sunday, Europe/Lisbon"),
        ("every 15m", "every 15 minutes"),
        ("every 1h", "every hour"),
        (
            "every 1h 30m from 2026-01-01 jitter 30s",
            "every 90 minutes from 2026-01-01T00:00:00, up to 30 seconds late",
        ),
        ("every 90s", "every 90 seconds"),
        ("every 2h 30m", "every 2 hours and 30 minutes"),
        ("every 5m jitter 1m", "every 5 minutes, up to 1 minute late"),
        ("calendar 2w at 17:00 from 2026-01-02", "every 2 weeks at 17:00 from 2026-01-02, Europe/Lisbon"),
        ("once at 2026-07-01T12:00:00", "once at 2026-07-01 12:00:00, Europe/Lisbon"),
        ("once at 2026-10-25T01:30:00Z", "once at 2026-10-25 01:30:00 (+00:00), Europe/Lisbon"),
        ("or(@daily; shutdown)", "at 00:00 every day, Europe/Lisbon; or when the scheduler shuts down"),
        (
            "and(@daily; @weekly) within 5s",
            "whenever these meet within 5 seconds: at 00:00 every day, Europe/Lisbon; and at 00:00 on Sunday, Europe/Lisbon",
        ),
        ("except(@daily; 12-25)", "at 00:00 every day, Europe/Lisbon; except on 12-25"),
    ] {
        assert_eq!(described(text), english, "{text}");
    }
}

fn kinds(text: &str) -> Vec<WarningKind> {
    let cx = context(Tz::Europe__Berlin, at("2026-01-01T00:00:00Z"));
    parse(text).warnings(&cx).iter().map(|warning| warning.kind).collect()
}

#[test]
fn warnings() {
    use WarningKind::*;
    for (text, expected) in [
        ("30 8 * * mon-fri", vec![]),
        ("*/5 * * * *", vec![]),
        ("0 0 30 2 *", vec![NeverFires]),
        ("30 2 * * *", vec![InGap, InFold]),
        ("30 2 * * * in UTC", vec![]),
        ("30 3 * * *", vec![]),
        ("0-59 0-23 * * *", vec![CoversAllHours, InGap, InFold]),
        ("*/20 2 * * *", vec![LostInGap]),
        ("*/20 1-4 * * *", vec![]),
        // What was asked for is no surprise.
        ("*/20 2 * * * gap skip", vec![]),
        ("30 2 * * * gap skip", vec![InFold]),
        ("30 2 * * * gap fire_after fold first", vec![]),
        ("calendar 1d at 02:30 gap skip fold second", vec![]),
        ("0 12 31 * *", vec![ShortMonths]),
        ("0 12 31W * *", vec![ShortMonths]),
        ("0 12 31 1,3 *", vec![]),
        ("0 12 28-31 * *", vec![]),
        ("0 12 20-31 * *", vec![]),
        ("0 12 30-31 * *", vec![ShortMonths]),
        ("0 12 28,29,30,31 * *", vec![]),
        ("0 12 31,L * *", vec![]),
        ("0 12 31W,LW * *", vec![]),
        ("0 12 1/10 * *", vec![UnevenStep]),
        ("cron day=31", vec![ShortMonths]),
        ("quartz 0 0 12 31 * ?", vec![ShortMonths]),
        ("quartz 0 0 12 1-31 * ?", vec![]),
        ("*/7 * * * *", vec![UnevenStep]),
        ("*/25 * * * *", vec![UnevenStep]),
        ("*/90 * * * *", vec![UnevenStep]),
        ("0/7 * * * *", vec![UnevenStep]),
        ("5/15 * * * *", vec![]),
        ("50/20 * * * *", vec![UnevenStep]),
        ("10-20/15 * * * *", vec![UnevenStep]),
        ("10-40/7 * * * *", vec![]),
        ("H/7 * * * *", vec![UnevenStep]),
        ("H/15 * * * *", vec![]),
        ("*/7 * * * * *", vec![UnevenStep]),
        ("0 */5 * * *", vec![UnevenStep]),
        ("0 */6 * * * in UTC", vec![]),
        ("0 12 */2 * *", vec![UnevenStep]),
        ("0 12 * */5 *", vec![UnevenStep]),
        ("0 12 1 */3 *", vec![]),
        ("0 12 * * */2", vec![UnevenStep]),
        ("0 12 * * 1/2", vec![UnevenStep]),
        ("0 12 * * */7", vec![]),
        ("0 12 * * 0/7", vec![]),
        ("cron minute=*/7", vec![UnevenStep]),
        ("quartz 0 */7 * * * ?", vec![UnevenStep]),
        ("quartz 0 0/15 * * * ?", vec![]),
        ("0 12 1,* * *", vec![StarInList]),
        ("0 12 5,*/10 * *", vec![UnevenStep]),
        ("5,*/30 * * * *", vec![]),
        ("0 0 1-31 * 4", vec![BothDays]),
        ("0 12 29 2 *", vec![ShortMonths]),
        ("0 12 1-31 * *", vec![]),
        ("0 12 13 * 5", vec![BothDays]),
        ("5,*/30 2 * * *", vec![StarInList, LostInGap]),
        ("1,* 12 * * *", vec![StarInList]),
        ("* * * * * *", vec![EverySecond]),
        ("every 1s", vec![EverySecond]),
        ("calendar 1d at 02:30", vec![InGap, InFold]),
        ("or(0 12 13 * 5; 0 12 31 * *)", vec![BothDays, ShortMonths]),
        ("and(cron minute=10; cron minute=40)", vec![NeverFires]),
    ] {
        assert_eq!(kinds(text), expected, "{text}");
    }
}

fn said(text: &str) -> String {
    let cx = context(Tz::Europe__Berlin, at("2026-01-01T00:00:00Z"));
    parse(text).warnings(&cx).iter().map(|warning| warning.message.clone()).collect::<Vec<_>>().join("; ")
}

#[test]
fn warnings_say_what_is_meant() {
    assert_eq!(
        said("0 12 31W 1,2 *"),
        "1 of its months has no day 31 and no run; write `LW` for the last working day of the month"
    );
    assert_eq!(
        said("0 12 31 * *"),
        "5 of its months have no day 31 and no run; write `L` for the last day of the month"
    );
    assert_eq!(
        said("*/7 * * * *"),
        "minute: the step 7 does not come out even, after 56 comes 0 again; for an even rhythm write `every 7m`"
    );
    assert_eq!(
        said("*/90 * * * *"),
        "minute: the step 90 does not come out even, only 0 matches; for an even rhythm write `every 90m`"
    );
    assert_eq!(
        said("0 0 1-31 * 4"),
        "day of month and weekday are both restricted: it runs every day, because one of them names them all; write `+` before the weekday for both"
    );
}

/// A day in the text, and only then, means that not every day has a run.
#[test]
fn the_text_has_no_day_exactly_when_it_runs_every_day() {
    let days = [
        "*",
        "?",
        "1-31",
        "1/1",
        "*/1",
        "1-15,16-31",
        "1-30,L",
        "1-28,29,30,31",
        "1-28",
        "L",
        "*/2",
        "13",
        "15W",
        "H",
        "1-29,LW",
        "L-0,L-1,1-29",
    ];
    let weekdays = [
        "*",
        "?",
        "0-6",
        "1-7",
        "0/1",
        "mon-sun",
        "sun,mon-sat",
        "4",
        "mon",
        "5L",
        "mon#2",
        "1-5,6,7",
        "*/1",
        "+4",
        "+0-6",
        "*/2",
    ];
    let (from, end) = (at("2026-01-01T00:00:00Z"), at("2054-01-01T00:00:00Z"));
    let cx = context(Tz::UTC, from);
    // 28 years have every month on every weekday.
    let count =
        |trigger: &Trigger| trigger.times(from, &cx).take_while(|run| *run.as_ref().unwrap() < end).count();
    for month in ["*", "2", "4"] {
        let all = count(&parse(&format!("0 12 * {month} *")));
        for day in days {
            for weekday in weekdays {
                let text = format!("0 12 {day} {month} {weekday}");
                let Ok(trigger) = text.parse::<Trigger>() else { continue };
                let described = trigger.describe(&cx);
                let spoken = described.split(" in ").next().unwrap();
                let daily = count(&trigger) == all;
                assert_eq!(spoken.contains(" on "), !daily, "{text}: {described}");
                assert_eq!(spoken.contains("every day"), daily, "{text}: {described}");
            }
        }
    }
}

#[test]
fn what_never_fires_is_refused_with_the_reason() {
    let from = at("2026-01-01T00:00:00Z");
    let cx = context(Tz::UTC, from);
    for (text, reason) in [
        ("0 0 30 2 *", "the trigger never fires: February has no day 30"),
        ("0 0 31 4,6,9,11 *", "the trigger never fires: April, June, September, November have no day 31"),
        ("cron month=9 week=1", "the trigger never fires: no date of the calendar matches all of its fields"),
        ("0 0 0 1 6 * 2020", "the trigger never fires: no date of its years lies ahead"),
        ("once at 2020-01-01", "the trigger never fires: its only time, 2020-01-01 00:00:00 UTC, has passed"),
        (
            "every 1h from 2020-01-01 until 2021-01-01",
            "the trigger never fires: its end, 2021-01-01 00:00:00 UTC, leaves no run",
        ),
        (
            "and(cron minute=10; cron minute=40)",
            "the trigger never fires: its parts never run at the same time",
        ),
        ("except(@daily; @daily)", "the trigger never fires: every run is left out"),
        ("except(@daily; @hourly)", "the trigger never fires: every run is left out"),
    ] {
        assert_eq!(parse(text).check(from, &cx).unwrap_err().to_string(), reason, "{text}");
    }
    // Set in the middle of a second, so the runs of the interval are too.
    let anchor = from + TimeDelta::nanoseconds(123);
    assert_eq!(
        parse("and(0 9 * * *; every 7m)").check(anchor, &context(Tz::UTC, anchor)).unwrap_err().to_string(),
        "the trigger never fires: its parts never run at the same time; `every 7m` counts from the moment it was set, so give it a start: `every 7m from 2026-01-01T00:00:00`"
    );
    assert_eq!(Trigger::Shutdown.check(from, &cx), Ok(()));
    assert_eq!(parse("0 0 29 2 *").check(from, &cx), Ok(()));
    assert!(Custom::new("x", json!(null)).into_trigger().unwrap().check(from, &cx).is_err());
}

#[test]
fn hashed_fields_are_stable_within_their_range_and_spread() {
    let trigger = parse("H H(2-5) * * *");
    let from = at("2026-01-01T00:00:00Z");
    let mut minutes = HashSet::new();
    for n in 0..1000 {
        let key = format!("task {n}");
        let cx = callboard::trigger::Context::new(Tz::UTC, from, &key);
        let first = trigger.next(from, &cx).unwrap().unwrap();
        let second = trigger.after(first, &cx).unwrap().unwrap();
        assert_eq!(second - first, TimeDelta::days(1));
        let minute = (first - from).num_minutes();
        assert!((120..360).contains(&minute), "{first}");
        minutes.insert(minute);
    }
    assert!(minutes.len() > 200, "1000 tasks share {} minutes", minutes.len());
    let quarter = parse("H/15 * * * *");
    let runs: Vec<_> = quarter.times(from, &context(Tz::UTC, from)).take(5).map(Result::unwrap).collect();
    assert!(runs.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(15)), "{runs:?}");
    // The number for a task must not change between versions: schedules would move.
    let cx = context(Tz::UTC, from);
    assert_eq!(parse("H H * * *").next(from, &cx).unwrap().unwrap().format("%H:%M").to_string(), "05:22");
}

#[test]
fn jitter_stays_in_its_range_keeps_the_order_and_never_passes_the_end() {
    let mut dice = Dice(6);
    for text in [
        "every 5s jitter 60s",
        "* * * * * jitter 10m",
        "0 9 * * * jitter 1h",
        "calendar 1d at 09:00 jitter 2d",
        "every 1ms jitter 1s",
    ] {
        let trigger = parse(text);
        let from = seconds(dice.between(1_600_000_000, 1_900_000_000));
        let cx = context(Tz::Europe__Berlin, from);
        let jitter = Duration::from_secs(172_800);
        let mut last = None;
        for run in trigger.times(from, &cx).take(500) {
            let run = run.unwrap();
            let due = trigger.due(run, &cx);
            assert_eq!(due, trigger.due(run, &cx));
            assert!(due >= run && (due - run).to_std().unwrap() <= jitter, "{text}");
            assert!(last.is_none_or(|last| due > last), "{text}: {due}");
            last = Some(due);
        }
    }
    let ended = parse("every 1h from 2026-01-01T00:00:00Z until 2026-01-01T02:00:10Z jitter 30m");
    let cx = context(Tz::UTC, at("2026-01-01T00:00:00Z"));
    for run in ended.times(cx.anchor, &cx) {
        assert!(ended.due(run.unwrap(), &cx) <= at("2026-01-01T02:00:10Z"));
    }
    // A thousand tasks at the same time: no second gets more than a twentieth.
    let trigger = parse("0 9 * * * jitter 60s");
    let nominal = at("2026-01-01T09:00:00Z");
    let mut per_second = [0; 61];
    for n in 0..1000 {
        let key = format!("{n}");
        let cx = callboard::trigger::Context::new(Tz::UTC, nominal, &key);
        per_second[(trigger.due(nominal, &cx) - nominal).num_seconds() as usize] += 1;
    }
    assert!(per_second.iter().all(|count| *count < 50), "{per_second:?}");
}
