//! What an executor understands, and the notice it sends up.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

pub use super::Seats;
use crate::clock::{Busy, Clock};
use crate::task::{Alias, Refusal, Run, RunEnd, RunId, TaskSpec};

/// Tells an executor whose it is. Sent once, before anything else, and again after a restart.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The executor's alias.
    pub alias: Alias,
    /// The scheduler's name, for logs.
    pub scheduler: String,
    /// The time.
    pub clock: Clock,
    /// Who is told how runs ended.
    pub notices: Recipient<RunsEnded>,
}

/// Runs to be started. Answered as soon as the executor has taken charge of them: from then on
/// each ends in exactly one [`RunsEnded`], also when it is refused or missed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// The runs, in the order in which they are to start.
    pub runs: Vec<Arc<Run>>,
    /// The places that were [reserved](Reserve) for them. With some, or with
    /// [none](Seats::none), a run that finds no place waits for one; without, it may be refused.
    pub seats: Option<Seats>,
    /// Keeps a virtual clock still until the runs have ended or wait for it.
    pub busy: Busy,
}

/// Asks an executor whose room is bounded for places, before it is written down that runs begin:
/// a run for which there is none is not begun. An executor that takes any number of runs is not asked.
#[derive(Debug, Message)]
#[rtype(result = "Reserved")]
pub struct Reserve {
    /// The store and the task of each run, those that are to run first at the beginning.
    pub tasks: Vec<(Alias, Arc<TaskSpec>)>,
    /// Whether others wait for a place already.
    pub others: bool,
    /// Who is told when there is room, as long as somebody waits for it.
    pub notices: Recipient<Vacant>,
}

/// The answer to [`Reserve`].
#[derive(Debug)]
pub struct Reserved {
    /// For each task, whether a run of it is taken: it has a place, or needs none, because the count of
    /// its instances decides about it.
    pub granted: Vec<bool>,
    /// The places. What is not submitted is given back when this is dropped.
    pub seats: Seats,
    /// Why others were not taken.
    pub problem: Option<Refusal>,
}

/// There is room in an executor that had none when somebody [asked](Reserve).
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Vacant {
    /// Its alias.
    pub executor: Alias,
    /// For how many runs.
    pub places: usize,
    /// Keeps a virtual clock still until that has been dealt with.
    pub busy: Busy,
}

/// Asks a run to stop. Answers whether it was going on or queued; its end is reported as usual,
/// and is that of its code if it came first. `false`: it has ended, or was never here.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "bool")]
pub struct Cancel {
    /// The run.
    pub run: RunId,
}

/// Ends the executor's work: nothing more is let in, what is queued or running may end within
/// `grace`, and what has not is cut off as interrupted. Answered when nothing runs any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Drained")]
pub struct Drain {
    /// How long runs may take to end; zero cuts them off at once.
    pub grace: Duration,
}

/// The answer to [`Drain`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Runs that were cut off.
    pub interrupted: usize,
}

/// How busy is it?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ExecutorStatus")]
pub struct Status;

/// The answer to [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExecutorStatus {
    /// The kind of executor: `async`, `threadpool`, …
    pub kind: String,
    /// Runs going on.
    pub running: usize,
    /// Runs waiting for a place, or for an earlier run of their task to end.
    pub queued: usize,
    /// Tasks with a run that goes on or waits for a place, and how many: the very counts that
    /// `max_instances` is compared with. What waits for an earlier run of its task is not among
    /// them. Empty when nothing runs.
    pub instances: Vec<(String, u32)>,
}

/// Runs have ended; their instances were given back before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RunsEnded {
    /// The runs and their ends, in the order in which they ended.
    pub ends: Vec<(Arc<Run>, RunEnd)>,
    /// Keeps a virtual clock still until the ends have been dealt with.
    pub busy: Busy,
}

impl std::fmt::Debug for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attach").field("alias", &self.alias).finish_non_exhaustive()
    }
}
