//! The one integration test binary.

mod executors;
mod scheduler;
mod supervision;
