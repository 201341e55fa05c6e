use std::time::Duration;

use super::{Alias, Coalesce, MisfireGrace, Overlap, Retry};
use crate::trigger::Trigger;

/// What tasks are given that leave an option out. Read when a task is committed, not when it is
/// written.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefaults {
    /// Which of the run times that are due together run. Default: the latest.
    pub coalesce: Coalesce,
    /// Without coalescing, how many of the run times that are due together run. Default: 100.
    pub max_catch_up: u32,
    /// Runs of one task at once. Default: 1.
    pub max_instances: u32,
    /// What becomes of a run that is due when so many are going on. Default: it is refused.
    pub overlap: Overlap,
    /// How late a run may start. Default: however late.
    pub misfire_grace: MisfireGrace,
    /// How long a run may take. Default: however long.
    pub timeout: Option<Duration>,
    /// What is done about runs that fail. Default: nothing.
    pub retry: Option<Retry>,
    /// Whether a run that was interrupted is run again. Default: false.
    pub recover: bool,
    /// The executor. Default: `default`.
    pub executor: Alias,
    /// The store. Default: `default`.
    pub store: Alias,
    /// The schedule of [periodic tasks](super::Periodic) that name none. Default: every minute,
    /// `* * * * *`. Other tasks have to have a trigger of their own.
    pub schedule: Option<Trigger>,
}

/// The schedule of periodic tasks, if nobody says otherwise.
pub(super) const EVERY_MINUTE: &str = "* * * * *";

impl Default for TaskDefaults {
    fn default() -> Self {
        Self {
            coalesce: Coalesce::Latest,
            max_catch_up: 100,
            max_instances: 1,
            overlap: Overlap::Skip,
            misfire_grace: MisfireGrace::Unlimited,
            timeout: None,
            retry: None,
            recover: false,
            executor: Alias::default_alias(),
            store: Alias::default_alias(),
            schedule: None,
        }
    }
}
