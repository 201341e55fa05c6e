//! The one integration test binary.

mod cli;
mod scheduler;
mod contract;
mod executors;
mod scheduler;
mod supervision;
