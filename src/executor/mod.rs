//! WHERE tasks run.
//!
//! An executor is an actor that answers the messages of [`message`]; an [`ExecutorAddr`] is made
//! from any actor that does. It alone counts the running instances of each task.

mod addr;
pub mod message;

pub use addr::ExecutorAddr;

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
}

impl ExecutorSource for ExecutorAddr {
    fn start(&mut self, _keep: Keep) -> ExecutorAddr {
        self.clone()
    }

    fn supervised(&self) -> bool {
        false
    }
}
