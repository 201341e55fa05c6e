use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::prelude::*;

use super::{Death, Exited};
use crate::clock::Clock;

/// Tells a guardian that its child has ended, when it is dropped: the child keeps it among its
/// fields for as long as it lives. Works while a panic unwinds, when an arbiter takes its actors
/// with it, and from any thread.
pub(super) struct Obituary {
    pub(super) generation: u64,
    pub(super) clock: Clock,
    pub(super) guardian: Recipient<Exited>,
    /// As long as this is there, so is the child.
    pub(super) _life: Arc<()>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        // A second panic during the first would end the process, so none may get out of here.
        let sent = catch_unwind(AssertUnwindSafe(|| {
            let death = match panicked {
                true => Death::Panicked,
                false if arbiter_ended() => Death::ArbiterEnded,
                false => Death::Stopped,
            };
            self.guardian.do_send(Exited { generation: self.generation, death, busy: self.clock.busy() });
        }));
        drop(sent);
    }
}

/// Whether this code is run by an arbiter that is on its way out: one takes no work any more.
fn arbiter_ended() -> bool {
    actix_rt::Arbiter::try_current().is_some_and(|arbiter| !arbiter.spawn(std::future::ready(())))
}
