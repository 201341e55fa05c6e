//! What a guardian understands, and the notice it sends up.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;

use super::Death;
use crate::clock::Busy;

/// A child has ended. Sent by the obituary the child kept.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Exited {
    /// Which child: the first is 1, each successor one more. An obituary that arrives late does
    /// not count against a successor.
    pub generation: u64,
    /// How it ended.
    pub death: Death,
    /// Keeps a virtual clock still until the guardian has decided.
    pub busy: Busy,
}

/// The child's ending is wanted from now on: it is not started again. A restart that was being
/// waited for is called off.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Dismiss;

/// Starts the child again at once, with its restart budget refilled: after it has failed, ended or
/// been dismissed, or instead of waiting any longer. Answers whether it was started: `false` when
/// one is alive.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "bool")]
pub struct Restore;

/// How is the child?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "GuardianReport")]
pub struct GuardianStatus;

/// The answer to [`GuardianStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardianReport {
    /// The child's name.
    pub name: Arc<str>,
    /// What is going on.
    pub state: ChildState,
    /// How often the child was started again, ever.
    pub restarts: u64,
}

/// The state of a supervised child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChildState {
    /// It lives.
    Alive,
    /// It died and a successor is due.
    Restarting {
        /// What it died of.
        cause: Death,
    },
    /// It died and will not be started again unless somebody sends [`Restore`].
    Failed {
        /// Why.
        reason: String,
    },
    /// It ended, and the policy finds that in order.
    Ended,
    /// Its ending was asked for.
    Dismissed,
}

/// Something happened to a child.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChildNotice<A: Send + 'static> {
    /// The child's name, as the guardian was given it.
    pub name: Arc<str>,
    /// What happened.
    pub change: ChildChange<A>,
    /// Keeps a virtual clock still until the notice has been dealt with.
    pub busy: Busy,
}

/// What happened to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildChange<A> {
    /// A child was started: the first, or a successor.
    Started {
        /// Its address.
        child: A,
        /// What its predecessor died of; `None` for the first, and after [`Restore`].
        cause: Option<Death>,
    },
    /// The child died; a successor follows.
    Restarting {
        /// After this long.
        after: Duration,
        /// What it died of.
        cause: Death,
    },
    /// The child died and is given up: the budget of its policy is spent.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// The child stopped and its policy leaves it at that.
    Ended,
}
