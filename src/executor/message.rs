//! What an executor understands, and the notice it sends up.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::clock::{Busy, Clock};
use crate::task::{Alias, Run, RunEnd, RunId};

/// Tells an executor whose it is. Sent once, before anything else, and again after a restart.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The executor's alias.
    pub alias: Alias,
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
    /// Keeps a virtual clock still until the runs have ended or wait for it.
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
