use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::message::*;
use super::{Scheduler, SchedulerStatus, Shutdown, Started};
use crate::error::Error;
use crate::event::{Event, EventMask, EventStream, ListenerId};
use crate::executor::ExecutorSource;
use crate::store::StoreSource;
use crate::store::message::{Checked, Exported, Rekeyed};
use crate::supervision::{Link, RestartPolicy};
use crate::task::{
    Account, Added, Alias, Lifecycle, RunId, RunRecord, Task, TaskChanges, TaskError, TaskId, TaskInfo,
    TaskQuery,
};
use crate::timezones::Release;
use crate::trigger::{IntoTrigger, ZonedTime};

/// How many events a stream holds for a slow reader.
const STREAM_CAPACITY: usize = 4096;

/// How many run times one answer to "why?" has.
const ACCOUNT_LIMIT: usize = 1000;

/// What programs hold of a scheduler: a typed method for every message.
///
/// Cheap to clone, can be sent to any thread, and goes on working when the scheduler's actor died
/// and was started again. A running scheduler goes on when every handle is dropped; a stopped one
/// ends then.
///
/// ```
/// use callboard::prelude::*;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let registry = Registry::new().register("sweep", |_: TaskContext, ()| async {});
/// let scheduler = Scheduler::builder().registry(registry).start().await?;
///
/// let id = scheduler.add(Task::new("sweep").id("nightly").trigger("0 3 * * *")).await?;
/// scheduler.pause_task(&id).await?;
/// assert_eq!(scheduler.task("nightly").await?.next_run_time(), None);
/// scheduler.resume_task(&id).await?;
/// assert_eq!(scheduler.preview("nightly", 5).await?.len(), 5);
/// scheduler.run_task("nightly").await?;
/// scheduler.delete_task("nightly").await?;
/// assert!(scheduler.task("nightly").await.unwrap_err().is_not_found());
/// scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    link: Link<Addr<Scheduler>>,
    anchor: Arc<Anchor>,
}

/// Ends the scheduler's arbiter when nobody can start the scheduler again.
struct Anchor {
    link: Link<Addr<Scheduler>>,
    arbiter: ArbiterHandle,
    system: Option<System>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if let Some(scheduler) = self.link.get() {
            scheduler.do_send(Retire { arbiter: self.arbiter.clone(), system: self.system.take() });
        }
    }
}

/// No handle is left.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire {
    pub arbiter: ArbiterHandle,
    pub system: Option<System>,
}

/// Anything that names a task.
pub trait IntoTaskId {
    /// The id, or why it is none.
    fn into_task_id(self) -> Result<TaskId, TaskError>;
}

impl<T: TryInto<TaskId, Error = TaskError>> IntoTaskId for T {
    fn into_task_id(self) -> Result<TaskId, TaskError> {
        self.try_into()
    }
}

impl Handle {
    pub(super) fn new(link: Link<Addr<Scheduler>>, arbiter: ArbiterHandle) -> Self {
        Self { anchor: Arc::new(Anchor { link: link.clone(), arbiter, system: None }), link }
    }

    /// The system ends with the scheduler.
    pub(super) fn owning_system(self) -> Self {
        let arbiter = self.anchor.arbiter.clone();
        let system = System::try_current();
        let link = self.link.clone();
        // The first anchor must not retire what the second one holds.
        std::mem::forget(self);
        Self { anchor: Arc::new(Anchor { link: link.clone(), arbiter, system }), link }
    }

    /// Sends any of the messages of [`message`](super::message).
    ///
    /// # Errors
    /// [`Error::Gone`] when the system the scheduler lived in has ended, [`Error::Died`] when its
    /// actor died before it answered.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, Error>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Scheduler: Handler<M>,
        Context<Scheduler>: ToEnvelope<Scheduler, M>,
    {
        let scheduler = self.link.wait_for(Addr::connected).await.ok_or(Error::Gone)?;
        match scheduler.send(message).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                // Whoever is told of the death finds the wait for a successor begun: with a virtual
                // clock, time must not pass before.
                self.link.turned_from(&scheduler).await;
                Err(Error::Died)
            }
        }
    }

    /// The address of the scheduler's actor, for messages from your own actors. It is that of the
    /// present actor: ask again after a [`SchedulerRestarted`](Event::SchedulerRestarted). `None`
    /// while there is none.
    pub fn addr(&self) -> Option<Addr<Scheduler>> {
        self.link.get()
    }

    /// Starts the scheduler. Starts nest: a scheduler that was started twice is shut down by the
    /// second shutdown.
    ///
    /// A store that cannot be opened is down, as if it had failed later: it is opened again by itself,
    /// and its tasks wait for it. A pending task that cannot be put into its store stays pending. The
    /// rest runs; the answer says what was left out.
    ///
    /// # Errors
    /// When no store can be opened; with [`Builder::strict`](super::Builder::strict), when anything
    /// would be left out. Nothing runs then, and it can be tried again.
    pub async fn start(&self) -> Result<Started, Error> {
        self.send(Start { paused: false }).await?
    }

    /// Starts the scheduler paused: no run begins until [`resume`](Self::resume).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_paused(&self) -> Result<Started, Error> {
        self.send(Start { paused: true }).await?
    }

    /// Starts the scheduler, and shuts it down when the guard is dropped.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn scope(&self, shutdown: Shutdown) -> Result<ScopeGuard, Error> {
        self.start().await?;
        Ok(ScopeGuard { handle: self.clone(), shutdown })
    }

    /// Starts no more runs; once this returns none is submitted.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn pause(&self) -> Result<(), Error> {
        self.send(Pause).await?
    }

    /// Starts runs again. Run times that passed meanwhile are late, and dealt with as such.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.send(Resume).await?
    }

    /// Shuts the scheduler down, or undoes one nested start. Returns within the grace and a second.
    /// Does nothing when it is stopped; waits along when it is shutting down.
    ///
    /// # Errors
    /// [`Error::NotRunning`] while it is being started.
    pub async fn shutdown(&self, shutdown: Shutdown) -> Result<(), Error> {
        self.send(Stop(shutdown)).await?
    }

    /// How it is.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn status(&self) -> Result<SchedulerStatus, Error> {
        self.send(GetStatus).await
    }

    /// Adds a task, or a [periodic](crate::task::Periodic) one, and says its id. Before the start the task is pending: listed, and committed at
    /// the start.
    ///
    /// # Errors
    /// When the task is not valid, its handler, store or executor does not exist, its trigger never
    /// fires, or its id is taken (and it does not replace).
    pub async fn add(&self, task: impl Into<Task>) -> Result<TaskId, Error> {
        self.send(AddTask(task.into())).await?
    }

    /// Adds a task as [`add`](Self::add) does, and says what came of it: whether it was there, and which
    /// options were not taken because of that.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub async fn register(&self, task: impl Into<Task>) -> Result<Added, Error> {
        self.send(RegisterTask(task.into())).await?
    }

    /// Changes options of a task, its next run among them: all of them, or none when one is not valid.
    ///
    /// # Errors
    /// When there is no such task or a change is not valid.
    pub async fn update_task(&self, id: impl IntoTaskId, changes: TaskChanges) -> Result<TaskInfo, Error> {
        self.send(UpdateTask::new(id.into_task_id()?, changes)).await?
    }

    /// Gives a task another trigger, and so a new next run.
    ///
    /// # Errors
    /// When there is no such task or the trigger is not valid or never fires.
    pub async fn reschedule_task(
        &self,
        id: impl IntoTaskId,
        trigger: impl IntoTrigger,
    ) -> Result<TaskInfo, Error> {
        self.send(RescheduleTask::new(id.into_task_id()?, trigger.into_trigger()?)).await?
    }

    /// Keeps a task from running. Once this returns no new run of it is submitted.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn pause_task(&self, id: impl IntoTaskId) -> Result<TaskInfo, Error> {
        self.send(PauseTask::new(id.into_task_id()?)).await?
    }

    /// Lets a task run again; run times that passed meanwhile are skipped. `None` when its schedule
    /// has ended meanwhile: then it was removed.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn resume_task(&self, id: impl IntoTaskId) -> Result<Option<TaskInfo>, Error> {
        self.send(ResumeTask::new(id.into_task_id()?, false)).await?
    }

    /// Removes a task. Once this returns no new run of it is submitted.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn delete_task(&self, id: impl IntoTaskId) -> Result<(), Error> {
        self.send(DeleteTask::new(id.into_task_id()?)).await?
    }

    /// Runs a task now, on its own executor, also when it is paused and nothing of it is due. Its
    /// schedule stays as it is. There is more to ask for with [`RunTask`].
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::UnknownTask`], or [`Error::Refused`]: as many runs as allowed
    /// are going on, or its executor or handler does not exist or has no room.
    pub async fn run_task(&self, id: impl IntoTaskId) -> Result<RunId, Error> {
        self.send(RunTask::new(id.into_task_id()?)).await?
    }

    /// Runs a task now if a run time of its schedule is due, and lets the schedule go on from there;
    /// `None` when nothing is due. See [`RunTask::only_if_due`].
    ///
    /// # Errors
    /// As [`run_task`](Self::run_task).
    pub async fn run_task_if_due(&self, id: impl IntoTaskId) -> Result<Option<RunId>, Error> {
        match self.send(RunTask::new(id.into_task_id()?).only_if_due()).await? {
            Ok(run) => Ok(Some(run)),
            Err(Error::NotDue { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks a run to stop, wherever it is: going on, or waiting in its executor. `false` when there is
    /// no such run (any more). Its outcome is [`Cancelled`](crate::task::Outcome::Cancelled), unless it
    /// ended by itself before it noticed; it is not tried again.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn cancel_run(&self, run: RunId) -> Result<bool, Error> {
        self.send(CancelRun { run }).await?
    }

    /// Runs the run times of a task from `from` to `to` (exclusive, and not in the future), one after
    /// the other and at least `every` apart. See [`BackfillTask`].
    ///
    /// ```
    /// # #[cfg(not(feature = "testing"))] fn main() {}
    /// # #[cfg(feature = "testing")]
    /// # #[actix::main]
    /// # async fn main() -> Result<(), callboard::Error> {
    /// use std::time::Duration;
    /// use callboard::prelude::*;
    /// use callboard::testing::VirtualClock;
    ///
    /// let time = VirtualClock::starting_at("2027-01-10T12:00:00Z");
    /// let scheduler = Scheduler::builder().clock(time.clock()).start().await?;
    /// let report = Task::from_fn(|run: TaskContext, ()| async move { println!("{}", run.nominal()) });
    /// scheduler.add(report.id("report").trigger("0 3 * * *")).await?;
    ///
    /// // The nights of the first week were forgotten.
    /// let (from, to) = ("2027-01-01T00:00:00Z".parse().unwrap(), "2027-01-08T00:00:00Z".parse().unwrap());
    /// scheduler.backfill("report", from, to, Duration::from_secs(1)).await?;
    /// time.advance(Duration::from_secs(7)).await;
    /// assert_eq!(scheduler.task("report").await?.state.runs, 7);
    /// # scheduler.shutdown(Shutdown::now()).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no such task, the window is empty, in the future or has no run time, `every` is
    /// 0, or [`Error::BackfillUnderWay`].
    pub async fn backfill(
        &self,
        id: impl IntoTaskId,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        every: Duration,
    ) -> Result<TaskInfo, Error> {
        self.send(BackfillTask::new(id.into_task_id()?, from, to, every)).await?
    }

    /// Calls the back-fill of a task off. `false` when there was none.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn cancel_backfill(&self, id: impl IntoTaskId) -> Result<bool, Error> {
        self.send(CancelBackfill::new(id.into_task_id()?)).await?
    }

    /// Removes every task of a store, or of all; says how many there were.
    ///
    /// # Errors
    /// When the store does not exist or a store fails.
    pub async fn remove_all_tasks(&self, store: Option<Alias>) -> Result<usize, Error> {
        self.send(RemoveAllTasks { store }).await?
    }

    /// A snapshot of a task.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn task(&self, id: impl IntoTaskId) -> Result<TaskInfo, Error> {
        self.send(GetTask::new(id.into_task_id()?)).await?
    }

    /// Snapshots of the tasks a query selects, in its order: of all of them, or an error. See
    /// [`list_tasks`](Self::list_tasks) for those that can be had.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn tasks(&self, query: TaskQuery) -> Result<Vec<TaskInfo>, Error> {
        self.list_tasks(query).await?.complete()
    }

    /// The same of the stores that can be asked, and which cannot: one that is down does not hide the
    /// tasks of the others. See [`TaskList`].
    ///
    /// # Errors
    /// When the scheduler is gone.
    pub async fn list_tasks(&self, query: TaskQuery) -> Result<TaskList, Error> {
        self.send(ListTasks(query)).await?
    }

    /// The next nominal run times of a task, in its trigger's zone: at most 10,000.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn preview(&self, id: impl IntoTaskId, count: usize) -> Result<Vec<ZonedTime>, Error> {
        self.send(Preview::new(id.into_task_id()?, count)).await?
    }

    /// The run times of all tasks up to `until`, in order, at most `limit` and at most 10,000.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn timeline(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<(DateTime<Utc>, TaskId)>, Error> {
        self.send(Timeline { query: TaskQuery::new(), until, limit }).await?
    }

    /// The latest runs of a task, newest first, at most `limit` and at most 100,000; empty where the
    /// store keeps no records.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn history(&self, id: impl IntoTaskId, limit: usize) -> Result<Vec<RunRecord>, Error> {
        self.send(History::new(id.into_task_id()?, limit)).await?
    }

    /// What became of each run time of a task from `from` to `to` (both inclusive), and why: also of
    /// those that did not run, and with those runs that somebody asked for. The task itself may be
    /// gone; then only what is on record is known. At most 1000 run times;
    /// [`Account::next`] says where to go on.
    ///
    /// ```
    /// # #[cfg(not(feature = "testing"))] fn main() {}
    /// # #[cfg(feature = "testing")]
    /// # #[actix::main]
    /// # async fn main() -> Result<(), callboard::Error> {
    /// use std::time::Duration;
    /// use callboard::prelude::*;
    /// use callboard::task::Fate;
    /// use callboard::testing::VirtualClock;
    ///
    /// let time = VirtualClock::starting_at("2027-01-01T07:59:00Z");
    /// let registry = Registry::new().register("ring", |_: TaskContext, ()| async {});
    /// let scheduler = Scheduler::builder().clock(time.clock()).registry(registry).start().await?;
    /// scheduler.add(Task::new("ring").id("bell").trigger("0 8-10 * * *")).await?;
    /// scheduler.pause().await?;
    /// time.advance(Duration::from_secs(90 * 60)).await;
    /// scheduler.resume().await?;
    /// time.settle().await;
    ///
    /// let start = "2027-01-01T00:00:00Z".parse().unwrap();
    /// let end = "2027-01-01T12:00:00Z".parse().unwrap();
    /// let account = scheduler.why("bell", start, end).await?;
    /// let fates: Vec<_> = account.times.iter().map(|time| time.fate).collect();
    /// assert_eq!(fates, [Fate::Coalesced, Fate::Executed, Fate::Waiting]);
    /// assert!(account.times[0].reason.starts_with("coalesced into the run of 2027-01-01T09:00:00"));
    /// # scheduler.shutdown(Shutdown::now()).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTask`] when there is no such task and no record of one,
    /// [`Error::NotRunning`], or when a store fails or the trigger's search gives up.
    pub async fn why(
        &self,
        id: impl IntoTaskId,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Account, Error> {
        self.send(Why::new(id.into_task_id()?, from, to, ACCOUNT_LIMIT)).await?
    }

    /// Adds a lifecycle: a task with a set-up, ticks and a clean-up. It is set up at the start, or at
    /// once when the scheduler runs; the set-up is not waited for. Its ticks are a task whose id is
    /// answered: the lifecycle's name. One of that id that is stored already is replaced, as by
    /// [`replace_existing`](Task::replace_existing).
    ///
    /// Where its task is in a store that outlives the program, add it before the start: ticks that
    /// are due before it is there are refused, because nobody knows their handler.
    ///
    /// One whose task has been removed can be added anew at once: it is set up when the last tick of
    /// the one before has ended and that is cleaned up.
    ///
    /// # Errors
    /// When an option is not valid, there are no ticks, or a handler or lifecycle has the name
    /// already; and as [`add`](Self::add).
    pub async fn add_lifecycle<S: 'static>(&self, lifecycle: Lifecycle<S>) -> Result<TaskId, Error> {
        self.send(AddLifecycle::new(lifecycle)).await?
    }

    /// Adds a store. While the scheduler runs it is opened at once.
    ///
    /// # Errors
    /// When the alias is taken or the store cannot be opened.
    pub async fn add_store(&self, alias: impl AsRef<str>, source: impl StoreSource) -> Result<(), Error> {
        let alias = Alias::new(alias)?;
        self.send(AddStore { alias, source: Box::new(source), policy: RestartPolicy::always() }).await?
    }

    /// Removes a store. Its tasks stay in it, and run no more.
    ///
    /// # Errors
    /// When there is no such store.
    pub async fn remove_store(&self, alias: impl AsRef<str>) -> Result<(), Error> {
        self.send(RemoveStore(Alias::new(alias)?)).await?
    }

    /// Reads the [time zone database](super::Builder::timezones) again, whether its files have changed or
    /// not, and says which rules are in force then. Without it that is done within a minute.
    ///
    /// # Errors
    /// When it cannot be used: the rules in force stay.
    pub async fn reload_timezones(&self) -> Result<Release, Error> {
        self.send(ReloadTimezones).await?
    }

    /// Reads everything a store holds and lists what cannot be read: the quarantine. Tasks go on
    /// meanwhile.
    ///
    /// # Errors
    /// When there is no such store, it does not work, or it cannot do that.
    pub async fn check_store(&self, alias: impl AsRef<str>) -> Result<Checked, Error> {
        self.send(CheckStore(Alias::new(alias)?)).await?
    }

    /// Reads a store again, and looks for its keys: what could not be read before and can be read by
    /// now is there again.
    ///
    /// # Errors
    /// When there is no such store, or it does not open.
    pub async fn recheck_store(&self, alias: impl AsRef<str>) -> Result<(), Error> {
        self.send(RecheckStore(Alias::new(alias)?)).await?
    }

    /// Looks for a store's keys anew and writes everything with the current one. Tasks go on
    /// meanwhile; afterwards older keys are needed only for what could not be read.
    ///
    /// # Errors
    /// When there is no such store, it does not work, or has no keys.
    pub async fn rekey_store(&self, alias: impl AsRef<str>) -> Result<Rekeyed, Error> {
        self.send(RekeyStore(Alias::new(alias)?)).await?
    }

    /// Writes everything a store holds to a file, as it is at one moment; `plain`: also what is
    /// encrypted, so that anybody can read it. Tasks go on meanwhile.
    ///
    /// # Errors
    /// When there is no such store, it does not work or cannot do that, or the file cannot be written.
    pub async fn export_store(
        &self,
        alias: impl AsRef<str>,
        path: impl Into<PathBuf>,
        plain: bool,
    ) -> Result<Exported, Error> {
        self.send(ExportStore { alias: Alias::new(alias)?, path: path.into(), plain }).await?
    }

    /// Moves a task to another store, with its state; see [`MoveTask`].
    ///
    /// ```
    /// use callboard::prelude::*;
    ///
    /// # #[actix::main]
    /// # async fn main() -> Result<(), callboard::Error> {
    /// # let registry = Registry::new().register("sweep", |_: TaskContext, ()| async {});
    /// let builder = Scheduler::builder().registry(registry);
    /// let scheduler =
    ///     builder.store("default", MemoryStore::new()).store("archive", MemoryStore::new()).start().await?;
    /// scheduler.add(Task::new("sweep").id("nightly").trigger("0 3 * * *")).await?;
    /// assert_eq!(scheduler.move_task("nightly", "archive").await?.store.as_str(), "archive");
    /// assert_eq!(scheduler.tasks(TaskQuery::new()).await?.len(), 1);
    /// # scheduler.shutdown(Shutdown::now()).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no such task or store, a store fails, the other store has another task of that id,
    /// or runs of the task go on.
    pub async fn move_task(&self, id: impl IntoTaskId, to: impl AsRef<str>) -> Result<TaskInfo, Error> {
        self.send(MoveTask::new(id.into_task_id()?, Alias::new(to)?)).await?
    }

    /// Starts no more runs of the tasks of a store, also when it is not open yet; once this returns
    /// none is submitted. Tasks of other stores run.
    ///
    /// # Errors
    /// When there is no such store.
    pub async fn pause_store(&self, alias: impl AsRef<str>) -> Result<(), Error> {
        self.send(PauseStore(Alias::new(alias)?)).await?
    }

    /// Starts runs of the tasks of a store again. Run times that passed meanwhile are late, and dealt
    /// with as such.
    ///
    /// # Errors
    /// When there is no such store.
    pub async fn resume_store(&self, alias: impl AsRef<str>) -> Result<(), Error> {
        self.send(ResumeStore(Alias::new(alias)?)).await?
    }

    /// Adds an executor.
    ///
    /// # Errors
    /// When the alias is taken.
    pub async fn add_executor(
        &self,
        alias: impl AsRef<str>,
        source: impl ExecutorSource,
    ) -> Result<(), Error> {
        let alias = Alias::new(alias)?;
        self.send(AddExecutor { alias, source: Box::new(source), policy: RestartPolicy::always() }).await?
    }

    /// Removes an executor, whose runs may end within `grace`. Runs of tasks that name it are
    /// refused from then on, and say so.
    ///
    /// # Errors
    /// When there is no such executor.
    pub async fn remove_executor(&self, alias: impl AsRef<str>, grace: Duration) -> Result<(), Error> {
        self.send(RemoveExecutor { alias: Alias::new(alias)?, grace }).await?
    }

    /// A stream of the events of some kinds, from now on.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn events(&self, mask: EventMask) -> Result<EventStream, Error> {
        self.send(OpenEvents { mask, capacity: STREAM_CAPACITY }).await?
    }

    /// Sends the events of some kinds to an actor, one [`Event`] message each.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn add_listener(
        &self,
        mask: EventMask,
        listener: Recipient<Event>,
    ) -> Result<ListenerId, Error> {
        self.send(AddListener { mask, listener }).await?
    }

    /// Ends a subscription; says whether there was one.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn remove_listener(&self, id: ListenerId) -> Result<bool, Error> {
        self.send(RemoveListener(id)).await?
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// Shuts a scheduler down when it is dropped, without waiting for it; from [`Handle::scope`].
#[derive(Debug)]
#[must_use = "dropping it shuts the scheduler down"]
pub struct ScopeGuard {
    handle: Handle,
    shutdown: Shutdown,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        if let Some(scheduler) = self.handle.addr() {
            scheduler.do_send(Stop(self.shutdown));
        }
    }
}

impl Handler<Retire> for Scheduler {
    type Result = ();

    fn handle(&mut self, Retire { arbiter, system }: Retire, _: &mut Self::Context) {
        if self.is_open() {
            // It goes on without handles, and ends when it is stopped by a message.
            self.estate.retired = Some((arbiter, system));
        } else {
            retire(&arbiter, system);
        }
    }
}

/// Ends what the scheduler lived on.
pub(super) fn retire(arbiter: &ArbiterHandle, system: Option<System>) {
    arbiter.stop();
    if let Some(system) = system {
        system.stop();
    }
}
