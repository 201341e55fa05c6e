//! The one integration test binary.

mod cli;
mod contract;
mod executors;
mod scheduler;
mod supervision;
