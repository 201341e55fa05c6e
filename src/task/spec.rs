use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::policy::millis;
use super::{Alias, Coalesce, Code, MisfireGrace, Overlap, Retry, TaskId, TaskState, WhenFinished};
use crate::trigger::{Context, Trigger, Zone, Zones};

/// A task as it is stored: every option decided, nothing that a run changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name within the store.
    pub id: TaskId,
    /// A label for people; the handler's name when none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// The code.
    pub handler: Handler,
    /// What the code is given, as JSON.
    #[serde(default)]
    pub args: Value,
    /// When it runs.
    pub trigger: Trigger,
    /// The zone in which the trigger is read where it names none itself.
    pub timezone: Zone,
    /// Where it runs.
    pub executor: Alias,
    /// Which of the run times that are due together run.
    pub coalesce: Coalesce,
    /// Without coalescing: how many of the run times that are due together run, the latest ones.
    pub max_catch_up: u32,
    /// How many runs of it may be going on at once.
    pub max_instances: u32,
    /// What becomes of a run that is due when so many are going on.
    #[serde(default)]
    pub overlap: Overlap,
    /// How late a run may start.
    pub misfire_grace: MisfireGrace,
    /// How long a run may take; in milliseconds when encoded.
    #[serde(default, with = "millis", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What is done about runs that fail, panic or time out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whether a run that was interrupted is run again.
    #[serde(default)]
    pub recover: bool,
    /// Run times before this are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<DateTime<Utc>>,
    /// Run times after this are none: the schedule ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<DateTime<Utc>>,
    /// The schedule ends after so many scheduled runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u64>,
    /// What becomes of the task when its schedule has ended.
    #[serde(default, skip_serializing_if = "WhenFinished::is_remove")]
    pub when_finished: WhenFinished,
    /// Anything the application wants to keep with the task.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub userdata: Value,
}

impl TaskSpec {
    /// What the trigger is told about this task, where clocks are read by the rules of `zones`.
    pub fn context<'a>(&'a self, anchor: DateTime<Utc>, zones: &'a Zones) -> Context<'a> {
        Context { zone: self.timezone, zones, anchor, key: self.id.as_str() }
    }

    /// Whether its runs are remembered until they are settled: they may be tried again.
    pub(crate) fn keeps_attempts(&self) -> bool {
        self.recover || self.retry.is_some()
    }

    /// The name for people.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.handler.name())
    }
}

/// The code of a task: by name, or a closure.
#[derive(Clone)]
pub enum Handler {
    /// Looked up in the [`Registry`](super::Registry) at each run; can be stored.
    Named(Arc<str>),
    /// The code itself; lives in memory stores only.
    Closure(Code),
}

impl Handler {
    /// The handler's name; `closure` for one.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Closure(_) => "closure",
        }
    }
}

impl PartialEq for Handler {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a == b,
            (Self::Closure(a), Self::Closure(b)) => a.same(b),
            _ => false,
        }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Handler {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => s.serialize_str(name),
            Self::Closure(_) => Err(serde::ser::Error::custom("a closure cannot be written down")),
        }
    }
}

impl<'de> Deserialize<'de> for Handler {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(|name| Self::Named(name.into()))
    }
}

/// A task in a store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// How far it has come.
    pub state: TaskState,
}

impl StoredTask {
    /// Whether its schedule has ended and it is kept all the same. A paused task is paused, and not
    /// finished.
    pub fn is_finished(&self) -> bool {
        !self.state.paused && self.state.is_finished(&self.spec)
    }
}
