//! What the scheduler understands.
//!
//! Send these from your own actors to [`Handle::addr`](super::Handle::addr), or use the methods of
//! [`Handle`](super::Handle), which send them for you. Messages that name a task may name its store
//! too; without one all stores are asked, in the order of their aliases. An answer of `Ok` from a
//! durable store means that the change outlives a crash. Messages about one task are dealt with in
//! the order in which they arrive.
//!
//! ```
//! use callboard::prelude::*;
//! use callboard::scheduler::message::{PauseTask, RunTask};
//!
//! # #[actix::main]
//! # async fn main() -> Result<(), callboard::Error> {
//! # let registry = Registry::new().register("sweep", |_: TaskContext, ()| async {});
//! # let scheduler = Scheduler::builder().registry(registry).start().await?;
//! scheduler.add(Task::new("sweep").id("nightly").trigger("0 3 * * *")).await?;
//! let id = TaskId::new("nightly")?;
//!
//! // From an actor of yours, which holds the address:
//! let addr = scheduler.addr().ok_or(callboard::Error::Gone)?;
//! addr.do_send(PauseTask::new(id.clone()));
//!
//! // Or through the handle, which waits for a scheduler that is being started again:
//! let run = scheduler.send(RunTask::new(id)).await??;
//! println!("{run} was let in although the task is paused");
//! # scheduler.shutdown(Shutdown::default()).await
//! # }
//! ```

use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::{SchedulerStatus, Shutdown, Started};
use crate::error::Error;
use crate::event::{EventMask, EventStream, ListenerId};
use crate::executor::ExecutorSource;
use crate::store::StoreSource;
use crate::store::message::{Checked, Exported, Rekeyed};
use crate::supervision::RestartPolicy;
use crate::task::{
    Account, Added, Alias, AnyLifecycle, Lifecycle, RunId, RunRecord, Task, TaskChanges, TaskId, TaskInfo,
    TaskQuery,
};
use crate::timezones::Release;
use crate::trigger::{Trigger, ZonedTime};

/// Begins to work; see [`Handle::start`](super::Handle::start).
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "Result<Started, Error>")]
pub struct Start {
    /// Starts no runs until it is resumed.
    pub paused: bool,
}

/// Stops starting runs; those going on are left alone.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Pause;

/// Starts runs again. What became due meanwhile is late, and dealt with as such.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Resume;

/// Stops; answered when everything has stopped. See [`Shutdown`].
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Stop(pub Shutdown);

/// Reads the time zone database again; answered with the rules in force then. See
/// [`Handle::reload_timezones`](super::Handle::reload_timezones).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Release, Error>")]
pub struct ReloadTimezones;

/// How is it?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "SchedulerStatus")]
pub struct GetStatus;

/// Adds a task; answered with its id. Before the start the task is pending.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<TaskId, Error>")]
pub struct AddTask(pub Task);

/// Adds a task as [`AddTask`] does; answered with what came of it: whether the task was there, and what
/// was asked for and not taken because of that.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Added, Error>")]
pub struct RegisterTask(pub Task);

/// Adds a lifecycle; answered with the id of the task of its ticks, which is its name. It is set up
/// at the start, or at once when the scheduler runs. See [`Handle::add_lifecycle`](super::Handle::add_lifecycle).
#[derive(Clone, Message)]
#[rtype(result = "Result<TaskId, Error>")]
pub struct AddLifecycle(pub(super) AnyLifecycle);

impl AddLifecycle {
    /// The message that adds this one.
    pub fn new<S: 'static>(lifecycle: Lifecycle<S>) -> Self {
        Self(lifecycle.into())
    }
}

impl std::fmt::Debug for AddLifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AddLifecycle").field(&self.0.task).finish()
    }
}

macro_rules! about_task {
    ($(#[$doc:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })? -> $answer:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Message)]
        #[rtype(result = $answer)]
        pub struct $name {
            /// The task.
            pub id: TaskId,
            /// Its store. Without one, of several that have a task of this id the default store is
            /// meant, then the first by alias.
            pub store: Option<Alias>,
            $($($(#[$field_doc])* pub $field: $type,)*)?
        }

        impl $name {
            /// The task may live in any store.
            pub fn new(id: TaskId $($(, $field: $type)*)?) -> Self {
                Self { id, store: None $($(, $field)*)? }
            }

            /// The task lives in this store.
            pub fn store(mut self, store: Alias) -> Self {
                self.store = Some(store);
                self
            }
        }
    };
}

about_task! {
    /// Changes options of a task: all of them, or none when one is not valid. A new trigger or zone
    /// gives a new next run.
    UpdateTask {
        /// What changes.
        changes: TaskChanges,
    } -> "Result<TaskInfo, Error>"
}

about_task! {
    /// Gives a task another trigger, and so a new next run.
    RescheduleTask {
        /// The trigger.
        trigger: Trigger,
    } -> "Result<TaskInfo, Error>"
}

about_task! {
    /// Keeps a task from running. Once this is answered no new run of it is submitted; runs going on
    /// are left alone.
    PauseTask -> "Result<TaskInfo, Error>"
}

about_task! {
    /// Lets a task run again. Answered with `None` when its schedule has ended meanwhile: then it
    /// was removed.
    ResumeTask {
        /// Whether run times that passed during the pause are dealt with as late, instead of being
        /// skipped.
        catch_up: bool,
    } -> "Result<Option<TaskInfo>, Error>"
}

about_task! {
    /// Removes a task. Once this is answered no new run of it is submitted.
    DeleteTask -> "Result<(), Error>"
}

/// Runs a task now, on its own executor, also when it is paused and nothing of it is due; its schedule
/// stays as it is. Answered when the run has been let in, or with why it cannot be.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<RunId, Error>")]
pub struct RunTask {
    /// The task.
    pub id: TaskId,
    /// Its store. Without one, of several that have a task of this id the default store is meant, then
    /// the first by alias.
    pub store: Option<Alias>,
    /// Only when a run time of its schedule is due: see [`only_if_due`](Self::only_if_due).
    pub only_if_due: bool,
    /// Also when `max_instances` of it are running.
    pub beyond_max_instances: bool,
    /// Removes the task when its trigger has nothing left.
    pub remove_finished: bool,
}

impl RunTask {
    /// One run, now, whether anything is due or not. The task may live in any store.
    pub fn new(id: TaskId) -> Self {
        Self { id, store: None, only_if_due: false, beyond_max_instances: false, remove_finished: false }
    }

    /// The task lives in this store.
    pub fn store(mut self, store: Alias) -> Self {
        self.store = Some(store);
        self
    }

    /// Only when a run time of the schedule is due, because the task or the scheduler is paused or it
    /// waits for something: then that one runs, for all others that are due as well, and the schedule
    /// goes on from now. Otherwise the answer is [`Error::NotDue`].
    pub fn only_if_due(mut self) -> Self {
        self.only_if_due = true;
        self
    }

    /// Also when as many runs of the task go on as `max_instances` allows.
    pub fn beyond_max_instances(mut self) -> Self {
        self.beyond_max_instances = true;
        self
    }

    /// Removes the task when its trigger has nothing left.
    pub fn remove_finished(mut self) -> Self {
        self.remove_finished = true;
        self
    }
}

/// Asks a run to stop: one that goes on, or waits in its executor. Answered with whether there was
/// such a run. It then ends as cancelled, unless it ended by itself before it noticed, and is not
/// tried again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<bool, Error>")]
pub struct CancelRun {
    /// The run.
    pub run: RunId,
}

about_task! {
    /// Runs the run times of a past window, oldest first and one after the other, beside the schedule.
    ///
    /// ```text
    /// from 08:00, to 10:00, every 5 s          trigger: every 30 minutes
    /// 14:00:00   the run of 08:00              a place is free
    /// 14:00:05   the run of 08:30              put off while `max_instances` runs go on
    /// 14:00:10   the run of 09:00
    /// 14:00:15   the run of 09:30
    /// ```
    ///
    /// Each is a run with [`Source::Backfill`](crate::task::Source::Backfill). How far it has come is
    /// stored with the task ([`TaskState::backfill`](crate::task::TaskState::backfill)) and outlives a
    /// restart; a paused task waits. The window and the number of runs of the task itself do not
    /// count: they say what is scheduled. One back-fill of a task at a time.
    BackfillTask {
        /// The beginning of the window, inclusive.
        from: DateTime<Utc>,
        /// Its end, exclusive; not in the future.
        to: DateTime<Utc>,
        /// The time between two of the runs, at least; to the millisecond, not 0.
        every: std::time::Duration,
    } -> "Result<TaskInfo, Error>"
}

about_task! {
    /// Calls the back-fill of a task off; its runs that go on are left alone. Answered with whether
    /// there was one.
    CancelBackfill -> "Result<bool, Error>"
}

about_task! {
    /// A snapshot of a task.
    GetTask -> "Result<TaskInfo, Error>"
}

about_task! {
    /// The next nominal run times of a task, in its trigger's zone, without touching it.
    Preview {
        /// How many: at most 10,000 whatever is asked for.
        count: usize,
    } -> "Result<Vec<ZonedTime>, Error>"
}

about_task! {
    /// The latest runs of a task, newest first; empty where the store keeps no records. The task
    /// itself may be gone. Run times that were passed over are among them, as one record each time.
    History {
        /// At most this many, and at most 100,000 whatever is asked for.
        limit: usize,
    } -> "Result<Vec<RunRecord>, Error>"
}

about_task! {
    /// What became of each run time of a task in a window, and why; the task itself may be gone.
    /// See [`Account`].
    Why {
        /// The beginning of the window, inclusive.
        from: DateTime<Utc>,
        /// Its end, inclusive. Run times after now are waiting.
        to: DateTime<Utc>,
        /// At most this many run times, and at most 1000 whatever is asked for; [`Account::next`] says
        /// where to go on.
        limit: usize,
    } -> "Result<Account, Error>"
}

/// Snapshots of tasks. A store that cannot be asked keeps those of the others from nobody.
#[derive(Debug, Clone, Default, Message)]
#[rtype(result = "Result<TaskList, Error>")]
pub struct ListTasks(pub TaskQuery);

/// What [`ListTasks`] finds.
///
/// ```
/// use callboard::prelude::*;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// # let scheduler = Scheduler::builder().start().await?;
/// let list = scheduler.list_tasks(TaskQuery::new()).await?;
/// for task in &list.tasks {
///     println!("{}: {}", task.id(), task.when);
/// }
/// for (store, error) in &list.unasked {
///     eprintln!("the tasks of {store} are not known: {error}");
/// }
/// # scheduler.shutdown(Shutdown::now()).await
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TaskList {
    /// The tasks, in the order of the query.
    pub tasks: Vec<TaskInfo>,
    /// The stores that could not be asked, and why: their tasks are not among these.
    pub unasked: Vec<(Alias, Error)>,
}

impl TaskList {
    /// The tasks, if they are all.
    ///
    /// # Errors
    /// The trouble of the first store that could not be asked.
    pub fn complete(self) -> Result<Vec<TaskInfo>, Error> {
        match self.unasked.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.tasks),
        }
    }
}

/// The run times of all tasks (that a query selects) up to an instant, in order.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<(DateTime<Utc>, TaskId)>, Error>")]
pub struct Timeline {
    /// Which tasks.
    pub query: TaskQuery,
    /// The end, inclusive.
    pub until: DateTime<Utc>,
    /// At most this many, and at most 10,000 whatever is asked for.
    pub limit: usize,
}

/// Removes every task of a store, or of all stores; answered with how many there were.
#[derive(Debug, Clone, Default, Message)]
#[rtype(result = "Result<usize, Error>")]
pub struct RemoveAllTasks {
    /// Only this store.
    pub store: Option<Alias>,
}

/// Adds a store; it is opened at once when the scheduler runs.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub struct AddStore {
    /// Its alias.
    pub alias: Alias,
    /// What starts it.
    pub source: Box<dyn StoreSource>,
    /// What is done when its actor dies.
    pub policy: RestartPolicy,
}

/// Removes a store; its tasks stay in it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct RemoveStore(pub Alias);

/// Adds an executor.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub struct AddExecutor {
    /// Its alias.
    pub alias: Alias,
    /// What starts it.
    pub source: Box<dyn ExecutorSource>,
    /// What is done when its actor dies.
    pub policy: RestartPolicy,
}

/// Removes an executor. Its runs may end within the grace.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct RemoveExecutor {
    /// Its alias.
    pub alias: Alias,
    /// How long its runs may take to end.
    pub grace: std::time::Duration,
}

/// Brings an executor back whose restarts were used up.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct RestoreExecutor(pub Alias);

/// Brings a store back whose actor's restarts were used up.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct RestoreStore(pub Alias);

/// Reads everything a store holds and lists what cannot be read; see
/// [`Check`](crate::store::message::Check).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Checked, Error>")]
pub struct CheckStore(pub Alias);

/// Reads a store again, its keys included: what could not be read before and can be read by now is
/// there again, with a [`RecordReadable`](crate::event::Event::RecordReadable) for each task.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct RecheckStore(pub Alias);

/// Looks for a store's keys anew and writes everything with the current one; see
/// [`Rekey`](crate::store::message::Rekey). What becomes readable with the new keys is there again.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Rekeyed, Error>")]
pub struct RekeyStore(pub Alias);

/// Writes everything a store holds to a file; see [`Export`](crate::store::message::Export).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Exported, Error>")]
pub struct ExportStore {
    /// The store.
    pub alias: Alias,
    /// The file.
    pub path: std::path::PathBuf,
    /// Whether an encrypted store is written so that anybody can read it.
    pub plain: bool,
}

/// Sends the events of some kinds to an actor, one message each.
#[derive(Message)]
#[rtype(result = "Result<ListenerId, Error>")]
pub struct AddListener {
    /// Which kinds.
    pub mask: EventMask,
    /// The actor.
    pub listener: Recipient<crate::event::Event>,
}

/// Ends a subscription; answered with whether there was one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<bool, Error>")]
pub struct RemoveListener(pub ListenerId);

/// Opens a stream of the events of some kinds.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<EventStream, Error>")]
pub struct OpenEvents {
    /// Which kinds.
    pub mask: EventMask,
    /// How many events the stream holds for a slow reader before it loses some; more than fit into
    /// memory (2^28) count as that many.
    pub capacity: usize,
}

/// Starts no runs of the tasks of a store, also when it is not open yet; those going on are left
/// alone, and tasks of other stores run. Until [`ResumeStore`], or the shutdown.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct PauseStore(pub Alias);

/// Starts runs of the tasks of a store again. What became due meanwhile is late, and dealt with as
/// such.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct ResumeStore(pub Alias);

about_task! {
    /// Moves a task to another store, with its state: its runs, whether it is paused, its next run. Its
    /// history stays where it is. Nothing happens when it is there already.
    ///
    /// The task is in the other store before it leaves its own, and runs in neither meanwhile. Whoever
    /// is cut off in between finds it in both, and moves it again: then what happened last counts.
    /// Refused with [`Error::TaskRuns`] while runs of it go on, and with [`Error::TaskExists`] when the
    /// other store has another task of its id.
    MoveTask {
        /// Where it goes.
        to: Alias,
    } -> "Result<TaskInfo, Error>"
}

/// Makes the scheduler's actor panic, to see what happens then.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Crash;

macro_rules! debug_alias {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("alias", &self.alias).finish_non_exhaustive()
            }
        }
    )*};
}
debug_alias!(AddStore, AddExecutor);

impl std::fmt::Debug for AddListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddListener").field("mask", &self.mask).finish_non_exhaustive()
    }
}
