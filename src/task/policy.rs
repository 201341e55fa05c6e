//! What is done about runs that cannot start on time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How late a run may start and still run.
///
/// The default is [`Unlimited`](MisfireGrace::Unlimited): a late run still runs. (asyncz and
/// APScheduler drop a run that is more than one second late, which loses runs on every hiccup.)
///
/// ```text
/// grace 10 s      nominal 08:00:00        started 08:00:07   runs
///                 nominal 08:00:00        started 08:00:12   missed, recorded with its lateness
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
pub enum MisfireGrace {
    /// Runs however late it is.
    #[default]
    Unlimited,
    /// Runs when at most this late; otherwise the run is missed. Kept to the millisecond.
    Within(Duration),
}

impl MisfireGrace {
    /// Whether a run that would start `late` after it was due still runs.
    pub fn allows(self, late: chrono::TimeDelta) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Within(grace) => {
                late.to_std().is_ok_and(|late| late <= grace) || late <= chrono::TimeDelta::zero()
            }
        }
    }
}

impl From<Duration> for MisfireGrace {
    fn from(grace: Duration) -> Self {
        Self::Within(grace)
    }
}

impl From<Option<u64>> for MisfireGrace {
    fn from(ms: Option<u64>) -> Self {
        ms.map_or(Self::Unlimited, |ms| Self::Within(Duration::from_millis(ms)))
    }
}

impl From<MisfireGrace> for Option<u64> {
    fn from(grace: MisfireGrace) -> Self {
        match grace {
            MisfireGrace::Unlimited => None,
            MisfireGrace::Within(grace) => Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
