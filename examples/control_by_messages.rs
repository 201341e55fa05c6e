//! Control from another actor, by messages alone: what the handle does underneath.
//!
//! ```sh
//! cargo run --example control_by_messages
//! ```
//!
//! A foreman pauses the work after three runs, runs it once by hand, and goes home.

use std::time::Duration;

use actix::prelude::*;
use callboard::event::Event;
use callboard::prelude::*;
use callboard::scheduler::message::{AddListener, PauseTask, RunTask};

/// An actor of yours. It knows the scheduler by its address.
struct Foreman {
    scheduler: Addr<Scheduler>,
    work: TaskId,
    seen: u32,
}

impl Actor for Foreman {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // From now on each end of a run arrives as a message.
        let listener = ctx.address().recipient();
        self.scheduler.do_send(AddListener { mask: EventMask::TASK_EXECUTED, listener });
    }
}

impl Handler<Event> for Foreman {
    type Result = ();

    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        let Some(report) = event.report() else { return };
        self.seen += 1;
        println!("run {} of `{}` has ended ({:?})", self.seen, report.task_id(), report.run.source);
        match self.seen {
            3 => {
                // Once the answer is here no further run of the task is submitted.
                let work = self.work.clone();
                let paused = self.scheduler.send(PauseTask::new(work.clone())).into_actor(self);
                ctx.spawn(paused.map(move |answer, foreman, _| {
                    if let Ok(Ok(task)) = answer {
                        println!("paused: {}; now one by hand", task.state.paused);
                        foreman.scheduler.do_send(RunTask::new(work));
                    }
                }));
            }
            4 => System::current().stop(),
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let system = System::new();
    let scheduler = system.block_on(async {
        let scheduler = Scheduler::builder().start().await?;
        let work = Task::from_fn(|_: TaskContext, ()| async {}).id("work");
        let work = scheduler.add(work.trigger(Interval::every(Duration::from_millis(200)))).await?;
        let address = scheduler.addr().ok_or("the scheduler has ended")?;
        Foreman { scheduler: address, work, seen: 0 }.start();
        Ok::<_, Box<dyn std::error::Error>>(scheduler)
    })?;
    system.run()?;
    drop(scheduler);
    Ok(())
}
