//! Triggers from JSON: what each type can hold, so that an error names the member and says what
//! is allowed there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::meant;
use super::{
    And, CalendarIntervalBuilder, CronBuilder, CrontabBuilder, Custom, Date, Except, ExceptDate, ExceptRange,
    Interval, IntoTrigger, Moment, Or, QuartzBuilder, Trigger, TriggerError, Zone,
};

/// What a member can be. Only those that may be left out with `null` are marked so.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Is {
    /// A whole number, in words.
    Whole(&'static str),
    /// A number of seconds that may have a fraction and a sign, or null.
    Part,
    /// A length of time in seconds, or null.
    Seconds,
    /// A field of a pattern, or null.
    Pattern,
    /// Text that has to be there, in words.
    Text(&'static str),
    Flag,
    /// A time, or null.
    Moment,
    /// A date, or null.
    Day,
    /// A zone, or null.
    Zone,
    /// One of some words, or null.
    OneOf(&'static [&'static str]),
    Trigger,
    /// A list of something, and whether it has to be there.
    List(&'static str, bool),
    Anything,
}

type Members = &'static [(&'static str, Is)];

const ZONE: (&str, Is) = ("timezone", Is::Zone);
const SPANNED: [(&str, Is); 6] = [
    ("start_at", Is::Moment),
    ("end_at", Is::Moment),
    ZONE,
    ("jitter", Is::Seconds),
    ("gap", Is::OneOf(&["fire_after", "skip"])),
    ("fold", Is::OneOf(&["first", "second", "both"])),
];
const ZONED: Members = SPANNED.split_at(2).1;
const WHOLE: Is = Is::Whole("a whole number");
const COUNT: Is = Is::Whole("a whole number, 0 or more");

/// Each type with the members of its own, and with those it has in common with others.
const TYPES: [(&str, Members, Members); 11] = [
    ("date", &[("run_at", Is::Moment), ZONE], &[]),
    (
        "interval",
        &[("weeks", WHOLE), ("days", WHOLE), ("hours", WHOLE), ("minutes", WHOLE), ("seconds", Is::Part)],
        &SPANNED,
    ),
    (
        "cron",
        &[
            ("year", Is::Pattern),
            ("month", Is::Pattern),
            ("day", Is::Pattern),
            ("week", Is::Pattern),
            ("day_of_week", Is::Pattern),
            ("hour", Is::Pattern),
            ("minute", Is::Pattern),
            ("second", Is::Pattern),
        ],
        &SPANNED,
    ),
    (
        "crontab",
        &[("expression", Is::Text("a crontab line, for instance \"30 8 * * 1-5\"")), ("both_days", Is::Flag)],
        &SPANNED,
    ),
    ("quartz", &[("expression", Is::Text("a Quartz line, for instance \"0 30 8 ? * 2-6\""))], &SPANNED),
    (
        "calendar_interval",
        &[
            ("years", COUNT),
            ("months", COUNT),
            ("weeks", COUNT),
            ("days", COUNT),
            ("hour", Is::Whole("a whole number, 0-23")),
            ("minute", Is::Whole("a whole number, 0-59")),
            ("second", Is::Whole("a whole number, 0-59")),
            ("start_date", Is::Day),
            ("end_date", Is::Day),
        ],
        ZONED,
    ),
    ("and", &[("triggers", Is::List("triggers", true)), ("tolerance", Is::Seconds)], &[]),
    ("or", &[("triggers", Is::List("triggers", true))], &[]),
    (
        "except",
        &[
            ("trigger", Is::Trigger),
            ("dates", Is::List("dates, for instance \"2026-12-25\" or \"12-25\"", false)),
            ("ranges", Is::List("ranges, for instance \"2026-08-01..2026-08-15\"", false)),
            ("triggers", Is::List("triggers", false)),
        ],
        &[],
    ),
    ("custom", &[("name", Is::Text("the name of a custom trigger")), ("params", Is::Anything)], &[]),
    ("shutdown", &[], &[]),
];

impl Is {
    fn allowed(self) -> String {
        match self {
            Is::Whole(words) | Is::Text(words) => words.into(),
            Is::Part => "a number of seconds".into(),
            Is::Seconds => "a length of time in seconds, 0 or more".into(),
            Is::Pattern => "a whole number, or text such as \"*/15\"".into(),
            Is::Flag => "true or false".into(),
            Is::Moment => {
                "text such as \"2026-05-01T12:00:00\", with Z or +02:00 after it for an instant".into()
            }
            Is::Day => "a date of the calendar such as \"2026-05-01\"".into(),
            Is::Zone => "a zone of the IANA database such as \"Europe/Lisbon\" or \"UTC\"".into(),
            Is::OneOf(words) => words.join(", "),
            Is::Trigger => "a trigger: an object with a `type`".into(),
            Is::List(what, _) => format!("a list of {what}"),
            Is::Anything => "anything".into(),
        }
    }

    pub(super) fn fits(self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Is::Whole(_) => value.is_i64(),
            Is::Text(_) => value.is_string(),
            Is::Flag => value.is_boolean(),
            Is::Trigger => value.is_object(),
            Is::List(..) => value.is_array(),
            Is::Anything => true,
            _ if value.is_null() => true,
            Is::Part => value.is_number(),
            Is::Seconds => value.as_f64().is_some_and(|seconds| Duration::try_from_secs_f64(seconds).is_ok()),
            Is::Pattern => value.is_string() || value.is_i64() || value.is_u64(),
            Is::Moment => text.is_some_and(|text| text.parse::<Moment>().is_ok()),
            Is::Day => text.is_some_and(|text| NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").is_ok()),
            Is::Zone => text.is_some_and(|name| Zone::named(name).is_ok()),
            Is::OneOf(words) => text.is_some_and(|word| words.contains(&word)),
        }
    }

    fn required(self) -> bool {
        matches!(self, Is::Text(_) | Is::Trigger | Is::List(_, true))
    }

    pub(super) fn wrong(self, field: String, value: &Value) -> TriggerError {
        let mut reason = format!("{} is not valid; allowed is {}", shown(value), self.allowed());
        if let (Is::Zone, Some(Err(unknown))) = (self, value.as_str().map(Zone::named))
            && !unknown.nearest.is_empty()
        {
            reason = format!("{reason}; {}", unknown.advice());
        }
        TriggerError::invalid(field, reason)
    }
}

/// A value as it stands in a message: not too much of it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("`{}…`", &text[..at]),
        None => format!("`{text}`"),
    }
}

/// `path.name`, or the name alone at the top.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// The error of a part, its field told from the top.
fn within(path: &str) -> impl Fn(TriggerError) -> TriggerError {
    move |error| match error {
        TriggerError::Invalid { field, reason } => {
            TriggerError::Invalid { field: join(path, &field), reason }
        }
        other => other,
    }
}

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        trigger(Json::deserialize(deserializer)?.0, "").map_err(D::Error::custom)
    }
}

/// A trigger whose place in the whole is `path`.
pub(super) fn trigger(value: Value, path: &str) -> Result<Trigger, TriggerError> {
    let here = || if path.is_empty() { "trigger".to_string() } else { path.to_string() };
    let mut members = match value {
        Value::Object(members) => members,
        other => return Err(Is::Trigger.wrong(here(), &other)),
    };
    let types = || TYPES.map(|(name, ..)| name).join(", ");
    let given = members.remove("type").ok_or_else(|| {
        TriggerError::invalid(join(path, "type"), format!("it is missing; allowed are {}", types()))
    })?;
    let (kind, own, common) = TYPES.into_iter().find(|(name, ..)| given == *name).ok_or_else(|| {
        let reason = format!("{} is not known; allowed are {}", shown(&given), types());
        TriggerError::invalid(join(path, "type"), reason)
    })?;
    check(kind, &[own, common].concat(), &members, path)?;
    let made = match kind {
        "date" => decode::<Date>(members).and_then(IntoTrigger::into_trigger),
        // However short: it may have been stored when that was not refused.
        "interval" => {
            let interval = decode::<super::interval::Stored>(members).and_then(Interval::try_from);
            interval.map(|interval| Trigger::Interval(Arc::new(interval)))
        }
        "cron" => decode::<CronBuilder>(members).and_then(IntoTrigger::into_trigger),
        "crontab" => decode::<CrontabBuilder>(members).and_then(IntoTrigger::into_trigger),
        "quartz" => decode::<QuartzBuilder>(members).and_then(IntoTrigger::into_trigger),
        "calendar_interval" => decode::<CalendarIntervalBuilder>(members).and_then(IntoTrigger::into_trigger),
        "custom" => {
            let params = members.remove("params").unwrap_or_default();
            Custom::new(members["name"].as_str().unwrap_or_default(), params).into_trigger()
        }
        "or" => return Or::new(triggers(&mut members, path)?).map_err(within(path))?.into_trigger(),
        "and" => {
            let tolerance = members.get("tolerance").and_then(Value::as_f64).unwrap_or(0.0);
            let tolerance = Duration::try_from_secs_f64(tolerance).unwrap_or_default();
            let parts = triggers(&mut members, path)?;
            return And::new(parts, tolerance).map_err(within(path))?.into_trigger();
        }
        "except" => return except(members, path),
        _ => Ok(Trigger::Shutdown),
    };
    made.map_err(within(path))
}

/// Whether each member is known and can be what it is, and none is missing.
fn check(
    kind: &str,
    known: &[(&str, Is)],
    members: &Map<String, Value>,
    path: &str,
) -> Result<(), TriggerError> {
    for (name, value) in members {
        let Some((_, is)) = known.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let allowed = if names.is_empty() { "none besides type".into() } else { names.join(", ") };
            let hint = meant::hint(name, names);
            let reason = format!("unknown field `{name}` of {kind}; allowed are {allowed}{hint}");
            return Err(TriggerError::invalid(join(path, name), reason));
        };
        if !is.fits(value) {
            return Err(is.wrong(join(path, name), value));
        }
    }
    match known.iter().find(|(name, is)| is.required() && !members.contains_key(*name)) {
        Some((name, is)) => {
            Err(TriggerError::invalid(join(path, name), format!("it is missing; give {}", is.allowed())))
        }
        None => Ok(()),
    }
}

fn decode<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T, TriggerError> {
    T::deserialize(Value::Object(members))
        .map_err(|error| TriggerError::invalid("trigger", error.to_string()))
}

fn list(members: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match members.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn triggers(members: &mut Map<String, Value>, path: &str) -> Result<Vec<Trigger>, TriggerError> {
    let path = join(path, "triggers");
    let parts = list(members, "triggers").into_iter().enumerate();
    parts.map(|(index, part)| trigger(part, &format!("{path}[{index}]"))).collect()
}

fn except(mut members: Map<String, Value>, path: &str) -> Result<Trigger, TriggerError> {
    let base = members.remove("trigger").unwrap_or_default();
    let mut except = Except::of(trigger(base, &join(path, "trigger"))?);
    for (index, date) in list(&mut members, "dates").into_iter().enumerate() {
        let parsed = date.as_str().map(str::parse::<ExceptDate>);
        except = except.date(item(path, "dates", index, &date, parsed)?);
    }
    for (index, range) in list(&mut members, "ranges").into_iter().enumerate() {
        let parsed = range.as_str().map(str::parse::<ExceptRange>);
        except = except.push(item(path, "ranges", index, &range, parsed)?);
    }
    for part in triggers(&mut members, path)? {
        except = except.trigger(part);
    }
    except.into_trigger()
}

/// An item of a list of texts, its error told with the index.
fn item<T>(
    path: &str,
    name: &str,
    index: usize,
    value: &Value,
    parsed: Option<Result<T, TriggerError>>,
) -> Result<T, TriggerError> {
    let field = || join(path, &format!("{name}[{index}]"));
    match parsed {
        Some(Err(TriggerError::Invalid { reason, .. })) => Err(TriggerError::invalid(field(), reason)),
        Some(parsed) => parsed,
        None => Err(TriggerError::invalid(field(), format!("{} is not text", shown(value)))),
    }
}

/// Any JSON in which no member is given twice.
pub(super) struct Json(pub(super) Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
                Ok(Json(flag.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Json(number.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json(text.into()))
            }

            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json(text.into()))
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json(Value::Null))
            }

            fn visit_none<E>(self) -> Result<Json, E> {
                Ok(Json(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
                Json::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(Json(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json(list.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut map = Map::new();
                while let Some((name, Json(value))) = members.next_entry::<String, Json>()? {
                    if map.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name}: it is given twice; give it once")));
                    }
                    map.insert(name, value);
                }
                Ok(Json(map.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
