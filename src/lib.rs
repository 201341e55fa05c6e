//! callboard: an actor-based scheduling runtime for actix.

pub mod trigger;
