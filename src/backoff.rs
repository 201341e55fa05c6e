//! How long to wait before the next attempt: for restarts and for retries.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Growing delays: the first, then each so many times the one before, never more than the cap.
///
/// Pure: chance comes in as a seed, so the same seed gives the same delays and a plan can be
/// looked at beforehand.
///
/// ```
/// use std::time::Duration;
/// use callboard::backoff::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1));
/// let delays: Vec<_> = (0..6).map(|earlier| backoff.delay(earlier, 0).as_millis()).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    first: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
}

impl Backoff {
    /// No delay at all.
    pub const NONE: Self = Self::fixed(Duration::ZERO);

    /// Doubles from `first` up to `cap`. No jitter.
    pub const fn exponential(first: Duration, cap: Duration) -> Self {
        Self { first, factor: 2.0, cap, jitter: 0.0 }
    }

    /// The same delay each time.
    pub const fn fixed(delay: Duration) -> Self {
        Self { first: delay, factor: 1.0, cap: delay, jitter: 0.0 }
    }

    /// By how much each delay is longer than the one before. Default: 2. A factor below 1, or one
    /// that is not a number, counts as 1.
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Takes up to this share off each delay, by chance, so that what failed together does not
    /// come back together. Between 0 and 1; default 0. The cap holds with jitter, too.
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The delay after `earlier` attempts that were delayed already. `seed` decides the jitter.
    pub fn delay(&self, earlier: u32, seed: u64) -> Duration {
        // `max` and `min` also turn "not a number" into the bound.
        let factor = self.factor.max(1.0);
        let power = factor.powi(i32::try_from(earlier).unwrap_or(i32::MAX));
        let cap = self.cap.as_secs_f64();
        let full = (self.first.as_secs_f64() * power).min(cap);
        #[expect(clippy::manual_clamp, reason = "`clamp` leaves what is not a number as it is")]
        let jitter = self.jitter.max(0.0).min(1.0);
        if jitter == 0.0 && full >= cap {
            return self.cap;
        }
        let seconds = full * (1.0 - jitter * fraction(seed, earlier));
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }
}

/// A number in `0.0..1.0` that looks like chance (the finaliser of splitmix64).
fn fraction(seed: u64, step: u32) -> f64 {
    let mut x = seed.wrapping_add(u64::from(step).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn absurd_numbers_are_bounds_not_panics() {
        let cap = Duration::from_secs(5);
        for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
            for jitter in [f64::NAN, f64::INFINITY, -3.0, 7.0] {
                let backoff = Backoff::exponential(Duration::from_secs(1), cap).factor(factor).jitter(jitter);
                for earlier in [0, 1, 1000, u32::MAX] {
                    assert!(backoff.delay(earlier, 9) <= cap, "{backoff:?} {earlier}");
                }
            }
        }
        assert_eq!(Backoff::exponential(Duration::MAX, Duration::MAX).delay(u32::MAX, 1), Duration::MAX);
        assert_eq!(Backoff::NONE.delay(7, 7), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn delays_grow_stay_under_the_cap_and_repeat(
            first in 0u64..10_000, cap in 0u64..100_000, factor in 1.0f64..4.0, seed: u64,
        ) {
            let plain = Backoff::exponential(Duration::from_millis(first), Duration::from_millis(cap)).factor(factor);
            let shaken = plain.jitter(0.5);
            let mut before = Duration::ZERO;
            for earlier in 0..40 {
                let full = plain.delay(earlier, seed);
                prop_assert!(full >= before && full <= Duration::from_millis(cap));
                let less = shaken.delay(earlier, seed);
                prop_assert!(less <= full && less + Duration::from_micros(1) >= full / 2);
                prop_assert_eq!(less, shaken.delay(earlier, seed));
                before = full;
            }
        }
    }
}
