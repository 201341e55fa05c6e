//! Triggers as text: what `Display` prints, and what a user types.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveTime, Timelike};

use super::cron::{CronBuilder, Crontab, Quartz};
use super::json::Json;
use super::limits::Limits;
use super::meant;
use super::zone::{Fold, Gap};
use super::{
    And, Custom, Date, Except, ExceptDate, ExceptRange, Interval, IntoTrigger, Or, Trigger, TriggerError,
    Zone, calendar,
};

const UNITS: [(&str, u64); 9] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// `1w 2d 3h 4m 5s`
pub(crate) fn duration(length: Duration) -> String {
    let mut rest = length.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in UNITS {
        let nanos = u128::from(nanos);
        if unit != "min" && rest >= nanos {
            let _ = write!(text, "{}{}{unit}", if text.is_empty() { "" } else { " " }, rest / nanos);
            rest %= nanos;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Units written out.
const WORDS: [(&str, &str); 8] = [
    ("week", "w"),
    ("day", "d"),
    ("hour", "h"),
    ("minute", "m"),
    ("second", "s"),
    ("millisecond", "ms"),
    ("microsecond", "us"),
    ("nanosecond", "ns"),
];

fn unit(name: &str) -> Option<u64> {
    let singular = name.strip_suffix(['s', 'S']).filter(|name| name.len() > 2).unwrap_or(name);
    let short = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(singular));
    let name = short.map_or(name, |(_, short)| short);
    UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).map(|(_, nanos)| *nanos)
}

/// The reverse, the parts written together or apart; a bare number is seconds. `text` is part of
/// `line`, which an error points into.
fn parse_duration(field: &str, text: &str, line: &str) -> Result<Duration, TriggerError> {
    length(text.trim()).map_err(|part| {
        let allowed =
            "write a number and a unit (w, d, h, m, s, ms, us, ns), for instance 90s, 15m, 1h 30m, 2d";
        let what = match part.trim() {
            "" => "a length of time is missing".to_string(),
            part => format!("`{part}` is not a length of time"),
        };
        placed(line, part)(TriggerError::invalid(field, format!("{what}; {allowed}")))
    })
}

/// The length, or the part of the text that cannot be read.
fn length(text: &str) -> Result<Duration, &str> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(rest);
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (name, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| rest)?;
        let name = if name.is_empty() && after.is_empty() { "s" } else { name };
        let nanos = unit(name).ok_or(rest)?;
        let part = match nanos {
            1_000_000_000.. => number.checked_mul(nanos / 1_000_000_000).map(Duration::from_secs),
            _ => number.checked_mul(nanos).map(Duration::from_nanos),
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or(rest)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// Adds to an error where `part` stands in `line`, of which it is a part, unless the error
/// already tells a place.
pub(super) fn placed(line: &str, part: &str) -> impl Fn(TriggerError) -> TriggerError {
    move |error| match error {
        TriggerError::Invalid { field, reason } if !reason.contains(" (at character ") => {
            let before = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
            let at = line.get(..before).unwrap_or_default().chars().count() + 1;
            TriggerError::Invalid { field, reason: format!("{reason} (at character {at} of `{line}`)") }
        }
        other => other,
    }
}

/// The same error, under the name the field has in text.
fn named(field: &str) -> impl Fn(TriggerError) -> TriggerError {
    move |error| match error {
        TriggerError::Invalid { reason, .. } => TriggerError::invalid(field, reason),
        other => other,
    }
}

/// The words that end a pattern and begin an option.
const OPTIONS: [&str; 6] = ["in", "from", "until", "jitter", "gap", "fold"];

/// Splits `pattern in Zone from … until … jitter … gap … fold …`.
pub(crate) fn split_limits(text: &str) -> Result<(&str, Limits), TriggerError> {
    let mut limits = Limits::default();
    let Some((mut at, mut word)) = option(text, 0) else {
        return Ok((text.trim(), limits));
    };
    let head = text[..at].trim();
    loop {
        let next = option(text, at + word.len());
        let value = text[at + word.len()..next.map_or(text.len(), |(at, _)| at)].trim();
        if value.is_empty() && word != "jitter" {
            let example = match word {
                "in" => "a zone, for instance Europe/Lisbon",
                "gap" => "fire_after or skip",
                "fold" => "first, second or both",
                _ => "a date and time, for instance 2026-05-01T12:00:00",
            };
            let missing = TriggerError::invalid(word, format!("nothing stands after it; write {example}"));
            return Err(placed(text, &text[at..])(missing));
        }
        let wrong = |error| placed(text, value)(named(word)(error));
        let new = match word {
            "in" => limits.zone.replace(zone(value).map_err(wrong)?).is_none(),
            "from" => limits.start_at.replace(value.parse().map_err(wrong)?).is_none(),
            "until" => limits.end_at.replace(value.parse().map_err(wrong)?).is_none(),
            "jitter" => std::mem::replace(&mut limits.jitter, parse_duration(word, value, text)?).is_zero(),
            "gap" => limits.gap.replace(gap(value).map_err(wrong)?).is_none(),
            _ => limits.fold.replace(fold(value).map_err(wrong)?).is_none(),
        };
        if !new {
            let twice = TriggerError::invalid(word, "it is given twice; give it once");
            return Err(placed(text, &text[at..])(twice));
        }
        match next {
            Some(next) => (at, word) = next,
            None => return Ok((head, limits)),
        }
    }
}

fn gap(value: &str) -> Result<Gap, TriggerError> {
    match value {
        "fire_after" => Ok(Gap::FireAfter),
        "skip" => Ok(Gap::Skip),
        _ => Err(TriggerError::invalid("gap", format!("`{value}` is not known; write fire_after or skip"))),
    }
}

fn fold(value: &str) -> Result<Fold, TriggerError> {
    match value {
        "first" => Ok(Fold::First),
        "second" => Ok(Fold::Second),
        "both" => Ok(Fold::Both),
        _ => {
            Err(TriggerError::invalid("fold", format!("`{value}` is not known; write first, second or both")))
        }
    }
}

/// The first option word at or after a place, standing alone and not as the first word.
fn option(text: &str, from: usize) -> Option<(usize, &'static str)> {
    let mut words = text[from..].split_ascii_whitespace();
    words.find_map(|word| {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let known = OPTIONS.iter().find(|option| **option == word)?;
        (at > 0).then_some((at, *known))
    })
}

/// How deep triggers may be nested in text.
const DEPTH: usize = 64;

impl FromStr for Trigger {
    type Err = TriggerError;

    /// Reads what a user types: the text that `Display` prints, a crontab line of 5, 6 or 7
    /// fields, a nickname, or JSON.
    ///
    /// | text | trigger |
    /// |---|---|
    /// | `30 8 * * mon-fri`, `@daily` | crontab |
    /// | `cron hour=8 day="last fri"` | cron by fields |
    /// | `quartz 0 30 8 ? * MON-FRI` | Quartz |
    /// | `every 1h 30m`, `every 2 days` | interval |
    /// | `calendar 2w at 17:00:00` | calendar interval |
    /// | `once at 2026-05-01T12:00:00`, `once` | date |
    /// | `or(…; …)`, `and(…; …) within 5s` | any, all |
    /// | `except(…; 2026-12-25; 12-26; 2026-08-01..2026-08-15; …)` | a trigger minus dates, ranges, triggers |
    /// | `custom name {"a": 1}` | custom |
    /// | `shutdown` | at shutdown |
    ///
    /// After a repeating pattern, in any order: `in Europe/Lisbon`, `from 2026-01-01T00:00:00`,
    /// `until 2026-12-31`, `jitter 30s`, `gap skip`, `gap fire_after`, `fold first`,
    /// `fold second`, `fold both`.
    fn from_str(text: &str) -> Result<Trigger, TriggerError> {
        let trigger = parse(text, 0)?;
        trigger.check_lengths()?;
        Ok(trigger)
    }
}

fn parse(text: &str, depth: usize) -> Result<Trigger, TriggerError> {
    let text = text.trim();
    if text.starts_with('{') {
        let Json(value) = serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "" } else { "it is not JSON: " };
            TriggerError::invalid("trigger", format!("{what}{error}"))
        })?;
        return super::json::trigger(value, "");
    }
    if depth > DEPTH {
        return Err(TriggerError::invalid("trigger", format!("it is nested deeper than {DEPTH} levels")));
    }
    let word = text.split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let rest = text[word.len()..].trim();
    match word {
        // A form of other programs, which the crontab's errors know.
        "cron" | "rate" if text[word.len()..].starts_with('(') => Crontab::builder(text).into_trigger(),
        "" => Err(TriggerError::invalid("trigger", format!("it is empty; write {FORMS}"))),
        "shutdown" if rest.is_empty() => Ok(Trigger::Shutdown),
        "once" => once(rest, text),
        "every" => {
            let (head, limits) = split_limits(text)?;
            let head = &head[word.len()..];
            let length = parse_duration("every", head, text)?;
            Interval::every(length).with_limits(limits).into_trigger().map_err(placed(text, head.trim()))
        }
        "calendar" => {
            let (head, limits) = split_limits(text)?;
            calendar::parse(&head[word.len()..], limits, text)?.into_trigger()
        }
        "cron" => {
            let (head, limits) = split_limits(text)?;
            let fields = cron_fields(&head[word.len()..], text)?;
            fields.with_limits(limits).into_trigger().map_err(placed(text, text))
        }
        "quartz" => {
            let (line, limits) = split_limits(text)?;
            let line = &line[word.len()..];
            let quartz = Quartz::builder(line).with_limits(limits);
            quartz.into_trigger().map_err(placed(text, line.trim()))
        }
        "custom" => custom(rest, text),
        "or" | "and" | "except" => combined(word, rest, text, depth),
        _ => {
            let (line, limits) = split_limits(text)?;
            Crontab::builder(line).with_limits(limits).into_trigger().map_err(|error| {
                // What begins with a word is no crontab line that lost a field.
                let wordy = word.len() > 3 && word.chars().all(char::is_alphabetic);
                let fields = line.split_whitespace().count();
                let named = word.starts_with('@') || word.contains("TZ=");
                let alien = !named && !(5..=7).contains(&fields) && (wordy || fields == 1);
                placed(text, text)(match alien {
                    true => TriggerError::invalid("trigger", format!("`{line}` is not known; write {FORMS}")),
                    false => error,
                })
            })
        }
    }
}

/// What a trigger can look like as text.
const FORMS: &str = "a crontab line of 5, 6 or 7 fields such as `30 8 * * 1-5`, @daily, `every 15m`, `once at 2026-05-01T12:00:00`, `cron hour=8`, `calendar 1mo at 09:00`, `quartz 0 30 8 ? * 2-6`, `or(…; …)`, `and(…; …)`, `except(…; …)`, `custom name`, shutdown, or JSON";

fn custom(rest: &str, line: &str) -> Result<Trigger, TriggerError> {
    let (name, params) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let params = match params.trim() {
        "" => serde_json::Value::Null,
        json => serde_json::from_str(json).map_err(|error| {
            let error = TriggerError::invalid("params", format!("`{json}` is not JSON: {error}"));
            placed(line, json)(error)
        })?,
    };
    Custom::new(name, params).into_trigger().map_err(placed(line, name))
}

/// `or(a; b)`, `and(a; b) within 5s`, `except(a; 2026-12-25; …)`
fn combined(word: &str, rest: &str, line: &str, depth: usize) -> Result<Trigger, TriggerError> {
    let (parts, after) = parts(rest).ok_or_else(|| {
        let reason = format!("its parts are written {word}(a; b; …), with `;` between");
        placed(line, rest)(TriggerError::invalid(word, reason))
    })?;
    // Which part it is; the place that the error tells is one in the part.
    let nth = |index: usize, error| match error {
        TriggerError::Invalid { field, reason } => {
            TriggerError::Invalid { field: format!("part {} of {word}: {field}", index + 1), reason }
        }
        other => other,
    };
    let trigger = |(index, part): (usize, &str)| parse(part, depth + 1).map_err(|error| nth(index, error));
    if word != "and" && !after.is_empty() {
        let reason = format!("`{after}` after the parts is not understood; nothing can follow them");
        return Err(placed(line, after)(TriggerError::invalid(word, reason)));
    }
    let mut parts = parts.into_iter().enumerate();
    match word {
        "or" => Or::new(parts.map(trigger).collect::<Result<_, _>>()?)?.into_trigger(),
        "and" => {
            let tolerance = match after.strip_prefix("within") {
                Some(length) => parse_duration("within", length.trim(), line)?,
                None if after.is_empty() => Duration::ZERO,
                None => {
                    let reason = format!("`{after}`: only `within 5s` can follow");
                    return Err(placed(line, after)(TriggerError::invalid("and", reason)));
                }
            };
            And::new(parts.map(trigger).collect::<Result<_, _>>()?, tolerance)?.into_trigger()
        }
        _ => {
            let base = trigger(parts.next().unwrap_or_default())?;
            let mut except = Except::of(base);
            for (index, part) in parts {
                let wrong = |error| nth(index, placed(line, part)(error));
                // No trigger begins with a digit and is one word, or has `..` in it.
                let digit = part.starts_with(|c: char| c.is_ascii_digit());
                except = match (part.parse::<ExceptDate>(), part.parse::<ExceptRange>()) {
                    (Ok(date), _) => except.date(date),
                    (_, Ok(range)) => except.push(range),
                    (_, Err(error)) if digit && part.contains("..") => return Err(wrong(error)),
                    (Err(error), _) if digit && !part.contains(char::is_whitespace) => {
                        return Err(wrong(error));
                    }
                    _ => except.trigger(trigger((index, part))?),
                };
            }
            except.into_trigger()
        }
    }
}

/// What stands between the parentheses, split at the semicolons that are not inside of quotes or
/// inner parentheses, and what follows.
fn parts(text: &str) -> Option<(Vec<&str>, &str)> {
    let inner = text.strip_prefix('(')?;
    let (mut open, mut quoted, mut escaped, mut start) = (0usize, false, false, 0);
    let mut parts = Vec::new();
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '{' | '[' => open += 1,
            ')' if open == 0 => {
                parts.push(inner[start..at].trim());
                return Some((parts, inner[at + 1..].trim()));
            }
            ')' | '}' | ']' => open = open.checked_sub(1)?,
            ';' if open == 0 => {
                parts.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

/// `17:00` or `17:00:00`
pub(crate) fn parse_time(text: &str) -> Result<NaiveTime, TriggerError> {
    NaiveTime::parse_from_str(text, "%H:%M:%S")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M"))
        .ok()
        .filter(|time| time.nanosecond() == 0)
        .ok_or_else(|| {
            TriggerError::invalid("time", format!("`{text}` is not a time of day; write 17:00 or 17:00:30"))
        })
}

fn once(rest: &str, line: &str) -> Result<Trigger, TriggerError> {
    let (at, zone) = match rest.rsplit_once("in ") {
        Some((at, zone)) if at.is_empty() || at.ends_with(char::is_whitespace) => {
            let zone = zone.trim();
            (at.trim(), Some(self::zone(zone).map_err(|error| placed(line, zone)(named("in")(error)))?))
        }
        _ => (rest.trim(), None),
    };
    let date = match at.strip_prefix("at ") {
        Some(moment) => {
            let moment = moment.trim();
            let parsed = moment.parse::<super::Moment>();
            Date::at(parsed.map_err(|error| placed(line, moment)(named("at")(error)))?)
        }
        None if at.is_empty() => Date::now(),
        None => {
            let reason = format!(
                "`{at}`: after `once` comes `at` and a time, for instance `once at 2026-05-01T12:00:00`"
            );
            return Err(placed(line, at)(TriggerError::invalid("once", reason)));
        }
    };
    let date = match zone {
        Some(zone) => date.timezone(zone),
        None => date,
    };
    Ok(Trigger::Date(Arc::new(date)))
}

/// `hour=8 minute=30 day="last fri"`
fn cron_fields(text: &str, line: &str) -> Result<CronBuilder, TriggerError> {
    const NAMES: &str = "year, month, day, week, day_of_week, hour, minute, second";
    let mut builder = CronBuilder::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let wrong = || {
            let reason =
                format!("`{rest}`: fields are written name=value or name=\"a value\"; the names are {NAMES}");
            placed(line, rest)(TriggerError::invalid("cron", reason))
        };
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(wrong)?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        if !builder.set(name.trim(), value.into()) {
            let hint = meant::closest(name, NAMES.split(", ")).filter(|meant| *meant != name.trim());
            let hint = hint.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let reason = format!("it is no field, or given twice; fields are {NAMES}{hint}");
            return Err(placed(line, rest)(TriggerError::invalid(name.trim(), reason)));
        }
        rest = after.trim_start();
    }
    Ok(builder)
}

fn zone(name: &str) -> Result<Zone, TriggerError> {
    Ok(Zone::named(name)?)
}
