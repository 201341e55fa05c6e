use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Context;

/// Once, at an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Date {
    run_at: Option<DateTime<Utc>>,
}

impl Date {
    /// At `run_at`.
    pub fn at(run_at: DateTime<Utc>) -> Self {
        Self { run_at: Some(run_at) }
    }

    pub(super) fn next(&self, from: DateTime<Utc>, cx: &Context<'_>) -> Option<DateTime<Utc>> {
        Some(self.run_at.unwrap_or(cx.anchor)).filter(|at| *at >= from)
    }
}
