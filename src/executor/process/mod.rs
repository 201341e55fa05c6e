//! The process pool: runs in processes of their own.

mod forward;
mod keeper;
mod link;
mod output;
mod pool;
mod remote;
mod run;
mod wire;
pub mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use actix::prelude::*;

use self::keeper::Launch;
use self::pool::PoolRunner;
use super::custom::OwnArbiter;
use super::{ExecutorActor, ExecutorAddr, ExecutorSource, Keep};

/// Runs tasks in worker processes: this program started again, each doing one run at a time.
///
/// A run that aborts, crashes, exits or is killed takes its worker with it and nothing else: it is
/// one failed run that says how its worker ended, and the next run gets a fresh worker. A run that
/// does not stop can be stopped, blocking code included, with every process it has started.
///
/// The program has to be told when it is a worker: by a call of
/// [`worker::run_if_asked`], before anything else in `main`.
///
/// ```no_run
/// use callboard::executor::{ProcessPool, worker};
/// use callboard::prelude::*;
///
/// fn registry() -> Registry {
///     Registry::new().register_blocking("resize", |_: TaskContext, path: String| {
///         std::fs::metadata(path).map(|meta| meta.len())
///     })
/// }
///
/// fn main() -> Result<(), callboard::Error> {
///     // In a worker this serves runs and never returns; otherwise it does nothing.
///     worker::run_if_asked(registry);
///
///     actix::System::new().block_on(async {
///         let scheduler = Scheduler::builder()
///             .registry(registry())
///             .executor("default", ProcessPool::new(4))
///             .start()
///             .await?;
///         scheduler.add(Task::new("resize").id("photo").args("photo.png").trigger("@hourly")).await?;
///         scheduler.shutdown(Shutdown::default()).await
///     })
/// }
/// ```
///
/// # What crosses
///
/// The run with its task crosses, as JSON: the code by its name, the arguments, and what a
/// [`TaskContext`](crate::task::TaskContext) knows. What the code returns comes back, or its error
/// or panic, as from every other executor. Closures do not cross: a task that has one is refused.
/// Nor does what the program keeps in memory: a worker has a registry of its own. A message holds
/// 16 MiB and 120 levels of lists and objects; a run whose arguments or value take more has failed.
///
/// Asynchronous code runs in an actix system of the worker, blocking code beside it. On a virtual
/// clock the context's clock is the scheduler's, and the work itself keeps it still.
///
/// # Logs
///
/// What a worker prints, and the events of its `tracing`, become tracing events of this process with
/// the target `callboard::worker` and the fields `task`, `run`, `executor`, `pid` and `origin`
/// (`stdout`, `stderr` or the event's target), and for an event within spans of the worker `spans`:
/// their names and fields, the outermost first, as in `batch{number=3}:page{url="…"}`. Events keep
/// their level; lines of standard output
/// have the level info, those of standard error warn. A line is cut at 8 KiB. Standard input is
/// empty.
///
/// # How a run is stopped
///
/// One that is cancelled is asked first, like blocking code everywhere
/// ([`TaskContext::is_cancelled`](crate::task::TaskContext::is_cancelled)); asynchronous code is
/// dropped at its next wait. What goes on after the [`grace`](Self::grace) has its process group
/// ended: SIGTERM, and SIGKILL after another grace. One that takes longer than its timeout gets
/// SIGTERM at once. The end of a drain's grace, and the end of the pool, is SIGKILL.
///
/// No worker outlives the pool, however the program ends: also when it is killed, a worker notices
/// and ends itself with its group. Only processes that have left the group on purpose escape.
#[derive(Debug, Clone)]
pub struct ProcessPool {
    max_workers: usize,
    queue: usize,
    recycle_after: Option<u64>,
    grace: Duration,
    start_limit: Duration,
    launch: Launch,
}

impl ProcessPool {
    /// How many runs wait when no other number is given.
    pub const DEFAULT_QUEUE: usize = 100_000;

    /// How long a run has to end when it is asked to, unless told otherwise.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(2);

    /// How long a worker may take until it is ready, unless told otherwise.
    pub const DEFAULT_START_LIMIT: Duration = Duration::from_secs(30);

    /// At most so many workers, and so many runs at once; 0 counts as 1. Workers are started as
    /// they are needed, and kept.
    pub fn new(max_workers: usize) -> Self {
        Self {
            max_workers: max_workers.max(1),
            queue: Self::DEFAULT_QUEUE,
            recycle_after: None,
            grace: Self::DEFAULT_GRACE,
            start_limit: Self::DEFAULT_START_LIMIT,
            launch: Launch::default(),
        }
    }

    /// How many runs may wait for a worker. What a scheduler has beyond that waits in its store, and
    /// begins when there is room; of runs that others submit, one more is refused with
    /// [`Refusal::QueueFull`](crate::task::Refusal::QueueFull). 0 is allowed: no run begins when no
    /// worker is free. Default: [`DEFAULT_QUEUE`](Self::DEFAULT_QUEUE).
    pub fn queue(mut self, runs: usize) -> Self {
        self.queue = runs;
        self
    }

    /// Lets a worker end after so many runs; the next run gets a fresh one. 0 counts as 1.
    /// Default: never. This is for code that leaks.
    pub fn recycle_after(mut self, runs: u64) -> Self {
        self.recycle_after = Some(runs.max(1));
        self
    }

    /// How long a run that was cancelled has until its process group gets SIGTERM, and how long
    /// a process group that got SIGTERM has until SIGKILL. Real time, also on a virtual clock.
    /// Default: [`DEFAULT_GRACE`](Self::DEFAULT_GRACE).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a worker may take until it is ready; then it is killed, and another one is started for
    /// the run that waits for it. Real time. Default: [`DEFAULT_START_LIMIT`](Self::DEFAULT_START_LIMIT).
    ///
    /// When no worker can be started, the next try is made after 250 ms, 500 ms, … up to 30 s. Runs of
    /// a scheduler wait meanwhile; those that others submit are refused with the reason.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Another program than this one to start; it calls [`worker::run_if_asked`] too, and is built
    /// with the same version of callboard.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.launch.program = Some(program.into());
        self
    }

    /// Arguments to start the program with. Default: none.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.launch.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable for the environment of the workers, beside those of this process.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.launch.env.push((name.into(), value.into()));
        self
    }

    /// A variable of this process that the workers do not inherit, such as one that holds a secret.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.launch.env_remove.push(name.into());
        self
    }
}

impl ExecutorSource for ProcessPool {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        let home = Arbiter::new();
        let own = OwnArbiter::of(&home);
        let settings = self.clone();
        ExecutorActor::start_in_arbiter(&home.handle(), move |_| {
            ExecutorActor::new(PoolRunner::new(settings), keep).at_home(own)
        })
        .into()
    }

    fn runs_closures(&self) -> bool {
        false
    }
}
