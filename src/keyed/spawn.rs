use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::prelude::*;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, LocalBoxFuture};
use tokio::sync::oneshot;

use super::end::{AnyError, FutureEnd, guarded};
use super::nudge::Nudged;
use crate::clock::Clock;
use crate::task::Failure;

/// Runs `future` on the current arbiter and logs its error or panic: [`Spawner::new`] with no
/// further wishes.
pub fn spawn<F>(name: impl Into<Arc<str>>, future: F) -> Spawned<<F::Output as FutureEnd>::Value>
where
    F: Future + Send + 'static,
    F::Output: FutureEnd,
    <F::Output as FutureEnd>::Value: Send,
{
    Spawner::new(name).spawn(future)
}

/// Runs futures that nobody has to wait for: what goes wrong in them is logged, except for kinds of
/// errors that are expected.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use callboard::keyed::Spawner;
///
/// # actix_rt::System::new().block_on(async {
/// let spawner = Spawner::new("sweeper")
///     .suppress::<std::fmt::Error>()
///     .suppress_if(|error: &Error| error.kind() == ErrorKind::NotFound);
/// // Not logged, and still there for who wants to know.
/// let sweep = spawner.spawn(async { Err::<(), _>(Error::from(ErrorKind::NotFound)) });
/// assert!(sweep.await.is_err());
/// # });
/// ```
#[derive(Clone)]
pub struct Spawner {
    name: Arc<str>,
    clock: Clock,
    arbiter: Option<ArbiterHandle>,
    expected: Vec<Expected>,
}

/// Whether an error is of an expected kind.
type Expected = Arc<dyn Fn(&(dyn StdError + 'static)) -> bool + Send + Sync>;

impl Spawner {
    /// Logs under `name`, in the field `name`. On the current arbiter, every error logged, on the
    /// machine's clock, unless told otherwise.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), clock: Clock::system(), arbiter: None, expected: Vec::new() }
    }

    /// On another arbiter than the current one.
    pub fn on(mut self, arbiter: &ArbiterHandle) -> Self {
        self.arbiter = Some(arbiter.clone());
        self
    }

    /// Does not log errors of the type `E`. The error itself counts, in a box or not, but none of
    /// its causes. Panics are always logged.
    pub fn suppress<E: StdError + 'static>(self) -> Self {
        self.suppress_if(|_: &E| true)
    }

    /// Does not log those errors of the type `E` for which `expected` says so.
    pub fn suppress_if<E: StdError + 'static>(
        mut self,
        expected: impl Fn(&E) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.expected.push(Arc::new(move |error| error.downcast_ref().is_some_and(&expected)));
        self
    }

    /// A virtual clock stands still while a future that was spawned has something to do. The futures
    /// themselves are not given the clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs `future`. Never fails by itself: without an arbiter, or on one that has ended, the answer
    /// is [`SpawnError::Lost`], and the log says so.
    pub fn spawn<F>(&self, future: F) -> Spawned<<F::Output as FutureEnd>::Value>
    where
        F: Future + Send + 'static,
        F::Output: FutureEnd,
        <F::Output as FutureEnd>::Value: Send,
    {
        self.spawn_local(move || future)
    }

    /// Runs a future that need not be `Send`: `make` is called on the arbiter. A panic of `make`
    /// counts as one of the future.
    pub fn spawn_local<F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Spawned<<F::Output as FutureEnd>::Value>
    where
        F: Future + 'static,
        F::Output: FutureEnd,
        <F::Output as FutureEnd>::Value: Send,
    {
        let (sender, end) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let (name, clock, expected) = (self.name.clone(), self.clock.clone(), self.expected.clone());
        // Until the other arbiter has taken it over.
        let busy = self.clock.busy();
        let begin = move || {
            let work = Guarded(Some(async move { make().await.into_result() }.boxed_local()));
            let end = async move {
                let end = match Abortable::new(work, registration).await {
                    Ok(Ok(Ok(value))) => Ok(value),
                    Ok(Ok(Err(error))) => {
                        if !guarded(|| expected.iter().any(|expected| expected(&*error))).unwrap_or(false) {
                            let error = Failure::from_error(&*error);
                            tracing::error!(%name, %error, "a spawned future failed");
                        }
                        Err(SpawnError::Failed(error))
                    }
                    Ok(Err(panic)) => {
                        tracing::error!(%name, %panic, "a spawned future panicked");
                        Err(SpawnError::Panicked(panic))
                    }
                    Err(futures::future::Aborted) => Err(SpawnError::Cancelled),
                };
                // Nobody has to want to know.
                drop(sender.send(end));
            };
            actix_rt::spawn(Nudged::new(end.boxed_local(), &clock));
            drop(busy);
        };
        let arbiter = self.arbiter.clone().or_else(Arbiter::try_current);
        if !arbiter.is_some_and(|arbiter| arbiter.spawn_fn(begin)) {
            tracing::error!(name = %self.name, "a future was not spawned: there is no arbiter, or it has ended");
        }
        Spawned { end, abort }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A future that a [`Spawner`] runs. It can be awaited, and cancelled; dropping this does neither.
#[derive(Debug)]
pub struct Spawned<T> {
    end: oneshot::Receiver<Result<T, SpawnError>>,
    abort: AbortHandle,
}

impl<T> Spawned<T> {
    /// Has the future dropped where it stands, unless it has ended. It is gone when awaiting this has
    /// answered.
    pub fn cancel(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Spawned<T> {
    type Output = Result<T, SpawnError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.end).poll(cx).map(|end| end.unwrap_or(Err(SpawnError::Lost)))
    }
}

/// Why a spawned future has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// It came to an error.
    #[error("{0}")]
    Failed(Box<dyn StdError + Send + Sync>),
    /// It panicked, with this message.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// It was cancelled by [`Spawned::cancel`].
    #[error("it was cancelled")]
    Cancelled,
    /// Its arbiter has ended, or there was none.
    #[error("it was lost: there is no arbiter, or it has ended")]
    Lost,
}

/// A future whose panics, in its drop too, are messages.
struct Guarded<T>(Option<LocalBoxFuture<'static, Result<T, AnyError>>>);

impl<T> Future for Guarded<T> {
    type Output = Result<Result<T, AnyError>, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let end = match guarded(|| work.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(end)) => Ok(end),
            Err(panic) => Err(panic),
        };
        let work = self.0.take();
        let dropped = guarded(|| drop(work));
        Poll::Ready(end.and_then(|end| dropped.map(|()| end)))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let work = self.0.take();
        if let Err(panic) = guarded(|| drop(work)) {
            tracing::error!(%panic, "a spawned future panicked while it was cancelled");
        }
    }
}
