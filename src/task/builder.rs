use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Alias, Coalesce, Code, Handler, MisfireGrace, Overlap, Retry, TaskContext, TaskError, TaskId, TaskReturn,
    TaskSpec, WhenFinished,
};
use crate::trigger::{IntoTrigger, Trigger};

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
const EVERY_MINUTE: &str = "* * * * *";

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

/// The run times of a backlog that are to run are in memory together.
const MOST_CATCH_UP: u32 = 10_000;

/// The options of a task that somebody has set, in a new task or in a change.
#[derive(Debug, Clone, Default)]
struct Options {
    name: Option<String>,
    handler: Option<Handler>,
    args: Option<Value>,
    trigger: Option<Trigger>,
    timezone: Option<Tz>,
    executor: Option<Alias>,
    coalesce: Option<Coalesce>,
    max_catch_up: Option<u32>,
    max_instances: Option<u32>,
    overlap: Option<Overlap>,
    misfire_grace: Option<MisfireGrace>,
    timeout: Option<Option<Duration>>,
    retry: Option<Option<Retry>>,
    recover: Option<bool>,
    start_at: Option<Option<DateTime<Utc>>>,
    end_at: Option<Option<DateTime<Utc>>>,
    max_runs: Option<Option<u64>>,
    when_finished: Option<WhenFinished>,
    userdata: Option<Value>,
    problem: Option<TaskError>,
}

impl Options {
    /// Keeps what was given, or the first thing that went wrong.
    fn keep<T, E: Into<TaskError>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem.get_or_insert(error.into());
                None
            }
        }
    }

    fn check(&self) -> Result<(), TaskError> {
        let zero = |field, value: Option<u32>| match value {
            Some(0) => Err(TaskError::Invalid { field, reason: "is 0; it must be at least 1".to_owned() }),
            _ => Ok(()),
        };
        self.problem.clone().map_or(Ok(()), Err)?;
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

    fn overlay(&mut self, newer: Self) {
        macro_rules! take {
            ($($field:ident)*) => { $(self.$field = newer.$field.or(self.$field.take());)* };
        }
        take!(name handler args trigger timezone executor coalesce max_catch_up max_instances overlap
            misfire_grace timeout retry recover start_at end_at max_runs when_finished userdata problem);
    }

    fn apply(self, spec: &mut TaskSpec) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut spec.name, self.name.map(|name| Some(name.into())));
        set(&mut spec.handler, self.handler);
        set(&mut spec.args, self.args);
        set(&mut spec.trigger, self.trigger);
        set(&mut spec.timezone, self.timezone);
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
        pub fn timezone(mut self, zone: Tz) -> Self {
            self.options.timezone = Some(zone);
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

/// When a new task runs first, if not when its trigger says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstRun {
    At(DateTime<Utc>),
    Now,
    /// Now, or when its window begins.
    Soonest,
}

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

/// A task as a user writes it: code, trigger, options. Options that are left out are decided when
/// it is committed; so is whether it is valid.
///
/// ```
/// use callboard::task::Task;
/// use callboard::trigger::Interval;
///
/// let task = Task::new("send_newsletter")
///     .id("weekly")
///     .args(serde_json::json!({ "list": "weekly" }))
///     .trigger(Interval::seconds(30))
///     .max_instances(2);
/// ```
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) id: Option<TaskId>,
    pub(crate) store: Option<Alias>,
    pub(crate) first_run: Option<FirstRun>,
    pub(crate) paused: bool,
    pub(crate) replace_existing: bool,
    /// Without a trigger of its own it has the schedule that the scheduler has for such tasks.
    pub(crate) by_default: bool,
    /// A time that must not be past when the task is added, and what it is called.
    pub(crate) not_past: Option<(&'static str, DateTime<Utc>)>,
    options: Options,
}

impl Task {
    /// A task that runs the handler registered under `handler`.
    pub fn new(handler: impl AsRef<str>) -> Self {
        Self::with_handler(Handler::Named(handler.as_ref().into()))
    }

    /// A task that runs a closure. It lives in memory stores only: code cannot be written down.
    ///
    /// ```
    /// use callboard::task::{Task, TaskContext};
    ///
    /// let task = Task::from_fn(|run: TaskContext, ()| async move { println!("{}", run.nominal()) });
    /// ```
    pub fn from_fn<F, A, Fut>(function: F) -> Self
    where
        F: Fn(TaskContext, A) -> Fut + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn,
    {
        Self::with_handler(Handler::Closure(Code::from_async(function)))
    }

    /// A task that runs the code of `handler`.
    pub fn with_handler(handler: Handler) -> Self {
        Self {
            id: None,
            store: None,
            first_run: None,
            paused: false,
            replace_existing: false,
            by_default: false,
            not_past: None,
            options: Options { handler: Some(handler), ..Options::default() },
        }
    }

    /// Its name within the store. Default: a fresh random one.
    pub fn id(mut self, id: impl TryInto<TaskId, Error: Into<TaskError>>) -> Self {
        self.id = self.options.keep(id.try_into());
        self
    }

    /// The alias of the store it is kept in. Default: [`TaskDefaults::store`].
    pub fn store(mut self, alias: impl TryInto<Alias, Error: Into<TaskError>>) -> Self {
        self.store = self.options.keep(alias.try_into());
        self
    }

    /// The first run, in place of the one the trigger gives; later ones follow the trigger. It has
    /// to lie within [`start_at`](Self::start_at) and [`end_at`](Self::end_at).
    pub fn first_run(mut self, at: DateTime<Utc>) -> Self {
        self.first_run = Some(FirstRun::At(at));
        self
    }

    /// The first run at the moment the task is committed, and later ones as the trigger says: for a
    /// task that is added before the start, at the start. Outside of
    /// [`start_at`](Self::start_at) and [`end_at`](Self::end_at) it changes nothing.
    ///
    /// ```
    /// use callboard::task::Task;
    ///
    /// // Now, and then at every full hour.
    /// let task = Task::new("sync").trigger("0 * * * *").first_run_now();
    /// # let _ = task;
    /// ```
    pub fn first_run_now(mut self) -> Self {
        self.first_run = Some(FirstRun::Now);
        self
    }

    /// Adds the task paused: it keeps its next run time and does not run before it is resumed.
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// Whether a task of the same id is replaced; otherwise adding it is a conflict. A replaced
    /// task keeps the number of its runs, its paused flag and, unless the trigger or the zone
    /// changed, its next run time: registering the same task at every start changes nothing.
    pub fn replace_existing(mut self, replace: bool) -> Self {
        self.replace_existing = replace;
        self
    }

    option_setters!();

    /// The id it will have, if one was given.
    pub fn get_id(&self) -> Option<&TaskId> {
        self.id.as_ref()
    }

    /// Sets what `changes` set.
    pub(crate) fn change(&mut self, changes: TaskChanges) {
        self.options.overlay(changes.options);
    }

    /// Whether what was set is valid, and there is a trigger.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        self.options.check()?;
        if let Some(FirstRun::At(at)) = self.first_run {
            check_range("first_run", at)?;
        }
        if self.by_default || self.options.trigger.is_some() { Ok(()) } else { Err(TaskError::NoTrigger) }
    }

    /// Refuses a time that is past at `now`.
    pub(crate) fn check_at(&self, now: DateTime<Utc>) -> Result<(), TaskError> {
        match self.not_past {
            Some((field, at)) if at < now => {
                let reason = format!("is {}, which is past; leave it out to run at once", at.to_rfc3339());
                Err(TaskError::Invalid { field, reason })
            }
            _ => Ok(()),
        }
    }

    /// Something is wrong with it, which is reported when it is added.
    pub(super) fn with_problem(mut self, problem: TaskError) -> Self {
        self.options.problem.get_or_insert(problem);
        self
    }

    /// Checks what can be checked without a scheduler, and decides the options left out.
    pub(crate) fn resolve(mut self, defaults: &TaskDefaults, zone: Tz) -> Result<TaskSpec, TaskError> {
        self.check()?;
        let trigger = match (self.options.trigger.take(), &defaults.schedule) {
            (Some(trigger), _) => trigger,
            (None, Some(schedule)) if self.by_default => schedule.clone(),
            (None, None) if self.by_default => EVERY_MINUTE.into_trigger()?,
            _ => return Err(TaskError::NoTrigger),
        };
        let Some(handler) = self.options.handler.take() else { return Err(TaskError::NoTrigger) };
        let mut spec = TaskSpec {
            id: self.id.unwrap_or_else(TaskId::generate),
            name: None,
            handler,
            args: Value::Null,
            trigger,
            timezone: zone,
            executor: defaults.executor.clone(),
            coalesce: defaults.coalesce,
            max_catch_up: defaults.max_catch_up,
            max_instances: defaults.max_instances,
            overlap: defaults.overlap,
            misfire_grace: defaults.misfire_grace,
            timeout: defaults.timeout,
            retry: defaults.retry,
            recover: defaults.recover,
            start_at: None,
            end_at: None,
            max_runs: None,
            when_finished: WhenFinished::default(),
            userdata: Value::Null,
        };
        self.options.apply(&mut spec);
        check_window(&spec)?;
        // Tasks of one executor share one text.
        if spec.executor == defaults.executor {
            spec.executor = defaults.executor.clone();
        }
        Ok(spec)
    }
}

/// Changes to a task: what is set here is changed, the rest stays. Everything but the id and the
/// store can be changed.
///
/// ```
/// use callboard::task::TaskChanges;
///
/// let changes = TaskChanges::new().name("Weekly letter").max_instances(3);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskChanges {
    options: Options,
}

impl TaskChanges {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs another handler from now on.
    pub fn handler(mut self, name: impl AsRef<str>) -> Self {
        self.options.handler = Some(Handler::Named(name.as_ref().into()));
        self
    }

    option_setters!();

    /// The changed task; nothing is applied unless all of it is valid.
    pub(crate) fn apply(self, spec: &TaskSpec) -> Result<TaskSpec, TaskError> {
        self.options.check()?;
        let mut changed = spec.clone();
        self.options.apply(&mut changed);
        check_window(&changed)?;
        Ok(changed)
    }
}

impl From<std::convert::Infallible> for TaskError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Interval;

    #[test]
    fn what_is_wrong_is_reported_when_the_task_is_resolved() {
        let resolve = |task: Task| task.resolve(&TaskDefaults::default(), Tz::UTC).unwrap_err().to_string();
        let task = || Task::new("x").trigger(Interval::seconds(1));
        assert!(resolve(task().id("")).contains("id is empty"));
        assert!(resolve(task().max_instances(0)).contains("max_instances"));
        assert!(resolve(task().max_catch_up(u32::MAX)).contains("max_catch_up"));
        assert!(resolve(Task::new("x")).contains("no trigger"));
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(resolve(task().args(map)).contains("JSON"));
    }

    #[test]
    fn a_change_touches_only_what_it_names() {
        let spec = Task::new("x")
            .id("a")
            .trigger(Interval::seconds(1))
            .resolve(&TaskDefaults::default(), Tz::UTC)
            .unwrap();
        let changed = TaskChanges::new().coalesce(false).apply(&spec).unwrap();
        assert_eq!(changed, TaskSpec { coalesce: Coalesce::All, ..spec.clone() });
        assert!(TaskChanges::new().name("new").max_instances(0).apply(&spec).is_err());
    }
}
