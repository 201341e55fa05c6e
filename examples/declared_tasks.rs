//! Tasks declared next to their functions, listed once, and added by one call.
//!
//! ```sh
//! cargo run --features macros --example declared_tasks
//! ```
//!
//! Prints the tasks, what they do for a second, and that adding them again replaces those with an
//! id and adds one more of the other.

use std::time::Duration;

use callboard::prelude::*;

/// Two tasks of one function.
#[callboard::task(id = "morning", every = "400ms", args = "good morning")]
#[callboard::task(id = "evening", cron = "0 20 * * *", timezone = "Europe/Lisbon", args = "good evening")]
async fn greet(run: TaskContext, text: String) {
    println!("{}: {text}", run.task_id());
}

/// Blocks its thread, so it has a pool.
#[callboard::task(id = "sweep", every = "1h", executor = "pool", misfire_grace = "5m")]
fn sweep() -> Result<u64, std::io::Error> {
    println!("sweep: done");
    Ok(0)
}

mod checks {
    /// Without an id: a fresh one each time it is added.
    #[callboard::task(every = "1d", name = "disk", paused)]
    pub(super) async fn disk() {}
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let declared = callboard::tasks![greet, sweep, checks::disk];
    let scheduler = Scheduler::builder()
        .registry(declared.register(Registry::new()))
        .executor("default", AsyncExecutor::new())
        .executor("pool", ThreadPool::new(1))
        .start()
        .await?;

    declared.add_to(&scheduler).await?;
    for task in scheduler.tasks(TaskQuery::new()).await? {
        println!("{} runs {}", task.spec.handler.name(), task.when);
    }

    actix::clock::sleep(Duration::from_millis(1000)).await;
    // The functions are what they were.
    sweep().ok();

    declared.add_to(&scheduler).await?;
    println!("{} tasks now", scheduler.tasks(TaskQuery::new()).await?.len());
    scheduler.shutdown(Shutdown::default()).await
}
