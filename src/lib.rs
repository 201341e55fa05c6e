//! callboard: an actor-based scheduling runtime for actix.
//!
//! It keeps tasks in stores, works out when each is due, and has executors run them. Each of these
//! is an actor; they talk by typed messages, and so can your own actors with them.
//!
//! ```text
//!   your code ─ Handle ─┐
//!                       ├─▶ Scheduler ──▶ EventBus ──▶ your actors, streams
//!   your actors ────────┘    │     │
//!                            │     └─ runs ──▶ executors: futures, threads
//!                            └─ due tasks, new states ──▶ stores: memory, sled
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
//! - [`guide::lifecycle`]: a run from its due time to its outcome; states and moves.
//! - [`guide::events`]: every event, when it comes, what it carries.
//! - [`guide::operating`]: stores, shutdown, restarts, logs, limits, actix-web, tests on virtual time.
//! - [`guide::coming_from`]: for users of APScheduler, asyncz, sisy and tokio-cron-scheduler.
//! - [`guide::architecture`]: the actors, their messages, the code.
//!
//! # Layout
//!
//! - [`trigger`]: WHEN. Triggers as values: dates, intervals, cron in three dialects, combinations.
//! - [`task`]: WHAT. Tasks, the registry of their code, runs and their outcomes.
//! - [`event`]: WHAT HAPPENED. Events, masks to choose among them, the bus.
//! - [`supervision`]: WHO KEEPS WHOM ALIVE. Guardians and restart policies.
//! - [`store`]: WHAT IS REMEMBERED. The memory store, sled, and the contract for your own.
//! - [`executor`]: WHERE IT RUNS. Futures, threads, inline, and the contract for your own.
//! - [`scheduler`]: THE CONDUCTOR. The scheduler, its builder, its handle, its messages.
//! - [`keyed`]: BY NAME, ONCE. Futures under ids of your own, now, at a time or after a delay.
//! - [`config`]: a scheduler from a TOML file (feature `config`).
//! - [`cli`]: the program `callboard` (feature `cli`).
//! - [`clock`]: the one door to the time.
//! - [`timer`]: waiting on a clock.
//! - [`backoff`]: growing delays.
//! - [`testing`]: time that is turned by hand (feature `testing`).
//! - [`guide`]: the long documents.
//!
//! # Features
//!
//! | feature | default | what for |
//! |---|---|---|
//! | `sled` | yes | [`SledStore`](store::SledStore), the embedded store whose tasks survive a restart |
//! | `config` | no | [`config`]: schedulers described by a file |
//! | `testing` | no | [`testing`], and the suites [`store::contract`] and [`executor::contract`]: for tests of your own tasks, stores and executors |
//! | `cli` | no | the program `callboard`; brings `config` and `sled` |
//!
//! Without any feature there are the memory store, all executors and all triggers.

pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
mod error;
pub mod event;
pub mod executor;
pub mod guide;
pub mod keyed;
pub mod scheduler;
pub mod store;
pub mod supervision;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod trigger;

pub use error::Error;

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
