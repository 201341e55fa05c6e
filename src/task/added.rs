use serde::Serialize;

use super::{Alias, TaskId};

/// What came of adding a task: the answer of
/// [`RegisterTask`](crate::scheduler::message::RegisterTask).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The task.
    pub id: TaskId,
    /// The store it is kept in.
    pub store: Alias,
    /// Whether it was there.
    pub what: AddedAs,
    /// What was asked for and not taken, because the task was there already.
    pub kept: Vec<Kept>,
}

/// Whether an added task was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddedAs {
    /// It waits for the start of the scheduler.
    Pending,
    /// It is new.
    New,
    /// It was there with another definition, whose place it took.
    Changed,
    /// It was there just so.
    Unchanged,
}

/// An option that was given for a task that is there already, and that only a new task takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The option: `first_run`, `paused` or `timezone`.
    pub option: &'static str,
    /// What stays as it is, and how it is changed.
    pub reason: String,
}
