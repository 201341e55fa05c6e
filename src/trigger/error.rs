//! What can be wrong with a trigger, and what can go wrong while it is searched.

use super::{Zone, Zones};

/// Why a trigger could not be built, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// A field has a value it cannot have.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field as the user wrote it, for instance `minute`.
        field: String,
        /// What is wrong with it and what would be valid.
        reason: String,
    },
    /// The trigger is well formed but has no run at or after the moment it was asked.
    #[error("the trigger never fires: {reason}")]
    NeverFires {
        /// Why, for instance `February has no day 31`.
        reason: String,
    },
    /// A stored custom trigger names an implementation that nobody registered.
    #[error("no custom trigger is registered under the name `{name}`")]
    UnknownCustom {
        /// The name it was stored under.
        name: String,
    },
    /// The trigger could not be checked, because the search for its first run gave up.
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl TriggerError {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// The search for the next run gave up: neither a run nor the end was found.
///
/// Never to be taken for "finished": the schedule is still there, only its next run is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search for the next run stopped: {reason}")]
pub struct SearchError {
    /// What kind of obstacle it was.
    pub kind: SearchErrorKind,
    /// Which limit was reached, or which part is missing.
    pub reason: String,
}

/// The kinds of [`SearchError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SearchErrorKind {
    /// The number of steps an `and` or `except` may take was used up.
    Limit,
    /// A custom trigger has not been resolved: see [`Trigger::resolve`](super::Trigger::resolve).
    Unresolved,
    /// A custom trigger broke its contract or reported a failure.
    Custom,
    /// The time zone database in use does not have a zone that the trigger names.
    UnknownZone,
}

impl SearchError {
    #[cold]
    pub(crate) fn unknown_zone(zone: Zone, zones: &Zones) -> Self {
        let version = zones.version().unwrap_or("of unknown version");
        let reason = format!(
            "the time zone database in use ({}, {version}) has no zone {zone}; use a newer one, or another zone",
            zones.source()
        );
        Self { kind: SearchErrorKind::UnknownZone, reason }
    }

    pub(crate) fn limit(reason: impl Into<String>) -> Self {
        Self { kind: SearchErrorKind::Limit, reason: reason.into() }
    }
}
