use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::task::Poll;

use actix::prelude::*;
use futures::FutureExt;
use tokio::sync::mpsc as tokio_mpsc;

use super::message::*;
use super::{Backend, Keep, ListPart, Reply, StoreAddr, StoreError};
use crate::task::StoredTask;

/// So many tasks of a list are moved between two turns of others.
const SLICE: usize = 512;

type Panic = Box<dyn Any + Send>;

/// The one shell around every [`Backend`]: it answers the messages of a store.
///
/// - An answer that is there at once is given at once; one that comes later holds nothing up, and
///   its work goes on to the end even if nobody waits for it any more.
/// - A panic of the backend is answered with [`StoreError::Unavailable`] and ends the actor, whose
///   guardian then starts a successor.
/// - [`Close`] waits for the answers that are still to come, and ends the actor.
///
/// A scheduler starts it by itself from a [`BackendSource`](super::BackendSource); start it yourself
/// when you want to look after it:
///
/// ```
/// use callboard::store::message::NextDue;
/// use callboard::store::{MemoryBackend, StoreActor, StoreAddr};
///
/// # actix_rt::System::new().block_on(async {
/// let store: StoreAddr = StoreActor::new(MemoryBackend::default()).start_store();
/// assert_eq!(store.next_due(NextDue).await?, None);
/// # Ok::<(), callboard::store::StoreError>(())
/// # }).unwrap();
/// ```
pub struct StoreActor<B: Backend> {
    // The order of the fields is the order in which they are dropped: the backend lets go of its
    // files before the guardian hears of the end, and the arbiter goes last.
    backend: Option<B>,
    heir: Option<mpsc::Sender<B>>,
    stage: Stage,
    underway: Option<tokio_mpsc::Sender<()>>,
    all_done: tokio_mpsc::Receiver<()>,
    _keep: Option<Keep>,
    _arbiter: Option<StopArbiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Closing,
    Broken,
}

impl<B: Backend> StoreActor<B> {
    /// An actor around `backend`.
    pub fn new(backend: B) -> Self {
        Self::around(Some(backend))
    }

    /// An actor that has no backend and says so.
    pub(super) fn vacant() -> Self {
        Self::around(None)
    }

    fn around(backend: Option<B>) -> Self {
        let (underway, all_done) = tokio_mpsc::channel(1);
        Self {
            backend,
            heir: None,
            stage: Stage::Open,
            underway: Some(underway),
            all_done,
            _keep: None,
            _arbiter: None,
        }
    }

    /// Starts the actor on the present arbiter.
    pub fn start_store(self) -> StoreAddr {
        let addr = self.start();
        StoreAddr::new(addr.clone()).paged(addr.clone().recipient()).keeping_rules(addr.recipient())
    }

    /// Whether it needs an arbiter of its own.
    pub(super) fn is_blocking(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| backend.capabilities().blocking)
    }

    /// Holds `keep` until the actor ends.
    pub(super) fn keep(mut self, keep: Keep) -> Self {
        self._keep = Some(keep);
        self
    }

    /// Leaves the backend to `heir` when the actor ends.
    pub(super) fn bequeath(mut self, heir: mpsc::Sender<B>) -> Self {
        self.heir = Some(heir);
        self
    }

    /// Starts the actor on an arbiter of its own, which ends with it.
    pub(super) fn start_on_own_arbiter(mut self) -> StoreAddr
    where
        B: Send,
    {
        let arbiter = Arbiter::new();
        let handle = arbiter.handle();
        self._arbiter = Some(StopArbiter(handle.clone()));
        let addr = Self::start_in_arbiter(&handle, move |_| self);
        StoreAddr::new(addr.clone()).paged(addr.clone().recipient()).keeping_rules(addr.recipient())
    }

    /// Asks the backend, and sees to it that its panic, now or later, becomes an answer.
    fn ask<T: 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        call: impl FnOnce(&mut B) -> Reply<T>,
    ) -> Response<Result<T, StoreError>> {
        match self.begin(ctx, call) {
            Reply::Now(result) => Response::reply(result),
            Reply::Later(future) => Response::fut(future),
        }
    }

    fn begin<T: 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        call: impl FnOnce(&mut B) -> Reply<T>,
    ) -> Reply<T> {
        let backend = match (&mut self.backend, self.stage) {
            (Some(backend), Stage::Open) => backend,
            (_, Stage::Closing) => return refuse("it is being closed"),
            (_, Stage::Broken) => return refuse("its backend has panicked; it is started anew"),
            (None, Stage::Open) => return refuse("its backend is still with an earlier actor"),
        };
        match catch_unwind(AssertUnwindSafe(|| call(backend))) {
            Ok(Reply::Now(result)) => Reply::Now(result),
            Ok(Reply::Later(future)) => {
                let (underway, me) = (self.underway.clone(), ctx.address());
                // Spawned on the arbiter and not in the context: it outlives both its requester and
                // this actor.
                Reply::later(async move {
                    let _underway = underway;
                    match AssertUnwindSafe(future).catch_unwind().await {
                        Ok(result) => result,
                        Err(panic) => {
                            let error = panicked(&panic);
                            me.do_send(BackendPanicked(panic));
                            Err(error)
                        }
                    }
                })
            }
            Err(panic) => {
                let error = panicked(&panic);
                self.give_up(panic, ctx);
                Reply::Now(Err(error))
            }
        }
    }

    /// Lets the panic go on, now that it has been answered: the actor ends as one that panicked.
    fn give_up(&mut self, panic: Panic, ctx: &mut Context<Self>) {
        self.stage = Stage::Broken;
        let mut panic = Some(panic);
        let fate = std::future::poll_fn(move |_| match panic.take() {
            Some(panic) => resume_unwind(panic),
            None => Poll::<()>::Pending,
        });
        ctx.spawn(actix::fut::wrap_future(fate));
    }
}

impl<B: Backend> Actor for StoreActor<B> {
    type Context = Context<Self>;
}

impl<B: Backend> Drop for StoreActor<B> {
    fn drop(&mut self) {
        if let (Some(backend), Some(heir)) = (self.backend.take(), &self.heir) {
            // Without an heir left, the backend is dropped here.
            heir.send(backend).ok();
        }
    }
}

impl<B: Backend> fmt::Debug for StoreActor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreActor")
            .field("backend", &std::any::type_name::<B>())
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

macro_rules! handlers {
    ($($message:ident: $method:ident -> $answer:ty),+ $(,)?) => {$(
        impl<B: Backend> Handler<$message> for StoreActor<B> {
            type Result = Response<Result<$answer, StoreError>>;

            fn handle(&mut self, message: $message, ctx: &mut Self::Context) -> Self::Result {
                self.ask(ctx, |backend| backend.$method(message))
            }
        }
    )+};
}

impl<B: Backend> Handler<Leaf> for StoreActor<B> {
    type Result = Response<Result<Page, StoreError>>;

    fn handle(&mut self, Leaf { from }: Leaf, ctx: &mut Self::Context) -> Self::Result {
        self.ask(ctx, |backend| {
            let page = |part: ListPart| Page { tasks: part.tasks, next: part.next };
            match backend.list_part(from) {
                Reply::Now(part) => Reply::Now(part.map(page)),
                Reply::Later(part) => Reply::later(async move { part.await.map(page) }),
            }
        })
    }
}

handlers! {
    Open: open -> Opened,
    Put: put -> (),
    Delete: delete -> crate::task::StoredTask,
    Get: get -> Option<crate::task::StoredTask>,
    TakeDue: take_due -> Due,
    Defer: defer -> Option<chrono::DateTime<chrono::Utc>>,
    Commit: commit -> Committed,
    Finish: finish -> (),
    NextDue: next_due -> Option<chrono::DateTime<chrono::Utc>>,
    Runs: runs -> Vec<crate::task::RunRecord>,
    FindRuns: find_runs -> Found,
    RemoveAll: remove_all -> usize,
    Check: check -> Checked,
    Rekey: rekey -> Rekeyed,
    Export: export -> Exported,
    KeepRules: keep_rules -> (),
}

/// Asks for a part of a list: each is a message of its own, and others come in between.
#[derive(Message)]
#[rtype(result = "Result<ListPart, StoreError>")]
struct NextPart(usize);

impl<B: Backend> Handler<NextPart> for StoreActor<B> {
    type Result = Response<Result<ListPart, StoreError>>;

    fn handle(&mut self, NextPart(from): NextPart, ctx: &mut Self::Context) -> Self::Result {
        self.ask(ctx, |backend| backend.list_part(from))
    }
}

impl<B: Backend> Handler<List> for StoreActor<B> {
    type Result = Response<Result<Vec<StoredTask>, StoreError>>;

    fn handle(&mut self, _: List, ctx: &mut Self::Context) -> Self::Result {
        let (me, underway) = (ctx.address(), self.underway.clone());
        let first = self.begin(ctx, |backend| backend.list_part(0));
        Response::fut(async move {
            let _underway = underway;
            let mut part = match first {
                Reply::Now(part) => part?,
                Reply::Later(part) => part.await?,
            };
            let mut listed = BTreeMap::new();
            loop {
                for task in part.tasks {
                    let due = task.state.due();
                    listed.insert((due.is_none(), due, task.spec.id.clone()), task);
                }
                let Some(next) = part.next else { return Ok(in_slices(listed).await) };
                let died = |_| StoreError::unavailable("its actor has died");
                part = me.send(NextPart(next)).await.map_err(died)??;
            }
        })
    }
}

/// What a map holds, in its order, without keeping others from their turn for long.
async fn in_slices<K: Ord, T>(mut map: BTreeMap<K, T>) -> Vec<T> {
    let mut all = Vec::with_capacity(map.len());
    while let Some((_, value)) = map.pop_first() {
        all.push(value);
        if all.len().is_multiple_of(SLICE) {
            tokio::task::yield_now().await;
        }
    }
    all
}

impl<B: Backend> Handler<Close> for StoreActor<B> {
    type Result = ResponseActFuture<Self, Result<(), StoreError>>;

    fn handle(&mut self, message: Close, _: &mut Self::Context) -> Self::Result {
        if self.stage != Stage::Open {
            let refusal = StoreError::unavailable("it is closed or has failed");
            return Box::pin(actix::fut::ready(Err(refusal)));
        }
        self.stage = Stage::Closing;
        // Every answer under way holds a sender: when all are gone, the channel ends.
        self.underway = None;
        let (_, nothing) = tokio_mpsc::channel(1);
        let mut all_done = std::mem::replace(&mut self.all_done, nothing);
        let quiet = async move { while all_done.recv().await.is_some() {} };
        let closed = actix::fut::wrap_future::<_, Self>(quiet).then(move |(), store, _| {
            let reply = match &mut store.backend {
                Some(backend) => catch_unwind(AssertUnwindSafe(|| backend.close(message))),
                None => Ok(Reply::Now(Ok(()))),
            };
            let answer = async move {
                match reply {
                    Ok(Reply::Now(result)) => result,
                    Ok(Reply::Later(future)) => match AssertUnwindSafe(future).catch_unwind().await {
                        Ok(result) => result,
                        Err(panic) => Err(panicked(&panic)),
                    },
                    Err(panic) => Err(panicked(&panic)),
                }
            };
            actix::fut::wrap_future::<_, Self>(answer)
        });
        Box::pin(closed.map(|result, _, ctx: &mut Context<Self>| {
            ctx.stop();
            result
        }))
    }
}

/// A panic in an answer that came later; the actor tells it to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct BackendPanicked(Panic);

impl<B: Backend> Handler<BackendPanicked> for StoreActor<B> {
    type Result = ();

    fn handle(&mut self, BackendPanicked(panic): BackendPanicked, ctx: &mut Self::Context) {
        if self.stage == Stage::Open {
            self.give_up(panic, ctx);
        }
    }
}

fn refuse<T>(reason: &str) -> Reply<T> {
    Reply::Now(Err(StoreError::unavailable(reason)))
}

fn panicked(panic: &Panic) -> StoreError {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    StoreError::unavailable(format!("its backend panicked ({said}); it is started anew"))
}

/// Ends an arbiter with the actor that it was made for.
struct StopArbiter(ArbiterHandle);

impl Drop for StopArbiter {
    fn drop(&mut self) {
        self.0.stop();
    }
}
