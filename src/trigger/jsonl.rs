//! Questions and answers as JSON lines: how other programs ask "when would this run?".

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::json::{Is, Json};
use super::{Context, Moment, Trigger, TriggerError, Zone, Zones};

/// How many runs one question may ask for.
const MOST: usize = 100_000;

const INSTANT: &str =
    "an instant as RFC 3339, for instance \"2026-01-01T00:00:00Z\" or \"2026-01-01T00:00:00+01:00\"";

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
    answer_by(line, Zones::bundled())
}

/// The same by other rules than those that are compiled in.
pub fn answer_by(line: &str, zones: &Zones) -> String {
    match serde_json::from_str::<Json>(line) {
        Ok(Json(Value::Object(question))) => {
            let id = question.get("id").cloned().unwrap_or_default();
            match runs(question, &id, zones) {
                Ok((got, exhausted)) => json!({ "id": id, "got": got, "exhausted": exhausted }),
                Err(error) => json!({ "id": id, "error": error.to_string() }),
            }
        }
        Ok(_) => json!({ "id": null, "error": "question: it is not an object with a `trigger`" }),
        Err(error) => json!({ "id": null, "error": format!("question: {error}") }),
    }
    .to_string()
}

fn runs(
    mut question: Map<String, Value>,
    id: &Value,
    zones: &Zones,
) -> Result<(Vec<String>, bool), TriggerError> {
    let trigger: Trigger = match question.remove("trigger") {
        Some(Value::String(text)) => text.parse()?,
        Some(json) => super::json::trigger(json, "")?,
        None => {
            return Err(TriggerError::invalid(
                "trigger",
                "it is missing; give a trigger as text or as an object",
            ));
        }
    };
    trigger.check_lengths()?;
    let mut given = |name: &str| question.remove(name).filter(|value| !value.is_null());
    let zone = match given("timezone") {
        Some(name) => {
            let zone = name.as_str().and_then(|name| Zone::named(name).ok());
            zone.ok_or_else(|| Is::Zone.wrong("timezone".into(), &name))?
        }
        None => Zone::UTC,
    };
    let from = match given("after") {
        Some(after) => {
            let instant = after.as_str().and_then(|after| match after.parse() {
                Ok(Moment::Exact(at)) => Some(at.to_utc()),
                _ => None,
            });
            instant.ok_or_else(|| Is::Text(INSTANT).wrong("after".into(), &after))?
        }
        None => DateTime::UNIX_EPOCH,
    };
    let count = match given("count") {
        Some(count) => {
            let number = count.as_u64().map(|count| usize::try_from(count).unwrap_or(MOST));
            number.ok_or_else(|| Is::Whole("a whole number, 0 or more").wrong("count".into(), &count))?
        }
        None => 1,
    };
    let key = match id {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    };
    let cx = Context::new(zone, from, &key).with_zones(zones);
    let (count, zone) = (count.min(MOST), trigger.zone(&cx));
    let mut got = Vec::new();
    let mut next = trigger.next(from, &cx);
    while got.len() < count {
        let Some(run) = next? else {
            return Ok((got, true));
        };
        got.push(zones.time(run, zone).to_rfc3339());
        next = trigger.after(run, &cx);
    }
    Ok((got, false))
}
