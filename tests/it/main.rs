//! The one integration test binary.

mod cli;
mod contract;
mod declared;
mod examples;
mod executors;
mod keyed;
mod layers;
mod lifecycles;
mod locks;
mod log;
mod messages;
mod pauses;
mod periodic;
mod processes;
mod promise;
mod readme;
mod scheduler;
mod supervision;
mod triggers;
mod web;
