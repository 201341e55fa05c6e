//! Which tasks of a file run first at places of their own: those of an interval that many have.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::{Settings, TaskSettings};
use crate::trigger::Trigger;

/// Tasks of one interval that still run together for the first time.
pub const SPREAD_ABOVE: usize = 20;

impl TaskSettings {
    /// The length of its interval, if that alone says when it runs first.
    pub(crate) fn open_interval(&self) -> Option<TimeDelta> {
        match &self.trigger {
            Trigger::Interval(interval) if !self.task.says_when_it_begins() && interval.names_no_start() => {
                Some(interval.length())
            }
            _ => None,
        }
    }

    /// Whether its first run is at a place of its own.
    #[cfg(feature = "cli")]
    pub(crate) fn is_spread(&self) -> bool {
        self.task.spread && self.open_interval().is_some()
    }
}

impl Settings {
    /// Decides for each task that does not say so itself.
    pub(super) fn spread_tasks(&mut self) {
        let mut equal: BTreeMap<TimeDelta, usize> = BTreeMap::new();
        for length in self.tasks.iter().filter_map(TaskSettings::open_interval) {
            *equal.entry(length).or_default() += 1;
        }
        for task in &mut self.tasks {
            let many = |length| equal.get(&length).is_some_and(|tasks| *tasks > SPREAD_ABOVE);
            let of_many = task.open_interval().is_some_and(many);
            task.task.spread = task.spread.or(self.spread).unwrap_or(of_many);
        }
    }
}
