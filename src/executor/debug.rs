use actix::prelude::*;
use tokio::task::JoinSet;

use super::{ExecutorActor, ExecutorAddr, ExecutorSource, Job, Keep, Runner};

/// Runs tasks in the executor's own actor, one after the other in the order they were submitted:
/// for tests, and for finding out what a task does.
///
/// Blocking code, and asynchronous code as far as its first wait, is at its end before the
/// submission is answered; the ends are reported in one notice. Code that waits goes on beside
/// whatever comes next, on the same arbiter.
#[derive(Debug, Clone, Copy, Default)]
pub struct DebugExecutor;

impl DebugExecutor {
    /// There is nothing to set.
    pub fn new() -> Self {
        Self
    }
}

impl ExecutorSource for DebugExecutor {
    fn start(&mut self, keep: Keep) -> ExecutorAddr {
        ExecutorAddr::new(ExecutorActor::new(InlineRunner::default(), keep).start())
    }
}

/// Owns the runs that wait; dropping it cuts them off.
#[derive(Default)]
struct InlineRunner {
    waiting: JoinSet<()>,
    stopped: bool,
}

impl Runner for InlineRunner {
    fn kind(&self) -> &'static str {
        "debug"
    }

    fn start(&mut self, job: Job) {
        // However a run ended, its job has reported it.
        while self.waiting.try_join_next().is_some() {}
        if self.stopped {
            return;
        }
        let Some(started) = job.begin() else { return };
        let mut drive = started.drive();
        let mut unheard = std::task::Context::from_waker(std::task::Waker::noop());
        if drive.poll_once(&mut unheard).is_pending() {
            // The new task polls it again, which leaves the right waker.
            self.waiting.spawn_local(drive);
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.waiting = JoinSet::new();
    }
}
