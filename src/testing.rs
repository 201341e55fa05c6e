//! For tests of your own tasks, stores and executors: time that is turned by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;

use crate::clock::{Busy, BusyCount, Clock, TimeSource};

/// A clock that stands still until it is turned.
///
/// [`advance`](Self::advance) goes from alarm to alarm: it lets whatever an alarm wakes finish its
/// work — ticks, stores on other threads, runs — before it moves on. So a test is deterministic, and
/// a year passes as fast as its runs can be computed.
///
/// It stands still while anybody holds its [`Busy`], as everything does that is at work:
///
/// | | the clock |
/// |---|---|
/// | a run works | stands still |
/// | a run waits with [`TaskContext::sleep`](crate::task::TaskContext::sleep) | goes on |
/// | a run waits for something other than the clock (a socket, the answer to a [message](crate::messages)) | stands still until it is done, in real time |
/// | a run waits for a place in its executor | stands still, unless all who have the places wait for the clock |
/// | a run waits behind another one of its task ([`Overlap::Queue`](crate::task::Overlap::Queue)) | goes on, as far as that one lets it |
/// | a message that somebody sent lies in a mailbox | goes on: wait for its answer before you turn the clock |
///
/// So an actor that waits for this clock before it answers a message of a run waits for ever: let it
/// answer first, or make [delivered](crate::messages::Delivery::delivered) enough.
///
/// ```
/// use std::time::Duration;
/// use callboard::testing::VirtualClock;
///
/// # actix_rt::System::new().block_on(async {
/// let time = VirtualClock::starting_at("2026-03-29T00:00:00Z");
/// time.advance(Duration::from_secs(3600)).await;
/// assert_eq!(time.clock().now().to_rfc3339(), "2026-03-29T01:00:00+00:00");
/// # });
/// ```
#[derive(Clone)]
pub struct VirtualClock(Arc<Inner>);

struct Inner(Mutex<State>);

struct State {
    now: DateTime<Utc>,
    elapsed: Duration,
    alarms: BTreeMap<(DateTime<Utc>, u64), oneshot::Sender<Busy>>,
    serial: u64,
    busy: usize,
    idle: Vec<oneshot::Sender<()>>,
}

impl VirtualClock {
    /// A clock that shows `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Inner(Mutex::new(State {
            now,
            elapsed: Duration::ZERO,
            alarms: BTreeMap::new(),
            serial: 0,
            busy: 0,
            idle: Vec::new(),
        }))))
    }

    /// A clock that shows an instant written as RFC 3339.
    ///
    /// # Panics
    /// When `now` is not RFC 3339: this is for tests.
    pub fn starting_at(now: &str) -> Self {
        match DateTime::parse_from_rfc3339(now) {
            Ok(now) => Self::new(now.to_utc()),
            Err(error) => panic!("`{now}` is not an RFC 3339 time: {error}"),
        }
    }

    /// The clock to give to a scheduler.
    pub fn clock(&self) -> Clock {
        Clock::from_source(self.0.clone())
    }

    /// Moves on by `by`.
    pub async fn advance(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        let to = self.0.state().now.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.advance_to(to).await;
    }

    /// Moves on to `to`, through every alarm on the way; returns when all they woke has settled.
    pub async fn advance_to(&self, to: DateTime<Utc>) {
        loop {
            self.settle().await;
            let Some(bell) = self.0.next_alarm(to) else { break };
            let busy = Busy::counted(self.0.clone());
            // Sent outside the lock: a receiver that is gone drops the token right here.
            drop(bell.send(busy));
        }
        self.0.state().move_to(to);
        self.settle().await;
    }

    /// Waits until nothing is at work.
    pub async fn settle(&self) {
        loop {
            let (bell, idle) = oneshot::channel();
            {
                let mut state = self.0.state();
                if state.busy == 0 {
                    return;
                }
                state.idle.push(bell);
            }
            idle.await.ok();
        }
    }

    /// Sets the wall clock, forwards or backwards, while no time passes: what a time server or a
    /// person does. Whoever sleeps wakes up to look.
    pub async fn set(&self, now: DateTime<Utc>) {
        self.settle().await;
        let alarms = {
            let mut state = self.0.state();
            state.now = now;
            std::mem::take(&mut state.alarms)
        };
        for (_, bell) in alarms {
            drop(bell.send(Busy::counted(self.0.clone())));
        }
        self.settle().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Moves to the next alarm that somebody still waits for, if it is not after `limit`.
    fn next_alarm(&self, limit: DateTime<Utc>) -> Option<oneshot::Sender<Busy>> {
        let mut state = self.state();
        loop {
            let entry = state.alarms.first_entry()?;
            if entry.get().is_canceled() {
                entry.remove();
                continue;
            }
            let at = entry.key().0;
            if at > limit {
                return None;
            }
            let bell = entry.remove();
            state.move_to(at);
            return Some(bell);
        }
    }
}

impl State {
    fn move_to(&mut self, at: DateTime<Utc>) {
        if at > self.now {
            self.elapsed += (at - self.now).to_std().unwrap_or_default();
            self.now = at;
        }
    }
}

impl TimeSource for Inner {
    fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    fn monotonic(&self) -> Duration {
        self.state().elapsed
    }

    fn alarm(self: Arc<Self>, at: DateTime<Utc>) -> oneshot::Receiver<Busy> {
        let (bell, alarm) = oneshot::channel();
        let mut state = self.state();
        if at <= state.now {
            drop(state);
            drop(bell.send(Busy::counted(self)));
        } else {
            state.serial += 1;
            let key = (at, state.serial);
            state.alarms.insert(key, bell);
        }
        alarm
    }

    fn busy(self: Arc<Self>) -> Busy {
        Busy::counted(self)
    }
}

impl BusyCount for Inner {
    fn begin(&self) {
        self.state().busy += 1;
    }

    fn end(&self) {
        let idle = {
            let mut state = self.state();
            state.busy -= 1;
            if state.busy > 0 {
                return;
            }
            std::mem::take(&mut state.idle)
        };
        for bell in idle {
            bell.send(()).ok();
        }
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        f.debug_struct("VirtualClock")
            .field("now", &state.now)
            .field("alarms", &state.alarms.len())
            .field("busy", &state.busy)
            .finish_non_exhaustive()
    }
}
