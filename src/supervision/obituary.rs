use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

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
    pub(super) birth: Arc<Birth>,
}

/// What the factory of a child and the child's obituary tell each other.
pub(super) struct Birth {
    /// The thread the factory is called on.
    place: ThreadId,
    /// The factory has returned.
    over: AtomicBool,
    death: OnceLock<Death>,
}

impl Birth {
    /// Begins here and now.
    pub(super) fn begin() -> Arc<Self> {
        let place = std::thread::current().id();
        Arc::new(Self { place, over: AtomicBool::new(false), death: OnceLock::new() })
    }

    /// The factory has returned. How the child has died if it is dead already.
    pub(super) fn end(&self) -> Option<Death> {
        self.over.store(true, Ordering::Relaxed);
        self.death.get().copied()
    }

    /// Whether nobody but the factory can have dropped what is dropped here and now.
    fn is_under_way_here(&self) -> bool {
        std::thread::current().id() == self.place && !self.over.load(Ordering::Relaxed)
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        // A second panic during the first would end the process, so none may get out of here.
        let sent = catch_unwind(AssertUnwindSafe(|| {
            let death = match panicked {
                true => Death::Panicked,
                false if self.birth.is_under_way_here() => Death::NotStarted,
                false if arbiter_ended() => Death::ArbiterEnded,
                false => Death::Stopped,
            };
            // Before it is told: whoever does not find it here will hear of it.
            self.birth.death.set(death).ok();
            self.guardian.do_send(Exited { generation: self.generation, death, busy: self.clock.busy() });
        }));
        drop(sent);
    }
}

/// Whether this code is run by an arbiter that is on its way out: one takes no work any more.
fn arbiter_ended() -> bool {
    actix_rt::Arbiter::try_current().is_some_and(|arbiter| !arbiter.spawn(std::future::ready(())))
}
