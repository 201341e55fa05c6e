//! Your own actors under the same policies as stores and executors.
//!
//! ```sh
//! cargo run --example supervised_actor
//! ```
//!
//! A clerk counts letters and drops dead at every third. A guardian starts a new one each time, until
//! too many have died within a minute; then somebody has to ask for another. Whoever writes to the
//! clerk holds a link, which leads to the one that lives.

use std::time::Duration;

use actix::prelude::*;
use callboard::backoff::Backoff;
use callboard::clock::Clock;
use callboard::supervision::{
    ChildChange, ChildNotice, ChildState, Guardian, GuardianStatus, Keep, Link, LinkOwner, RestartPolicy,
    Restore,
};

struct Clerk {
    letters: u32,
    // Its drop is the news of the clerk's end, whatever that was.
    _keep: Keep,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Letter;

impl Handler<Letter> for Clerk {
    type Result = u32;

    fn handle(&mut self, _: Letter, _: &mut Self::Context) -> u32 {
        self.letters += 1;
        assert!(self.letters < 3, "too much work");
        self.letters
    }
}

/// Hears what becomes of the clerks, and leads the link to the one that lives.
struct Office {
    clerk: LinkOwner<Addr<Clerk>>,
}

impl Actor for Office {
    type Context = Context<Self>;
}

impl Handler<ChildNotice<Addr<Clerk>>> for Office {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<Addr<Clerk>>, _: &mut Self::Context) {
        match notice.change {
            ChildChange::Started { child, cause: None } => {
                println!("a clerk is at work");
                self.clerk.point_to(child);
            }
            ChildChange::Started { child, cause: Some(cause) } => {
                println!("another clerk is at work: of the last one, {cause}");
                self.clerk.point_to(child);
            }
            ChildChange::Restarting { after, .. } => {
                println!("the clerk is gone; another comes in {after:?}");
                self.clerk.cut();
            }
            ChildChange::Failed { reason } => {
                println!("no more clerks: {reason}");
                self.clerk.cut();
            }
            ChildChange::Ended => self.clerk.cut(),
        }
    }
}

/// Brings a letter to the clerk of the day; nothing when there is none and none will come.
async fn deliver(clerk: &Link<Addr<Clerk>>, guardian: &Addr<Guardian<Addr<Clerk>>>) -> Option<u32> {
    loop {
        let present = clerk.wait_for(Addr::connected);
        match tokio::time::timeout(Duration::from_millis(20), present).await {
            // One that dies of this very letter does not answer; the next one gets it.
            Ok(present) => {
                if let Ok(count) = present?.send(Letter).await {
                    return Some(count);
                }
            }
            Err(_) => {
                let report = guardian.send(GuardianStatus).await.ok()?;
                if matches!(report.state, ChildState::Failed { .. }) {
                    return None;
                }
            }
        }
    }
}

#[actix::main]
async fn main() -> Result<(), MailboxError> {
    // What a panic says is in the log already.
    std::panic::set_hook(Box::new(|_| {}));
    let (owner, clerk) = Link::new();
    let office = Office { clerk: owner }.start();
    let policy = RestartPolicy::on_failure()
        .max(2, Duration::from_secs(60))
        .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1)));
    let hire = |keep| Clerk { letters: 0, _keep: keep }.start();
    let guardian = Guardian::new("clerk", policy, Clock::system(), hire, office.recipient()).start();

    for round in 0..2 {
        let mut delivered = 0;
        while deliver(&clerk, &guardian).await.is_some() {
            delivered += 1;
        }
        let report = guardian.send(GuardianStatus).await?;
        println!("{delivered} letters delivered, {} restarts so far, {:?}", report.restarts, report.state);
        if round == 0 {
            println!("somebody asks for a clerk");
            guardian.send(Restore).await?;
        }
    }
    Ok(())
}
