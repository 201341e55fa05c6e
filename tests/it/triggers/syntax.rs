//! Text: what is refused and how, and that no text whatever makes a parser panic or hang.

use std::time::{Duration, Instant};

use callboard::trigger::{Cron, Crontab, IntoTrigger, Moment, Quartz, Trigger, TriggerError};
use chrono_tz::Tz;

use super::{Dice, at, context, parse, runs};

fn refused(text: &str) -> String {
    match text.parse::<Trigger>() {
        Ok(trigger) => panic!("{text} was taken for {trigger}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn errors_name_the_field_the_place_and_what_is_allowed() {
    assert_eq!(
        refused("0 24 * * *"),
        "hour: `24` is not valid; allowed are 0-23, *, lists, ranges a-b and steps /n (at character 3 of `0 24 * * *`)"
    );
    assert_eq!(
        refused("0 0 * * mon,fri-tue"),
        "day_of_week: the range `fri-tue` runs backwards; write it as two items, `5-6,0-2` (at character 13 of `0 0 * * mon,fri-tue`)"
    );
    assert!(refused("0 0 * *").contains("4 fields; 5 are needed"));
    assert!(refused("@often").contains("@hourly, @daily"));
    assert!(refused("").contains("every 15m"));
    assert!(refused("every -5m").contains("90s, 15m"));
    assert!(refused("0 0 * * * in Mars/Olympus").contains("Mars/Olympus"));
    assert!(refused("cron hours=8").contains("fields are year, month"));
    assert!(refused("{\"type\": \"cron\", \"hours\": 8}").contains("unknown field `hours`"));
    assert!(refused("{\"type\": \"interval\", \"seconds\": 5, \"every\": 1}").contains("every"));
    assert!(refused("{\"type\": \"date\", \"run_at\": \"soon\"}").contains("run_at"));
    let error = Cron::builder().day("1,33").into_trigger().unwrap_err();
    assert!(matches!(&error, TriggerError::Invalid { field, .. } if field == "day"), "{error}");
    assert!(error.to_string().contains("at character 3 of `1,33`"), "{error}");
}

#[test]
fn errors_name_the_way_that_works() {
    for (text, way) in [
        ("0 22-2/2 * * *", "`22,0-2/2`"),
        ("0 23-5/2 * * *", "`23,1-5/2`"),
        ("0 22-1/4 * * *", "write `22`"),
        ("0 22-2 * * *", "`22-23,0-2`"),
        ("0 0 * * 5-0", "write `5-7`"),
        ("0 0 * * fri-mon", "`5-6,0-1`"),
        ("0 0 * * 6-2/3", "`6,2`"),
        ("0 0 * 11-2 *", "`11-12,1-2`"),
        ("0 0 28-3 * *", "`28-31,1-3`"),
        ("50-10/15 * * * *", "`50,5`"),
        ("0 0 LW-2 * *", "`L-2`"),
        ("CRON_TZ=Europe/Berlin 0 3 * * *", "`0 3 * * * in Europe/Berlin`"),
        ("TZ=UTC 0 3 * * *", "`0 3 * * * in UTC`"),
        ("CRON_TZ=UTC", "timezone = "),
        ("@every 5m", "`every 5m`"),
        ("@every 1h30m", "`every 1h30m`"),
        ("@every", "`every 5m`"),
        ("cron(0 12 ? * 2-6 *)", "`0 12 ? * 1-5`"),
        ("cron(0 12 ? * 6L *)", "`0 12 ? * 5L`"),
        ("cron(15 10 ? * 2#1 *)", "`15 10 ? * 1#1`"),
        ("cron(0/5 8-17 ? * MON-FRI *)", "`0/5 8-17 ? * MON-FRI`"),
        ("cron(0 12 ? * 2-6 2027)", "`0 0 12 ? * 1-5 2027`"),
        ("cron(0 12 ? * 2/2 *)", "`0 12 ? * 1/2`"),
        ("cron(0 12 ? * 1,7 *)", "`0 12 ? * 0,6`"),
        ("cron(61 12 ? * * *)", "weekdays from 0 = Sunday (at"),
        ("cron()", "AWS"),
        ("@every 500us", "`every 5m`"),
        ("rate(0 hours)", "`every 5 minutes`"),
        ("0 3 * * * Europe/Berlin", "`0 3 * * * in Europe/Berlin`"),
        ("0 3 * * mon-fri UTC", "`0 3 * * mon-fri in UTC`"),
        ("@dayly", "did you mean @daily?"),
        ("cron minutes=5", "did you mean minute?"),
        ("cron day-of-week=mon", "did you mean day_of_week?"),
        (r#"{"type":"cron","minut":5}"#, "did you mean minute?"),
        (r#"{"type":"interval","seconds":5,"second":1}"#, "did you mean seconds?"),
        ("rate(5 minutes)", "`every 5 minutes`"),
        ("0~29 * * * *", "`H(0-29)`"),
        ("~ * * * *", "`H`"),
        ("0 ~/4 * * *", "`H/4`"),
        ("0 9~17 * * *", "`H(9-17)`"),
    ] {
        let error = refused(text);
        assert!(error.contains(way), "{text}: {error}");
    }
    // What is recommended means what was written: numbers, each once, that go past the end.
    let numbers = |text: &str| {
        let (first, rest) = text.split_once('-').unwrap();
        let (last, step) = rest.split_once('/').unwrap_or((rest, "1"));
        let [first, last, step] = [first, last, step].map(|n| n.parse::<u32>().unwrap());
        (first..=last + 24).step_by(step as usize).map(|hour| format!("{:02}", hour % 24)).collect::<Vec<_>>()
    };
    for first in 1..24 {
        for last in 0..first {
            for step in 1..13 {
                let written = format!("{first}-{last}/{step}");
                let error = refused(&format!("0 {written} * * *"));
                let advice = error.split('`').nth(3).unwrap();
                let mut expected = numbers(&written);
                expected.sort();
                let hours = runs(
                    format!("0 {advice} * * *").as_str(),
                    Tz::UTC,
                    "2026-01-01T00:00:00Z",
                    expected.len(),
                );
                let hours: Vec<&str> = hours.iter().map(|run| &run[11..13]).collect();
                assert_eq!(hours, expected, "{error}");
            }
        }
    }
}

#[test]
fn crontab_refuses_what_it_cannot_mean() {
    let lines = [
        "0 0 * * fri-mon",
        "0 22-2 * * *",
        "0,,5 * * * *",
        "0 0 * * SUNMON",
        "JAN * * * *",
        "0 0 * * L",
        "0 0 LW-2 * *",
        "0 0 32W * *",
        "0 0 0W * *",
        "0 0 1-5W * *",
        "0 0 W * *",
        "0 0 L-31 * *",
        "0 0 * * 8#1",
        "0 0 * * 1-3#2",
        "0 0 * * #2",
        "0 0 ?,1 * *",
        "0 0 ?/2 * *",
        "0 0 * ? *",
        "*/ * * * *",
        "1/2/3 * * * *",
        "*-5 * * * *",
        "5-*/2 * * * *",
        "+5 * * * *",
        "0 0 * * ++1",
        "0 0 * january *",
        "0 0 * * monday",
        "H(5-3) * * * *",
        "H(0-60) * * * *",
        "H/0 * * * *",
        "0 0 0 1 1 * H",
        "0 0 0 1 1 * 1969",
        "0 0 0 1 1 * 10000",
        "0 0 * * 1 2 3 4",
        "٣ * * * *",
        "0 0 5L * *",
        "0 0 * * 15W",
        "5-sun * * * *",
        "@reboot",
        "@ daily",
        "0 0 1W/2 * *",
        ", * * * *",
        "1, * * * *",
        "0x5 * * * *",
        "1e1 * * * *",
        "- * * * *",
    ];
    for line in lines {
        assert!(Crontab::parse(line).is_err(), "`{line}` was taken");
    }
}

#[test]
fn crontab_takes_what_it_means() {
    let same = [
        ("0 0 * * 0", "0 0 * * 7"),
        ("0 0 * * sun", "0 0 * * SUN-SUN"),
        ("0 0 * * 5-7", "0 0 * * FRI-sun"),
        ("0 0 * * 1/2", "0 0 * * 1,3,5,7"),
        ("0 0 * * 0/2", "0 0 * * 0,2,4,6"),
        ("0 0 * * */2", "0 0 * * 0,2,4,6"),
        ("0 0 * * 7-7", "0 0 * * sun"),
        ("0 0 * * 0-7", "0 0 * * sun-sat"),
        ("@Hourly", "0 * * * *"),
        ("@WEEKLY", "0 0 * * 0"),
        ("0 0 l * *", "0 0 L-0 * *"),
        ("0 0 * * fri#l", "0 0 * * 5L"),
        ("5 0 * * *", "05 00 * * *"),
        ("0 0 1 Jan *", "@annually"),
        ("*/99999999999 0 * * *", "*/60 0 * * *"),
        ("0 0 * * 6-7", "0 0 * * sat,sun"),
        ("0 0 * * 1-7/3", "0 0 * * 1,4,7"),
    ];
    for (a, b) in same {
        let from = "2026-01-01T00:00:00Z";
        assert_eq!(runs(a, Tz::UTC, from, 40), runs(b, Tz::UTC, from, 40), "{a} and {b}");
    }
    assert_eq!(
        Crontab::builder("0 9 13 * fri").both_days().into_trigger().unwrap(),
        Crontab::parse("0 9 13 * +fri").into_trigger().unwrap()
    );
}

#[test]
fn quartz_is_read_in_its_own_dialect_and_searched_by_our_rule() {
    let from = "2026-01-01T00:00:00Z";
    assert_eq!(
        runs(Quartz::parse("0 30 8 ? * 2-6"), Tz::UTC, from, 20),
        runs(Crontab::parse("30 8 * * mon-fri"), Tz::UTC, from, 20)
    );
    assert_eq!(runs(Quartz::parse("0 0 0 ? * 1"), Tz::UTC, from, 3), runs("0 0 * * sun", Tz::UTC, from, 3));
    // Day and weekday must both match.
    assert_eq!(
        runs(Quartz::parse("0 0 9 13 * FRI"), Tz::UTC, from, 3),
        runs("0 9 13 * +fri", Tz::UTC, from, 3)
    );
    // The `cron` crate would skip the day of the gap and run twice in the fold.
    let berlin = |from| runs(Quartz::parse("0 30 2 * * *"), Tz::Europe__Berlin, from, 2);
    assert_eq!(berlin("2027-03-27T12:00:00Z"), ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]);
    assert_eq!(berlin("2026-10-24T12:00:00Z"), ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    assert_eq!(runs("quartz 0 0 0 1 1 * 2030-2031", Tz::UTC, from, 5).len(), 2);
    assert_eq!(runs("quartz 0 0 0 1 1 *", Tz::UTC, "9000-01-01T00:00:00Z", 1), ["9000-01-01T00:00:00+00:00"]);
    for line in ["30 8 * * 2-6", "0 30 8 ? * MON#2", "0 60 8 ? * *", "", "0 0 0 0 0 0 0 0 0", "@never"] {
        let error = Quartz::parse(line).unwrap_err();
        assert!(
            matches!(&error, TriggerError::Invalid { reason, .. } if !reason.contains('\n')),
            "{line}: {error}"
        );
    }
}

#[test]
fn moments_are_read_with_and_without_an_offset() {
    let berlin =
        |text: &str| text.parse::<Moment>().unwrap().instant(super::rules(Tz::Europe__Berlin)).to_rfc3339();
    assert_eq!(berlin("2026-05-01T12:00:00"), "2026-05-01T10:00:00+00:00");
    assert_eq!(berlin("2026-05-01 12:00"), "2026-05-01T10:00:00+00:00");
    assert_eq!(berlin("2026-05-01"), "2026-04-30T22:00:00+00:00");
    assert_eq!(berlin("2026-05-01T12:00:00-03:00"), "2026-05-01T15:00:00+00:00");
    assert_eq!(berlin("2026-05-01T12:00:00.25Z"), "2026-05-01T12:00:00.250+00:00");
    // A leap second is the next second.
    assert_eq!(berlin("2016-12-31T23:59:60Z"), "2017-01-01T00:00:00+00:00");
    assert_eq!(berlin("2026-05-01T12:00:60"), "2026-05-01T10:01:00+00:00");
    assert_eq!(
        runs("every 5h from 2026-01-01T00:00:60", Tz::UTC, "2016-12-31T23:59:60Z", 1),
        ["2026-01-01T00:01:00+00:00"]
    );
    // Inside a gap its end, inside a fold the first pass.
    assert_eq!(berlin("2026-03-29T02:30:00"), "2026-03-29T01:00:00+00:00");
    assert_eq!(berlin("2026-10-25T02:30:00"), "2026-10-25T00:30:00+00:00");
}

/// Text that is nearly right: pieces of all the grammars, strung together.
fn nearly(dice: &mut Dice) -> String {
    const PIECES: [&str; 72] = [
        "*",
        "?",
        "L",
        "W",
        "LW",
        "H",
        "#",
        "/",
        "-",
        ",",
        "(",
        ")",
        ";",
        ":",
        " ",
        " ",
        " ",
        " ",
        "0",
        "1",
        "5",
        "7",
        "12",
        "31",
        "59",
        "60",
        "99999999999999999999",
        "2026",
        "9999",
        "mon",
        "SUN",
        "jan",
        "fri#L",
        "15W",
        "L-3",
        "*/5",
        "1-5",
        "H(0-29)/7",
        "+",
        "@daily",
        "every",
        "once",
        "at",
        "in",
        "from",
        "until",
        "jitter",
        "gap",
        "fold",
        "skip",
        "first",
        "cron",
        "hour=8",
        "day=\"last fri\"",
        "quartz",
        "calendar",
        "1mo",
        "2w",
        "or(",
        "and(",
        "except(",
        "within",
        "custom",
        "{\"type\":",
        "\"cron\"",
        "}",
        "2026-05-01T12:00:00",
        "12-25",
        "2026-01-01..2026-01-05",
        "Europe/Berlin",
        "1h 30m",
        "\u{e9}\u{1F600}\u{0}",
    ];
    let mut text = String::new();
    for _ in 0..dice.between(1, 12) {
        text += dice.pick(&PIECES);
        if dice.one_in(2) {
            text.push(' ');
        }
    }
    text
}

/// Good text with a few characters changed, dropped or doubled.
fn changed(dice: &mut Dice) -> String {
    const GOOD: [&str; 14] = [
        "*/5 9-17 * * mon-fri",
        "0 0 1W,15W,LW 1-6/2 ?",
        "0 22 * * 5L",
        "15,45 30 2 29 2 * 2028-2100/4",
        "H H(1-5)/2 13 * +fri#2",
        "cron day=\"last fri\" hour=17 minute=*/10",
        "every 1h 30m from 2026-01-01 until 2027-01-01",
        "once at 2026-05-01T12:00:00Z",
        "calendar 1y 2mo 3w 4d at 02:30 from 2024-02-29 in Europe/Berlin",
        "or(@daily; every 90s; shutdown)",
        "and(cron minute=10; 10 */2 * * *) within 5s",
        "except(0 9 * * *; 12-25; 2026-08-01..2026-08-15; 0 9 13 * *)",
        "{\"type\": \"cron\", \"hour\": \"8-18/2\", \"timezone\": \"Asia/Tokyo\"}",
        "quartz 0 30 8 ? * MON-FRI gap skip fold both",
    ];
    let mut text: Vec<char> = dice.pick(&GOOD).chars().collect();
    for _ in 0..dice.between(0, 3) {
        let at = dice.below(text.len() as u64) as usize;
        match dice.below(4) {
            0 => drop(text.remove(at)),
            1 => text.insert(at, text[at]),
            2 => text[at] = char::from(dice.between(32, 126) as u8),
            _ => text[at] = dice.pick(&['0', '1', '2', '5', '9', '*', '-', ',', '/', ' ']),
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_makes_a_parser_panic_or_a_search_hang() {
    let mut dice = Dice(4);
    let anchor = at("2026-02-28T23:59:59Z");
    let mut taken = 0;
    for round in 0..60_000 {
        let text = match round % 4 {
            0 => nearly(&mut dice),
            1 => (0..dice.between(4, 8))
                .map(|_| nearly(&mut dice).replace(' ', ""))
                .collect::<Vec<_>>()
                .join(" "),
            2 => changed(&mut dice),
            _ => (0..dice.between(0, 40)).map(|_| char::from(dice.between(9, 126) as u8)).collect(),
        };
        let _ = text.parse::<Moment>();
        let _ = Quartz::parse(&text);
        let _ = Cron::builder().day(text.as_str()).into_trigger();
        let _ = serde_json::from_str::<Trigger>(&format!("{{\"type\":\"crontab\",\"expression\":{text:?}}}"));
        if let Ok(trigger) = text.parse::<Trigger>() {
            taken += 1;
            let cx = context(dice.pick(&chrono_tz::TZ_VARIANTS), anchor);
            let began = Instant::now();
            let mut from = anchor;
            for _ in 0..3 {
                let Ok(Some(run)) = trigger.next(from, &cx) else {
                    break;
                };
                assert!(run >= from, "{text}");
                assert!(trigger.due(run, &cx) >= run);
                let _ = trigger
                    .after(run, &cx)
                    .map(|later| assert!(later.is_none_or(|later| later > run), "{text}"));
                from = run + chrono::TimeDelta::seconds(1);
            }
            trigger.describe(&cx);
            trigger.warnings(&cx);
            assert!(began.elapsed() < Duration::from_secs(10), "{text} took {:?}", began.elapsed());
            assert_eq!(parse(&trigger.to_string()), trigger, "{text}");
        }
    }
    assert!(taken > 300, "only {taken} texts were taken");
}

#[test]
fn deep_nesting_is_refused_not_overflown() {
    let deep = format!("{}0 0 * * *{}", "or(".repeat(100_000), ")".repeat(100_000));
    assert!(deep.parse::<Trigger>().is_err());
    let json = format!(
        "{}{{\"type\":\"shutdown\"}}{}",
        "{\"type\":\"or\",\"triggers\":[".repeat(5_000),
        "]}".repeat(5_000)
    );
    assert!(json.parse::<Trigger>().is_err());
}
