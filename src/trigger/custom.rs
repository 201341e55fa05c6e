//! Triggers of the user's own making.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cron::search::LAST_WALL;
use super::{Context, SearchError, SearchErrorKind, TriggerError};

/// A trigger written by the user.
///
/// Code cannot be stored, so a stored trigger keeps a *name* and JSON parameters, and the
/// implementation is found by that name: see [`Trigger::resolve`](super::Trigger::resolve). One
/// implementation serves all triggers of its name; what differs between them is in `params`.
///
/// Be pure: no clock, no randomness, the same answer for the same arguments. The search is asked
/// often, and a preview must show what will happen.
///
/// ```
/// use std::sync::Arc;
///
/// use callboard::trigger::{Context, Custom, CustomTrigger, IntoTrigger};
/// use chrono::{DateTime, TimeDelta, Utc};
/// use serde_json::{Value, json};
///
/// /// Every `step` minutes of the Unix clock.
/// #[derive(Debug)]
/// struct Minutes;
///
/// impl CustomTrigger for Minutes {
///     fn next(&self, params: &Value, from: DateTime<Utc>, _cx: &Context<'_>) -> Result<Option<DateTime<Utc>>, String> {
///         let step = 60 * params["step"].as_i64().ok_or("step is missing")?;
///         // `from` may lie between two seconds.
///         let from = from.timestamp() + i64::from(from.timestamp_subsec_nanos() > 0);
///         Ok(DateTime::from_timestamp(from + (-from).rem_euclid(step), 0))
///     }
/// }
///
/// let stored = Custom::new("minutes", json!({ "step": 7 })).into_trigger()?;
/// let trigger = stored.resolve(&|name| (name == "minutes").then(|| Arc::new(Minutes) as _))?;
/// let from: DateTime<Utc> = "1970-01-01T00:01:00Z".parse().unwrap();
/// let cx = Context::new(chrono_tz::UTC, from, "task");
/// assert_eq!(trigger.next(from, &cx)?.unwrap().to_rfc3339(), "1970-01-01T00:07:00+00:00");
/// assert!(stored.next(from, &cx).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CustomTrigger: fmt::Debug + Send + Sync {
    /// The first run at or after `from`; `None` when there is none ever again.
    ///
    /// # Errors
    /// In the implementation's own words. The schedule is kept, only its next run is unknown.
    fn next(
        &self,
        params: &Value,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, String>;

    /// Whether the parameters are valid; asked when the trigger is resolved.
    ///
    /// # Errors
    /// What is wrong, and what would be valid.
    fn check(&self, _params: &Value) -> Result<(), String> {
        Ok(())
    }

    /// Plain English for these parameters; by default the name and the parameters are shown.
    fn describe(&self, _params: &Value) -> Option<String> {
        None
    }
}

/// The stored form of a custom trigger: a name, parameters, and the implementation once found.
///
/// Two are equal when name and parameters are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Custom {
    name: Box<str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    params: Value,
    #[serde(skip)]
    found: Option<Arc<dyn CustomTrigger>>,
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.params == other.params
    }
}

impl Custom {
    /// A custom trigger by name, yet to be resolved.
    pub fn new(name: impl Into<String>, params: Value) -> Self {
        Self { name: name.into().into(), params, found: None }
    }

    /// The same with its implementation at hand.
    pub fn with(mut self, implementation: Arc<dyn CustomTrigger>) -> Self {
        self.found = Some(implementation);
        self
    }

    /// The name its implementation is registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters.
    pub fn params(&self) -> &Value {
        &self.params
    }

    pub(super) fn checked(self) -> Result<Self, TriggerError> {
        if self.name.is_empty() || self.name.contains(|c: char| c.is_whitespace() || "(){};\"".contains(c)) {
            let reason = format!("`{}` is not a name; use letters, digits, `_`, `-`, `.` and `:`", self.name);
            return Err(TriggerError::invalid("custom", reason));
        }
        if let Some(found) = &self.found {
            let checked = catch_unwind(AssertUnwindSafe(|| found.check(&self.params)));
            let checked = checked.unwrap_or_else(|_| Err("its check panicked".to_owned()));
            checked.map_err(|reason| TriggerError::invalid(&*self.name, reason))?;
        }
        Ok(self)
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.found.is_some()
    }

    pub(super) fn next(
        &self,
        from: DateTime<Utc>,
        cx: &Context<'_>,
    ) -> Result<Option<DateTime<Utc>>, SearchError> {
        let Some(found) = &self.found else {
            let reason = format!("the custom trigger `{}` has not been resolved", self.name);
            return Err(SearchError { kind: SearchErrorKind::Unresolved, reason });
        };
        let custom = |reason: String| SearchError {
            kind: SearchErrorKind::Custom,
            reason: format!("the custom trigger `{}`: {reason}", self.name),
        };
        // An implementation that panics fails alone: whoever asks is not the one to die of it.
        let answer = catch_unwind(AssertUnwindSafe(|| found.next(&self.params, from, cx)));
        match answer.unwrap_or_else(|_| Err("it panicked".to_owned())).map_err(custom)? {
            Some(early) if early < from => {
                Err(custom(format!("it answered {early}, which is before {from}")))
            }
            // Beyond the year 9999 nothing can be written down.
            answer => Ok(answer.filter(|run| run.timestamp() <= LAST_WALL)),
        }
    }

    pub(super) fn describe(&self) -> String {
        let own = self
            .found
            .as_ref()
            .and_then(|found| catch_unwind(AssertUnwindSafe(|| found.describe(&self.params))).ok().flatten());
        own.unwrap_or_else(|| match &self.params {
            Value::Null => format!("custom trigger `{}`", self.name),
            params => format!("custom trigger `{}` with {params}", self.name),
        })
    }
}

impl fmt::Display for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "custom {}", self.name)?;
        match &self.params {
            Value::Null => Ok(()),
            params => write!(f, " {params}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    #[serde(default)]
    params: Value,
}

impl TryFrom<Stored> for Custom {
    type Error = TriggerError;

    fn try_from(stored: Stored) -> Result<Self, TriggerError> {
        Custom::new(stored.name, stored.params).checked()
    }
}
