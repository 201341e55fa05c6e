use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Context;

/// Every so often, in elapsed time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    seconds: u64,
}

impl Interval {
    /// Every `n` seconds.
    pub fn seconds(n: u64) -> Self {
        Self { seconds: n.max(1) }
    }

    pub(super) fn next(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        let step = self.seconds as i64 * 1_000_000_000;
        let passed = (from - cx.anchor).num_nanoseconds()?.max(0);
        cx.anchor.checked_add_signed(TimeDelta::nanoseconds((passed + step - 1) / step * step))
    }
}
