//! The one integration test binary.

mod cli;
mod scheduler;
mod contract;
