//! `next`: when a trigger fires. Needs no service.

use std::io::{self, BufRead};
use std::panic::catch_unwind;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::args::Next;
use super::exit::{Exit, Failure};
use super::time::{distance, parse, rules, shown};
use super::{out, render};
use crate::clock::Clock;
use crate::task::TaskId;
use crate::trigger::{Context, Trigger, TriggerError, Zone, answer_by};

pub(super) fn run(args: Next) -> Result<(), Failure> {
    match &args.trigger {
        Some(trigger) if !args.jsonl => show(trigger, &args),
        _ => answer_lines(),
    }
}

fn show(text: &str, args: &Next) -> Result<(), Failure> {
    let invalid = |error: String| Failure::new(Exit::Invalid, error);
    let now = Clock::system().now();
    let trigger: Trigger = text.parse().map_err(|error: TriggerError| invalid(error.to_string()))?;
    trigger.check_lengths().map_err(|error| invalid(error.to_string()))?;
    let zone = args.timezone.unwrap_or(Zone::UTC);
    if trigger.is_hashed() && args.id.is_none() {
        let message = "`H` stands for another time in each task: name the task with --id, or write a number";
        return Err(invalid(message.to_owned()));
    }
    let key = args.id.as_deref().unwrap_or("next");
    let after = match &args.after {
        Some(text) => {
            let own = trigger.zone(&Context::new(zone, now, key));
            parse(text, args.timezone.unwrap_or(own)).map_err(|error| invalid(format!("--after: {error}")))?
        }
        None => now,
    };
    let zones = rules();
    let anchor = match trigger.spread_start(key, after) {
        Some(place) if args.spread => place,
        None if args.spread => {
            let message = "--spread is for an interval that names no start, such as \"every 1h\"";
            return Err(invalid(message.to_owned()));
        }
        _ => after,
    };
    let cx = Context::new(zone, anchor, key).with_zones(&zones);
    trigger.check(after, &cx).map_err(|error| invalid(error.to_string()))?;
    let count = args.count as usize;
    let times: Result<Vec<_>, _> = trigger.times(after, &cx).take(count).collect();
    let times = times.map_err(|error| invalid(error.to_string()))?;
    let exhausted = times.len() < count;
    let zone = trigger.zone(&cx);
    let when = trigger.describe(&cx);
    let warnings: Vec<String> = trigger.warnings(&cx).iter().map(ToString::to_string).collect();
    if args.json {
        out::json(&json!({
            "when": when,
            "timezone": zone.name(),
            "next": local(&times, zone),
            "exhausted": exhausted,
            "warnings": warnings,
        }));
        return Ok(());
    }
    out::line(&when);
    let rows: Vec<Vec<String>> =
        times.iter().map(|at| vec![format!("  {}", shown(*at, zone)), distance(*at, now)]).collect();
    render::table(&rows).iter().for_each(|line| out::line(line));
    if exhausted {
        out::line("  and no more");
    }
    warnings.iter().for_each(|warning| out::line(&format!("warning: {warning}")));
    Ok(())
}

/// An id, for the command line.
pub(super) fn id(text: &str) -> Result<String, String> {
    TaskId::new(text).map(|id| id.to_string()).map_err(|error| error.to_string())
}

fn local(times: &[DateTime<Utc>], zone: Zone) -> Vec<String> {
    times.iter().map(|at| rules().time(*at, zone).to_rfc3339()).collect()
}

/// Reads questions from standard input, one JSON object a line, and answers each with a line.
fn answer_lines() -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("cannot read standard input: {error}"));
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        if !line.trim_ascii().is_empty() {
            out::json_line(reply(&line));
        }
        line.clear();
    }
    Ok(())
}

/// The trigger layer answers every line; a defect in one kind of trigger must not cost the answers
/// to all the others.
fn reply(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    catch_unwind(|| answer_by(&line, &rules())).unwrap_or_else(|_| {
        let id =
            serde_json::from_str::<Value>(&line).map(|question| question["id"].clone()).unwrap_or_default();
        json!({ "id": id, "error": "the search failed; please report this trigger" }).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_an_answer() {
        let lines =
            ["hello", "5", "{}", r#"{"trigger":{"type":"nosuch"}}"#, r#"{"trigger":5}"#, r#"{"count":-1}"#];
        for line in lines.into_iter().chain([&*"[".repeat(100_000), "\u{0}"]) {
            let answer: Value = serde_json::from_str(&reply(line.as_bytes())).unwrap();
            assert!(answer["error"].is_string(), "{line}: {answer}");
        }
        assert!(reply(b"\xff\xfe").contains("error"));
    }
}
