//! What is refused of options: by themselves, with a reason that follows the option's name, and together.

use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};

use super::{Overlap, TaskError, TaskSpec};

/// The run times of a backlog that are to run are in memory together.
const MOST_CATCH_UP: u32 = 10_000;

/// All values are valid.
pub(super) fn anything<T>(_: &T) -> Result<(), String> {
    Ok(())
}

pub(super) fn some(count: &u32) -> Result<(), String> {
    match count {
        0 => Err("is 0; it must be at least 1".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn some_catch_up(runs: &u32) -> Result<(), String> {
    match runs {
        ..=MOST_CATCH_UP => some(runs),
        _ => Err(format!("is more than {MOST_CATCH_UP}; that many runs at once help nobody")),
    }
}

pub(super) fn some_runs(runs: &Option<u64>) -> Result<(), String> {
    match runs {
        Some(0) => Err("is 0; it must be at least 1, or left out for no end".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn some_queue(overlap: &Overlap) -> Result<(), String> {
    match overlap {
        Overlap::Queue(0) => Err("queues at most 0 runs; queue at least 1, or choose `skip`".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn some_time(length: &Option<Duration>) -> Result<(), String> {
    match length {
        Some(length) if length.as_millis() == 0 => {
            Err("is shorter than a millisecond; leave it out for no limit".to_owned())
        }
        _ => Ok(()),
    }
}

/// Refuses a time that is no run time of any calendar.
pub(crate) fn range(field: &'static str, at: DateTime<Utc>) -> Result<(), TaskError> {
    if (1..=9999).contains(&at.year()) {
        return Ok(());
    }
    let reason = format!(
        "is {}, and run times lie between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z; choose a time \
         within",
        at.to_rfc3339()
    );
    Err(TaskError::Invalid { field, reason })
}

/// Refuses a window that ends before it begins, or begins when nothing runs.
pub(super) fn window(spec: &TaskSpec) -> Result<(), TaskError> {
    if let Some(start) = spec.start_at {
        range("start_at", start)?;
    }
    match (spec.start_at, spec.end_at) {
        (Some(start), Some(end)) if end < start => {
            let reason = format!(
                "is {}, before start_at {}; it has to be at or after it",
                end.to_rfc3339(),
                start.to_rfc3339()
            );
            Err(TaskError::Invalid { field: "end_at", reason })
        }
        _ => Ok(()),
    }
}
