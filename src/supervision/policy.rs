//! Whether, when and how often a child is started again: plain data and functions.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// It stopped: by itself, by a message, or because nobody held its address any more.
    Stopped,
    /// It panicked.
    Panicked,
    /// The arbiter it lived on has ended.
    ArbiterEnded,
    /// It never lived: what it was to keep was dropped by the factory. So it goes on an arbiter that
    /// has ended already.
    NotStarted,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "it stopped",
            Self::Panicked => "it panicked",
            Self::ArbiterEnded => "its arbiter ended",
            Self::NotStarted => "it was gone before it had started",
        })
    }
}

/// After which endings a child is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Always,
    OnFailure,
    Never,
}

/// Whether, when and how often a child is started again.
///
/// The default is [`on_failure`](Self::on_failure), at most 5 restarts within a minute, after
/// 100 ms, 200 ms, 400 ms, … and never more than 30 s.
///
/// ```text
/// on_failure, max(2, 10 s):
///   panic ── 100 ms ── start ── panic ── 200 ms ── start ── panic ── failed: 2 restarts within 10 s
///                                                    └─ lives for 10 s: the counts are 0 again
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    when: When,
    max: Option<u32>,
    window: Duration,
    backoff: Backoff,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::on_failure()
    }
}

impl RestartPolicy {
    const fn new(when: When) -> Self {
        Self {
            when,
            max: Some(5),
            window: Duration::from_secs(60),
            backoff: Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30)),
        }
    }

    /// Starts the child again however it ended, unless the ending was asked for.
    pub const fn always() -> Self {
        Self::new(When::Always)
    }

    /// Starts the child again when it panicked, its arbiter ended or it never started, not when it
    /// stopped.
    pub const fn on_failure() -> Self {
        Self::new(When::OnFailure)
    }

    /// Leaves the child dead.
    pub const fn never() -> Self {
        Self::new(When::Never)
    }

    /// At most `restarts` within `window`; the death after them is final. Default: 5 within a
    /// minute; no more than 4096, which is how many are remembered. The back-off begins anew when a
    /// child has lived for a whole window.
    pub const fn max(mut self, restarts: u32, window: Duration) -> Self {
        self.max = Some(restarts);
        self.window = window;
        self
    }

    /// No limit to the restarts; `window` is how long a child must live for the back-off to begin
    /// anew.
    pub const fn unlimited(mut self, window: Duration) -> Self {
        self.max = None;
        self.window = window;
        self
    }

    /// How long to wait before each restart.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What to do about a death at `now`, after the restarts in `history`. Both are readings of
    /// [`Clock::monotonic`](crate::clock::Clock::monotonic): setting the wall clock neither spends
    /// nor refills a budget. `seed` decides the jitter.
    pub fn judge(&self, death: Death, history: &RestartHistory, now: Duration, seed: u64) -> Verdict {
        match (self.when, death) {
            (When::Never, _) => {
                return Verdict::GiveUp { reason: format!("{death}, and its policy is never to restart it") };
            }
            (When::OnFailure, Death::Stopped) => return Verdict::Ignore,
            _ => {}
        }
        let recent = history.within(self.window, now);
        let in_a_row = history.in_a_row(self.window, now);
        match self.max {
            Some(max) if recent >= max.min(RestartHistory::LONGEST as u32) => Verdict::GiveUp {
                reason: format!(
                    "{death}, after {recent} restart(s) within {:?}, which is the limit",
                    self.window
                ),
            },
            _ => Verdict::Restart { after: self.backoff.delay(in_a_row, seed) },
        }
    }
}

/// What a policy says about a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Start a successor.
    Restart {
        /// After this long.
        after: Duration,
    },
    /// Nothing more will be tried.
    GiveUp {
        /// Why, for people.
        reason: String,
    },
    /// The ending was in order: nothing needs to be done.
    Ignore,
}

/// When a child died and was started again.
#[derive(Debug, Clone, Default)]
pub struct RestartHistory {
    restarts: VecDeque<Restart>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Restart {
    died: Duration,
    started: Duration,
}

impl RestartHistory {
    /// How many restarts are remembered, and so the highest limit there is.
    const LONGEST: usize = 4096;

    /// Remembers a death at `died`, with a restart `after` so long.
    pub fn note(&mut self, died: Duration, after: Duration) {
        if self.restarts.len() == Self::LONGEST {
            self.restarts.pop_front();
        }
        self.restarts.push_back(Restart { died, started: died.saturating_add(after) });
        self.total += 1;
    }

    /// Forgets the restarts, though not how many there were.
    pub fn reset(&mut self) {
        self.restarts.clear();
    }

    /// How many restarts there were, ever.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many starts there were in the window that ends now.
    fn within(&self, window: Duration, now: Duration) -> u32 {
        let recent =
            self.restarts.iter().rev().take_while(|restart| now.saturating_sub(restart.started) < window);
        recent.count() as u32
    }

    /// How many of the latest children died, one after the other, before they had lived for a whole
    /// window. The waits between them are no life.
    fn in_a_row(&self, window: Duration, now: Duration) -> u32 {
        let mut death = now;
        let short_lived = self.restarts.iter().rev().take_while(|restart| {
            let lived = death.saturating_sub(restart.started);
            death = restart.died;
            lived < window
        });
        short_lived.count() as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn each_kind_answers_each_death() {
        use Death::*;
        let none = RestartHistory::default();
        let judge = |policy: RestartPolicy, death| match policy.judge(death, &none, S, 0) {
            Verdict::Restart { .. } => "restart",
            Verdict::GiveUp { .. } => "give up",
            Verdict::Ignore => "ignore",
        };
        for death in [Stopped, Panicked, ArbiterEnded, NotStarted] {
            assert_eq!(judge(RestartPolicy::always(), death), "restart");
            assert_eq!(judge(RestartPolicy::never(), death), "give up");
            let wanted = if death == Stopped { "ignore" } else { "restart" };
            assert_eq!(judge(RestartPolicy::on_failure(), death), wanted);
            assert_eq!(judge(RestartPolicy::always().max(0, S), death), "give up");
        }
    }

    #[test]
    fn the_budget_ends_and_comes_back_with_the_window() {
        let policy = RestartPolicy::on_failure().max(2, S * 10);
        let mut history = RestartHistory::default();
        history.note(S, Duration::ZERO);
        history.note(S * 2, Duration::ZERO);
        assert!(matches!(policy.judge(Death::Panicked, &history, S * 3, 0), Verdict::GiveUp { .. }));
        // There is room again, but no child has lived for long.
        let later = policy.judge(Death::Panicked, &history, S * 11, 0);
        assert_eq!(later, Verdict::Restart { after: Duration::from_millis(400) });
        let much_later = policy.judge(Death::Panicked, &history, S * 12, 0);
        assert_eq!(much_later, Verdict::Restart { after: Duration::from_millis(100) });
        history.reset();
        assert!(matches!(policy.judge(Death::Panicked, &history, S * 3, 0), Verdict::Restart { .. }));
        assert_eq!(history.total(), 2);
    }

    #[test]
    fn a_limit_beyond_what_is_remembered_is_a_limit() {
        for max in [RestartHistory::LONGEST as u32, 5000, u32::MAX] {
            let policy = RestartPolicy::always().max(max, Duration::MAX).backoff(Backoff::NONE);
            let mut history = RestartHistory::default();
            let granted = (0..10_000u64)
                .take_while(|turn| {
                    let now = Duration::from_millis(*turn);
                    let verdict = policy.judge(Death::Panicked, &history, now, *turn);
                    history.note(now, Duration::ZERO);
                    matches!(verdict, Verdict::Restart { .. })
                })
                .count();
            assert_eq!(granted, RestartHistory::LONGEST, "{max}");
        }
    }

    #[test]
    fn absurd_times_are_bounds_not_panics() {
        let times = [Duration::ZERO, Duration::from_nanos(1), S, Duration::MAX];
        for (window, first, cap) in
            times.into_iter().flat_map(|a| times.map(|b| times.map(|c| (a, b, c)))).flatten()
        {
            for max in [0, 1, u32::MAX] {
                let backoff = Backoff::exponential(first, cap).factor(f64::INFINITY).jitter(f64::MAX);
                let policy = RestartPolicy::always().max(max, window).backoff(backoff);
                let mut history = RestartHistory::default();
                // The last ones go back in time.
                for now in [Duration::ZERO, S, Duration::MAX, Duration::MAX, S, Duration::ZERO] {
                    match policy.judge(Death::Panicked, &history, now, u64::MAX) {
                        Verdict::Restart { after } => {
                            assert!(max > 0 && after <= cap);
                            history.note(now, after);
                        }
                        verdict => assert!(matches!(verdict, Verdict::GiveUp { .. }), "{verdict:?}"),
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_restarts_in_a_window_than_allowed(
            max in 0u32..6, window in 1u64..50, lives in prop::collection::vec(0u64..20, 1..80),
            first in 0u64..10, jitter in 0.0f64..1.0,
        ) {
            let window = Duration::from_secs(window);
            let backoff = Backoff::exponential(S * first as u32, S * 40).jitter(jitter);
            let policy = RestartPolicy::always().max(max, window).backoff(backoff);
            let mut history = RestartHistory::default();
            let (mut now, mut granted) = (Duration::ZERO, Vec::new());
            for lived in lives {
                now += Duration::from_secs(lived);
                if let Verdict::Restart { after } = policy.judge(Death::Panicked, &history, now, lived) {
                    history.note(now, after);
                    now += after;
                    granted.push(now);
                }
            }
            for start in &granted {
                let inside = granted.iter().filter(|at| *at >= start && **at - *start < window).count();
                prop_assert!(inside <= max as usize);
            }
        }
    }
}
