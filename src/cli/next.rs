//! `next`: when a trigger fires. Needs no service.

use std::io::{self, BufRead};
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::args::Next;
use super::exit::{Exit, Failure};
use super::time::{distance, parse, shown};
use super::{out, render};
use crate::clock::Clock;
use crate::trigger::{Context, Trigger};

/// More run times than this are not worked out for one question.
const MAX_COUNT: u64 = 100_000;

pub(super) fn run(args: Next) -> Result<(), Failure> {
    match &args.trigger {
        Some(trigger) if !args.jsonl => show(trigger, &args),
        _ => answer_lines(),
    }
}

/// Run times as the trigger gives them, and whether it has ended.
struct Runs {
    times: Vec<DateTime<Utc>>,
    exhausted: bool,
}

fn runs(trigger: &Trigger, after: DateTime<Utc>, count: u64, cx: &Context<'_>) -> Result<Runs, String> {
    let mut times = Vec::new();
    let mut from = after;
    while (times.len() as u64) < count {
        let next = trigger.next(from, cx).map_err(|error| error.to_string())?;
        let Some(next) = next else {
            return Ok(Runs { times, exhausted: true });
        };
        times.push(next);
        let Some(later) = next.checked_add_signed(TimeDelta::nanoseconds(1)) else {
            return Ok(Runs { times, exhausted: true });
        };
        from = later;
    }
    Ok(Runs { times, exhausted: false })
}

fn show(text: &str, args: &Next) -> Result<(), Failure> {
    let invalid = |error: String| Failure::new(Exit::Invalid, error);
    let now = Clock::system().now();
    let after = match &args.after {
        Some(text) => parse(text, args.timezone).map_err(|error| invalid(format!("--after: {error}")))?,
        None => now,
    };
    let json = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| invalid(format!("the trigger is no JSON: {error}")))?
    } else {
        json!({ "type": "crontab", "expression": text })
    };
    let trigger: Trigger = serde_json::from_value(json).map_err(|error| invalid(error.to_string()))?;
    let cx = Context { zone: args.timezone, anchor: after, key: "next" };
    trigger.check(after, &cx).map_err(|error| invalid(error.to_string()))?;
    let Runs { times, exhausted } = runs(&trigger, after, args.count.into(), &cx).map_err(invalid)?;
    let zone = trigger.zone(&cx);
    let description = trigger.describe(&cx);
    if args.json {
        out::json(&json!({
            "description": description,
            "timezone": zone.name(),
            "next": local(&times, zone),
            "exhausted": exhausted,
        }));
        return Ok(());
    }
    out::line(&format!("{description} ({zone})"));
    let rows: Vec<Vec<String>> =
        times.iter().map(|at| vec![format!("  {}", shown(*at, zone)), distance(*at, now)]).collect();
    render::table(&rows).iter().for_each(|line| out::line(line));
    if exhausted {
        out::line("  and no more");
    }
    Ok(())
}

fn local(times: &[DateTime<Utc>], zone: Tz) -> Vec<String> {
    times.iter().map(|at| at.with_timezone(&zone).to_rfc3339()).collect()
}

/// Reads questions from standard input, one JSON object a line, and answers each with a line.
fn answer_lines() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("cannot read standard input: {error}"));
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        if !line.trim_ascii().is_empty() {
            out::json(&reply(&line));
        }
        line.clear();
    }
    Ok(())
}

fn reply(line: &[u8]) -> Value {
    let question: Value = match serde_json::from_slice(line) {
        Ok(question) => question,
        Err(error) => return json!({ "id": null, "error": format!("this line is no JSON: {error}") }),
    };
    let id = question["id"].clone();
    // A defect in one kind of trigger must not cost the answers to all the others.
    let answer = catch_unwind(AssertUnwindSafe(|| answer(&question)))
        .unwrap_or_else(|_| Err("the search failed; please report this trigger".to_owned()));
    match answer {
        Ok((got, exhausted)) => json!({ "id": id, "got": got, "exhausted": exhausted }),
        Err(error) => json!({ "id": id, "error": error }),
    }
}

fn answer(question: &Value) -> Result<(Vec<String>, bool), String> {
    let Value::Object(question) = question else {
        return Err("a question is an object: {\"id\": …, \"trigger\": {…}, \"timezone\": …, \"after\": …, \"count\": …}".to_owned());
    };
    let zone: Tz = match question.get("timezone") {
        None | Some(Value::Null) => Tz::UTC,
        Some(Value::String(name)) => name.parse().map_err(|_| format!("timezone: {name:?} is none"))?,
        Some(other) => return Err(format!("timezone: {other} is no name of a zone")),
    };
    let after = match question.get("after") {
        None | Some(Value::Null) => Clock::system().now(),
        Some(Value::String(text)) => parse(text, zone).map_err(|error| format!("after: {error}"))?,
        Some(other) => return Err(format!("after: {other} is no time")),
    };
    let count = match question.get("count") {
        None | Some(Value::Null) => 1,
        Some(count) => count
            .as_u64()
            .filter(|count| *count <= MAX_COUNT)
            .ok_or_else(|| format!("count: {count} is no whole number from 0 to {MAX_COUNT}"))?,
    };
    let trigger = question.get("trigger").cloned().ok_or("trigger: is missing")?;
    let trigger: Trigger = serde_json::from_value(trigger).map_err(|error| format!("trigger: {error}"))?;
    let cx = Context { zone, anchor: after, key: "next" };
    let Runs { times, exhausted } = runs(&trigger, after, count, &cx)?;
    Ok((local(&times, trigger.zone(&cx)), exhausted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_an_answer() {
        let error = |line: &str| reply(line.as_bytes())["error"].as_str().unwrap_or("none").to_owned();
        assert!(error("hello").contains("no JSON"));
        assert!(error("5").contains("object"));
        assert!(error("{}").contains("trigger: is missing"));
        assert!(error(r#"{"trigger":{"type":"nosuch"}}"#).contains("nosuch"));
        assert!(error(r#"{"trigger":5}"#).contains("trigger"));
        assert!(error(r#"{"trigger":{},"timezone":"Nowhere"}"#).contains("Nowhere"));
        assert!(error(r#"{"trigger":{},"count":-1}"#).contains("count"));
        assert!(error(r#"{"trigger":{},"after":"never"}"#).contains("after"));
        assert!(error(&"[".repeat(100_000)).contains("no JSON"));
        assert_eq!(reply(br#"{"id":"x"}"#)["id"], "x");
    }

    #[test]
    fn an_interval_is_answered() {
        let line = br#"{"id":"a","trigger":{"type":"interval","seconds":60},"timezone":"Europe/Lisbon","after":"2026-07-01T00:00:00Z","count":2}"#;
        let expected = json!({ "id": "a", "got": ["2026-07-01T01:00:00+01:00", "2026-07-01T01:01:00+01:00"], "exhausted": false });
        assert_eq!(reply(line), expected);
    }
}
