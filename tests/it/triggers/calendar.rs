//! Days: every kind of item against a plain look at each date, and the series of the calendar
//! interval against a walk by its definition.

use callboard::trigger::{CalendarInterval, Cron, Crontab, IntoTrigger, Trigger};
use chrono::{Datelike, Days, Months, NaiveDate, Utc, Weekday};
use chrono_tz::Tz;

use super::{Dice, at, context, runs};

type Test = Box<dyn Fn(NaiveDate) -> bool>;

const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn last_of_month(date: NaiveDate) -> NaiveDate {
    let first = date.with_day(1).unwrap();
    first + Months::new(1) - Days::new(1)
}

fn sunday_based(date: NaiveDate) -> u32 {
    date.weekday().num_days_from_sunday()
}

fn workday(date: NaiveDate) -> bool {
    !matches!(date.weekday(), Weekday::Sat | Weekday::Sun)
}

/// The Monday-to-Friday day of the month nearest to a day of it, by trying outwards.
fn nearest(date: NaiveDate, day: u32) -> Option<NaiveDate> {
    let wanted = date.with_day(day)?;
    let near = |days: i64| {
        let moved = wanted.checked_add_signed(chrono::TimeDelta::days(days))?;
        (moved.month() == wanted.month() && workday(moved)).then_some(moved)
    };
    [0, -1, 1, -2, 2].into_iter().find_map(near)
}

fn day_item(dice: &mut Dice) -> (String, Test) {
    match dice.below(8) {
        0 => {
            let back = dice.between(0, 9) as u64;
            let text = if back == 0 { "L".into() } else { format!("l-{back}") };
            (text, Box::new(move |date| last_of_month(date) - Days::new(back) == date))
        }
        1 => (
            "LW".into(),
            Box::new(|date| {
                let mut last = last_of_month(date);
                while !workday(last) {
                    last = last - Days::new(1);
                }
                last == date
            }),
        ),
        2 | 3 => {
            let day = dice.between(1, 31) as u32;
            (format!("{day}W"), Box::new(move |date| nearest(date, day) == Some(date)))
        }
        4 => {
            let (a, b) = (dice.between(1, 31) as u32, dice.between(1, 31) as u32);
            let (a, b, step) = (a.min(b), a.max(b), dice.between(1, 9) as u32);
            (
                format!("{a}-{b}/{step}"),
                Box::new(move |date| (a..=b).contains(&date.day()) && (date.day() - a) % step == 0),
            )
        }
        5 => {
            let (a, step) = (dice.between(1, 31) as u32, dice.between(1, 40) as u32);
            (format!("{a}/{step}"), Box::new(move |date| date.day() >= a && (date.day() - a) % step == 0))
        }
        _ => {
            let day = dice.between(1, 31) as u32;
            (day.to_string(), Box::new(move |date| date.day() == day))
        }
    }
}

fn weekday_item(dice: &mut Dice) -> (String, Test) {
    let weekday = dice.between(0, 7) as u32;
    let name = if dice.one_in(2) { NAMES[weekday as usize % 7].to_uppercase() } else { weekday.to_string() };
    let is = move |date: NaiveDate| sunday_based(date) == weekday % 7;
    match dice.below(6) {
        0 => {
            let nth = dice.between(1, 5) as u32;
            (format!("{name}#{nth}"), Box::new(move |date| is(date) && (date.day() - 1) / 7 + 1 == nth))
        }
        1 => {
            let text = if dice.one_in(2) { format!("{name}#l") } else { format!("{weekday}L") };
            (text, Box::new(move |date| is(date) && (date + Days::new(7)).month() != date.month()))
        }
        2 => {
            let (a, b) = (dice.between(0, 7) as u32, dice.between(0, 7) as u32);
            let (a, b, step) = (a.min(b), a.max(b), dice.between(1, 4) as u32);
            let hit = move |n: u32| (a..=b).contains(&n) && (n - a).is_multiple_of(step);
            let also_seven = move |date: NaiveDate| sunday_based(date) == 0 && hit(7);
            (format!("{a}-{b}/{step}"), Box::new(move |date| hit(sunday_based(date)) || also_seven(date)))
        }
        3 => {
            let (a, step) = (dice.between(0, 7) as u32, dice.between(1, 4) as u32);
            let hit = move |n: u32| n >= a && (n - a).is_multiple_of(step);
            (
                format!("{a}/{step}"),
                Box::new(move |date| hit(sunday_based(date)) || (sunday_based(date) == 0 && hit(7))),
            )
        }
        _ => (name, Box::new(is)),
    }
}

fn list(dice: &mut Dice, item: fn(&mut Dice) -> (String, Test)) -> (String, Test) {
    let items: Vec<_> = (0..dice.between(1, 3)).map(|_| item(dice)).collect();
    let text = items.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(",");
    (text, Box::new(move |date| items.iter().any(|(_, is)| is(date))))
}

fn compare(trigger: &Trigger, is: &dyn Fn(NaiveDate) -> bool, first: NaiveDate, days: u64) {
    let from = first.and_hms_opt(0, 0, 0).unwrap().and_utc();
    let cx = context(Tz::UTC, from);
    let last = first + Days::new(days);
    let expected: Vec<_> =
        first.iter_days().take_while(|date| *date < last).filter(|date| is(*date)).collect();
    let found = trigger.times(from, &cx).map(|run| run.unwrap().date_naive()).take_while(|date| *date < last);
    assert_eq!(found.collect::<Vec<_>>(), expected, "{trigger} from {first}");
}

#[test]
fn crontab_days_are_those_a_plain_look_at_each_date_finds() {
    let mut dice = Dice(1);
    for _ in 0..1500 {
        let first = NaiveDate::from_ymd_opt(dice.between(1900, 2400) as i32, 1, 1).unwrap();
        let month = if dice.one_in(2) { None } else { Some(dice.between(1, 12) as u32) };
        let month_text = month.map_or("*".into(), |month| month.to_string());
        let in_month = move |date: NaiveDate| month.is_none_or(|month| date.month() == month);
        let (day_text, day) = list(&mut dice, day_item);
        let (weekday_text, weekday) = list(&mut dice, weekday_item);
        let step = dice.between(2, 9) as u32;
        let (line, is): (String, Test) = match dice.below(6) {
            0 => {
                (format!("0 0 {day_text} {month_text} *"), Box::new(move |date| in_month(date) && day(date)))
            }
            1 => (
                format!("0 0 ? {month_text} {weekday_text}"),
                Box::new(move |date| in_month(date) && weekday(date)),
            ),
            2 => (
                format!("0 0 {day_text} {month_text} {weekday_text}"),
                Box::new(move |date| in_month(date) && (day(date) || weekday(date))),
            ),
            3 => (
                format!("0 0 {day_text} {month_text} +{weekday_text}"),
                Box::new(move |date| in_month(date) && day(date) && weekday(date)),
            ),
            4 => (
                format!("0 0 */{step} {month_text} {weekday_text}"),
                Box::new(move |date| in_month(date) && (date.day() - 1) % step == 0 && weekday(date)),
            ),
            _ => (
                format!("0 0 {day_text} {month_text} */{step}"),
                Box::new(move |date| in_month(date) && day(date) && sunday_based(date).is_multiple_of(step)),
            ),
        };
        compare(&Crontab::parse(&line).unwrap().into_trigger().unwrap(), &is, first, 1500);
    }
}

#[test]
fn fields_days_are_those_a_plain_look_at_each_date_finds() {
    let mut dice = Dice(2);
    let positions = ["1st", "2nd", "3rd", "4th", "5th"];
    for _ in 0..800 {
        let first = NaiveDate::from_ymd_opt(dice.between(1971, 2400) as i32, 1, 1).unwrap();
        let mut builder = Cron::builder().hour(0);
        let mut tests: Vec<Test> = Vec::new();
        if dice.one_in(2) {
            let weekday = dice.below(7) as u32;
            let name = NAMES[(weekday as usize + 1) % 7];
            let is = move |date: NaiveDate| date.weekday().num_days_from_monday() == weekday;
            let (text, test): (String, Test) = match dice.below(4) {
                0 => ("last".into(), Box::new(|date| last_of_month(date) == date)),
                1 => (
                    format!("Last {name}"),
                    Box::new(move |date| is(date) && (date + Days::new(7)).month() != date.month()),
                ),
                2 => {
                    let nth = dice.below(5) as usize;
                    (
                        format!("{} {name}", positions[nth]),
                        Box::new(move |date| is(date) && (date.day() as usize - 1) / 7 == nth),
                    )
                }
                _ => (
                    "1-2, 4-20/3".into(),
                    Box::new(|date| matches!(date.day(), 1 | 2 | 4 | 7 | 10 | 13 | 16 | 19)),
                ),
            };
            builder = builder.day(text);
            tests.push(test);
        }
        if dice.one_in(2) {
            let (a, b) = (dice.between(1, 53) as u32, dice.between(1, 53) as u32);
            let (a, b) = (a.min(b), a.max(b));
            builder = builder.week(format!("{a}-{b}"));
            tests.push(Box::new(move |date| (a..=b).contains(&date.iso_week().week())));
        }
        if dice.one_in(2) {
            let (a, b) = (dice.below(7) as u32, dice.below(7) as u32);
            let (a, b) = (a.min(b), a.max(b));
            builder = builder.day_of_week(format!("{a}-{b}"));
            tests.push(Box::new(move |date| (a..=b).contains(&date.weekday().num_days_from_monday())));
        }
        if dice.one_in(3) {
            let (year, step) = (dice.between(1970, 2100) as i32, dice.between(2, 7) as i32);
            builder = builder.year(format!("{year}/{step}"));
            tests.push(Box::new(move |date| date.year() >= year && (date.year() - year) % step == 0));
        }
        if dice.one_in(3) {
            builder = builder.month("feb-nov/3");
            tests.push(Box::new(|date| matches!(date.month(), 2 | 5 | 8 | 11)));
        }
        let trigger = builder.into_trigger().unwrap();
        compare(&trigger, &|date| tests.iter().all(|test| test(date)), first, 1100);
    }
}

#[test]
fn the_calendar_interval_is_its_series_walked_date_by_date() {
    let mut dice = Dice(3);
    for _ in 0..600 {
        let pick = |dice: &mut Dice, most: i64| {
            if dice.one_in(2) { 0 } else { dice.between(0, most) as u32 }
        };
        let (years, months, weeks, days) =
            (pick(&mut dice, 2), pick(&mut dice, 14), pick(&mut dice, 3), pick(&mut dice, 40));
        if years + months + weeks + days == 0 {
            continue;
        }
        let start =
            NaiveDate::from_ymd_opt(dice.between(1995, 2030) as i32, dice.between(1, 12) as u32, 1).unwrap();
        let start = start + Days::new(dice.below(31));
        // By the definition: add years and months until the day exists, then weeks and days.
        let step = |date: NaiveDate| {
            let mut moved = date;
            let months = 12 * years + months;
            for n in 1u32.. {
                let month = date.with_day(1).unwrap() + Months::new(months * n);
                if let Some(found) = month.with_day(date.day()) {
                    moved = found;
                    break;
                }
            }
            moved + Days::new(u64::from(7 * weeks + days))
        };
        let series: Vec<NaiveDate> = std::iter::successors(Some(start), |date| Some(step(*date)))
            .take_while(|date| date.year() < 2060)
            .collect();
        let trigger = CalendarInterval::builder()
            .years(years)
            .months(months)
            .weeks(weeks)
            .days(days)
            .at(9, 30, 0)
            .start_date(start)
            .into_trigger()
            .unwrap();
        let cx = context(Tz::UTC, at("1990-01-01T00:00:00Z"));
        for _ in 0..8 {
            let from = start + Days::new(dice.below(9000));
            let from = from.and_hms_opt(9, 30, dice.below(2) as u32).unwrap().and_utc();
            let run = |date: &NaiveDate| date.and_hms_opt(9, 30, 0).unwrap().and_utc();
            let expected: Vec<_> = series.iter().map(run).filter(|at| *at >= from).take(3).collect();
            let found: Vec<_> = trigger.times(from, &cx).take(expected.len()).map(Result::unwrap).collect();
            assert_eq!(found, expected, "{trigger} from {from}");
        }
    }
}

#[test]
fn every_second_friday_is_fourteen_days_apart_through_clock_changes_and_years() {
    let start = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
    let interval = CalendarInterval::builder().weeks(2).at(17, 0, 0).start_date(start);
    let trigger = interval.timezone(Tz::Europe__Lisbon).into_trigger().unwrap();
    let cx = context(Tz::UTC, at("2026-01-01T00:00:00Z"));
    let mut last = None;
    for run in trigger.times(cx.anchor, &cx).take(200) {
        let wall = run.unwrap().with_timezone(&Tz::Europe__Lisbon).naive_local();
        assert_eq!(wall.time().to_string(), "17:00:00");
        assert!(last.is_none_or(|last| wall - last == chrono::TimeDelta::days(14)));
        last = Some(wall);
    }
}

#[test]
fn the_year_9999_is_reached_and_nothing_beyond() {
    assert_eq!(
        runs("59 59 23 31 12 * 9999", Tz::UTC, "2026-01-01T00:00:00Z", 2),
        ["9999-12-31T23:59:59+00:00"]
    );
    assert_eq!(runs("0 0 29 2 *", Tz::UTC, "9996-03-01T00:00:00Z", 2), [""; 0]);
    assert_eq!(
        runs("0 0 1 1 *", Tz::America__New_York, "9998-06-01T00:00:00Z", 3),
        ["9999-01-01T00:00:00-05:00"]
    );
    for text in ["* * * * *", "every 1s", "calendar 1d", "calendar 1mo 1d from 0001-01-01", "* * * * * *"] {
        let trigger = super::parse(text);
        for from in [chrono::DateTime::<Utc>::MIN_UTC, chrono::DateTime::<Utc>::MAX_UTC] {
            let cx = context(Tz::Asia__Tokyo, at("2026-01-01T00:00:00Z"));
            let next = trigger.next(from, &cx).unwrap();
            assert!(next.is_none_or(|next| next >= from), "{text} from {from}");
        }
    }
}

#[test]
fn times_outside_of_the_calendar_do_no_harm() {
    use chrono::DateTime;

    let edges = [
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        at("0001-01-01T00:00:00Z"),
        at("9999-12-31T23:59:59Z"),
    ];
    let texts = [
        "* * * * *",
        "30 2 * * *",
        "0 0 29 2 *",
        "cron week=53",
        "every 1s",
        "every 1w 1ns",
        "calendar 1d",
        "calendar 1mo 1d",
        "once",
        "and(every 7s; every 1m)",
        "or(@daily; every 90s)",
        "except(@daily; 12-25; 2026-01-01..2026-01-05)",
        "quartz 0 0 0 1 1 ?",
    ];
    for text in texts {
        let trigger = super::parse(text);
        for zone in [Tz::UTC, Tz::Pacific__Apia, Tz::America__New_York] {
            for anchor in edges {
                for from in edges {
                    let cx = context(zone, anchor);
                    let next = trigger.next(from, &cx).unwrap();
                    assert!(next.is_none_or(|next| next >= from), "{text} from {from}");
                    let _ = trigger.after(from, &cx);
                    trigger.due(from, &cx);
                    trigger.describe(&cx);
                    trigger.warnings(&cx);
                    let _ = trigger.check(from, &cx);
                }
            }
        }
    }
}
