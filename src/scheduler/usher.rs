//! The way to the scheduler's actor, for those who outlive it.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use futures::channel::oneshot;

use super::actor::Scheduler;
use crate::clock::Busy;
use crate::executor::ExecutorAddr;
use crate::executor::message::{RunsEnded, Submit};
use crate::store::StoreAddr;
use crate::supervision::{ChildChange, ChildNotice, Guardian, LinkOwner};
use crate::task::Run;

/// Leads handles to the scheduler's actor and its successors, and passes notices on to it: between
/// the death of one and the start of the next they wait here, so that no end of a run is lost. What
/// lay unread with the one that died comes back, and goes to the next in the order in which it came.
pub(super) struct Usher {
    link: LinkOwner<Addr<Scheduler>>,
    present: Option<Addr<Scheduler>>,
    waiting: BTreeMap<u64, Notice>,
    /// How many notices have come.
    serial: u64,
    /// Lives as long as somebody holds its address.
    _guardian: Addr<Guardian<Addr<Scheduler>>>,
}

/// Sends one notice, once there is somebody to send it to.
type Notice = Box<dyn FnOnce(&Addr<Scheduler>, Addr<Usher>) + Send>;

/// A notice that comes back to the usher when it is dropped unread.
struct Passed<M: Message<Result = ()> + Send + 'static> {
    serial: u64,
    notice: Option<M>,
    usher: Addr<Usher>,
    again: fn(u64, M) -> Notice,
}

fn later<M>(serial: u64, notice: M) -> Notice
where
    M: Message<Result = ()> + Send + 'static,
    Scheduler: Handler<M>,
{
    Box::new(move |scheduler, usher| {
        scheduler.do_send::<Passed<M>>(Passed { serial, notice: Some(notice), usher, again: later::<M> });
    })
}

impl<M: Message<Result = ()> + Send + 'static> Message for Passed<M> {
    type Result = ();
}

impl<M: Message<Result = ()> + Send + 'static> Handler<Passed<M>> for Scheduler
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

impl<M: Message<Result = ()> + Send + 'static> Drop for Passed<M> {
    fn drop(&mut self) {
        if let Some(notice) = self.notice.take() {
            let notice = (self.again)(self.serial, notice);
            self.usher.do_send(Returned { serial: self.serial, notice });
        }
    }
}

/// A notice that nobody has read.
#[derive(Message)]
#[rtype(result = "()")]
struct Returned {
    serial: u64,
    notice: Notice,
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

    pub(super) fn pass_on<M>(&mut self, notice: M, ctx: &Context<Self>)
    where
        M: Message<Result = ()> + Send + 'static,
        Scheduler: Handler<M>,
    {
        self.serial += 1;
        self.forward(self.serial, later(self.serial, notice), ctx);
    }

    fn forward(&mut self, serial: u64, notice: Notice, ctx: &Context<Self>) {
        match &self.present {
            Some(scheduler) if scheduler.connected() => notice(scheduler, ctx.address()),
            _ => drop(self.waiting.insert(serial, notice)),
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
                for notice in std::mem::take(&mut self.waiting).into_values() {
                    notice(&child, ctx.address());
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

    fn handle(&mut self, Returned { serial, notice }: Returned, ctx: &mut Self::Context) {
        self.forward(serial, notice, ctx);
    }
}

macro_rules! passes_on {
    ($($notice:ty),+ $(,)?) => {$(
        impl Handler<$notice> for Usher {
            type Result = ();

            fn handle(&mut self, notice: $notice, ctx: &mut Self::Context) {
                self.pass_on(notice, ctx);
            }
        }
    )+};
}

passes_on!(RunsEnded, NotTaken, ChildNotice<StoreAddr>, ChildNotice<ExecutorAddr>);

impl Scheduler {
    /// Hands runs to an executor. That goes on when this actor dies: what was decided is run. The
    /// receiver hears when the executor has taken charge of them, or could not.
    pub(super) fn hand_over(
        &self,
        executor: &ExecutorAddr,
        runs: Vec<Arc<Run>>,
        busy: Busy,
    ) -> oneshot::Receiver<()> {
        let (settled, wait) = oneshot::channel();
        let (kept, usher) = (runs.clone(), self.usher.clone());
        let taken = executor.submit(Submit { runs, busy: busy.clone() });
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
