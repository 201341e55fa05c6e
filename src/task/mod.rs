//! WHAT runs: the data that is stored and sent, and the code it names.
//!
//! A [`Task`] is what a user writes. Committed, it becomes an immutable [`TaskSpec`] behind an
//! `Arc` and a small [`TaskState`] that each run changes; a [`Run`] is one execution of it, which
//! ends in one [`Outcome`].

mod account;
mod added;
mod builder;
mod check;
mod context;
mod defaults;
mod error;
mod failure;
mod id;
mod info;
mod lifecycle;
mod objects;
mod options;
mod outcome;
pub(crate) mod panics;
mod periodic;
mod policy;
mod registry;
mod run;
mod spec;
mod state;
mod table;

pub use account::{Account, Fate, RunTime};
pub use added::{Added, AddedAs, Kept};
pub(crate) use builder::FirstRun;
pub use builder::{Task, TaskChanges};
pub(crate) use check::range as check_range;
pub use context::TaskContext;
pub use defaults::TaskDefaults;
pub use error::TaskError;
pub(crate) use failure::panic_message;
pub use failure::{Failure, TaskReturn};
pub use id::{Alias, MAX_NAME_LEN, OwnerId, RunId, TaskId};
pub use info::{ScheduleState, SortKey, TaskInfo, TaskQuery, Wait};
pub use lifecycle::Lifecycle;
pub(crate) use lifecycle::{AnyLifecycle, LifeEnded, LifeStage, LifeStep, TickCode, TickQueue};
pub use objects::{ObjectCall, Objects};
#[cfg(feature = "config")]
pub(crate) use options::Options;
pub use outcome::{Outcome, Refusal, Skip};
pub use periodic::{Periodic, PeriodicInfo};
pub use policy::{
    Coalesce, MAX_ATTEMPTS, MAX_RECOVERIES, MAX_WAITING, MisfireGrace, Overlap, Retry, WhenFinished,
};
pub use registry::{AsyncCode, BlockingCode, Code, Registry, TaskFuture};
pub(crate) use run::standing_for;
pub use run::{Run, RunEnd, RunRecord, Source, Span};
pub use spec::{Handler, StoredTask, TaskSpec};
pub use state::{Attempt, Backfill, Fire, MAX_AHEAD, Moved, Replanned, TaskState};
#[cfg(any(feature = "config", feature = "cli", feature = "macros"))]
pub(crate) use table::{task_options, task_policies};
