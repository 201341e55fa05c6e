use super::TaskId;
use crate::trigger::TriggerError;

/// Why a task was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A field has a value it cannot have.
    #[error("{field} {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it and what would be valid; continues the sentence.
        reason: String,
    },
    /// The task has no trigger.
    #[error("the task has no trigger; give it one with `.trigger(…)`, for instance `Interval::seconds(30)`")]
    NoTrigger,
    /// The trigger is not valid, or never fires.
    #[error("trigger: {0}")]
    Trigger(#[from] TriggerError),
    /// The arguments cannot be written as JSON.
    #[error("the arguments cannot be stored as JSON: {0}")]
    Args(String),
    /// The handler is not in the registry.
    #[error("no handler is registered under `{name}`; {}", known_names(known))]
    UnknownHandler {
        /// The name asked for.
        name: String,
        /// The names that are registered.
        known: Vec<String>,
    },
    /// Two handlers or two triggers have one name.
    #[error("two things are registered under `{0}`; give each its own name")]
    DuplicateHandler(String),
    /// A closure in a store that writes tasks down.
    #[error(
        "task `{id}` runs a closure, which store `{store}` cannot write down; register the code under a name, or use a memory store"
    )]
    ClosureNotStorable {
        /// The task.
        id: TaskId,
        /// The store.
        store: String,
    },
    /// A closure on an executor that runs code in other processes.
    #[error(
        "task `{id}` runs a closure, and executor `{executor}` runs code in other processes, where it is not; register the code under a name, or choose another executor"
    )]
    ClosureNotPortable {
        /// The task.
        id: TaskId,
        /// The executor.
        executor: String,
    },
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() {
        "none is registered at all: pass a `Registry` to the builder".to_owned()
    } else {
        format!("registered are: {}", known.join(", "))
    }
}
