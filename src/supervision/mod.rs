//! WHO KEEPS WHOM ALIVE.
//!
//! A [`Guardian`] is an actor with one child. It starts the child through a factory, hears of its
//! ending whatever the cause, and asks a [`RestartPolicy`] what to do about it. Who needs the
//! child's address is told of each successor by a [`ChildNotice`], or holds a [`Link`] that
//! follows it.
//!
//! ```text
//!                 factory(keep)
//!   Guardian ───────────────────────▶ child actor, holds `keep` among its fields
//!      ▲  │ ChildNotice                    │
//!      │  └──────────▶ owner ─▶ Link       │ panics, stops, loses its arbiter
//!      └───────────────────────────────────┘
//!               Exited, from the drop of `keep`
//! ```
//!
//! (`actix::Supervisor` does something else: it never restarts after a panic, and restarts at once
//! and without limit after a stop.)

mod guardian;
mod link;
pub mod message;
mod obituary;
mod policy;

pub use guardian::{Guardian, Keep};
pub use link::{Link, LinkOwner};
pub use message::{
    ChildChange, ChildNotice, ChildState, Dismiss, Exited, GuardianReport, GuardianStatus, Restore,
};
pub use policy::{Death, RestartHistory, RestartPolicy, Verdict};
