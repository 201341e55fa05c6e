//! The one integration test binary.

mod cli;
mod contract;
mod declared;
mod examples;
mod executors;
mod keyed;
mod layers;
mod messages;
mod promise;
mod readme;
mod scheduler;
mod supervision;
mod triggers;
