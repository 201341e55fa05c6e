//! Waiting on a [`Clock`]: the only place that sleeps.

use chrono::{DateTime, TimeDelta, Utc};
use std::future::Future;
use std::time::Duration;

use crate::clock::{Alarm, Busy, Clock};

/// The longest single sleep. A changed wall clock or a suspended machine is noticed within this
/// time, because sleeps run on the monotonic clock and deadlines on the wall clock.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// Waits until `at`, or for [`LONGEST_SLEEP`], whichever is sooner: look at the clock afterwards.
///
/// The alarm is set when this is called, not when the future is first polled.
pub fn nap_until(clock: &Clock, at: DateTime<Utc>) -> impl Future<Output = Busy> + use<> {
    let alarm = clock.alarm(at);
    let clock = clock.clone();
    async move {
        match alarm {
            Alarm::Sleep(duration) => {
                actix_rt::time::sleep(duration.min(LONGEST_SLEEP)).await;
                clock.busy()
            }
            Alarm::Ring(bell) => bell.await.unwrap_or_default(),
        }
    }
}

/// Waits until the wall clock has reached `at`.
pub fn sleep_until(clock: &Clock, at: DateTime<Utc>) -> impl Future<Output = Busy> + use<> {
    let clock = clock.clone();
    let mut nap = Box::pin(nap_until(&clock, at));
    async move {
        loop {
            let busy = nap.await;
            if clock.now() >= at {
                return busy;
            }
            nap = Box::pin(nap_until(&clock, at));
        }
    }
}

/// Waits for `duration` of elapsed time: setting the wall clock meanwhile changes nothing.
///
/// The alarm is set when this is called, not when the future is first polled.
pub fn sleep(clock: &Clock, duration: Duration) -> impl Future<Output = Busy> + use<> {
    let clock = clock.clone();
    let end = clock.monotonic().saturating_add(duration);
    let mut nap = Box::pin(nap_for(&clock, duration));
    async move {
        loop {
            let busy = nap.await;
            let left = end.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return busy;
            }
            nap = Box::pin(nap_for(&clock, left));
        }
    }
}

/// A sleep that ends so much too late says that everything stood still: a stopped process, a paused
/// machine.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// How long what is waited for may take, after a pause, to be noticed.
const NOTICE: Duration = Duration::from_secs(1);

/// Waits for `limit` of elapsed time, as a limit on something else: when everything stood still beyond
/// that, what has ended meanwhile is given time to be noticed first.
///
/// The alarm is set when this is called, not when the future is first polled.
pub fn sleep_as_limit(clock: &Clock, limit: Duration) -> impl Future<Output = Busy> + use<> {
    let end = clock.monotonic().saturating_add(limit);
    let sleep = sleep(clock, limit);
    let clock = clock.clone();
    async move {
        let busy = sleep.await;
        let late = clock.monotonic().saturating_sub(end);
        if clock.is_virtual() || late < PAUSE {
            return busy;
        }
        self::sleep(&clock, NOTICE).await
    }
}

fn nap_for(clock: &Clock, duration: Duration) -> impl Future<Output = Busy> + use<> {
    let far = TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
    nap_until(clock, clock.now().checked_add_signed(far).unwrap_or(DateTime::<Utc>::MAX_UTC))
}
