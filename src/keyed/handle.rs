use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::actor::KeyedActor;
use super::end::FutureEnd;
use super::message::{Cancel, CancelAll, Contains, Count, Schedule};
use crate::clock::{Busy, Clock};
use crate::trigger::Moment;

/// The answer to come. A box, so that a future under an id that borrows for `'static` (a
/// `&'static str`) can be seen to be `Send` when it asks its own scheduler for something.
pub type Answer<T> = BoxFuture<'static, Result<T, KeyedError>>;

/// Why a keyed scheduler did not do as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedError {
    /// There is no arbiter to live on.
    #[error("no arbiter runs here; call this inside of an actix system, or start it on an arbiter")]
    NoArbiter,
    /// The arbiter it lived on has ended, and its futures with it.
    #[error("the keyed scheduler is gone: its arbiter has ended")]
    Gone,
}

/// Runs futures under ids of your own; see the [module](super) for the rules. A handle: cheap to
/// clone, usable from any thread.
///
/// The methods do their work when they are awaited. None of them waits for a future to run.
///
/// # Errors
/// Every method answers [`KeyedError::Gone`] when the arbiter of the scheduler has ended.
pub struct KeyedScheduler<K: 'static> {
    name: Arc<str>,
    clock: Clock,
    actor: Addr<KeyedActor<K>>,
}

impl<K: Eq + Hash + fmt::Debug + Send + Sync + 'static> KeyedScheduler<K> {
    /// Starts one on the current arbiter. The name is for the log: that of the module or type that
    /// uses it, say. It need not be unique.
    ///
    /// # Errors
    /// [`KeyedError::NoArbiter`] outside of an actix system.
    pub fn start(name: impl Into<Arc<str>>, clock: Clock) -> Result<Self, KeyedError> {
        let here = Arbiter::try_current().ok_or(KeyedError::NoArbiter)?;
        Self::start_on(&here, name, clock)
    }

    /// Starts one on `arbiter`, where its futures then run.
    ///
    /// # Errors
    /// [`KeyedError::NoArbiter`] when that arbiter has ended.
    pub fn start_on(
        arbiter: &ArbiterHandle,
        name: impl Into<Arc<str>>,
        clock: Clock,
    ) -> Result<Self, KeyedError> {
        // actix does not say whether it could start an actor on another arbiter.
        if !arbiter.spawn(std::future::ready(())) {
            return Err(KeyedError::NoArbiter);
        }
        let name = name.into();
        let actor = KeyedActor::start_in_arbiter(arbiter, {
            let (name, clock) = (name.clone(), clock.clone());
            move |_| KeyedActor::new(name, clock)
        });
        Ok(Self { name, clock, actor })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clock it was given.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Its actor, for sending it [messages](super::message) without waiting.
    pub fn addr(&self) -> &Addr<KeyedActor<K>> {
        &self.actor
    }

    /// Runs `future` now: it is first polled after the answer is on its way. Answers whether it was
    /// taken; under a live id it is dropped unrun.
    pub fn schedule<F>(&self, id: K, future: F) -> Answer<bool>
    where
        F: Future + Send + 'static,
        F::Output: FutureEnd,
    {
        self.submit(Schedule::new(id, future))
    }

    /// Runs `future` at `time`: a `DateTime` of any zone, or a naive time, which is read as UTC. A
    /// time that is past means now. Answers whether it was taken; under a live id it is dropped unrun.
    ///
    /// ```
    /// use callboard::clock::Clock;
    /// use callboard::keyed::KeyedScheduler;
    /// use chrono::{NaiveDate, TimeZone};
    ///
    /// # actix_rt::System::new().block_on(async {
    /// let doors = KeyedScheduler::<&str>::start("doors", Clock::system())?;
    /// let noon = chrono_tz::Europe::Berlin.with_ymd_and_hms(2199, 5, 1, 12, 0, 0).unwrap();
    /// doors.schedule_at(noon, "front", async { println!("open") }).await?;
    /// // Midnight UTC.
    /// let day = NaiveDate::from_ymd_opt(2199, 5, 2).unwrap();
    /// doors.schedule_at(day, "back", async { println!("open, too") }).await?;
    /// assert_eq!(doors.cancel_all().await?, 2);
    /// # Ok::<(), callboard::keyed::KeyedError>(())
    /// # }).unwrap();
    /// ```
    pub fn schedule_at<F, T>(&self, time: T, id: K, future: F) -> Answer<bool>
    where
        T: Into<Moment>,
        F: Future + Send + 'static,
        F::Output: FutureEnd,
    {
        self.submit(Schedule::new(id, future).at(time))
    }

    /// Runs `future` so long after the scheduler has taken it. Zero means now; a delay longer than
    /// the calendar means never. Answers whether it was taken; under a live id it is dropped unrun.
    pub fn schedule_later<F>(&self, delay: Duration, id: K, future: F) -> Answer<bool>
    where
        F: Future + Send + 'static,
        F::Output: FutureEnd,
    {
        self.submit(Schedule::new(id, future).after(delay))
    }

    /// Sends a message made by hand: for a future that is not `Send`
    /// ([`Schedule::local`]). Answers whether it was taken.
    pub fn submit(&self, message: Schedule<K>) -> Answer<bool> {
        self.ask(move |busy| Schedule { busy, ..message })
    }

    /// Frees the id and drops its future, whether it waits or runs; answers whether there was one,
    /// and warns in the log when not. When this has answered, the future is gone.
    ///
    /// Called by the future's own code it only frees the id: the future goes on to its end, and can
    /// no longer be cancelled.
    ///
    /// ```
    /// use std::time::Duration;
    /// use callboard::clock::Clock;
    /// use callboard::keyed::{KeyedError, KeyedScheduler};
    ///
    /// # actix_rt::System::new().block_on(async {
    /// let scheduler = KeyedScheduler::<&str>::start("polls", Clock::system())?;
    /// let own = scheduler.clone();
    /// scheduler.schedule("poll", async move {
    ///     // Makes room for the next one, which this one's end does not touch.
    ///     own.cancel("poll").await?;
    ///     own.schedule_later(Duration::from_secs(60), "poll", async {}).await?;
    ///     Ok::<(), KeyedError>(())
    /// }).await?;
    /// # Ok::<(), callboard::keyed::KeyedError>(())
    /// # }).unwrap();
    /// ```
    pub fn cancel(&self, id: K) -> Answer<bool> {
        // Made here and not when awaited: it notes whose code this is.
        let message = Cancel::new(id);
        self.ask(move |busy| Cancel { busy, ..message })
    }

    /// Frees all ids and drops their futures; answers how many ids there were. Called by a keyed
    /// future's own code it frees that id as well, but does not cut the future off.
    pub fn cancel_all(&self) -> Answer<usize> {
        let message = CancelAll::new();
        self.ask(move |busy| CancelAll { busy, ..message })
    }

    /// Whether the id is live: its future waits or runs, and was not cancelled.
    pub fn contains(&self, id: K) -> Answer<bool> {
        self.ask(|_| Contains(id))
    }

    /// How many ids are live.
    pub fn count(&self) -> Answer<usize> {
        self.ask(|_| Count)
    }

    fn ask<M, B>(&self, message: B) -> Answer<M::Result>
    where
        B: FnOnce(Busy) -> M + Send + 'static,
        M: Message + Send + 'static,
        M::Result: Send,
        KeyedActor<K>: Handler<M>,
        <KeyedActor<K> as Actor>::Context: ToEnvelope<KeyedActor<K>, M>,
    {
        let (actor, clock) = (self.actor.clone(), self.clock.clone());
        async move {
            // One token goes with the message, in case that nobody waits for the answer any more;
            // one stays until the answer is here.
            let busy = clock.busy();
            let answer = actor.send(message(busy.clone())).await;
            drop(busy);
            answer.map_err(|_| KeyedError::Gone)
        }
        .boxed()
    }
}

impl<K> Clone for KeyedScheduler<K> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), clock: self.clock.clone(), actor: self.actor.clone() }
    }
}

impl<K> fmt::Debug for KeyedScheduler<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedScheduler").field("name", &self.name).finish_non_exhaustive()
    }
}
