//! The way of ends from where runs end to the executor's actor.
//!
//! Two buffers change places: nothing is allocated for a report, where a channel would have memory that one
//! thread takes and another gives back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures::task::AtomicWaker;

use super::slot::Key;
use crate::clock::Busy;
use crate::task::RunEnd;

/// The end of a job.
pub(super) struct Report {
    pub(super) key: Key,
    pub(super) end: RunEnd,
    pub(super) busy: Busy,
}

#[derive(Default)]
struct Tray {
    reports: Mutex<Vec<Report>>,
    bell: AtomicWaker,
}

impl Tray {
    fn reports(&self) -> MutexGuard<'_, Vec<Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way in. Reports lie there until somebody rings.
#[derive(Clone)]
pub(super) struct Reporter(Arc<Tray>);

impl Reporter {
    /// Nothing comes of it when the actor is gone: its guardian's owner settles what was in flight.
    pub(super) fn report(&self, report: Report) {
        self.0.reports().push(report);
    }

    /// Wakes the actor. Where many runs end in a turn it is rung once after that: on another thread the
    /// actor would be woken by each of them, and tell the scheduler of it alone.
    pub(super) fn ring(&self) {
        self.0.bell.wake();
    }
}

/// The way out.
pub(super) struct Reports(Arc<Tray>);

impl Reports {
    /// Whoever polls is woken when somebody rings. To be called before the reports are read.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.0.bell.register(cx.waker());
    }

    /// Changes `buffer`, which is empty, for the reports that are there.
    pub(super) fn read(&self, buffer: &mut Vec<Report>) {
        std::mem::swap(&mut *self.0.reports(), buffer);
    }
}

pub(super) fn reports() -> (Reporter, Reports) {
    let tray = Arc::new(Tray::default());
    (Reporter(tray.clone()), Reports(tray))
}
