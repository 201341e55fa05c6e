//! An executor of your own: runs one after the other, in the order in which they came.
//!
//! ```sh
//! cargo run --example custom_executor
//! ```
//!
//! Three tasks are due at once and never overlap.

use std::time::Duration;

use callboard::executor::{CustomExecutor, Job, Runner};
use callboard::prelude::*;
use futures::StreamExt;
use futures::channel::mpsc;

/// A queue, and whoever works through it. Counting instances, refusing, draining and reporting is
/// done around it; a runner only has to run.
struct OneByOne {
    queue: mpsc::UnboundedSender<Job>,
    worker: futures::future::AbortHandle,
}

impl OneByOne {
    fn new() -> Self {
        let (queue, mut jobs) = mpsc::unbounded::<Job>();
        let (work, worker) = futures::future::abortable(async move {
            while let Some(job) = jobs.next().await {
                // `None`: the run was cancelled while it waited, or is too late by now.
                if let Some(started) = job.begin() {
                    started.drive().await;
                }
            }
        });
        actix::spawn(work);
        Self { queue, worker }
    }
}

impl Runner for OneByOne {
    fn kind(&self) -> &'static str {
        "one by one"
    }

    fn start(&mut self, job: Job) {
        // A job that finds the queue closed is dropped, and reported as interrupted.
        let _ = self.queue.unbounded_send(job);
    }

    fn stop(&mut self) {
        self.worker.abort();
    }
}

async fn work(run: TaskContext, ms: u64) {
    println!("{} begins", run.task_id());
    actix::clock::sleep(Duration::from_millis(ms)).await;
    println!("{} ends", run.task_id());
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let scheduler = Scheduler::builder()
        .registry(Registry::new().register("work", work))
        .executor("default", AsyncExecutor::new())
        .executor("serial", CustomExecutor::new(OneByOne::new))
        .start()
        .await?;
    for id in ["first", "second", "third"] {
        scheduler.add(Task::new("work").id(id).args(200).executor("serial").trigger(Date::now())).await?;
    }
    actix::clock::sleep(Duration::from_millis(300)).await;
    // What still runs or waits may end.
    scheduler.shutdown(Shutdown::wait(Duration::from_secs(5))).await
}
