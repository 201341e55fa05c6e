//! The one integration test binary.

mod triggers;
