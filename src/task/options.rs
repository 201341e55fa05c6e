use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;

use super::{Alias, Coalesce, Handler, MisfireGrace, Overlap, Retry, TaskError, TaskSpec, WhenFinished};
use crate::trigger::Trigger;
use crate::trigger::Zone;

/// The run times of a backlog that are to run are in memory together.
const MOST_CATCH_UP: u32 = 10_000;

/// The options of a task that somebody has set, in a new task or in a change.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) handler: Option<Handler>,
    pub(super) args: Option<Value>,
    pub(super) trigger: Option<Trigger>,
    pub(super) timezone: Option<GivenZone>,
    pub(super) executor: Option<Alias>,
    pub(super) coalesce: Option<Coalesce>,
    pub(super) max_catch_up: Option<u32>,
    pub(super) max_instances: Option<u32>,
    pub(super) overlap: Option<Overlap>,
    pub(super) misfire_grace: Option<MisfireGrace>,
    pub(super) timeout: Option<Option<Duration>>,
    pub(super) retry: Option<Option<Retry>>,
    pub(super) recover: Option<bool>,
    pub(super) start_at: Option<Option<DateTime<Utc>>>,
    pub(super) end_at: Option<Option<DateTime<Utc>>>,
    pub(super) max_runs: Option<Option<u64>>,
    pub(super) when_finished: Option<WhenFinished>,
    pub(super) userdata: Option<Value>,
    pub(super) problem: Option<TaskError>,
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

    /// Whether each is valid by itself.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        let zero = |field, value: Option<u32>| match value {
            Some(0) => Err(TaskError::Invalid { field, reason: "is 0; it must be at least 1".to_owned() }),
            _ => Ok(()),
        };
        self.problem.clone().map_or(Ok(()), Err)?;
        self.timezone.as_ref().map(GivenZone::zone).transpose()?;
        zero("max_instances", self.max_instances)?;
        zero("max_catch_up", self.max_catch_up)?;
        if self.max_catch_up.is_some_and(|runs| runs > MOST_CATCH_UP) {
            let reason = format!("is more than {MOST_CATCH_UP}; that many runs at once help nobody");
            return Err(TaskError::Invalid { field: "max_catch_up", reason });
        }
        if self.max_runs == Some(Some(0)) {
            let reason = "is 0; it must be at least 1, or left out for no end".to_owned();
            return Err(TaskError::Invalid { field: "max_runs", reason });
        }
        if self.overlap == Some(Overlap::Queue(0)) {
            let reason = "queues at most 0 runs; queue at least 1, or choose `skip`".to_owned();
            return Err(TaskError::Invalid { field: "overlap", reason });
        }
        if self.timeout.flatten().is_some_and(|timeout| timeout.as_millis() == 0) {
            let reason = "is shorter than a millisecond; leave it out for no limit".to_owned();
            return Err(TaskError::Invalid { field: "timeout", reason });
        }
        Ok(())
    }

    /// Those of `newer` count where both have one.
    pub(super) fn overlay(&mut self, newer: Self) {
        macro_rules! take {
            ($($field:ident)*) => { $(self.$field = newer.$field.or(self.$field.take());)* };
        }
        take!(name handler args trigger timezone executor coalesce max_catch_up max_instances overlap
            misfire_grace timeout retry recover start_at end_at max_runs when_finished userdata problem);
    }

    /// Sets them in `spec`.
    pub(super) fn apply(self, spec: &mut TaskSpec) -> Result<(), TaskError> {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut spec.name, self.name.map(|name| Some(name.into())));
        set(&mut spec.handler, self.handler);
        set(&mut spec.args, self.args);
        if let Some(trigger) = &self.trigger {
            trigger.check_lengths()?;
        }
        set(&mut spec.trigger, self.trigger);
        set(&mut spec.timezone, self.timezone.as_ref().map(GivenZone::zone).transpose()?);
        set(&mut spec.executor, self.executor);
        set(&mut spec.coalesce, self.coalesce);
        set(&mut spec.max_catch_up, self.max_catch_up);
        set(&mut spec.max_instances, self.max_instances);
        set(&mut spec.overlap, self.overlap);
        set(&mut spec.misfire_grace, self.misfire_grace);
        set(&mut spec.timeout, self.timeout);
        set(&mut spec.retry, self.retry);
        set(&mut spec.recover, self.recover);
        set(&mut spec.start_at, self.start_at);
        set(&mut spec.end_at, self.end_at);
        set(&mut spec.max_runs, self.max_runs);
        set(&mut spec.when_finished, self.when_finished);
        set(&mut spec.userdata, self.userdata);
        check_window(spec)
    }
}

/// The options that a new task and a change have in common.
macro_rules! option_setters {
    () => {
        /// A label for people.
        pub fn name(mut self, name: impl Into<String>) -> Self {
            self.options.name = Some(name.into());
            self
        }

        /// What the code is given: anything that can be written as JSON.
        pub fn args(mut self, args: impl Serialize) -> Self {
            let json = serde_json::to_value(args).map_err(|error| TaskError::Args(error.to_string()));
            self.options.args = self.options.keep(json);
            self
        }

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

        /// The alias of the executor. Default: [`TaskDefaults::executor`].
        pub fn executor(mut self, alias: impl TryInto<Alias, Error: Into<TaskError>>) -> Self {
            self.options.executor = self.options.keep(alias.try_into());
            self
        }

        /// Which of the run times that are due together run: a [`Coalesce`], or `true` for the
        /// latest and `false` for all. Default: [`TaskDefaults::coalesce`].
        pub fn coalesce(mut self, coalesce: impl Into<Coalesce>) -> Self {
            self.options.coalesce = Some(coalesce.into());
            self
        }

        /// Without coalescing: how many of the run times that are due together run; the others
        /// count as missed. At least 1 and at most 10,000. Default: [`TaskDefaults::max_catch_up`].
        pub fn max_catch_up(mut self, runs: u32) -> Self {
            self.options.max_catch_up = Some(runs);
            self
        }

        /// Runs of the task at once; at least 1. Default: [`TaskDefaults::max_instances`].
        pub fn max_instances(mut self, instances: u32) -> Self {
            self.options.max_instances = Some(instances);
            self
        }

        /// What becomes of a run that is due when `max_instances` are going on. Default:
        /// [`TaskDefaults::overlap`].
        pub fn overlap(mut self, overlap: Overlap) -> Self {
            self.options.overlap = Some(overlap);
            self
        }

        /// How late a run may start. Default: [`TaskDefaults::misfire_grace`].
        pub fn misfire_grace(mut self, grace: impl Into<MisfireGrace>) -> Self {
            self.options.misfire_grace = Some(grace.into());
            self
        }

        /// How long a run may take, from its start, to the millisecond; `None` for however long.
        /// Default: [`TaskDefaults::timeout`].
        pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
            self.options.timeout = Some(timeout.into());
            self
        }

        /// What is done about runs that fail, panic or time out; `None` for nothing. Default:
        /// [`TaskDefaults::retry`].
        pub fn retry(mut self, retry: impl Into<Option<Retry>>) -> Self {
            self.options.retry = Some(retry.into());
            self
        }

        /// Whether a run that was interrupted, by a crash of the program or the death of its
        /// executor, is run again: its code must bear being run twice. Default:
        /// [`TaskDefaults::recover`].
        pub fn recover(mut self, recover: bool) -> Self {
            self.options.recover = Some(recover);
            self
        }

        /// The first instant a run time may have; `None` for any. Default: any.
        pub fn start_at(mut self, at: impl Into<Option<DateTime<Utc>>>) -> Self {
            self.options.start_at = Some(at.into());
            self
        }

        /// The last instant a run time may have; `None` for any. Default: any.
        pub fn end_at(mut self, at: impl Into<Option<DateTime<Utc>>>) -> Self {
            self.options.end_at = Some(at.into());
            self
        }

        /// After how many scheduled runs the schedule ends, at least 1; `None` for no end. Runs on
        /// request and further attempts do not count. Default: no end.
        pub fn max_runs(mut self, runs: impl Into<Option<u64>>) -> Self {
            self.options.max_runs = Some(runs.into());
            self
        }

        /// What becomes of the task when its schedule has ended. Default: it is removed.
        pub fn when_finished(mut self, finished: WhenFinished) -> Self {
            self.options.when_finished = Some(finished);
            self
        }

        /// Anything the application wants to keep with the task, as JSON.
        pub fn userdata(mut self, userdata: impl Serialize) -> Self {
            let json = serde_json::to_value(userdata).map_err(|error| TaskError::Args(error.to_string()));
            self.options.userdata = self.options.keep(json);
            self
        }
    };
}
pub(super) use option_setters;

/// Refuses a time that is no run time of any calendar.
pub(crate) fn check_range(field: &'static str, at: DateTime<Utc>) -> Result<(), TaskError> {
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
fn check_window(spec: &TaskSpec) -> Result<(), TaskError> {
    if let Some(start) = spec.start_at {
        check_range("start_at", start)?;
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
