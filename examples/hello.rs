//! The smallest scheduler: one function, every half second.
//!
//! ```sh
//! cargo run --example hello
//! ```
//!
//! Prints `hello, world` four times and ends.

use std::time::Duration;

use callboard::prelude::*;
use serde::{Deserialize, Serialize};

/// What the function is given: anything serde can write and read.
#[derive(Serialize, Deserialize)]
struct Greeting {
    whom: String,
}

async fn greet(run: TaskContext, greeting: Greeting) -> Result<usize, std::fmt::Error> {
    println!("{}  hello, {}", run.nominal().format("%H:%M:%S%.3f"), greeting.whom);
    Ok(greeting.whom.len())
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    // Tasks carry the names of their functions, so that they can be stored.
    let registry = Registry::new().register("greet", greet);
    let scheduler = Scheduler::builder().registry(registry).start().await?;

    let task = Task::new("greet")
        .id("hello")
        .args(Greeting { whom: "world".to_owned() })
        .trigger(Interval::every(Duration::from_millis(500)));
    scheduler.add(task).await?;

    actix::clock::sleep(Duration::from_millis(1750)).await;
    println!("{} runs so far", scheduler.task("hello").await?.state.runs);
    scheduler.shutdown(Shutdown::default()).await
}
