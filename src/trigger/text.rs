//! Triggers as text: what `Display` prints, and what a user types.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveTime, Timelike};

use super::cron::{CronBuilder, Crontab, Quartz};
use super::limits::{Limits, zone_named};
use super::zone::{Fold, Gap};
use super::{
    And, Custom, Date, Except, ExceptDate, ExceptRange, Interval, IntoTrigger, Or, Trigger, TriggerError,
    calendar,
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

/// The reverse, the parts written together or apart; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, TriggerError> {
    let wrong = || {
        TriggerError::invalid(
            "length",
            format!("`{text}` is not a length of time; write for instance 90s, 15m, 1h 30m, 2d, 1w"),
        )
    };
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = if unit.is_empty() && after.is_empty() { "s" } else { unit };
        let nanos = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1;
        let part = match nanos {
            1_000_000_000.. => number.checked_mul(nanos / 1_000_000_000).map(Duration::from_secs),
            _ => number.checked_mul(nanos).map(Duration::from_nanos),
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    Ok(total)
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
        let new = match word {
            "in" => limits.zone.replace(zone_named(value)?).is_none(),
            "from" => limits.start_at.replace(value.parse()?).is_none(),
            "until" => limits.end_at.replace(value.parse()?).is_none(),
            "jitter" => std::mem::replace(&mut limits.jitter, parse_duration(value)?).is_zero(),
            "gap" => limits.gap.replace(gap(value)?).is_none(),
            _ => limits.fold.replace(fold(value)?).is_none(),
        };
        if !new {
            return Err(TriggerError::invalid(word, "it is given twice"));
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
    /// | `every 1h 30m` | interval |
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
        parse(text, 0)
    }
}

fn parse(text: &str, depth: usize) -> Result<Trigger, TriggerError> {
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| TriggerError::invalid("trigger", error.to_string()));
    }
    if depth > DEPTH {
        return Err(TriggerError::invalid("trigger", format!("it is nested deeper than {DEPTH} levels")));
    }
    let word = text.split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let rest = text[word.len()..].trim();
    match word {
        "" => {
            let forms = "a crontab line, `every 15m`, `once at 2026-05-01T12:00:00`, `cron hour=8`, or JSON";
            Err(TriggerError::invalid("trigger", format!("it is empty; write {forms}")))
        }
        "shutdown" if rest.is_empty() => Ok(Trigger::Shutdown),
        "once" => once(rest),
        "every" => {
            let (head, limits) = split_limits(text)?;
            let length = head.strip_prefix("every").unwrap_or(head);
            Interval::every(parse_duration(length)?).with_limits(limits).into_trigger()
        }
        "calendar" => {
            let (head, limits) = split_limits(text)?;
            calendar::parse(head.strip_prefix("calendar").unwrap_or(head), limits)?.into_trigger()
        }
        "cron" => {
            let (head, limits) = split_limits(text)?;
            cron_fields(head.strip_prefix("cron").unwrap_or(head))?.with_limits(limits).into_trigger()
        }
        "quartz" => {
            let (line, limits) = split_limits(text)?;
            Quartz::builder(line.strip_prefix("quartz").unwrap_or(line)).with_limits(limits).into_trigger()
        }
        "custom" => custom(rest),
        "or" | "and" | "except" => combined(word, rest, depth),
        _ => {
            let (line, limits) = split_limits(text)?;
            Crontab::builder(line).with_limits(limits).into_trigger()
        }
    }
}

fn custom(rest: &str) -> Result<Trigger, TriggerError> {
    let (name, params) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let params = match params.trim() {
        "" => serde_json::Value::Null,
        json => {
            serde_json::from_str(json).map_err(|error| TriggerError::invalid("params", error.to_string()))?
        }
    };
    Custom::new(name, params).into_trigger()
}

/// `or(a; b)`, `and(a; b) within 5s`, `except(a; 2026-12-25; …)`
fn combined(word: &str, rest: &str, depth: usize) -> Result<Trigger, TriggerError> {
    let (parts, after) = parts(rest).ok_or_else(|| {
        TriggerError::invalid(word, format!("its parts are written {word}(a; b; …), with `;` between"))
    })?;
    let trigger = |part: &str| parse(part, depth + 1);
    if word != "and" && !after.is_empty() {
        return Err(TriggerError::invalid(word, format!("`{after}` after the parts is not understood")));
    }
    match word {
        "or" => Or::new(parts.into_iter().map(trigger).collect::<Result<_, _>>()?)?.into_trigger(),
        "and" => {
            let tolerance = match after.strip_prefix("within") {
                Some(length) => parse_duration(length)?,
                None if after.is_empty() => Duration::ZERO,
                None => {
                    return Err(TriggerError::invalid(
                        "and",
                        format!("`{after}`: only `within 5s` can follow"),
                    ));
                }
            };
            And::new(parts.into_iter().map(trigger).collect::<Result<_, _>>()?, tolerance)?.into_trigger()
        }
        _ => {
            let mut parts = parts.into_iter();
            let base = trigger(parts.next().unwrap_or_default())?;
            let mut except = Except::of(base);
            for part in parts {
                except = if let Ok(date) = part.parse::<ExceptDate>() {
                    except.date(date)
                } else if let Ok(range) = part.parse::<ExceptRange>() {
                    except.push(range)
                } else {
                    except.trigger(trigger(part)?)
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

fn once(rest: &str) -> Result<Trigger, TriggerError> {
    let (at, zone) = match rest.rsplit_once("in ") {
        Some((at, zone)) if at.is_empty() || at.ends_with(char::is_whitespace) => {
            (at.trim(), Some(zone_named(zone.trim())?))
        }
        _ => (rest.trim(), None),
    };
    let date = match at.strip_prefix("at ") {
        Some(moment) => Date::at(moment.trim().parse::<super::Moment>()?),
        None if at.is_empty() => Date::now(),
        None => {
            return Err(TriggerError::invalid("once", format!("`{at}`: after `once` comes `at` and a time")));
        }
    };
    let date = match zone {
        Some(zone) => date.timezone(zone),
        None => date,
    };
    Ok(Trigger::Date(Arc::new(date)))
}

/// `hour=8 minute=30 day="last fri"`
fn cron_fields(text: &str) -> Result<CronBuilder, TriggerError> {
    let mut builder = CronBuilder::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let wrong = || {
            TriggerError::invalid(
                "cron",
                format!("`{rest}`: fields are written name=value or name=\"a value\""),
            )
        };
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(wrong)?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        if !builder.set(name.trim(), value.into()) {
            let reason = "it is no field, or given twice; fields are year, month, day, week, day_of_week, hour, minute, second";
            return Err(TriggerError::invalid(name.trim(), reason));
        }
        rest = after.trim_start();
    }
    Ok(builder)
}
