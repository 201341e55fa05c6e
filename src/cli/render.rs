//! Answers of the service as text.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::terminal;
use super::time::{distance, length, shown, shown_by};
use crate::task::{RunEnd, standing_for, task_options, task_policies};
use crate::trigger::Zone;

/// Columns wide enough for what is in them; the last is as wide as it likes.
pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let seen = |row: &Vec<String>| row.iter().map(|cell| terminal::shown(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(seen).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row: &Vec<String>| row.get(column))
            .map(|cell: &String| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Text in one line of at most `limit` characters.
pub(super) fn brief(text: &str, limit: usize) -> String {
    let mut flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() > limit {
        flat = flat.chars().take(limit - 1).chain(['…']).collect();
    }
    flat
}

/// The end of a text, in one line of at most `limit` characters.
fn ending(text: &str, limit: usize) -> String {
    let flat = brief(text, usize::MAX);
    match flat.chars().count() {
        count if count > limit => ['…'].into_iter().chain(flat.chars().skip(count - limit + 1)).collect(),
        _ => flat,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

fn zone(task: &Value) -> Zone {
    task["timezone"].as_str().and_then(|zone| zone.parse().ok()).unwrap_or(Zone::UTC)
}

fn moment(value: &Value, task: &Value, now: DateTime<Utc>) -> String {
    instant(value)
        .map_or_else(|| "-".to_owned(), |at| format!("{} ({})", shown(at, zone(task)), distance(at, now)))
}

fn state(task: &Value) -> String {
    let mut words = vec![text(&task["schedule_state"])];
    if !task["waiting"].is_null() {
        words.push("waiting".to_owned());
    }
    for key in ["running", "queued"] {
        if let Some(runs @ 1..) = task[key].as_u64() {
            words.push(format!("{runs} {key}"));
        }
    }
    words.join(", ")
}

/// The tasks, one a line.
pub(super) fn list(tasks: &Value, now: DateTime<Utc>) -> Vec<String> {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    if tasks.is_empty() {
        return vec!["no tasks".to_owned()];
    }
    let mut rows = vec![["ID", "STATE", "RUNS", "NEXT RUN", "", "WHEN"].map(str::to_owned).to_vec()];
    for task in tasks {
        let next = instant(&task["next"]["nominal"]).filter(|_| task["paused"] != true);
        rows.push(vec![
            text(&task["id"]),
            state(task),
            text(&task["runs"]),
            next.map_or_else(|| "-".to_owned(), |at| shown(at, zone(task))),
            next.map_or_else(String::new, |at| distance(at, now)),
            brief(&text(&task["when"]), 60),
        ]);
    }
    table(&rows)
}

/// Which stores could not be asked for their tasks.
pub(super) fn unasked(stores: &[Value]) -> Option<String> {
    let each =
        |it: &Value| format!("the tasks of {} are not listed: {}", text(&it["store"]), text(&it["message"]));
    (!stores.is_empty()).then(|| stores.iter().map(each).collect::<Vec<_>>().join("; "))
}

/// One line about a task that was changed.
pub(super) fn changed(id: &str, done: &str, answer: &Value, now: DateTime<Utc>) -> String {
    let task = &answer["task"];
    if answer["in_configuration"] == true {
        return format!(
            "{id} {done}; the next start adds it again, unless you take it out of the configuration"
        );
    }
    match instant(&task["next"]["nominal"]) {
        Some(at) if task["paused"] != true => {
            format!("{id} {done}; it runs next on {} ({})", shown(at, zone(task)), distance(at, now))
        }
        _ if task["paused"] == true && done != "paused" => format!("{id} {done}; it is paused"),
        _ => format!("{id} {done}"),
    }
}

/// What was asked for and not taken, because the task was there already, one a line.
pub(super) fn kept(answer: &Value) -> impl Iterator<Item = String> + '_ {
    let kept = answer["kept"].as_array().map(Vec::as_slice).unwrap_or_default();
    kept.iter().map(|kept| format!("not taken: {}: {}", text(&kept["option"]), text(&kept["reason"])))
}

/// What the trigger's author may not have meant, one a line.
pub(super) fn warnings(answer: &Value) -> impl Iterator<Item = String> + '_ {
    let warnings = answer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    warnings.iter().map(|warning| format!("warning: {}", text(warning)))
}

/// How the value of an option is shown.
enum Shown {
    Always,
    /// Where there is one.
    Given,
    /// Milliseconds, where there are some.
    Length,
    /// The same, or a word for none.
    LengthOr(&'static str),
    Time,
    /// How many further attempts.
    Times,
    /// A number of runs, and how many there were.
    OfRuns,
}

impl Shown {
    fn value(&self, value: &Value, task: &Value, now: DateTime<Utc>) -> Option<String> {
        let length = value.as_i64().map(|millis| length(TimeDelta::milliseconds(millis)));
        match self {
            Self::Always => Some(text(value)),
            Self::Length => length,
            Self::LengthOr(none) => Some(length.unwrap_or_else(|| (*none).to_owned())),
            Self::Times => value["times"].as_u64().map(|times| format!("{times} times")),
            _ if value.is_null() => None,
            Self::Time => Some(moment(value, task, now)),
            Self::Given => Some(text(value)),
            Self::OfRuns => Some(format!("{}, {} so far", text(value), text(&task["fired"]))),
        }
    }
}

macro_rules! shown {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// The options of a task, and how each is shown.
        const OPTIONS: &[(&str, Shown)] = &[$((stringify!($name), $shown)),*];
    };
}
task_options!(shown);

/// Everything about one task.
pub(super) fn inspect(answer: &Value, now: DateTime<Utc>) -> Vec<String> {
    let task = &answer["task"];
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("id", text(&task["id"]));
    row("state", state(task));
    if let Some(reason) = task["waiting"]["reason"].as_str() {
        row("waiting", format!("since {}: {reason}", moment(&task["waiting"]["since"], task, now)));
    }
    row("when", text(&task["when"]));
    row("trigger", text(&task["trigger"]));
    row("timezone", text(&task["timezone"]));
    row("handler", text(&task["handler"]));
    row("store", text(&task["store"]));
    for (option, shown) in OPTIONS {
        if let Some(value) = shown.value(&task[*option], task, now) {
            row(&option.replace('_', " "), value);
        }
    }
    row("runs", text(&task["runs"]));
    for attempt in task["attempts"].as_array().into_iter().flatten() {
        let of =
            format!("attempt {} of {}", text(&attempt["number"]), moment(&attempt["nominal"], task, now));
        match &attempt["at"] {
            Value::Null => row("going on", of),
            at => row("tried again", format!("{}: {of}", moment(at, task, now))),
        }
    }
    if let Some(next) = task["backfill"].get("next") {
        let until = moment(&task["backfill"]["until"], task, now);
        row("back-fill", format!("next {}, until {until}", moment(next, task, now)));
    }
    row("last run", moment(&task["last_run"], task, now));
    row("created", moment(&task["created_at"], task, now));
    row("modified", moment(&task["modified_at"], task, now));
    row("revision", text(&task["revision"]));
    let mut lines = table(&rows);

    let next = answer["next"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.push(String::new());
    lines.push(if next.is_empty() { "no next runs".to_owned() } else { "next runs".to_owned() });
    lines.extend(next.iter().map(|at| format!("  {}", moment(at, task, now))));

    lines.extend(warnings(answer));

    let runs = answer["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.push(String::new());
    lines.push(if runs.is_empty() { "no runs on record".to_owned() } else { "latest runs".to_owned() });
    let runs: Vec<Vec<String>> = runs.iter().map(|run| record(run, task)).collect();
    lines.extend(table(&runs));
    lines
}

/// What became of run times, one a line.
pub(super) fn why(answer: &Value) -> Vec<String> {
    let times = answer["times"].as_array().map(Vec::as_slice).unwrap_or_default();
    if times.is_empty() {
        return vec!["no run times in this window".to_owned()];
    }
    let shown_at =
        |value: &Value| instant(value).map_or_else(|| "-".to_owned(), |at| shown(at, zone(answer)));
    let row = |time: &Value| vec![shown_at(&time["nominal"]), text(&time["fate"]), text(&time["reason"])];
    let mut lines = table(&times.iter().map(row).collect::<Vec<_>>());
    if let Some(next) = answer["next"].as_str() {
        lines.push(format!("there are more; go on with --from {next}"));
    }
    lines
}

fn record(run: &Value, task: &Value) -> Vec<String> {
    let end = &run["end"];
    let nominal = instant(&run["nominal"]);
    // Of several that have not ended it is not known here which of them wait.
    let queued = task["running"].as_u64() == Some(0) && task["queued"].as_u64() > Some(0);
    let going_on = if queued { "queued" } else { "running" };
    let outcome = end["outcome"].as_str().unwrap_or(going_on).to_owned();
    let duration = end["duration"].as_i64().map(TimeDelta::nanoseconds);
    let backlog =
        task["coalesce"] == "all" && !run["span"].is_null() && run["span"]["from"] == run["nominal"];
    let problem = RunEnd::deserialize(end).ok().and_then(|end| end.problem_in(backlog));
    let limit = if problem.is_some() { 600 } else { 100 };
    let again = instant(&end["retry_at"]).map(|at| format!("again at {}", shown(at, zone(task))));
    let note = problem.or_else(|| result(&end["value"]));
    let note = match (standing_for(run["coalesced"].as_u64().unwrap_or(0)), note) {
        (Some(others), Some(note)) => Some(format!("{others}: {note}")),
        (others, note) => others.or(note),
    };
    let note = match (note, again) {
        (None, None) if end.is_null() => Some(format!("run {}", text(&run["id"]))),
        (Some(note), Some(again)) => Some(format!("{again}: {note}")),
        (note, again) => note.or(again),
    };
    vec![
        format!(
            "  {}",
            nominal.map_or_else(|| "-".to_owned(), |at| shown_by(at, run["offset"].as_i64(), zone(task)))
        ),
        outcome,
        duration.map_or_else(String::new, length),
        brief(&note.unwrap_or_default(), limit),
    ]
}

/// What a run returned, for a line: what a command or a server said, else the JSON.
pub(super) fn result(value: &Value) -> Option<String> {
    match (value, &value["stdout"], &value["status"]) {
        (Value::Null, ..) => None,
        (_, Value::String(text), _) => Some(ending(text, 100)),
        (_, _, status @ Value::Number(_)) => {
            Some(format!("{status} {}", value["body"].as_str().unwrap_or_default()))
        }
        _ => Some(value.to_string()),
    }
}

/// So many records that cannot be read, for people.
pub(super) fn unreadable(count: u64) -> String {
    match count {
        1 => "1 record cannot be read".to_owned(),
        count => format!("{count} records cannot be read"),
    }
}

/// What makes records readable again, by the word for what is the matter with them.
fn remedy(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "newer" => "newer: use a version of callboard that reads it",
        "unknown_key" => {
            "unknown_key: give the store that key, after those it has: in its key file, or with --key-file"
        }
        "not_encrypted" => {
            "not_encrypted: leave `refuse_plain` out, `callboard store rekey`, and put it back"
        }
        "forged" | "corrupt" | "incomplete" => {
            "forged, corrupt, incomplete: stop the service, and bring the record back from an export with \
             `callboard store import EXPORT --merge`: all that can be read stays as it is"
        }
        _ => return None,
    })
}

/// What was found in a store.
pub(super) fn checked(answer: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} tasks and {} run records can be read",
        text(&answer["tasks"]),
        text(&answer["runs"])
    )];
    let bad = answer["quarantine"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !bad.is_empty() {
        let head = ["TASK", "RECORD", "SINCE", "WHAT", "WHY IT CANNOT BE READ"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(bad.iter().map(|it| {
            let since = instant(&it["since"]).map_or_else(|| "-".to_owned(), |at| shown(at, Zone::UTC));
            let cell = |name: &str| text(&it[name]);
            vec![cell("id"), cell("record"), since, cell("cause"), cell("reason")]
        }));
        lines.extend(table(&rows));
        let causes = bad.iter().filter_map(|it| remedy(it["cause"].as_str()?));
        lines.extend(causes.collect::<BTreeSet<_>>().into_iter().map(str::to_owned));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows =
            [vec!["a".to_owned(), "äöü".to_owned(), "x".to_owned()], vec!["bcd".to_owned(), "y".to_owned()]];
        assert_eq!(table(&rows), ["a    äöü  x", "bcd  y"]);
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn anything_can_be_shown() {
        // A service of another version may leave out or add what it likes.
        assert_eq!(list(&json!(null), DateTime::UNIX_EPOCH), ["no tasks"]);
        assert_eq!(list(&json!([{}]), DateTime::UNIX_EPOCH).len(), 2);
        assert!(inspect(&json!({}), DateTime::UNIX_EPOCH).len() > 10);
        let described =
            inspect(&json!({ "task": { "description": "closes the day" } }), DateTime::UNIX_EPOCH);
        assert!(described.iter().any(|line| line.ends_with("closes the day")), "{described:?}");
        assert_eq!(changed("a", "paused", &json!(null), DateTime::UNIX_EPOCH), "a paused");
    }

    #[test]
    fn what_is_quoted_of_damaged_records_is_only_shown() {
        let bad =
            json!({ "id": "a\u{1b}[2J", "record": "spec", "cause": "corrupt", "reason": "`\r\n\u{9b}`" });
        let lines = checked(&json!({ "tasks": 0, "runs": 0, "quarantine": [bad] }));
        assert!(!lines.iter().any(|line| line.contains(char::is_control)), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("--merge")), "{lines:?}");
    }

    #[test]
    fn notes_are_brief() {
        assert_eq!(brief("a\n b  c", 10), "a b c");
        assert_eq!(brief(&"x".repeat(20), 5), "xxxx…");
        assert_eq!(result(&json!({ "stdout": "hi" })).unwrap(), "hi");
        assert_eq!(
            result(&json!({ "stdout": "x".repeat(200) + "\nend" })).unwrap(),
            format!("…{} end", "x".repeat(95))
        );
        assert_eq!(result(&json!({ "status": 200, "body": "ok" })).unwrap(), "200 ok");
        assert_eq!(result(&json!(5)).unwrap(), "5");
    }
}
