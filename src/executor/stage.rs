//! Where the contract suite, tests and benches put an executor to work.

use std::sync::Arc;
use std::time::Duration;

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
    pub(super) clock: Clock,
    ends: mpsc::UnboundedReceiver<Vec<(Arc<Run>, RunEnd)>>,
    heard: std::vec::IntoIter<(Arc<Run>, RunEnd)>,
    serial: u64,
}

impl Stage {
    /// Starts an executor and attaches it. Call it in an actix system.
    pub async fn new(source: &mut impl ExecutorSource, clock: Clock) -> Self {
        let mut stage = Self::unattached(source.start(Box::new(())), clock);
        stage.attach().await;
        stage
    }

    /// The same for an executor that runs already, and is not attached.
    pub fn unattached(executor: ExecutorAddr, clock: Clock) -> Self {
        let (_, ends) = mpsc::unbounded();
        Self { executor, clock, ends, heard: Vec::new().into_iter(), serial: 0 }
    }

    /// Attaches the executor, anew if it was attached before.
    pub async fn attach(&mut self) {
        let (sender, ends) = mpsc::unbounded();
        let notices = Ear(sender).start().recipient();
        let attach = Attach {
            alias: Alias::default_alias(),
            scheduler: "stage".to_owned(),
            clock: self.clock.clone(),
            notices,
        };
        self.executor.attach(attach).await.expect("the executor is alive");
        self.ends = ends;
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
        let submit = Submit { runs, seats: None, busy: self.clock.busy() };
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

impl Stage {
    /// Asks the executor how busy it is.
    pub async fn status(&self) -> ExecutorStatus {
        self.executor.status(Status).await.expect("the executor is alive")
    }

    /// Cancels a run.
    pub async fn cancel(&self, run: RunId) -> bool {
        self.executor.cancel(Cancel { run }).await.expect("the executor is alive")
    }

    /// Drains the executor. The request is on its way when this returns.
    pub fn drain(&self, grace: Duration) -> impl Future<Output = Drained> + use<> {
        let drained = self.executor.drain(Drain { grace });
        async move { drained.await.expect("the executor is alive") }
    }

    /// Checks that no instance has leaked.
    pub async fn is_empty(&self) {
        let status = self.status().await;
        assert_eq!((status.running, status.queued), (0, 0));
        assert!(status.instances.is_empty(), "{:?}", status.instances);
    }
}

/// A task for a test, with what `change` sets.
pub fn task(id: &str, change: impl FnOnce(Task) -> Task) -> Arc<TaskSpec> {
    let task = Task::new("test").id(id).trigger(Trigger::Shutdown);
    Arc::new(change(task).resolve(&TaskDefaults::default(), crate::trigger::Zone::UTC).expect("a valid task"))
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
