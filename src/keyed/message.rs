//! What a [`KeyedActor`](super::KeyedActor) understands.
//!
//! The methods of a [`KeyedScheduler`](super::KeyedScheduler) send these and wait; an actor of yours
//! can send them itself, to [`KeyedScheduler::addr`](super::KeyedScheduler::addr).

use std::fmt;
use std::future::Future;
use std::time::Duration;

use actix::prelude::*;
use chrono::{DateTime, Utc};
use futures::FutureExt;

use super::end::FutureEnd;
use super::run::{RunToken, Work};
use crate::clock::Busy;
use crate::task::Failure;
use crate::trigger::Moment;

/// Schedules a future under an id: now, unless [`at`](Self::at) or [`after`](Self::after) says
/// otherwise. Answers whether it was taken; `false` means that the id is live, and that this future
/// was dropped unrun.
///
/// ```
/// use std::time::Duration;
/// use callboard::clock::Clock;
/// use callboard::keyed::{KeyedScheduler, message::Schedule};
///
/// # actix_rt::System::new().block_on(async {
/// let scheduler = KeyedScheduler::<&str>::start("reminders", Clock::system())?;
/// // From the handler of an actor, which cannot wait:
/// let tea = Schedule::new("tea", async { println!("the tea is ready") });
/// scheduler.addr().do_send(tea.after(Duration::from_secs(180)));
/// # Ok::<(), callboard::keyed::KeyedError>(())
/// # }).unwrap();
/// ```
pub struct Schedule<K> {
    pub(super) id: K,
    pub(super) when: When,
    pub(super) work: Start,
    /// From the handle: a virtual clock waits until this has been handled.
    pub(super) busy: Busy,
}

/// Makes the future where it is to run.
pub(super) type Start = Box<dyn FnOnce() -> Work + Send>;

#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Now,
    At(DateTime<Utc>),
    After(Duration),
}

impl<K> Schedule<K> {
    /// `future` under `id`, now: it is first polled after the message has been answered.
    pub fn new<F>(id: K, future: F) -> Self
    where
        F: Future + Send + 'static,
        F::Output: FutureEnd,
    {
        Self::local(id, move || future)
    }

    /// A future that is not `Send`: `make` is called on the scheduler's arbiter when its time has
    /// come. A panic of `make` counts as one of the future.
    pub fn local<F>(id: K, make: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future + 'static,
        F::Output: FutureEnd,
    {
        let work: Start = Box::new(move || {
            async move {
                let end = make().await.into_result();
                end.map(drop).map_err(|error| Failure::from_error(&*error))
            }
            .boxed_local()
        });
        Self { id, when: When::Now, work, busy: Busy::default() }
    }

    /// At a time: an instant of any zone, or a naive time, which is read as UTC. A time that is past
    /// means now.
    pub fn at(mut self, time: impl Into<Moment>) -> Self {
        self.when = When::At(time.into().in_utc());
        self
    }

    /// So long after the scheduler has taken it. Zero means now; a delay longer than the calendar
    /// means never.
    pub fn after(mut self, delay: Duration) -> Self {
        self.when = When::After(delay);
        self
    }
}

impl<K: 'static> Message for Schedule<K> {
    type Result = bool;
}

impl<K: fmt::Debug> fmt::Debug for Schedule<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("id", &self.id).field("when", &self.when).finish_non_exhaustive()
    }
}

/// Frees an id and drops its future; answers whether there was one, and warns in the log when not.
///
/// A message that is made by the code of a keyed future carries its name: should the future that is
/// cancelled be that one, it is not cut off.
#[derive(Debug)]
pub struct Cancel<K> {
    pub(super) id: K,
    pub(super) by: Option<RunToken>,
    pub(super) busy: Busy,
}

impl<K> Cancel<K> {
    /// For `id`.
    pub fn new(id: K) -> Self {
        Self { id, by: RunToken::current(), busy: Busy::default() }
    }
}

impl<K: 'static> Message for Cancel<K> {
    type Result = bool;
}

/// Frees all ids and drops their futures; answers how many ids there were. The keyed future that made
/// this message, if one did, is counted, but not cut off.
#[derive(Debug)]
pub struct CancelAll {
    pub(super) by: Option<RunToken>,
    pub(super) busy: Busy,
}

impl CancelAll {
    /// For all ids.
    pub fn new() -> Self {
        Self { by: RunToken::current(), busy: Busy::default() }
    }
}

impl Default for CancelAll {
    fn default() -> Self {
        Self::new()
    }
}

impl Message for CancelAll {
    type Result = usize;
}

/// Asks whether an id is live.
#[derive(Debug)]
pub struct Contains<K>(
    /// The id.
    pub K,
);

impl<K: 'static> Message for Contains<K> {
    type Result = bool;
}

/// Asks how many ids are live.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl Message for Count {
    type Result = usize;
}
