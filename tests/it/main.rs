//! The one integration test binary.

mod contract;
mod executors;
mod scheduler;
mod supervision;
