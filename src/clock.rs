//! The one door to the time.
//!
//! Everything that needs the time is given a [`Clock`]; nothing else in callboard reads it. The
//! system clock is the default; [`VirtualClock`](crate::testing::VirtualClock) turns by hand.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::channel::oneshot;

/// Wall time and elapsed time.
///
/// The two differ on purpose: schedules are judged by the wall clock, which people and time
/// servers set forwards and backwards; durations are measured on the monotonic one, which nobody
/// sets.
///
/// ```
/// use callboard::clock::Clock;
///
/// let clock = Clock::system();
/// let began = clock.monotonic();
/// assert!(clock.monotonic() >= began);
/// assert!(clock.now().timestamp() > 1_700_000_000);
/// ```
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn TimeSource>>);

/// A clock of another kind: what a virtual clock implements.
pub trait TimeSource: Send + Sync + 'static {
    /// Wall time, in UTC.
    fn now(&self) -> DateTime<Utc>;
    /// Time elapsed since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Arranges to be woken at `at` (at once when that is past). Takes effect before it returns.
    fn alarm(self: Arc<Self>, at: DateTime<Utc>) -> oneshot::Receiver<Busy>;
    /// Holds the clock still while the token lives.
    fn busy(self: Arc<Self>) -> Busy;
}

/// How to wait for an instant; see [`Clock::alarm`].
#[derive(Debug)]
pub enum Alarm {
    /// Sleep this long, then look at the clock again.
    Sleep(Duration),
    /// The clock rings by itself, and stands still until the token it hands over is dropped.
    Ring(oneshot::Receiver<Busy>),
}

/// A promise to the clock that work is under way. A virtual clock does not move while one lives;
/// for the system clock it is nothing.
#[derive(Default)]
pub struct Busy(Option<Arc<dyn BusyCount>>);

/// Counts the [`Busy`] tokens of a virtual clock.
pub trait BusyCount: Send + Sync + 'static {
    /// A token was made or cloned.
    fn begin(&self);
    /// A token was dropped.
    fn end(&self);
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that asks `source`.
    pub fn from_source(source: Arc<dyn TimeSource>) -> Self {
        Self(Some(source))
    }

    /// Whether this is another clock than the machine's.
    pub fn is_virtual(&self) -> bool {
        self.0.is_some()
    }

    /// Wall time, in UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            // `Utc::now` panics where a clock that was never set is before 1970.
            None => std::time::SystemTime::now().into(),
            Some(source) => source.now(),
        }
    }

    /// Time elapsed since an arbitrary fixed moment of this process; never goes back.
    pub fn monotonic(&self) -> Duration {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        match &self.0 {
            None => EPOCH.get_or_init(Instant::now).elapsed(),
            Some(source) => source.monotonic(),
        }
    }

    /// How to wait until `at`. With a virtual clock the alarm is set before this returns, so that
    /// nothing that happens between the call and the first poll can be missed.
    pub fn alarm(&self, at: DateTime<Utc>) -> Alarm {
        match &self.0 {
            None => Alarm::Sleep((at - self.now()).to_std().unwrap_or_default()),
            Some(source) => Alarm::Ring(source.clone().alarm(at)),
        }
    }

    /// Tells the clock that work is under way until the token is dropped.
    pub fn busy(&self) -> Busy {
        match &self.0 {
            None => Busy(None),
            Some(source) => source.clone().busy(),
        }
    }
}

impl Busy {
    /// A token that `count` counts.
    pub fn counted(count: Arc<dyn BusyCount>) -> Self {
        count.begin();
        Self(Some(count))
    }
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.as_ref().map_or_else(Self::default, |count| Self::counted(count.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.end();
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "Clock::system" } else { "Clock::virtual" })
    }
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Busy")
    }
}
