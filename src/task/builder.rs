use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check;
use super::defaults::EVERY_MINUTE;
use super::options::{Options, json, option_setters};
use super::table::{task_options, task_policies};
use super::{
    Alias, Coalesce, Code, Handler, MisfireGrace, Overlap, Retry, TaskContext, TaskDefaults, TaskError,
    TaskId, TaskReturn, TaskSpec, WhenFinished,
};
use crate::trigger::{IntoTrigger, Zone};

/// When a new task runs first, if not when its trigger says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstRun {
    At(DateTime<Utc>),
    Now,
    /// Now, or when its window begins.
    Soonest,
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
    pub(crate) spread: bool,
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
            spread: false,
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

    /// Whether an interval that names no start runs first at a place of its own within one length, and not
    /// at once: at a time that follows from the task's id and is the same whenever it is added. So
    /// thousands of tasks of `every 1h` do not run together. It changes nothing with another trigger, a
    /// [`first_run`](Self::first_run) or a [`start_at`](Self::start_at). Default: at once.
    ///
    /// ```
    /// use callboard::task::Task;
    ///
    /// let task = Task::new("poll").id("site-17").trigger("every 1h").spread(true);
    /// # let _ = task;
    /// ```
    pub fn spread(mut self, spread: bool) -> Self {
        self.spread = spread;
        self
    }

    /// Whether something besides its trigger says when it runs first.
    #[cfg(feature = "config")]
    pub(crate) fn says_when_it_begins(&self) -> bool {
        self.first_run.is_some() || self.options.start_at.flatten().is_some()
    }

    /// Whether a task of the same id is replaced; otherwise adding it is a conflict. A replaced
    /// task keeps the number of its runs, its paused flag and, unless the trigger or the zone
    /// changed, its next run time: registering the same task at every start changes nothing.
    pub fn replace_existing(mut self, replace: bool) -> Self {
        self.replace_existing = replace;
        self
    }

    task_options!(option_setters);

    /// The id it will have, if one was given.
    pub fn get_id(&self) -> Option<&TaskId> {
        self.id.as_ref()
    }

    /// Sets what is set in `options`.
    #[cfg(feature = "config")]
    pub(crate) fn set(mut self, options: Options) -> Self {
        self.options.overlay(options);
        self
    }

    /// Sets what `changes` set.
    pub(crate) fn change(&mut self, changes: TaskChanges) {
        if let Some(at) = changes.next_run {
            self.first_run = Some(FirstRun::At(at));
        }
        self.options.overlay(changes.options);
    }

    /// Whether what was set is valid, and there is a trigger.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        self.options.check()?;
        if let Some(FirstRun::At(at)) = self.first_run {
            check::range("first_run", at)?;
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

    /// Keeps what was given, or the first thing that went wrong: that is reported when it is added.
    pub(super) fn keep<T, E: Into<TaskError>>(&mut self, result: Result<T, E>) -> Option<T> {
        self.options.keep(result)
    }

    /// Checks what can be checked without a scheduler, and decides the options left out.
    pub(crate) fn resolve(mut self, defaults: &TaskDefaults, zone: Zone) -> Result<TaskSpec, TaskError> {
        self.check()?;
        let trigger = match (self.options.trigger.take(), &defaults.schedule) {
            (Some(trigger), _) => trigger,
            (None, Some(schedule)) if self.by_default => schedule.clone(),
            (None, None) if self.by_default => EVERY_MINUTE.into_trigger()?,
            _ => return Err(TaskError::NoTrigger),
        };
        let Some(handler) = self.options.handler.take() else { return Err(TaskError::NoTrigger) };
        let id = self.id.unwrap_or_else(TaskId::generate);
        let mut spec = TaskSpec::by_default((id, handler), (trigger, zone), defaults);
        self.options.apply(&mut spec)?;
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
    next_run: Option<DateTime<Utc>>,
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

    /// The next run, in place of the one the trigger gives; later ones follow the trigger, and its run
    /// times before this one are none. It must not be past, has to lie within the task's
    /// [`start_at`](Self::start_at) and [`end_at`](Self::end_at), and the task must have runs left of
    /// its [`max_runs`](Self::max_runs). A paused task keeps it for when it is resumed. For a task that
    /// waits for the start it is the first run.
    ///
    /// ```
    /// use callboard::task::TaskChanges;
    ///
    /// let tonight: chrono::DateTime<chrono::Utc> = "2027-01-01T23:00:00Z".parse().unwrap();
    /// let changes = TaskChanges::new().next_run(tonight);
    /// ```
    pub fn next_run(mut self, at: DateTime<Utc>) -> Self {
        self.next_run = Some(at);
        self
    }

    /// The next run that somebody sets.
    pub(crate) fn get_next_run(&self) -> Option<DateTime<Utc>> {
        self.next_run
    }

    task_options!(option_setters);

    /// The changed task; nothing is applied unless all of it is valid.
    pub(crate) fn apply(self, spec: &TaskSpec) -> Result<TaskSpec, TaskError> {
        self.options.check()?;
        let mut changed = spec.clone();
        self.options.apply(&mut changed)?;
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
        let resolve = |task: Task| task.resolve(&TaskDefaults::default(), Zone::UTC).unwrap_err().to_string();
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
            .resolve(&TaskDefaults::default(), Zone::UTC)
            .unwrap();
        let changed = TaskChanges::new().coalesce(false).apply(&spec).unwrap();
        assert_eq!(changed, TaskSpec { coalesce: Coalesce::All, ..spec.clone() });
        assert!(TaskChanges::new().name("new").max_instances(0).apply(&spec).is_err());
    }
}
