use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Alias, Code, MisfireGrace, TaskId, TaskState};
use crate::trigger::{Context, Trigger};

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
    pub timezone: Tz,
    /// Where it runs.
    pub executor: Alias,
    /// Whether run times that are due together become one run, the latest.
    pub coalesce: bool,
    /// Without coalescing: how many of the run times that are due together run, the latest ones.
    pub max_catch_up: u32,
    /// How many runs of it may be going on at once.
    pub max_instances: u32,
    /// How late a run may start.
    pub misfire_grace: MisfireGrace,
    /// Anything the application wants to keep with the task.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub userdata: Value,
}

impl TaskSpec {
    /// What the trigger is told about this task.
    pub fn context(&self, anchor: DateTime<Utc>) -> Context<'_> {
        Context { zone: self.timezone, anchor, key: self.id.as_str() }
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
