//! A process pool: a run that crashes takes its own process with it and nothing else.
//!
//! ```sh
//! cargo run --example process_pool --features process
//! ```
//!
//! Four tasks run in worker processes: one works, one aborts, one prints, one takes too long.

use std::time::Duration;

use callboard::executor::{ProcessPool, worker};
use callboard::prelude::*;
use futures::StreamExt;

/// The code that tasks name: for the scheduler, and again for each worker.
fn registry() -> Registry {
    Registry::new()
        .register_blocking("square", |_: TaskContext, number: u64| {
            number.checked_mul(number).ok_or("too large")
        })
        .register_blocking("crash", |_: TaskContext, ()| -> () { std::process::abort() })
        .register("greet", |_: TaskContext, name: String| async move { println!("hello, {name}") })
        .register_blocking("sleep", |_: TaskContext, ()| std::thread::sleep(Duration::from_secs(3600)))
}

fn main() -> Result<(), callboard::Error> {
    // Before anything else. In a worker this does not return.
    worker::run_if_asked(registry);
    actix::System::new().block_on(run())
}

async fn run() -> Result<(), callboard::Error> {
    let scheduler = Scheduler::builder()
        .registry(registry())
        .executor("default", ProcessPool::new(2).grace(Duration::from_millis(200)))
        .start()
        .await?;
    let mut ends = scheduler.events(EventMask::RUN_ENDED).await?;
    println!("this process is {}", std::process::id());

    scheduler.add(Task::new("square").id("square").args(12).trigger(Date::now())).await?;
    scheduler.add(Task::new("crash").id("crash").trigger(Date::now())).await?;
    scheduler.add(Task::new("greet").id("greet").args("world").trigger(Date::now())).await?;
    let patience = Duration::from_millis(500);
    scheduler.add(Task::new("sleep").id("sleep").timeout(patience).trigger(Date::now())).await?;

    for _ in 0..4 {
        let Some(event) = ends.next().await else { break };
        if let Some(report) = event.report() {
            let outcome = &report.end.outcome;
            match (outcome, outcome.problem()) {
                (Outcome::Executed { value }, _) => println!("{}: {value}", report.task_id()),
                (_, Some(problem)) => println!("{}: {}, {problem}", report.task_id(), outcome.word()),
                _ => {}
            }
        }
    }
    scheduler.shutdown(Shutdown::default()).await
}
