use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use actix::prelude::*;
use futures::future::LocalBoxFuture;

use super::actor::{Ended, KeyedActor};
use super::end::guarded;
use crate::clock::Clock;
use crate::task::Failure;

/// Tells one scheduled future from every other of this process, also from its successor under the
/// same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunToken(u64);

thread_local! {
    /// The keyed future whose code this thread is in.
    static CURRENT: Cell<Option<RunToken>> = const { Cell::new(None) };
}

impl RunToken {
    pub(super) fn fresh() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }

    /// The keyed future that calls this, if one does.
    pub(super) fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// Runs `code` as the code of this future.
    fn enter<T>(self, code: impl FnOnce() -> T) -> T {
        struct Leave(Option<RunToken>);
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _leave = Leave(CURRENT.replace(Some(self)));
        code()
    }
}

/// The future from its time to its end, started when it is first polled.
pub(super) type Work = LocalBoxFuture<'static, Result<(), Failure>>;

/// Where a future is kept: the actor can take it away between two polls. Both live on one thread.
#[derive(Clone)]
pub(super) struct Slot(Rc<Cell<Inside>>);

enum Inside {
    Work(Work),
    /// Is being polled.
    Out,
    Ended,
    Cut,
}

impl Slot {
    pub(super) fn new(work: Work) -> Self {
        Self(Rc::new(Cell::new(Inside::Work(work))))
    }

    /// Drops the future now, unless it has ended. Its drop is the user's code and may panic.
    pub(super) fn cut(&self) -> Result<(), String> {
        let inside = self.0.replace(Inside::Cut);
        guarded(|| drop(inside))
    }

    /// Whether the future came to its end by itself.
    pub(super) fn has_ended(&self) -> bool {
        let inside = self.0.replace(Inside::Out);
        let ended = matches!(inside, Inside::Ended);
        self.0.set(inside);
        ended
    }
}

/// Carries one future to its end, logs what went wrong, and tells the actor.
pub(super) struct Run<K: 'static> {
    pub(super) token: RunToken,
    pub(super) id: Arc<K>,
    pub(super) scheduler: Arc<str>,
    pub(super) slot: Slot,
    pub(super) clock: Clock,
    /// Keeps the actor alive while it has something to run.
    pub(super) actor: Addr<KeyedActor<K>>,
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Run<K> {
    fn finish(&self, work: Work, end: Result<Result<(), Failure>, String>) {
        self.slot.0.set(Inside::Ended);
        let dropped = self.token.enter(|| guarded(|| drop(work)));
        // Before the log is written: should an id's `Debug` panic, the id does not stay behind.
        self.actor.do_send(Ended { id: self.id.clone(), token: self.token, _busy: self.clock.busy() });
        let (scheduler, id) = (&self.scheduler, &self.id);
        match end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%scheduler, ?id, %error, "a keyed future failed"),
            Err(panic) => tracing::error!(%scheduler, ?id, %panic, "a keyed future panicked"),
        }
        if let Err(panic) = dropped {
            tracing::error!(%scheduler, ?id, %panic, "a keyed future panicked while it was dropped");
        }
    }
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> Future for Run<K> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut work = match self.slot.0.replace(Inside::Out) {
            Inside::Work(work) => work,
            other => {
                self.slot.0.set(other);
                return Poll::Ready(());
            }
        };
        let polled = self.token.enter(|| guarded(|| work.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => {
                self.slot.0.set(Inside::Work(work));
                return Poll::Pending;
            }
            Ok(Poll::Ready(end)) => self.finish(work, Ok(end)),
            Err(panic) => self.finish(work, Err(panic)),
        }
        Poll::Ready(())
    }
}
