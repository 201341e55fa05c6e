use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::table::{task_options, task_policies};
use super::{
    Alias, Coalesce, Handler, MisfireGrace, Overlap, Retry, TaskError, TaskSpec, WhenFinished, check,
};
use crate::trigger::{Trigger, Zone};

macro_rules! options {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// The options of a task that somebody has set, in a new task or in a change.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Options {
            pub(super) handler: Option<Handler>,
            pub(super) trigger: Option<Trigger>,
            pub(super) timezone: Option<GivenZone>,
            $(pub(crate) $name: Option<$type>,)*
            pub(super) problem: Option<TaskError>,
        }

        impl Options {
            /// Whether each is valid by itself.
            pub(super) fn check(&self) -> Result<(), TaskError> {
                self.problem.clone().map_or(Ok(()), Err)?;
                self.timezone.as_ref().map(GivenZone::zone).transpose()?;
                self.trigger.as_ref().map(Trigger::check_lengths).transpose()?;
                $(if let Some(given) = &self.$name {
                    let refused = |reason| TaskError::Invalid { field: stringify!($name), reason };
                    check::$check(given).map_err(refused)?;
                })*
                Ok(())
            }

            /// Those of `newer` count where both have one.
            pub(super) fn overlay(&mut self, newer: Self) {
                self.handler = newer.handler.or(self.handler.take());
                self.trigger = newer.trigger.or(self.trigger.take());
                self.timezone = newer.timezone.or(self.timezone.take());
                $(self.$name = newer.$name.or(self.$name.take());)*
                self.problem = newer.problem.or(self.problem.take());
            }

            /// Sets them in `spec`.
            pub(super) fn apply(self, spec: &mut TaskSpec) -> Result<(), TaskError> {
                let zone = self.timezone.as_ref().map(GivenZone::zone).transpose()?;
                set(&mut spec.handler, self.handler);
                set(&mut spec.trigger, self.trigger);
                set(&mut spec.timezone, zone);
                $(set(&mut spec.$name, self.$name);)*
                check::window(spec)
            }
        }
    };
}
task_options!(options);

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A zone as it was given.
#[derive(Debug, Clone)]
pub(super) enum GivenZone {
    Known(Zone),
    /// A name that is looked up when the task is added: by then the database in use has been read.
    Named(Box<str>),
}

impl GivenZone {
    pub(super) fn of(name: &str) -> Self {
        Zone::named(name).map_or_else(|_| Self::Named(name.into()), Self::Known)
    }

    fn zone(&self) -> Result<Zone, TaskError> {
        match self {
            Self::Known(zone) => Ok(*zone),
            Self::Named(name) => Zone::named(name).map_err(|error| TaskError::Invalid {
                field: "timezone",
                reason: format!("is no zone: {error}"),
            }),
        }
    }
}

impl Options {
    /// Keeps what was given, or the first thing that went wrong.
    pub(super) fn keep<T, E: Into<TaskError>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem.get_or_insert(error.into());
                None
            }
        }
    }
}

/// The options that a new task and a change have in common.
macro_rules! option_setters {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// When it runs: a trigger, a builder of one, or text. What is wrong with it is reported
        /// when the task is added.
        pub fn trigger(mut self, trigger: impl IntoTrigger) -> Self {
            let trigger = trigger.into_trigger();
            self.options.trigger = self.options.keep(trigger);
            self
        }

        /// The zone in which the trigger is read where it names none itself. Default: the
        /// scheduler's.
        pub fn timezone(mut self, zone: impl Into<$crate::trigger::Zone>) -> Self {
            self.options.timezone = Some($crate::task::options::GivenZone::Known(zone.into()));
            self
        }

        /// The same by the zone's name. It is looked up when the task is added, so that it may be one
        /// that only the time zone database of the scheduler has; what is wrong with it is reported then.
        ///
        /// ```
        /// use callboard::task::Task;
        ///
        /// let task = Task::new("report").trigger("0 9 * * *").timezone_named("America/Vancouver");
        /// ```
        pub fn timezone_named(mut self, name: &str) -> Self {
            self.options.timezone = Some($crate::task::options::GivenZone::of(name));
            self
        }

        $(
            $(#[doc = $doc])+
            pub fn $name(mut self, $arg: $arg_type) -> Self {
                let given: Result<$type, TaskError> = $set;
                self.options.$name = self.options.keep(given);
                self
            }
        )*
    };
}
pub(super) use option_setters;

/// What can be written as JSON.
pub(super) fn json(given: impl Serialize) -> Result<Value, TaskError> {
    serde_json::to_value(given).map_err(|error| TaskError::Args(error.to_string()))
}
