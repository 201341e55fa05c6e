//! callboard: an actor-based scheduling runtime for actix.

pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
mod error;
pub mod event;
pub mod executor;
pub mod scheduler;
pub mod store;
pub mod supervision;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod trigger;

pub use error::Error;

/// What most programs use.
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
