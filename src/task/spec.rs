use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::policy::millis;
use super::table::{task_options, task_policies};
use super::{
    Alias, Coalesce, Code, MisfireGrace, Overlap, Retry, TaskDefaults, TaskId, TaskState, WhenFinished,
};
use crate::trigger::{Context, Trigger, Zone, Zones};

macro_rules! spec {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// A task as it is stored: every option decided, nothing that a run changes.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct TaskSpec {
            /// Its name within the store.
            pub id: TaskId,
            /// The code.
            pub handler: Handler,
            /// When it runs.
            pub trigger: Trigger,
            /// The zone in which the trigger is read where it names none itself.
            pub timezone: Zone,
            $(
                #[doc = $field]
                #[serde($($serde)*)]
                pub $name: $type,
            )*
        }

        impl TaskSpec {
            /// With every option as it is when nobody sets it.
            pub(super) fn by_default(
                (id, handler): (TaskId, Handler),
                (trigger, timezone): (Trigger, Zone),
                defaults: &TaskDefaults,
            ) -> Self {
                Self { id, handler, trigger, timezone, $($name: decided!($whose, defaults.$name, $default),)* }
            }
        }
    };
}

/// The default of an option, by whose it is.
macro_rules! decided {
    (scheduler, $scheduler:expr, $fixed:expr) => {
        $scheduler.clone()
    };
    (task, $scheduler:expr, $fixed:expr) => {
        $fixed
    };
}

task_options!(spec);

impl TaskSpec {
    /// A task in UTC with every option as it is when nobody sets it; for stores and their tests.
    ///
    /// ```
    /// use callboard::task::{Handler, TaskId, TaskSpec};
    ///
    /// let id = TaskId::new("weekly").unwrap();
    /// let spec = TaskSpec::new(id, Handler::Named("send".into()), "every 7d".parse().unwrap());
    /// assert_eq!((spec.max_instances, spec.label()), (1, "send"));
    /// ```
    pub fn new(id: TaskId, handler: Handler, trigger: Trigger) -> Self {
        Self::by_default((id, handler), (trigger, Zone::UTC), &TaskDefaults::default())
    }

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
