//! Watching what happens: events as a stream, filtered by a mask.
//!
//! ```sh
//! cargo run --example watch_events
//! ```
//!
//! One task works, one fails, one panics; the stream tells of each, and of adding and removing.

use std::time::Duration;

use callboard::prelude::*;
use futures::StreamExt;

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    let registry = Registry::new()
        .register("works", |_: TaskContext, ()| async { Ok::<_, std::io::Error>("fine") })
        .register("fails", |_: TaskContext, ()| async {
            std::fs::read("/no/such/file").map(|bytes| bytes.len())
        })
        .register("panics", |_: TaskContext, ()| async {
            if true {
                panic!("on purpose")
            }
        });
    let scheduler = Scheduler::builder().registry(registry).start().await?;

    // The scheduler never waits for a reader: one that falls behind loses events and can see how
    // many (`lagged`).
    let mut events = scheduler.events(EventMask::TASK - EventMask::TASK_SUBMITTED).await?;
    let watching = actix::spawn(async move {
        while let Some(event) = events.next().await {
            match (&event, event.report()) {
                (_, Some(report)) => {
                    let problem = report.end.outcome.problem().unwrap_or_default();
                    println!("{:<7} {:<9} {problem}", report.task_id(), report.end.outcome.word());
                }
                (Event::TaskAdded { id, .. }, _) => println!("{id:<7} added"),
                (Event::TaskRemoved { id, .. }, _) => println!("{id:<7} removed"),
                // Events are JSON as well.
                (other, _) => println!("{}", serde_json::to_string(other).unwrap_or_default()),
            }
        }
        println!("no more events; {} were lost", events.lagged());
    });

    for name in ["works", "fails", "panics"] {
        scheduler.add(Task::new(name).id(name).trigger(Interval::every(Duration::from_millis(400)))).await?;
    }
    actix::clock::sleep(Duration::from_millis(600)).await;
    scheduler.delete_task("panics").await?;
    scheduler.pause_task("works").await?;
    scheduler.shutdown(Shutdown::default()).await?;
    drop(scheduler);
    watching.await.ok();
    Ok(())
}
