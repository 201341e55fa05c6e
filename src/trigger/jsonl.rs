//! Questions and answers as JSON lines: how other programs ask "when would this run?".

use std::fmt::Write as _;

use chrono::{DateTime, Offset, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Value, json};

use super::limits::zone_named;
use super::{Context, Trigger};

/// How many runs one question may ask for.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: Value,
    trigger: Value,
    timezone: Option<String>,
    after: Option<String>,
    count: Option<usize>,
}

/// Answers one question.
///
/// The question is an object with `id`, `trigger` (a trigger as JSON, or as text), `timezone`
/// (default UTC), `after` (RFC 3339; the first run is at or after it) and `count` (default 1).
/// The answer is `{"id", "got": [RFC 3339, …], "exhausted"}`, each run with the offset of the
/// trigger's zone and `exhausted` telling that there are no more, or `{"id", "error"}`.
///
/// `after` is also the [anchor](Context::anchor) and `id` the [key](Context::key).
///
/// ```
/// use callboard::trigger::answer;
///
/// let question = r#"{"id": "a", "trigger": "0 9 * * 1", "timezone": "Europe/Berlin", "after": "2026-01-01T00:00:00Z", "count": 1}"#;
/// assert_eq!(answer(question), r#"{"exhausted":false,"got":["2026-01-05T09:00:00+01:00"],"id":"a"}"#);
/// ```
pub fn answer(line: &str) -> String {
    match serde_json::from_str::<Question>(line) {
        Ok(question) => match runs(&question) {
            Ok((got, exhausted)) => {
                json!({ "id": question.id, "got": got, "exhausted": exhausted })
            }
            Err(error) => json!({ "id": question.id, "error": error }),
        },
        Err(error) => json!({ "id": null, "error": error.to_string() }),
    }
    .to_string()
}

fn runs(question: &Question) -> Result<(Vec<String>, bool), String> {
    let trigger: Trigger = match &question.trigger {
        Value::String(text) => text.parse().map_err(|error| format!("{error}"))?,
        json => Trigger::deserialize(json).map_err(|error| error.to_string())?,
    };
    let zone =
        question.timezone.as_deref().map_or(Ok(Tz::UTC), zone_named).map_err(|error| error.to_string())?;
    let from = match &question.after {
        Some(after) => DateTime::parse_from_rfc3339(after)
            .map_err(|error| format!("after: {error}"))?
            .with_timezone(&Utc),
        None => DateTime::UNIX_EPOCH,
    };
    let key = match &question.id {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    };
    let cx = Context { zone, anchor: from, key: &key };
    let (count, zone) = (question.count.unwrap_or(1).min(MOST), trigger.zone(&cx));
    let mut got = Vec::new();
    let mut next = trigger.next(from, &cx);
    while got.len() < count {
        let Some(run) = next.map_err(|error| error.to_string())? else {
            return Ok((got, true));
        };
        got.push(rfc3339(run, zone));
        next = trigger.after(run, &cx);
    }
    Ok((got, false))
}

/// RFC 3339 in a zone; an offset with seconds (local mean time) keeps them.
pub(crate) fn rfc3339(at: DateTime<Utc>, zone: Tz) -> String {
    let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let Some(wall) = at.naive_utc().checked_add_offset(offset) else {
        return at.to_rfc3339_opts(SecondsFormat::AutoSi, false);
    };
    let seconds = offset.local_minus_utc();
    let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    let mut text = format!(
        "{}{sign}{:02}:{:02}",
        wall.format("%Y-%m-%dT%H:%M:%S%.f"),
        seconds / 3600,
        seconds / 60 % 60
    );
    if seconds % 60 != 0 {
        let _ = write!(text, ":{:02}", seconds % 60);
    }
    text
}
