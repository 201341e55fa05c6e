//! The options of a task that say what is done about late, long, failed and interrupted runs.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::value::{Kind, Section};
use crate::backoff::Backoff;
use crate::task::{Coalesce, MisfireGrace, Overlap, Retry, Task, TaskDefaults, WhenFinished};
use crate::trigger::{Moment, Zone, Zones};

const COALESCE: &str = "\"latest\", \"earliest\", \"all\", or `true` for the latest and `false` for all";
const OVERLAP: &str = "\"skip\", \"queue 3\", \"cancel_running\" or \"allow\"";
const FINISHED: &str = "\"remove\" or \"keep\"";

/// What a task and the defaults have in common.
pub(super) struct Policies {
    max_instances: Option<u32>,
    coalesce: Option<Coalesce>,
    max_catch_up: Option<u32>,
    overlap: Option<Overlap>,
    misfire_grace: Option<MisfireGrace>,
    /// `Some(None)` is said explicitly: no limit.
    timeout: Option<Option<Duration>>,
    retry: Option<Option<Retry>>,
    recover: Option<bool>,
}

impl Policies {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let grace = section.duration_or("misfire_grace", "unlimited");
        let line = section.peek("timeout").and_then(|(_, line)| line);
        let timeout = section.duration_or("timeout", "unlimited");
        if timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
            section.problem(line, "timeout", "is shorter than a millisecond; leave it out for no limit");
        }
        Self {
            max_instances: section.count("max_instances"),
            coalesce: coalesce(section),
            max_catch_up: section.count("max_catch_up"),
            overlap: section.parsed("overlap", OVERLAP),
            misfire_grace: grace.map(|grace| match grace {
                Duration::MAX => MisfireGrace::Unlimited,
                grace => MisfireGrace::Within(grace),
            }),
            timeout: timeout.map(|timeout| (timeout != Duration::MAX).then_some(timeout)),
            retry: retry(section),
            recover: section.flag("recover"),
        }
    }

    pub(super) fn set_defaults(self, defaults: &mut TaskDefaults) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut defaults.max_instances, self.max_instances);
        set(&mut defaults.coalesce, self.coalesce);
        set(&mut defaults.max_catch_up, self.max_catch_up);
        set(&mut defaults.overlap, self.overlap);
        set(&mut defaults.misfire_grace, self.misfire_grace);
        set(&mut defaults.timeout, self.timeout);
        set(&mut defaults.retry, self.retry);
        set(&mut defaults.recover, self.recover);
    }

    pub(super) fn apply(self, mut task: Task) -> Task {
        macro_rules! set {
            ($($option:ident)*) => {$(
                if let Some(value) = self.$option {
                    task = task.$option(value);
                }
            )*};
        }
        set!(max_instances coalesce max_catch_up overlap misfire_grace timeout retry recover);
        task
    }
}

/// Where the schedule of a task begins and ends; times without an offset are read in `zone`, by the rules
/// of `zones`.
pub(super) fn bounds(section: &mut Section<'_>, mut task: Task, zone: Option<Zone>, zones: &Zones) -> Task {
    let line = section.peek("end_at").and_then(|(_, line)| line);
    let (start, end) = (instant(section, "start_at", zone, zones), instant(section, "end_at", zone, zones));
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        section.problem(line, "end_at", format!("is before start_at, {}", start.to_rfc3339()));
    }
    if let Some(start) = start {
        task = task.start_at(start);
    }
    if let Some(end) = end {
        task = task.end_at(end);
    }
    if let Some(runs) = section.count("max_runs") {
        task = task.max_runs(u64::from(runs));
    }
    if let Some(finished) = section.parsed::<WhenFinished>("when_finished", FINISHED) {
        task = task.when_finished(finished);
    }
    if section.flag("first_run_now").unwrap_or(false) {
        task = task.first_run_now();
    }
    task
}

fn instant(
    section: &mut Section<'_>,
    key: &'static str,
    zone: Option<Zone>,
    zones: &Zones,
) -> Option<DateTime<Utc>> {
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
}

fn coalesce(section: &mut Section<'_>) -> Option<Coalesce> {
    match section.peek("coalesce").map(|(value, _)| &value.kind) {
        Some(Kind::Text(text)) if text.parse::<bool>().is_err() => section.parsed("coalesce", COALESCE),
        _ => section.flag("coalesce").map(Coalesce::from),
    }
}

/// `3`, `0` for none, or `{ times = 3, first = "1s", factor = 2, cap = "5m", jitter = 0.2 }`.
fn retry(section: &mut Section<'_>) -> Option<Option<Retry>> {
    if !matches!(section.peek("retry")?.0.kind, Kind::Table(_)) {
        let times = section.number("retry")?;
        return Some((times > 0).then(|| Retry::times(times)));
    }
    let mut table = section.section("retry")?;
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
