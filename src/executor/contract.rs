//! What every executor must do, as one suite.

use std::sync::Arc;

use actix::prelude::*;
use futures::StreamExt;
use futures::channel::mpsc;

use super::message::*;
use super::{ExecutorAddr, ExecutorSource};
use crate::clock::Clock;
use crate::task::{Alias, Code, OwnerId, Run, RunEnd, RunId, Task, TaskDefaults, TaskSpec};
use crate::trigger::Trigger;

/// An executor, someone who hears how runs end, and runs to submit.
#[derive(Debug)]
pub struct Stage {
    /// The executor.
    pub executor: ExecutorAddr,
    clock: Clock,
    ends: mpsc::UnboundedReceiver<Vec<(Arc<Run>, RunEnd)>>,
    heard: std::vec::IntoIter<(Arc<Run>, RunEnd)>,
    serial: u64,
}

impl Stage {
    /// Starts an executor and attaches it. Call it in an actix system.
    pub async fn new(source: &mut impl ExecutorSource, clock: Clock) -> Self {
        let (sender, ends) = mpsc::unbounded();
        let executor = source.start(Box::new(()));
        let notices = Ear(sender).start().recipient();
        let attach = Attach { alias: Alias::default_alias(), clock: clock.clone(), notices };
        executor.attach(attach).await.expect("the executor is alive");
        Self { executor, clock, ends, heard: Vec::new().into_iter(), serial: 0 }
    }

    /// A run of `task`, due now.
    pub fn run(&mut self, task: &Arc<TaskSpec>, code: &Code) -> Run {
        self.serial += 1;
        let id = RunId { owner: OwnerId(1), serial: self.serial };
        Run::new(id, task.clone(), Alias::default_alias(), self.clock.now(), code.clone())
    }

    /// Submits runs.
    pub async fn submit(&self, runs: impl IntoIterator<Item = Run>) {
        self.submit_shared(runs.into_iter().map(Arc::new).collect()).await;
    }

    /// Submits runs that the caller keeps a hand on.
    pub async fn submit_shared(&self, runs: Vec<Arc<Run>>) {
        let submit = Submit { runs, busy: self.clock.busy() };
        self.executor.submit(submit).await.expect("the executor is alive");
    }

    /// The next run that ends.
    pub async fn end(&mut self) -> (Arc<Run>, RunEnd) {
        loop {
            if let Some(end) = self.heard.next() {
                return end;
            }
            self.heard = self.ends.next().await.expect("somebody listens").into_iter();
        }
    }
}

/// A task for a test, with what `change` sets.
pub fn task(id: &str, change: impl FnOnce(Task) -> Task) -> Arc<TaskSpec> {
    let task = Task::new("test").id(id).trigger(Trigger::Shutdown);
    Arc::new(change(task).resolve(&TaskDefaults::default(), chrono_tz::UTC).expect("a valid task"))
}

struct Ear(mpsc::UnboundedSender<Vec<(Arc<Run>, RunEnd)>>);

impl Actor for Ear {
    type Context = actix::Context<Self>;
}

impl Handler<RunsEnded> for Ear {
    type Result = ();

    fn handle(&mut self, ended: RunsEnded, _: &mut Self::Context) {
        // The test may have seen enough.
        let _ = self.0.unbounded_send(ended.ends);
    }
}
