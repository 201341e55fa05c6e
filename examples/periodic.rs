//! Periodic tasks in the manner of sisy: a number of runs, one run, tasks bound to an object.
//!
//! ```sh
//! cargo run --example periodic
//! ```
//!
//! They are ordinary tasks, in any store. What has had its runs is disabled and not lost.

use callboard::prelude::*;
use callboard::task::{Objects, Periodic, PeriodicInfo};
use futures::StreamExt;
use futures::future::ready;

async fn greet(_: TaskContext, text: String) {
    println!("greet: {text}");
}

struct Account {
    owner: &'static str,
}

/// What a database would do.
async fn find(number: u32) -> Result<Option<Account>, std::io::Error> {
    Ok((number == 7).then_some(Account { owner: "Ada" }))
}

async fn remind(_: TaskContext, account: Account, text: String) {
    println!("to {}: {text}", account.owner);
}

async fn tell(scheduler: &Handle, id: &str) -> Result<(), callboard::Error> {
    let task = PeriodicInfo::from(&scheduler.task(id).await?);
    match task.next_run.filter(|_| task.enabled) {
        Some(next) => println!("{id}: enabled, next run {next}"),
        None => println!("{id}: disabled after {} of {} runs", task.runs, task.iterations),
    }
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let registry = Registry::new()
        .register("greet", greet)
        .objects(Objects::new("account", find).method("remind", remind));
    let scheduler = Scheduler::builder().registry(registry).start().await?;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await?;

    // Every minute, unless it is given a schedule; from now on, not from the next minute on.
    scheduler.add(Periodic::new("greet").id("minutely").userdata("hello").wait_for_schedule(false)).await?;
    ends.next().await;
    // It may be a new minute at any moment.
    let mut ends = ends.filter(|end| ready(end.task_id().is_some_and(|id| id.as_str() != "minutely")));
    // Twice, a second apart.
    scheduler.add(Periodic::run_iterations("greet", 2).id("twice").userdata("twice")).await?;
    tell(&scheduler, "twice").await?;
    ends.next().await;
    ends.next().await;
    tell(&scheduler, "twice").await?;

    // The task stores the key; each run loads the object.
    for key in [7, 8] {
        scheduler.add(Periodic::run_once("account.remind").of(key).userdata("pay")).await?;
        if let Some(problem) = ends.next().await.as_ref().and_then(|e| e.report()?.end.outcome.problem()) {
            println!("{problem}");
        }
    }
    scheduler.shutdown(Shutdown::default()).await
}
