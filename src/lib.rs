//! callboard: an actor-based scheduling runtime for actix.

pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
pub mod event;
pub mod executor;
pub mod store;
pub mod supervision;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod trigger;
