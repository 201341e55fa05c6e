//! Messages as tasks: a due task sends a typed message to an actor, also after the actor died.
//!
//! ```sh
//! cargo run --example messages
//! ```
//!
//! An office sends invoices. The third one makes it panic; its guardian starts a successor, which
//! gets the fourth.

use std::time::Duration;

use actix::prelude::*;
use callboard::prelude::*;
use callboard::supervision::{Guardian, Keep};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

/// What is stored is the message as JSON.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<String, String>")]
struct SendInvoice {
    customer: String,
}

struct Office {
    sent: u32,
    /// Tells the guardian when this actor ends.
    _keep: Keep,
}

impl Actor for Office {
    type Context = Context<Self>;
}

impl Handler<SendInvoice> for Office {
    type Result = Result<String, String>;

    fn handle(&mut self, invoice: SendInvoice, _: &mut Self::Context) -> Self::Result {
        self.sent += 1;
        match self.sent {
            2 => Err(format!("{} has moved", invoice.customer)),
            3 => panic!("the office burns"),
            sent => Ok(format!("invoice {sent} to {}", invoice.customer)),
        }
    }
}

#[actix::main]
async fn main() -> Result<(), callboard::Error> {
    // The link leads to the office, and to its successor when it dies.
    let (_guardian, office) = Guardian::linked("office", RestartPolicy::always(), Clock::system(), |keep| {
        Office { sent: 0, _keep: keep }.start()
    });
    let registry = Registry::new().recipient::<SendInvoice>("send_invoice", office);
    let scheduler = Scheduler::builder().registry(registry).start().await?;

    let mut ends = scheduler.events(EventMask::RUN_ENDED).await?;
    let invoice = SendInvoice { customer: "Ada".to_owned() };
    let task = Task::new("send_invoice").id("monthly").args(&invoice);
    scheduler.add(task.trigger(Interval::every(Duration::from_millis(300)))).await?;
    for _ in 0..4 {
        if let Some(report) = ends.next().await.as_ref().and_then(Event::report) {
            match &report.end.outcome {
                Outcome::Executed { value } => println!("executed: {value}"),
                outcome => println!("{}: {}", outcome.word(), outcome.problem().unwrap_or_default()),
            }
        }
    }
    scheduler.shutdown(Shutdown::default()).await
}
