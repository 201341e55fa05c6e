//! The way to the scheduler's actor, for those who outlive it.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use futures::channel::oneshot;

use super::actor::Scheduler;
use super::lives::LifeTold;
use crate::clock::Busy;
use crate::executor::ExecutorAddr;
use crate::executor::message::{RunsEnded, Seats, Submit, Vacant};
use crate::store::StoreAddr;
use crate::supervision::{ChildChange, ChildNotice, Guardian, LinkOwner};
use crate::task::Run;

/// Leads handles to the scheduler's actor and its successors, and passes notices on to it: between
/// the death of one and the start of the next they wait here, so that no end of a run is lost. What
/// lay unread with the one that died comes back, and goes to the next in the order in which it came.
pub(super) struct Usher {
    link: LinkOwner<Addr<Scheduler>>,
    present: Option<Addr<Scheduler>>,
    waiting: BTreeMap<u64, Delivery>,
    /// How many notices have come.
    serial: u64,
    /// Lives as long as somebody holds its address.
    _guardian: Addr<Guardian<Addr<Scheduler>>>,
}

/// What is passed on. It keeps a virtual clock still, but not while it waits: whoever it waits for
/// waits for the clock.
pub(super) trait Notice: Message<Result = ()> + Send + 'static {
    fn busy(&mut self) -> &mut Busy;
}

/// Sends one notice, once there is somebody to send it to.
type Delivery = Box<dyn FnOnce(&Addr<Scheduler>, Addr<Usher>, Busy) + Send>;

fn delivery<M: Notice>(serial: u64, mut notice: M) -> Delivery
where
    Scheduler: Handler<M>,
{
    Box::new(move |scheduler, usher, busy| {
        *notice.busy() = busy;
        let again = delivery::<M>;
        scheduler.do_send::<Passed<M>>(Passed { serial, notice: Some(notice), usher, again });
    })
}

/// A notice that comes back to the usher when it is dropped unread.
struct Passed<M: Notice> {
    serial: u64,
    notice: Option<M>,
    usher: Addr<Usher>,
    again: fn(u64, M) -> Delivery,
}

impl<M: Notice> Message for Passed<M> {
    type Result = ();
}

impl<M: Notice> Handler<Passed<M>> for Scheduler
where
    Self: Handler<M>,
{
    type Result = ();

    fn handle(&mut self, mut passed: Passed<M>, ctx: &mut Self::Context) {
        if let Some(notice) = passed.notice.take() {
            Handler::<M>::handle(self, notice, ctx);
        }
    }
}

impl<M: Notice> Drop for Passed<M> {
    fn drop(&mut self) {
        if let Some(mut notice) = self.notice.take() {
            let (serial, busy) = (self.serial, std::mem::take(notice.busy()));
            self.usher.do_send(Returned { serial, delivery: (self.again)(serial, notice), busy });
        }
    }
}

/// A notice that nobody has read.
#[derive(Message)]
#[rtype(result = "()")]
struct Returned {
    serial: u64,
    delivery: Delivery,
    busy: Busy,
}

/// Runs that an executor was sent and has not taken charge of.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct NotTaken {
    runs: Vec<Arc<Run>>,
    busy: Busy,
}

impl Usher {
    pub(super) fn start(
        link: LinkOwner<Addr<Scheduler>>,
        guardian: impl FnOnce(Addr<Self>) -> Addr<Guardian<Addr<Scheduler>>>,
    ) {
        Self::create(|ctx| {
            let guardian = guardian(ctx.address());
            Self { link, present: None, waiting: BTreeMap::new(), serial: 0, _guardian: guardian }
        });
    }

    pub(super) fn pass_on<M: Notice>(&mut self, mut notice: M, ctx: &Context<Self>)
    where
        Scheduler: Handler<M>,
    {
        self.serial += 1;
        let busy = std::mem::take(notice.busy());
        self.forward(self.serial, delivery(self.serial, notice), busy, ctx);
    }

    fn forward(&mut self, serial: u64, delivery: Delivery, busy: Busy, ctx: &Context<Self>) {
        match &self.present {
            Some(scheduler) if scheduler.connected() => delivery(scheduler, ctx.address(), busy),
            _ => drop(self.waiting.insert(serial, delivery)),
        }
    }
}

/// Answered when everything that was in the mailbox before it has been dealt with.
#[derive(Message)]
#[rtype(result = "()")]
struct Barrier;

impl Handler<Barrier> for Usher {
    type Result = ();

    fn handle(&mut self, _: Barrier, _: &mut Self::Context) {}
}

impl Handler<Barrier> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: Barrier, _: &mut Self::Context) {}
}

impl Scheduler {
    /// A future that ends when the notices that were sent before its first poll have been dealt
    /// with here.
    pub(super) fn hear_out(&self, ctx: &mut Context<Self>) -> impl Future<Output = ()> + use<> {
        let (usher, myself) = (self.usher.clone(), ctx.address());
        async move {
            usher.send(Barrier).await.ok();
            myself.send(Barrier).await.ok();
        }
    }
}

impl Actor for Usher {
    type Context = Context<Self>;
}

impl Handler<ChildNotice<Addr<Scheduler>>> for Usher {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<Addr<Scheduler>>, ctx: &mut Self::Context) {
        match notice.change {
            ChildChange::Started { child, cause } => {
                if let Some(cause) = cause {
                    tracing::error!(%cause, "the scheduler's actor died and was started again");
                }
                for delivery in std::mem::take(&mut self.waiting).into_values() {
                    delivery(&child, ctx.address(), notice.busy.clone());
                }
                self.present = Some(child.clone());
                self.link.point_to(child);
            }
            _ => {
                self.present = None;
                self.link.cut();
            }
        }
    }
}

impl Handler<Returned> for Usher {
    type Result = ();

    fn handle(&mut self, Returned { serial, delivery, busy }: Returned, ctx: &mut Self::Context) {
        self.forward(serial, delivery, busy, ctx);
    }
}

macro_rules! passes_on {
    ($($notice:ty),+ $(,)?) => {$(
        impl Notice for $notice {
            fn busy(&mut self) -> &mut Busy {
                &mut self.busy
            }
        }

        impl Handler<$notice> for Usher {
            type Result = ();

            fn handle(&mut self, notice: $notice, ctx: &mut Self::Context) {
                self.pass_on(notice, ctx);
            }
        }
    )+};
}

passes_on!(RunsEnded, Vacant, NotTaken, LifeTold, ChildNotice<StoreAddr>, ChildNotice<ExecutorAddr>);

impl Scheduler {
    /// Hands runs to an executor. That goes on when this actor dies: what was decided is run. The
    /// receiver hears when the executor has taken charge of them, or could not.
    pub(super) fn hand_over(
        &self,
        executor: &ExecutorAddr,
        runs: Vec<Arc<Run>>,
        seats: Option<Seats>,
        busy: Busy,
    ) -> oneshot::Receiver<()> {
        let (settled, wait) = oneshot::channel();
        let (kept, usher) = (runs.clone(), self.usher.clone());
        let taken = {
            // What finds no place all the same waits for one.
            let seats = Some(seats.unwrap_or_else(Seats::none));
            executor.submit(Submit { runs, seats, busy: busy.clone() })
        };
        // Spawned on the arbiter and not in the context: dropped, the request takes its message back.
        actix::spawn(async move {
            if taken.await.is_err() {
                usher.do_send(NotTaken { runs: kept, busy });
            }
            settled.send(()).ok();
        });
        wait
    }
}

impl Handler<NotTaken> for Scheduler {
    type Result = ();

    fn handle(&mut self, NotTaken { runs, busy }: NotTaken, ctx: &mut Self::Context) {
        self.interrupt(runs, "its executor died before it began", ctx);
        drop(busy);
    }
}
