use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::builder::FirstRun;
use super::id::checked;
use super::{ObjectCall, Overlap, Task, TaskError, TaskId, TaskInfo, WhenFinished};
use crate::trigger::{IntoTrigger, Trigger};

/// A durable periodic task in the manner of sisy: a schedule, a window, a number of runs, and an end
/// that disables it without losing it. It becomes an ordinary [`Task`] when it is added.
///
/// ```
/// use callboard::prelude::*;
/// use callboard::task::Periodic;
///
/// async fn report(_: TaskContext, list: String) {
///     println!("to {list}");
/// }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let scheduler = Scheduler::builder().registry(Registry::new().register("report", report)).start().await?;
/// // At eight, fourteen times.
/// scheduler.add(Periodic::new("report").schedule("0 8 * * *").userdata("daily").iterations(14)).await?;
/// // Three times, a second apart, and the first time now.
/// scheduler.add(Periodic::run_iterations("report", 3).userdata("test").run_immediately(true)).await?;
/// // Once, now.
/// let once = scheduler.add(Periodic::run_once("report").userdata("boss")).await?;
/// # scheduler.delete_task(&once).await?;
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
///
/// What is not valid in it is reported when it is added, or by [`task`](Self::task) before: nothing
/// is stored then. How it stands is told by [`PeriodicInfo`].
#[derive(Debug, Clone)]
pub struct Periodic {
    task: Task,
    schedule: Option<Trigger>,
    userdata: Value,
    key: Option<Value>,
    wait_for_schedule: bool,
    start_running: Option<DateTime<Utc>>,
    end_running: Option<DateTime<Utc>>,
    delay_until: Option<DateTime<Utc>>,
    iterations: u64,
    allow_overlap: bool,
}

impl Periodic {
    /// Every second: what [`run_iterations`](Self::run_iterations) runs by.
    pub const EVERY_SECOND: &'static str = "* * * * * *";

    /// A task that runs the handler registered under `handler`, on the scheduler's
    /// [schedule for tasks that name none](super::TaskDefaults::schedule), for ever.
    pub fn new(handler: impl AsRef<str>) -> Self {
        let valid = checked("handler", handler.as_ref()).map(drop);
        let mut task = Task::new(handler).when_finished(WhenFinished::Keep);
        task.keep(valid);
        Self {
            task,
            schedule: None,
            userdata: Value::Null,
            key: None,
            wait_for_schedule: true,
            start_running: None,
            end_running: None,
            delay_until: None,
            iterations: 0,
            allow_overlap: false,
        }
    }

    /// A task that runs `iterations` times (0 means for ever), on
    /// [`EVERY_SECOND`](Self::EVERY_SECOND) unless it is given another schedule, and is disabled then.
    pub fn run_iterations(handler: impl AsRef<str>, iterations: u64) -> Self {
        Self::new(handler).schedule(Self::EVERY_SECOND).iterations(iterations)
    }

    /// A task that runs once, now or after a [delay](Self::delay_until), and is disabled then.
    pub fn run_once(handler: impl AsRef<str>) -> Self {
        Self::run_iterations(handler, 1).run_immediately(true)
    }

    /// Its name within the store. Default: a fresh random one.
    pub fn id(mut self, id: impl TryInto<TaskId, Error: Into<TaskError>>) -> Self {
        self.task = self.task.id(id);
        self
    }

    /// A label for people, up to 255 bytes of printable text. Default: the handler's name.
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        let label = checked("label", label.as_ref());
        if let Some(label) = self.task.keep(label) {
            self.task = self.task.name(&*label);
        }
        self
    }

    /// When it runs: crontab text, or any trigger. Default:
    /// [`TaskDefaults::schedule`](super::TaskDefaults::schedule).
    pub fn schedule(mut self, schedule: impl IntoTrigger) -> Self {
        let schedule = schedule.into_trigger();
        self.schedule = self.task.keep(schedule);
        self
    }

    /// What the code is given: anything that can be written as JSON. Default: `null`.
    pub fn userdata(mut self, userdata: impl Serialize) -> Self {
        let json = serde_json::to_value(userdata).map_err(|error| TaskError::Args(error.to_string()));
        self.userdata = self.task.keep(json).unwrap_or_default();
        self
    }

    /// Binds it to the object with this key: the handler is a method of [`Objects`](super::Objects),
    /// `account.close` say, and is given the object beside the userdata.
    pub fn of(mut self, key: impl Serialize) -> Self {
        let json = serde_json::to_value(key).map_err(|error| TaskError::Args(error.to_string()));
        self.key = self.task.keep(json);
        self
    }

    /// Whether it runs at all. A task that is not enabled is paused: `resume_task` enables it.
    /// Default: true.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.task = self.task.paused(!enabled);
        self
    }

    /// It does not run before this.
    pub fn start_running(mut self, at: DateTime<Utc>) -> Self {
        self.start_running = Some(at);
        self
    }

    /// It does not run after this: then it is disabled.
    pub fn end_running(mut self, at: DateTime<Utc>) -> Self {
        self.end_running = Some(at);
        self
    }

    /// As [`start_running`](Self::start_running), but a time that is past when the task is added is
    /// an error.
    pub fn delay_until(mut self, at: DateTime<Utc>) -> Self {
        self.delay_until = Some(at);
        self
    }

    /// Without waiting it runs once as soon as it may, and then on schedule. Default: true.
    pub fn wait_for_schedule(mut self, wait: bool) -> Self {
        self.wait_for_schedule = wait;
        self
    }

    /// The opposite of [`wait_for_schedule`](Self::wait_for_schedule). The first run is one of the
    /// [`iterations`](Self::iterations).
    pub fn run_immediately(self, immediately: bool) -> Self {
        self.wait_for_schedule(!immediately)
    }

    /// How often the schedule runs it before it is disabled; 0 means for ever, which is the default.
    pub fn iterations(mut self, iterations: u64) -> Self {
        self.iterations = iterations;
        self
    }

    /// Whether a run may begin while another one goes on. Default: false. Then the run of a task with
    /// [`iterations`](Self::iterations) waits for the one before it, so that all of them run; the run
    /// of one without is refused, and the next one has its chance.
    pub fn allow_overlap(mut self, allow: bool) -> Self {
        self.allow_overlap = allow;
        self
    }

    /// The ordinary task it is, for options that it has no word for.
    ///
    /// # Errors
    /// When the schedule, the label, the handler's name, the key or the userdata is not valid. Whether
    /// the handler is registered is told when the task is added.
    pub fn task(self) -> Result<Task, TaskError> {
        let mut task = match self.key {
            Some(key) => self.task.args(ObjectCall::new(key, self.userdata)),
            None => self.task.args(self.userdata),
        };
        task = match self.schedule {
            Some(schedule) => task.trigger(schedule),
            None => {
                task.by_default = true;
                task
            }
        };
        let overlap = match self.iterations {
            _ if self.allow_overlap => Overlap::Allow,
            0 => Overlap::Skip,
            iterations => Overlap::Queue(u32::try_from(iterations).unwrap_or(u32::MAX)),
        };
        task = task.max_instances(1).overlap(overlap);
        if self.iterations > 0 {
            task = task.max_runs(self.iterations);
        }
        if let Some(at) = self.delay_until {
            task.not_past = Some(("delay_until", at));
        }
        if !self.wait_for_schedule {
            task.first_run = Some(FirstRun::Soonest);
        }
        let start = [self.start_running, self.delay_until].into_iter().flatten().max();
        let task = task.start_at(start).end_at(self.end_running);
        task.check()?;
        Ok(task)
    }
}

impl From<Periodic> for Task {
    /// What is not valid is reported when the task is added.
    fn from(periodic: Periodic) -> Self {
        let mut task = periodic.task.clone();
        periodic.task().unwrap_or_else(|problem| {
            task.keep(Err::<(), _>(problem));
            task
        })
    }
}

/// How a periodic task stands: a snapshot, made from that of any task.
///
/// ```
/// use callboard::prelude::*;
/// use callboard::task::{Periodic, PeriodicInfo};
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// # let registry = Registry::new().register("sweep", |_: TaskContext, ()| async {});
/// # let scheduler = Scheduler::builder().registry(registry).start().await?;
/// let id = scheduler.add(Periodic::new("sweep").iterations(3)).await?;
/// let sweep = PeriodicInfo::from(&scheduler.task(&id).await?);
/// assert_eq!((sweep.label.as_str(), sweep.schedule.as_str()), ("sweep", "* * * * *"));
/// assert!(sweep.enabled && !sweep.running && sweep.last_run.is_none());
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeriodicInfo {
    /// The task.
    pub id: TaskId,
    /// Its label; the handler's name when it was given none.
    pub label: String,
    /// The handler.
    pub handler: String,
    /// The schedule as text.
    pub schedule: String,
    /// What the code is given.
    pub userdata: Value,
    /// The key of the object it is bound to.
    pub key: Option<Value>,
    /// Whether it runs: neither paused nor at its end.
    pub enabled: bool,
    /// It does not run before this.
    pub start_running: Option<DateTime<Utc>>,
    /// It does not run after this.
    pub end_running: Option<DateTime<Utc>>,
    /// How often the schedule runs it; 0 means for ever.
    pub iterations: u64,
    /// How often the schedule has run it.
    pub runs: u64,
    /// Whether a run may begin while another one goes on.
    pub allow_overlap: bool,
    /// The nominal time of the latest run; `None` when it has not run.
    pub last_run: Option<DateTime<Utc>>,
    /// The nominal time of the next run.
    pub next_run: Option<DateTime<Utc>>,
    /// Whether a run goes on now.
    pub running: bool,
    /// When it was first added.
    pub created_at: DateTime<Utc>,
    /// When somebody last changed it; runs do not count.
    pub modified_at: DateTime<Utc>,
}

impl From<&TaskInfo> for PeriodicInfo {
    fn from(task: &TaskInfo) -> Self {
        let TaskInfo { spec, state, .. } = task;
        let call: Result<ObjectCall, _> = serde_json::from_value(spec.args.clone());
        let (key, userdata) = match call {
            Ok(ObjectCall { key, userdata }) => (Some(key), userdata),
            Err(_) => (None, spec.args.clone()),
        };
        Self {
            id: spec.id.clone(),
            label: spec.label().to_owned(),
            handler: spec.handler.name().to_owned(),
            schedule: spec.trigger.to_string(),
            userdata,
            key,
            enabled: !state.paused && !state.is_finished(spec),
            start_running: spec.start_at,
            end_running: spec.end_at,
            iterations: spec.max_runs.unwrap_or(0),
            runs: state.fired,
            allow_overlap: spec.overlap == Overlap::Allow || spec.max_instances > 1,
            last_run: state.last_run,
            next_run: task.next_run_time(),
            running: task.running > 0,
            created_at: state.created_at,
            modified_at: state.modified_at,
        }
    }
}
