//! What is said about malformed input: the field, the place where there is text, what is allowed.

use callboard::trigger::{Trigger, answer};

/// What a trigger can look like.
const FORMS: &str = "a crontab line of 5, 6 or 7 fields such as `30 8 * * 1-5`, @daily, `every 15m`, `once at 2026-05-01T12:00:00`, `cron hour=8`, `calendar 1mo at 09:00`, `quartz 0 30 8 ? * 2-6`, `or(…; …)`, `and(…; …)`, `except(…; …)`, `custom name`, shutdown, or JSON";

#[test]
fn triggers_that_cannot_be_read() {
    for (text, expected) in [
        (r#"{"type": "calendar_interval", "months": 1, "hour": 24}"#, "hour: 24 is not between 0 and 23"),
        (
            r#"{"type": "calendar_interval", "months": 1, "start_date": "2026-02-30"}"#,
            r#"start_date: `"2026-02-30"` is not valid; allowed is a date of the calendar such as "2026-05-01""#,
        ),
        (
            r#"{"type": "crontab", "expression": "@daily", "jitter": -1}"#,
            "jitter: `-1` is not valid; allowed is a length of time in seconds, 0 or more",
        ),
        (
            r#"{"type": "crontab", "expression": "@daily", "gap": "no"}"#,
            r#"gap: `"no"` is not valid; allowed is fire_after, skip"#,
        ),
        (
            r#"{"type": "crontab", "expression": "@daily", "timezone": "Nope"}"#,
            r#"timezone: `"Nope"` is not valid; allowed is a zone of the IANA database such as "Europe/Lisbon" or "UTC""#,
        ),
        (
            r#"{"type": "crontab", "expresion": "@daily"}"#,
            "expresion: unknown field `expresion` of crontab; allowed are expression, both_days, start_at, end_at, timezone, jitter, gap, fold; did you mean expression?",
        ),
        (
            r#"{"type": "crontab"}"#,
            r#"expression: it is missing; give a crontab line, for instance "30 8 * * 1-5""#,
        ),
        (
            r#"{"type": "cron", "hours": 5}"#,
            "hours: unknown field `hours` of cron; allowed are year, month, day, week, day_of_week, hour, minute, second, start_at, end_at, timezone, jitter, gap, fold; did you mean hour?",
        ),
        (
            r#"{"type": "cron", "hour": 5.5}"#,
            r#"hour: `5.5` is not valid; allowed is a whole number, or text such as "*/15""#,
        ),
        (
            r#"{"type": "cron", "hour": 25}"#,
            "hour: `25` is not valid; allowed are 0-23, *, lists, ranges a-b and steps /n (at character 1 of `25`)",
        ),
        (
            r#"{"type": "cron", "hour": 5, "hour": 6}"#,
            "trigger: hour: it is given twice; give it once at line 1 column 38",
        ),
        (
            r#"{"type": "interval", "seconds": -1}"#,
            "seconds: it is less than 0; weeks, days, hours, minutes and seconds have to add up to more than 0",
        ),
        (
            r#"{"type": "interval", "minutes": "5"}"#,
            r#"minutes: `"5"` is not valid; allowed is a whole number"#,
        ),
        (
            r#"{"type": "interval"}"#,
            "interval: its length is zero; weeks, days, hours, minutes and seconds have to add up to more than 0",
        ),
        (
            r#"{"type": "date", "run_at": "soon"}"#,
            r#"run_at: `"soon"` is not valid; allowed is text such as "2026-05-01T12:00:00", with Z or +02:00 after it for an instant"#,
        ),
        (
            r#"{"type": "never"}"#,
            r#"type: `"never"` is not known; allowed are date, interval, cron, crontab, quartz, calendar_interval, and, or, except, custom, shutdown"#,
        ),
        (
            r#"{"hour": 5}"#,
            "type: it is missing; allowed are date, interval, cron, crontab, quartz, calendar_interval, and, or, except, custom, shutdown",
        ),
        (
            r#"{"type": "or", "triggers": [{"type": "shutdown"}, {"type": "cron", "minute": "1,77"}]}"#,
            "triggers[1].minute: `77` is not valid; allowed are 0-59, *, lists, ranges a-b and steps /n (at character 3 of `1,77`)",
        ),
        (
            r#"{"type": "and", "triggers": [], "tolerance": 1}"#,
            "and: it has no parts; give it at least one trigger",
        ),
        (
            r#"{"type": "except", "trigger": {"type": "crontab", "expression": "0 24 * * *"}}"#,
            "trigger.hour: `24` is not valid; allowed are 0-23, *, lists, ranges a-b and steps /n (at character 3 of `0 24 * * *`)",
        ),
        (
            r#"{"type": "except", "trigger": {"type": "shutdown"}, "dates": ["12-25", "13-01"]}"#,
            "dates[1]: `13-01` is not a date; write 2026-12-25, or 12-25 for every year",
        ),
        (
            r#"{"type": "custom", "name": "two words"}"#,
            "custom: `two words` is not a name; use letters, digits, `_`, `-`, `.` and `:`",
        ),
        (
            r#"{"type": "shutdown", "when": 1}"#,
            "when: unknown field `when` of shutdown; allowed are none besides type",
        ),
        (r#"{"type": "cron" "hour": 5}"#, "trigger: it is not JSON: expected `,` or `}` at line 1 column 17"),
        (
            "quartz 0 60 8 ? * *",
            "minute: `60` is not valid; allowed are 0-59, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 3 of `0 60 8 ? * *`)",
        ),
        (
            "quartz 0 0,,5 8 ? * *",
            "minute: an item is empty; allowed are 0-59, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 5 of `0 0,,5 8 ? * *`)",
        ),
        (
            "quartz 0 30 8 ? * MON#2",
            "day_of_week: `MON#2` is not valid; allowed are 1-7 (1 is Sunday), sun-sat, ?, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 12 of `0 30 8 ? * MON#2`)",
        ),
        (
            "quartz 0 30 8 ? * 2,8",
            "day_of_week: `8` is not valid; allowed are 1-7 (1 is Sunday), sun-sat, ?, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 14 of `0 30 8 ? * 2,8`)",
        ),
        (
            "quartz 30 8 * * 2-6",
            "quartz: `30 8 * * 2-6` has 5 fields; 6 are needed with the second in front, or 7 with the year at the end (at character 8 of `quartz 30 8 * * 2-6`)",
        ),
        (
            "quartz @never",
            "quartz: `@never` is not known; the nicknames are @hourly, @daily, @weekly, @monthly, @yearly (at character 1 of `@never`)",
        ),
        (
            "quartz 0 0 0 1 1 * 2200",
            "year: `2200` is not valid; allowed are 1970-2100, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 13 of `0 0 0 1 1 * 2200`)",
        ),
        (
            "quartz ? 0 0 1 1 *",
            "second: `?` is not valid; allowed are 0-59, *, lists, ranges a-b that run upwards and steps /n from 1 (at character 1 of `? 0 0 1 1 *`)",
        ),
        (
            "quartz",
            "quartz: `` has 0 fields; 6 are needed with the second in front, or 7 with the year at the end (at character 7 of `quartz`)",
        ),
        (
            "every 5m in Nope",
            "in: `Nope` is no zone of the IANA database; write for instance Europe/Lisbon or UTC (at character 13 of `every 5m in Nope`)",
        ),
        (
            "every 5m from x",
            "from: `x` is not a date and time; write 2026-05-01T12:00:00, with Z or +02:00 after it for an instant (at character 15 of `every 5m from x`)",
        ),
        (
            "every 5m until",
            "until: nothing stands after it; write a date and time, for instance 2026-05-01T12:00:00 (at character 10 of `every 5m until`)",
        ),
        (
            "every 5m jitter",
            "jitter: a length of time is missing; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 16 of `every 5m jitter`)",
        ),
        (
            "every 5m jitter 3x",
            "jitter: `3x` is not a length of time; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 17 of `every 5m jitter 3x`)",
        ),
        (
            "every 5m 3q",
            "every: `3q` is not a length of time; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 10 of `every 5m 3q`)",
        ),
        (
            "every",
            "every: a length of time is missing; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 6 of `every`)",
        ),
        (
            "every 0s",
            "interval: its length is zero or less; it has to be longer than nothing (at character 7 of `every 0s`)",
        ),
        (
            "every 5m jitter 1s jitter 2s",
            "jitter: it is given twice; give it once (at character 20 of `every 5m jitter 1s jitter 2s`)",
        ),
        (
            "every 1 fortnight",
            "every: `1 fortnight` is not a length of time; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 7 of `every 1 fortnight`)",
        ),
        (
            "0 9 * * * gap no",
            "gap: `no` is not known; write fire_after or skip (at character 15 of `0 9 * * * gap no`)",
        ),
        (
            "every 5m from 2026-01-02 until 2026-01-01",
            "end_at: 2026-01-01T00:00:00 lies before start_at 2026-01-02T00:00:00; it has to be at or after it (at character 7 of `every 5m from 2026-01-02 until 2026-01-01`)",
        ),
        (
            "every 1 day in Nope",
            "in: `Nope` is no zone of the IANA database; write for instance Europe/Lisbon or UTC (at character 16 of `every 1 day in Nope`)",
        ),
        (
            "or(@daily; bogus)",
            "part 2 of or: trigger: `bogus` is not known; write {FORMS} (at character 1 of `bogus`)",
        ),
        (
            "or(@daily; and(@daily; every 5m jitter x))",
            "part 2 of or: part 2 of and: jitter: `x` is not a length of time; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 17 of `every 5m jitter x`)",
        ),
        (
            "and(@daily; @weekly) within x",
            "within: `x` is not a length of time; write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d (at character 29 of `and(@daily; @weekly) within x`)",
        ),
        (
            "and(@daily; @weekly) with 5s",
            "and: `with 5s`: only `within 5s` can follow (at character 22 of `and(@daily; @weekly) with 5s`)",
        ),
        (
            "or(@daily; @weekly",
            "or: its parts are written or(a; b; …), with `;` between (at character 3 of `or(@daily; @weekly`)",
        ),
        (
            "except(@daily; 02-30)",
            "part 2 of except: dates: `02-30` is not a date; write 2026-12-25, or 12-25 for every year (at character 16 of `except(@daily; 02-30)`)",
        ),
        (
            "except(@daily; 2026-08-01..soon)",
            "part 2 of except: time: `soon` is not a date and time; write 2026-05-01T12:00:00, with Z or +02:00 after it for an instant (at character 16 of `except(@daily; 2026-08-01..soon)`)",
        ),
        (
            "cron hour=25",
            "hour: `25` is not valid; allowed are 0-23, *, lists, ranges a-b and steps /n (at character 1 of `25`)",
        ),
        (
            "cron hour=1,2,77",
            "hour: `77` is not valid; allowed are 0-23, *, lists, ranges a-b and steps /n (at character 5 of `1,2,77`)",
        ),
        (
            "cron hours=5",
            "hours: it is no field, or given twice; fields are year, month, day, week, day_of_week, hour, minute, second; did you mean hour? (at character 6 of `cron hours=5`)",
        ),
        (
            "cron minute=5 hour",
            r#"cron: `hour`: fields are written name=value or name="a value"; the names are year, month, day, week, day_of_week, hour, minute, second (at character 15 of `cron minute=5 hour`)"#,
        ),
        (
            "cron",
            "cron: no field is given; give at least one of year, month, day, week, day_of_week, hour, minute, second (at character 1 of `cron`)",
        ),
        ("hello", "trigger: `hello` is not known; write {FORMS} (at character 1 of `hello`)"),
        (
            "hello world",
            "trigger: `hello world` is not known; write {FORMS} (at character 1 of `hello world`)",
        ),
        ("", "trigger: it is empty; write {FORMS}"),
        ("5", "trigger: `5` is not known; write {FORMS} (at character 1 of `5`)"),
        (
            "0 0 * *",
            "crontab: `0 0 * *` has 4 fields; 5 are needed, 6 with the second in front, 7 with the year at the end (at character 1 of `0 0 * *`)",
        ),
        (
            "@often",
            "crontab: `@often` is not known; the nicknames are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually (at character 1 of `@often`)",
        ),
        (
            "once tomorrow",
            "once: `tomorrow`: after `once` comes `at` and a time, for instance `once at 2026-05-01T12:00:00` (at character 6 of `once tomorrow`)",
        ),
        (
            "once at noon",
            "at: `noon` is not a date and time; write 2026-05-01T12:00:00, with Z or +02:00 after it for an instant (at character 9 of `once at noon`)",
        ),
        (
            "once at 2026-05-01 in Nope",
            "in: `Nope` is no zone of the IANA database; write for instance Europe/Lisbon or UTC (at character 23 of `once at 2026-05-01 in Nope`)",
        ),
        (
            "calendar 1x at 09:00",
            "calendar: `1x` is not valid; a calendar interval is written in y, mo, w and d, for instance `calendar 1mo at 09:30` (at character 10 of `calendar 1x at 09:00`)",
        ),
        (
            "calendar 1mo at 25:00",
            "time: `25:00` is not a time of day; write 17:00 or 17:00:30 (at character 17 of `calendar 1mo at 25:00`)",
        ),
        (
            "calendar",
            "calendar_interval: no interval is given; give years, months, weeks or days (at character 1 of `calendar`)",
        ),
        (
            "custom two; words",
            "params: `words` is not JSON: expected value at line 1 column 1 (at character 13 of `custom two; words`)",
        ),
        (
            "custom tides {",
            "params: `{` is not JSON: EOF while parsing an object at line 1 column 1 (at character 14 of `custom tides {`)",
        ),
    ] {
        let said = match text.parse::<Trigger>() {
            Ok(trigger) => panic!("{text} was taken for {trigger}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(said.replace(FORMS, "{FORMS}"), expected, "{text}");
        // JSON from elsewhere says the same.
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(text)
            && json.is_object()
            && !expected.contains("given twice")
        {
            assert_eq!(serde_json::from_value::<Trigger>(json).unwrap_err().to_string(), expected, "{text}");
        }
    }
}

#[test]
fn questions_that_cannot_be_read() {
    for (text, expected) in [
        (
            r#"{"id": "a", "trigger": "@daily", "after": "x"}"#,
            r#"{"error":"after: `\"x\"` is not valid; allowed is an instant as RFC 3339, for instance \"2026-01-01T00:00:00Z\" or \"2026-01-01T00:00:00+01:00\"","id":"a"}"#,
        ),
        (
            r#"{"id": "a", "trigger": "@daily", "after": 5}"#,
            r#"{"error":"after: `5` is not valid; allowed is an instant as RFC 3339, for instance \"2026-01-01T00:00:00Z\" or \"2026-01-01T00:00:00+01:00\"","id":"a"}"#,
        ),
        (
            r#"{"id": "a", "trigger": "@daily", "timezone": "Nope"}"#,
            r#"{"error":"timezone: `\"Nope\"` is not valid; allowed is a zone of the IANA database such as \"Europe/Lisbon\" or \"UTC\"","id":"a"}"#,
        ),
        (
            r#"{"id": "a", "trigger": "@daily", "count": -1}"#,
            r#"{"error":"count: `-1` is not valid; allowed is a whole number, 0 or more","id":"a"}"#,
        ),
        (
            r#"{"id": "a"}"#,
            r#"{"error":"trigger: it is missing; give a trigger as text or as an object","id":"a"}"#,
        ),
        ("[]", r#"{"error":"question: it is not an object with a `trigger`","id":null}"#),
        ("{", r#"{"error":"question: EOF while parsing an object at line 1 column 1","id":null}"#),
    ] {
        assert_eq!(answer(text), expected, "{text}");
    }
}

#[test]
fn units_may_be_written_out_and_apart() {
    for (text, same) in [
        ("every 1 day", "every 1d"),
        ("every 2 Hours 30 minutes", "every 2h 30m"),
        ("every 90 s", "every 1m 30s"),
        ("every 2 weeks", "every 2w"),
        ("every 90", "every 90s"),
    ] {
        assert_eq!(text.parse::<Trigger>(), same.parse::<Trigger>(), "{text}");
    }
}
