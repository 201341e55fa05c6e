//! Triggers as text: what `Display` prints, and what a user types.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::cron::{CronBuilder, Crontab, Quartz};
use super::limits::{Limits, zone_named};
use super::zone::{Fold, Gap};
use super::{Date, Interval, IntoTrigger, Trigger, TriggerError};

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
            let _ = write!(
                text,
                "{}{}{unit}",
                if text.is_empty() { "" } else { " " },
                rest / nanos
            );
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
            format!(
                "`{text}` is not a length of time; write for instance 90s, 15m, 1h 30m, 2d, 1w"
            ),
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
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = if unit.is_empty() && after.is_empty() {
            "s"
        } else {
            unit
        };
        let nanos = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(wrong)?
            .1;
        let part = match nanos {
            1_000_000_000.. => number
                .checked_mul(nanos / 1_000_000_000)
                .map(Duration::from_secs),
            _ => number.checked_mul(nanos).map(Duration::from_nanos),
        };
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// The words that end a pattern and begin an option.
const OPTIONS: [&str; 6] = ["in", "from", "until", "jitter", "gap", "fold"];

/// Splits `pattern in Zone from … until … jitter … gap … fold …`.
pub(crate) fn split_limits(text: &str) -> Result<(&str, Limits), TriggerError> {
    let mut limits = Limits::default();
    let mut end = text.len();
    // From the back: each option runs to the next one.
    loop {
        let head = &text[..end];
        let Some((at, word)) = last_option(head) else {
            return Ok((head.trim(), limits));
        };
        let value = head[at + word.len()..].trim();
        let twice = || TriggerError::invalid(word, "it is given twice");
        match word {
            "in" => limits.zone.replace(zone_named(value)?).is_none(),
            "from" => limits.start_at.replace(value.parse()?).is_none(),
            "until" => limits.end_at.replace(value.parse()?).is_none(),
            "jitter" => {
                let set = limits.jitter.is_zero();
                limits.jitter = parse_duration(value)?;
                set
            }
            "gap" => {
                let gap = match value {
                    "fire_after" => Gap::FireAfter,
                    "skip" => Gap::Skip,
                    _ => {
                        return Err(TriggerError::invalid(
                            "gap",
                            format!("`{value}` is not known; write fire_after or skip"),
                        ));
                    }
                };
                limits.gap.replace(gap).is_none()
            }
            _ => {
                let fold = match value {
                    "first" => Fold::First,
                    "second" => Fold::Second,
                    "both" => Fold::Both,
                    _ => {
                        return Err(TriggerError::invalid(
                            "fold",
                            format!("`{value}` is not known; write first, second or both"),
                        ));
                    }
                };
                limits.fold.replace(fold).is_none()
            }
        }
        .then_some(())
        .ok_or_else(twice)?;
        end = at;
    }
}

/// The last option word that stands alone and is not the first word.
fn last_option(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    let mut best: Option<(usize, &'static str)> = None;
    for word in OPTIONS {
        for (at, _) in text.rmatch_indices(word) {
            let before = at > 0 && bytes[at - 1].is_ascii_whitespace();
            let after = bytes
                .get(at + word.len())
                .is_none_or(u8::is_ascii_whitespace);
            if before && after {
                if best.is_none_or(|(other, _)| other < at) {
                    best = Some((at, word));
                }
                break;
            }
        }
    }
    best
}

impl FromStr for Trigger {
    type Err = TriggerError;

    /// Reads what a user types: the text that `Display` prints, a crontab line of 5, 6 or 7
    /// fields, a nickname, or JSON.
    fn from_str(text: &str) -> Result<Trigger, TriggerError> {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text)
                .map_err(|error| TriggerError::invalid("trigger", error.to_string()));
        }
        if text.is_empty() {
            let forms = "a crontab line, `every 15m`, `once at 2026-05-01T12:00:00`, `cron hour=8`, or JSON";
            return Err(TriggerError::invalid(
                "trigger",
                format!("it is empty; write {forms}"),
            ));
        }
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match word {
            "shutdown" if rest.is_empty() => Ok(Trigger::Shutdown),
            "once" => once(rest),
            "every" => {
                let (length, limits) = split_limits(text)?;
                let length = length.strip_prefix("every").unwrap_or(length);
                Interval::every(parse_duration(length)?)
                    .with_limits(limits)
                    .into_trigger()
            }
            "cron" => {
                let (fields, limits) = split_limits(text)?;
                let fields = fields.strip_prefix("cron").unwrap_or(fields);
                cron_fields(fields)?.with_limits(limits).into_trigger()
            }
            "quartz" => {
                let (line, limits) = split_limits(rest)?;
                Quartz::builder(line).with_limits(limits).into_trigger()
            }
            _ => {
                let (line, limits) = split_limits(text)?;
                Crontab::builder(line).with_limits(limits).into_trigger()
            }
        }
    }
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
            return Err(TriggerError::invalid(
                "once",
                format!("`{at}`: after `once` comes `at` and a time"),
            ));
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
