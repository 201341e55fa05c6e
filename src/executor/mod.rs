//! WHERE tasks run.
//!
//! An executor is an actor that answers the messages of [`message`]; an [`ExecutorAddr`] is made
//! from any actor that does. It alone counts the running instances of each task.

mod actor;
mod addr;
#[cfg(feature = "testing")]
pub mod contract;
mod custom;
mod deadline;
mod debug;
mod futures;
mod job;
pub mod message;
mod overlap;
mod pipeline;
#[cfg(all(unix, feature = "process"))]
mod process;
mod reports;
mod seats;
mod slot;
#[cfg(feature = "testing")]
mod stage;
mod threads;

pub use actor::ExecutorActor;
pub use addr::ExecutorAddr;
pub use custom::CustomExecutor;
pub use debug::DebugExecutor;
pub use futures::AsyncExecutor;
pub use job::{Job, Started};
pub use pipeline::Drive;
#[cfg(all(unix, feature = "process"))]
pub use process::{ProcessPool, worker};
pub use seats::{Room, Seats};
pub use threads::ThreadPool;

use crate::task::RunId;

/// A guard that the actor of a supervised executor keeps for as long as it lives: its drop tells
/// the guardian that the actor has ended.
pub type Keep = Box<dyn Send>;

/// Something that can start the actor of an executor, again if need be: what a scheduler's
/// builder accepts.
pub trait ExecutorSource: Send + 'static {
    /// Starts the actor, which holds `keep` until it ends. Called in an actix system.
    fn start(&mut self, keep: Keep) -> ExecutorAddr;

    /// Whether the actor is started again after its death. An actor that somebody else owns is not.
    fn supervised(&self) -> bool {
        true
    }

    /// Whether closures can be run. An executor that runs code in other processes cannot; a task
    /// with a closure is refused for it when it is added. Default: yes.
    fn runs_closures(&self) -> bool {
        true
    }
}

impl ExecutorSource for ExecutorAddr {
    fn start(&mut self, _keep: Keep) -> ExecutorAddr {
        self.clone()
    }

    fn supervised(&self) -> bool {
        false
    }
}

/// What runs the runs: the part of an executor that differs from one to the next, and the small
/// way to write one. Instances, refusals, draining and reports are [`ExecutorActor`]'s.
///
/// The contract, which `contract::suite` checks:
///
/// - A job is begun ([`Job::begin`]) when its code is about to run, not before, and dropped when
///   it will not. Its end is reported by itself.
/// - No method waits: the actor answers nothing meanwhile.
/// - A runner whose room is [bounded](Self::BOUNDED) says how much it has ([`room`](Self::room)) and is
///   given no more by a scheduler.
/// - Dropping the runner lets go of all jobs, as [`stop`](Self::stop) does.
pub trait Runner: Unpin + 'static {
    /// Whether there is an end to what it takes: a scheduler then asks for [`room`](Self::room) before
    /// it decides that runs begin, which is one more message for each batch. Default: no.
    const BOUNDED: bool = false;

    /// One word for people: `async`, `threadpool`, …
    fn kind(&self) -> &'static str;

    /// Takes charge of a job.
    fn start(&mut self, job: Job);

    /// Takes charge of several, in order.
    fn start_all(&mut self, jobs: Vec<Job>) {
        jobs.into_iter().for_each(|job| self.start(job));
    }

    /// A run was cancelled; its flag has been raised, which ends what [`Started::drive`] drives.
    /// Drop its job here if it waits for a place. Default: nothing.
    fn cancel(&mut self, run: RunId) {
        let _ = run;
    }

    /// Lets go of every job: what waits is dropped, futures are dropped, code that cannot be
    /// stopped is given up. No jobs come after this. Default: nothing; what is still in flight
    /// afterwards has its flag raised, and that ends what [`Started::drive`] drives.
    fn stop(&mut self) {}

    /// How many more jobs it takes. Asked only of one that is [bounded](Self::BOUNDED). Default: any
    /// number.
    fn room(&mut self) -> Room {
        Room::Any
    }

    /// How many jobs wait for a place. Default: 0.
    fn queued(&self) -> usize {
        0
    }
}
