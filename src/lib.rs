//! callboard: an actor-based scheduling runtime for actix.
//!
//! It keeps tasks in stores, works out when each is due, and has executors run them. Each of these
//! is an actor; they talk by typed messages, and so can your own actors with them.
//!
//! ```text
//!   your code ─ Handle ─┐
//!                       ├─▶ Scheduler ──▶ EventBus ──▶ your actors, streams
//!   your actors ────────┘    │     │
//!                            │     └─ runs ──▶ executors: futures, threads, processes
//!                            └─ due tasks, new states ──▶ stores: memory, sled, redb, file
//! ```
//!
//! # Example
//!
//! ```
//! use callboard::prelude::*;
//!
//! async fn greet(run: TaskContext, name: String) {
//!     println!("{}: hello, {name}", run.nominal());
//! }
//!
//! #[actix::main]
//! async fn main() -> Result<(), callboard::Error> {
//!     let registry = Registry::new().register("greet", greet);
//!     let scheduler = Scheduler::builder().registry(registry).start().await?;
//!     scheduler.add(Task::new("greet").id("hourly").args("world").trigger("0 * * * *")).await?;
//!     scheduler.run_task("hourly").await?;
//!     scheduler.shutdown(Shutdown::default()).await
//! }
//! ```
//!
//! # What to read
//!
//! - [`guide::semantics`]: what is promised, and what happens in each kind of trouble.
//! - [`guide::time`]: when a trigger fires, exactly.
//! - [`guide::asking`]: what a task can be: a function, a message to an actor, a lifecycle, a periodic task.
//! - [`guide::lifecycle`]: a run from its due time to its outcome; states and moves.
//! - [`guide::events`]: every event, when it comes, what it carries.
//! - [`guide::operating`]: stores, shutdown, restarts, logs, limits, actix-web, tests on virtual time.
//! - [`guide::coming_from`]: for users of APScheduler, asyncz, sisy and tokio-cron-scheduler.
//! - [`guide::architecture`]: the actors, their messages, the code.
//!
//! # Layout
//!
//! - [`trigger`]: WHEN. Triggers as values: dates, intervals, cron in three dialects, combinations.
//! - [`task`](mod@task): WHAT. Tasks, the registry of their code, runs and their outcomes.
//! - [`event`]: WHAT HAPPENED. Events, masks to choose among them, the bus.
//! - [`supervision`]: WHO KEEPS WHOM ALIVE. Guardians and restart policies.
//! - [`store`]: WHAT IS REMEMBERED. The memory store, sled, redb, files, and the contract for your own.
//! - [`executor`]: WHERE IT RUNS. Futures, threads, processes, inline, and the contract for your own.
//! - [`scheduler`]: THE CONDUCTOR. The scheduler, its builder, its handle, its messages.
//! - [`declare`]: tasks declared next to their functions, listed, and added by one call.
//! - [`messages`]: MESSAGES AS TASKS. A due task sends a typed message to an actor of yours.
//! - [`keyed`]: BY NAME, ONCE. Futures under ids of your own, now, at a time or after a delay.
//! - [`config`]: a scheduler from a TOML file (feature `config`).
//! - [`cli`]: the program `callboard` (feature `cli`).
//! - [`web`]: in an actix-web server: both end in order (feature `web`).
//! - [`clock`]: the one door to the time.
//! - [`timer`]: waiting on a clock.
//! - [`timezones`]: where the rules of time zones come from.
//! - [`backoff`]: growing delays.
//! - [`testing`]: time that is turned by hand (feature `testing`).
//! - [`guide`]: the long documents.
//!
//! # Features
//!
//! | feature | default | what for |
//! |---|---|---|
//! | `sled` | yes | [`SledStore`](store::SledStore), the embedded store whose tasks survive a restart |
//! | `lock` | yes | `{pgrp}`, the process group, in the path of a [lock between processes](scheduler::Builder::lock_path) |
//! | `file` | yes | [`FileStore`](store::FileStore): each task a JSON file, for people to read and edit |
//! | `redb` | no | [`RedbStore`](store::RedbStore): the same on an engine that is maintained |
//! | `process` | no | [`ProcessPool`](executor::ProcessPool): runs in processes of their own (Unix) |
//! | `macros` | no | the attribute [`#[callboard::task(…)]`](macro@task): tasks declared next to their functions |
//! | `config` | no | [`config`]: schedulers described by a file |
//! | `testing` | no | [`testing`], and the suites [`store::contract`] and [`executor::contract`]: for tests of your own tasks, stores and executors |
//! | `encryption` | no | [`encrypt`](store::SledStore::encrypt): what the durable stores keep is sealed with keys of yours |
//! | `web` | no | [`web::run`]: an actix-web server and a scheduler that end in order |
//! | `cli` | no | the program `callboard`; brings `config`, `encryption`, `file`, `sled` and `redb` |
//!
//! Without any feature there are the memory store, all executors but the process pool, and all triggers.

pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
pub mod declare;
mod error;
pub mod event;
pub mod executor;
pub mod guide;
pub mod keyed;
mod lock;
pub mod messages;
mod private_file;
pub mod scheduler;
pub mod store;
pub mod supervision;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
pub mod timer;
pub mod timezones;
pub mod trigger;
#[cfg(feature = "web")]
pub mod web;

pub use error::Error;

/// The lines of the table of the attribute's options.
#[cfg(feature = "macros")]
macro_rules! attribute_lines {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        concat!($("| `", $example, "` | [`Task::", stringify!($name), "`](task::Task::", stringify!($name), "). ", $field, " |\n"),*)
    };
}
#[cfg(feature = "macros")]
use {
    attribute_lines,
    task::{task_options, task_policies},
};

/// Declares a task next to its function.
///
/// The function stays what it was. Beside it comes a type of the same name, whose function
/// `declaration()` makes a [`Declaration`](declare::Declaration): the handler and its tasks. List
/// those of a program in [`tasks!`]; register and add them with the
/// [`Declarations`](declare::Declarations) it makes.
///
/// ```
/// use callboard::prelude::*;
///
/// /// Runs on the executor `default`.
/// #[callboard::task(id = "weekly", cron = "0 8 * * mon", timezone = "Europe/Lisbon", args = "weekly")]
/// async fn send(run: TaskContext, list: String) -> Result<usize, std::io::Error> {
///     println!("{}: to {list}", run.nominal());
///     Ok(list.len())
/// }
///
/// /// Blocks its thread, so it runs in a pool.
/// #[callboard::task(id = "sweep", every = "1h 30m", executor = "pool", misfire_grace = "5m", coalesce = false)]
/// fn sweep() {}
///
/// # #[actix::main]
/// # async fn main() -> Result<(), callboard::Error> {
/// let declared = callboard::tasks![send, sweep];
/// let scheduler = Scheduler::builder()
///     .registry(declared.register(Registry::new()))
///     .executor("default", AsyncExecutor::new())
///     .executor("pool", ThreadPool::new(2))
///     .start()
///     .await?;
/// declared.add_to(&scheduler).await?;
/// # scheduler.shutdown(Shutdown::default()).await
/// # }
/// ```
///
/// The attribute writes what follows, and nothing else:
///
/// ```
/// # use callboard::prelude::*;
/// # async fn send(run: TaskContext, list: String) -> Result<usize, std::io::Error> { Ok(list.len()) }
/// use callboard::declare::Declaration;
/// use callboard::task::Code;
///
/// enum send {}
///
/// impl send {
///     fn declaration() -> Declaration {
///         Declaration::new("send", Code::from_async(send)).task(|task| {
///             task.id("weekly")
///                 .trigger("0 8 * * mon")
///                 .timezone(chrono_tz::Europe::Lisbon)
///                 .args("weekly")
///                 .replace_existing(true)
///         })
///     }
/// }
/// # assert_eq!(send::declaration().tasks().len(), 1);
/// ```
///
/// # The function
///
/// An `async fn`, or an `fn` that blocks its thread. It takes a
/// [`TaskContext`](task::TaskContext) (called by that name) and the arguments, or one of them, or
/// nothing; it returns what a handler may return: see [`TaskReturn`](task::TaskReturn). Neither
/// generics nor `self`.
///
/// Write several attributes for several tasks of one function; these have to be called `task` or
/// `callboard::task`.
///
/// # Options
///
/// Those of [`Task`](task::Task), by the names of its methods. A value is a literal, or an
/// expression of the type that the method takes.
///
/// | option | |
/// |---|---|
/// | `cron = "0 8 * * mon"` | when: a crontab line or a nickname as `"@daily"` |
/// | `every = "1h 30m"` | when: a length of time |
/// | `at = "2027-05-01T12:00:00"` | when: once |
/// | `trigger = Interval::minutes(5)` | when: any [`Trigger`](trigger::Trigger) or builder of one, or its [text](trigger::Trigger#impl-FromStr-for-Trigger) |
/// | `id = "weekly"` | [`Task::id`](task::Task::id), and [`replace_existing(true)`](task::Task::replace_existing) unless that is given: declaring a task at every start changes nothing. Without an id there is a fresh one, and so one more task, each time the declarations are added: that suits stores in memory |
/// | `timezone = "Europe/Lisbon"` | [`Task::timezone`](task::Task::timezone) |
/// | `first_run = EXPR`, `first_run_now` | [`Task::first_run`](task::Task::first_run), [`Task::first_run_now`](task::Task::first_run_now) |
/// | `store = "…"` | [`Task::store`](task::Task::store) |
/// | `spread` | [`Task::spread`](task::Task::spread) |
/// | `paused`, `replace_existing = false` | [`Task::paused`](task::Task::paused), [`Task::replace_existing`](task::Task::replace_existing); `paused` alone is `paused = true` |
/// | `handler = "…"` | the name in the registry; otherwise that of the function. Stored tasks carry it: give one if the function may be renamed, or if another has its name |
#[doc = task_options!(attribute_lines)]
/// | `crate = path` | where this crate is, if not at `::callboard` |
///
/// Mistakes that can be seen are errors of the compiler; what is wrong with the text of a trigger
/// beyond that, and a zone that the rules in force do not know, is reported by [`Declarations::add_to`](declare::Declarations::add_to).
///
/// ```compile_fail
/// #[callboard::task(every = "1 fortnight")]
/// fn sweep() {}
/// ```
#[cfg(feature = "macros")]
pub use callboard_macros::task;

/// What most programs use: `use callboard::prelude::*;`.
///
/// The scheduler with its builder, handle and shutdown; tasks, their registry, context, defaults and
/// outcomes; the usual triggers; the executors and the memory store; events; restart policies; the
/// clock; the error. Everything else is imported from its own module, messages included.
pub mod prelude {
    pub use crate::Error;
    pub use crate::clock::Clock;
    pub use crate::event::{Event, EventMask, EventStream};
    pub use crate::executor::{AsyncExecutor, ThreadPool};
    pub use crate::scheduler::{Handle, Scheduler, Shutdown};
    pub use crate::store::MemoryStore;
    pub use crate::supervision::RestartPolicy;
    pub use crate::task::{
        Outcome, Registry, Task, TaskChanges, TaskContext, TaskDefaults, TaskId, TaskInfo, TaskQuery,
    };
    pub use crate::trigger::{Cron, Date, Interval, Trigger};
}

/// The examples of the README are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
