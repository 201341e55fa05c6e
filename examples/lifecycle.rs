//! A lifecycle task: a set-up, ticks and a clean-up around a state of your own.
//!
//! ```sh
//! cargo run --example lifecycle
//! ```
//!
//! A log is opened when the scheduler starts, gets a line at each tick, and is closed when the
//! scheduler stops.

use std::time::Duration;

use callboard::prelude::*;
use callboard::task::Lifecycle;
use futures::StreamExt;

/// What the ticks share. It need not be `Send`.
struct Log {
    lines: Vec<String>,
}

async fn open() -> Result<Log, std::io::Error> {
    println!("set-up: the log is open");
    Ok(Log { lines: Vec::new() })
}

async fn write(log: &mut Log, run: TaskContext) -> Result<usize, std::io::Error> {
    log.lines.push(run.nominal().to_string());
    println!("tick: line {}", log.lines.len());
    Ok(log.lines.len())
}

async fn close(log: Log) {
    println!("clean-up: closed after {} lines", log.lines.len());
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let scheduler = Scheduler::builder().build()?;
    let every = Interval::every(Duration::from_millis(100));
    scheduler.add_lifecycle(Lifecycle::new("log", open).tick(every, write).clean_up(close)).await?;
    let ends = scheduler.events(EventMask::TASK_EXECUTED).await?;
    scheduler.start().await?;
    ends.take(3).collect::<Vec<_>>().await;

    // The ticks are runs of an ordinary task.
    let ticks = scheduler.task("log").await?;
    println!("{} has run {} times", ticks.spec.label(), ticks.state.runs);
    scheduler.shutdown(Shutdown::default()).await
}
