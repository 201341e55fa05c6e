//! Arbiters that the system may have no thread for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actix::prelude::*;

use crate::threads;

/// Starts an arbiter; an error where there is no thread for it, or no descriptors for what drives it. Actix
/// itself panics then.
///
/// # Panics
/// Outside an actix system.
pub(crate) fn start() -> io::Result<Arbiter> {
    // Whoever calls this elsewhere is told so by a panic.
    let _ = System::current();
    // A refusal that is known beforehand needs no panic.
    threads::probe(1).map_err(|(_, error)| error)?;
    catch_unwind(AssertUnwindSafe(Arbiter::new))
        .map_err(|_| io::Error::other("the system gives no thread, or no file descriptors, for it"))
}
