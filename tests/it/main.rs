//! The one integration test binary.

mod scheduler;
