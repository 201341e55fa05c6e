//! The options of a task as settings say them: each is read as its type is.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::ALIAS;
use super::value::{Kind, Section};
use crate::backoff::Backoff;
use crate::task::{
    Alias, Coalesce, MisfireGrace, Options, Overlap, Retry, TaskDefaults, WhenFinished, task_options,
    task_policies,
};
use crate::trigger::{Moment, Zone, Zones};

const COALESCE: &str = "\"latest\", \"earliest\", \"all\", or `true` for the latest and `false` for all";
const OVERLAP: &str = "\"skip\", \"queue 3\", \"cancel_running\" or \"allow\"";
const FINISHED: &str = "\"remove\" or \"keep\"";

/// How times without an offset are read: in which zone, if any, and by which rules.
#[derive(Clone, Copy)]
pub(super) struct Clocks<'a> {
    pub(super) zone: Option<Zone>,
    pub(super) zones: &'a Zones,
}

/// The type of an option that settings can say.
trait Setting: Sized {
    /// The value of `key`, if it is there; what is wrong with it is told to the section.
    fn read(section: &mut Section<'_>, key: &'static str, clocks: Clocks<'_>) -> Option<Self>;
}

/// Reads an option of the table, unless that is done by hand.
macro_rules! typed {
    (typed, $given:expr, $section:expr, $name:ident, $clocks:expr) => {
        $given = Setting::read($section, stringify!($name), $clocks)
    };
    (by_hand, $given:expr, $section:expr, $name:ident, $clocks:expr) => {};
}

macro_rules! options {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// The options that a task sets.
        pub(super) fn options(section: &mut Section<'_>, clocks: Clocks<'_>) -> Options {
            let line = section.peek("end_at").and_then(|(_, line)| line);
            let mut options = Options::default();
            $(typed!($file, options.$name, section, $name, clocks);)*
            if let (Some(Some(start)), Some(Some(end))) = (options.start_at, options.end_at)
                && end < start
            {
                section.problem(line, "end_at", format!("is before start_at, {}", start.to_rfc3339()));
            }
            options
        }
    };
}
task_options!(options);

macro_rules! defaults {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// Sets those that tasks are given that leave them out.
        pub(super) fn defaults(section: &mut Section<'_>, defaults: &mut TaskDefaults) {
            let clocks = Clocks { zone: None, zones: Zones::bundled() };
            $(if let Some(given) = Setting::read(section, stringify!($name), clocks) {
                defaults.$name = given;
            })*
        }
    };
}
task_policies!(defaults);

impl Setting for bool {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.flag(key)
    }
}

impl Setting for u32 {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.count(key)
    }
}

impl Setting for Option<u64> {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.count(key).map(|count| Some(count.into()))
    }
}

impl Setting for Option<Arc<str>> {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.text(key).map(|text| Some(text.into()))
    }
}

impl Setting for Alias {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.parsed(key, ALIAS)
    }
}

impl Setting for Coalesce {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        match section.peek(key).map(|(value, _)| &value.kind) {
            Some(Kind::Text(text)) if text.parse::<bool>().is_err() => section.parsed(key, COALESCE),
            _ => section.flag(key).map(Self::from),
        }
    }
}

impl Setting for Overlap {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.parsed(key, OVERLAP)
    }
}

impl Setting for WhenFinished {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.parsed(key, FINISHED)
    }
}

impl Setting for MisfireGrace {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        section.duration_or(key, "unlimited").map(|grace| match grace {
            Duration::MAX => Self::Unlimited,
            grace => Self::Within(grace),
        })
    }
}

/// `Some(None)` is said explicitly: no limit.
impl Setting for Option<Duration> {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        let line = section.peek(key).and_then(|(_, line)| line);
        let length = section.duration_or(key, "unlimited")?;
        if length.as_millis() == 0 {
            section.problem(line, key, "is shorter than a millisecond; leave it out for no limit");
        }
        Some((length != Duration::MAX).then_some(length))
    }
}

/// `3`, `0` for none, or `{ times = 3, first = "1s", factor = 2, cap = "5m", jitter = 0.2 }`.
impl Setting for Option<Retry> {
    fn read(section: &mut Section<'_>, key: &'static str, _: Clocks<'_>) -> Option<Self> {
        if !matches!(section.peek(key)?.0.kind, Kind::Table(_)) {
            let times = section.number(key)?;
            return Some((times > 0).then(|| Retry::times(times)));
        }
        let mut table = section.section(key)?;
        let times = match table.peek("times").is_some() {
            true => table.number("times"),
            false => {
                table.problem(None, "times", "is missing; it says how many further attempts there are");
                None
            }
        };
        let first = table.duration("first").unwrap_or(Duration::from_secs(1));
        let cap = table.duration("cap").unwrap_or(Duration::from_secs(300).max(first));
        let mut backoff = Backoff::exponential(first, cap);
        if let Some(factor) = table.share("factor", 1.0..=1e6) {
            backoff = backoff.factor(factor);
        }
        if let Some(jitter) = table.share("jitter", 0.0..=1.0) {
            backoff = backoff.jitter(jitter);
        }
        table.finish();
        let times = times?;
        Some((times > 0).then(|| Retry::times(times).backoff(backoff)))
    }
}

impl Setting for Option<DateTime<Utc>> {
    fn read(section: &mut Section<'_>, key: &'static str, clocks: Clocks<'_>) -> Option<Self> {
        let Clocks { zone, zones } = clocks;
        let line = section.peek(key).and_then(|(_, line)| line);
        let text = section.moment(key)?;
        match (text.parse::<Moment>(), zone) {
            (Ok(Moment::Exact(at)), _) => Some(at.to_utc()),
            (Ok(moment), Some(zone)) => {
                let at = moment.known(|| zones.rules(zone));
                if at.is_none() {
                    let message = format!(
                        "is {text:?} in {zone}, which the time zone database in use ({}) does not have; write it with an offset",
                        crate::timezones::named(zones)
                    );
                    section.problem(line, key, message);
                }
                at
            }
            (Ok(_), None) => {
                let message = format!(
                    "is {text:?}, which names no zone; write it with an offset, or name the task's timezone"
                );
                section.problem(line, key, message);
                None
            }
            (Err(error), _) => {
                section.problem(line, key, error.to_string());
                None
            }
        }
        .map(Some)
    }
}
