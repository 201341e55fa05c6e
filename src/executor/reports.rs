//! The way of ends from where runs end to the executor's actor.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
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

/// The way in. Reports lie there until somebody rings.
#[derive(Clone)]
pub(super) struct Reporter {
    reports: Sender<Report>,
    bell: Bell,
}

impl Reporter {
    /// Nothing comes of it when the actor is gone: its guardian's owner settles what was in flight.
    pub(super) fn report(&self, report: Report) {
        self.reports.send(report).ok();
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// Wakes the actor. Where many runs end in a turn it is rung once after that: on another thread the actor
/// would be woken by each of them, and tell the scheduler of it alone.
#[derive(Clone, Default)]
pub(super) struct Bell(Arc<AtomicWaker>);

impl Bell {
    pub(super) fn ring(&self) {
        self.0.wake();
    }
}

/// The way out.
pub(super) struct Reports {
    reports: Receiver<Report>,
    bell: Bell,
}

impl Reports {
    /// Whoever polls is woken when somebody rings. To be called before the reports are read.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.bell.0.register(cx.waker());
    }

    /// The next one, if it is there.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn next(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Adds the reports that are there to `buffer`, until that holds so many.
    pub(super) fn read(&self, buffer: &mut Vec<Report>, most: usize) {
        let room = most.saturating_sub(buffer.len());
        buffer.extend(self.reports.try_iter().take(room));
    }
}

pub(super) fn reports() -> (Reporter, Reports) {
    let ((sender, receiver), bell) = (channel(), Bell::default());
    (Reporter { reports: sender, bell: bell.clone() }, Reports { reports: receiver, bell })
}
