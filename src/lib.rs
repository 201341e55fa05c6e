//! callboard: an actor-based scheduling runtime for actix.

#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
pub mod event;
pub mod executor;
pub mod store;
pub mod task;
pub mod timer;
pub mod trigger;
