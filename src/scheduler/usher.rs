//! The way to the scheduler's actor, for those who outlive it.

use actix::prelude::*;

use super::actor::Scheduler;
use crate::executor::ExecutorAddr;
use crate::executor::message::RunsEnded;
use crate::store::StoreAddr;
use crate::supervision::{ChildChange, ChildNotice, Guardian, LinkOwner};

/// Leads handles to the scheduler's actor and its successors, and passes notices on to it: between
/// the death of one and the start of the next they wait here, so that no end of a run is lost.
pub(super) struct Usher {
    link: LinkOwner<Addr<Scheduler>>,
    present: Option<Addr<Scheduler>>,
    waiting: Vec<Notice>,
    /// Lives as long as somebody holds its address.
    _guardian: Addr<Guardian<Addr<Scheduler>>>,
}

/// Sends one notice, once there is somebody to send it to.
type Notice = Box<dyn FnOnce(&Addr<Scheduler>)>;

impl Usher {
    pub(super) fn start(
        link: LinkOwner<Addr<Scheduler>>,
        guardian: impl FnOnce(Addr<Self>) -> Addr<Guardian<Addr<Scheduler>>>,
    ) {
        Self::create(|ctx| {
            let guardian = guardian(ctx.address());
            Self { link, present: None, waiting: Vec::new(), _guardian: guardian }
        });
    }

    pub(super) fn pass_on<M>(&mut self, notice: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Scheduler: Handler<M>,
    {
        match &self.present {
            Some(scheduler) if scheduler.connected() => scheduler.do_send(notice),
            _ => self.waiting.push(Box::new(move |scheduler| scheduler.do_send(notice))),
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

    fn handle(&mut self, notice: ChildNotice<Addr<Scheduler>>, _: &mut Self::Context) {
        match notice.change {
            ChildChange::Started { child, cause } => {
                if let Some(cause) = cause {
                    tracing::error!(%cause, "the scheduler's actor died and was started again");
                }
                self.waiting.drain(..).for_each(|pass_on| pass_on(&child));
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

impl Handler<RunsEnded> for Usher {
    type Result = ();

    fn handle(&mut self, notice: RunsEnded, _: &mut Self::Context) {
        self.pass_on(notice);
    }
}

impl Handler<ChildNotice<StoreAddr>> for Usher {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<StoreAddr>, _: &mut Self::Context) {
        self.pass_on(notice);
    }
}

impl Handler<ChildNotice<ExecutorAddr>> for Usher {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice<ExecutorAddr>, _: &mut Self::Context) {
        self.pass_on(notice);
    }
}
