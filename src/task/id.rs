//! The names of things: tasks, runs, and the aliases of stores and executors.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TaskError;

/// The longest task id or alias, in bytes of UTF-8.
pub const MAX_NAME_LEN: usize = 255;

pub(super) fn checked(field: &'static str, text: &str) -> Result<Arc<str>, TaskError> {
    let reason = if text.is_empty() {
        "is empty; give it at least one character".to_owned()
    } else if text.len() > MAX_NAME_LEN {
        format!("is {} bytes long; the longest allowed is {MAX_NAME_LEN}", text.len())
    } else if text.chars().any(char::is_control) {
        "contains a control character; use printable text".to_owned()
    } else {
        return Ok(text.into());
    };
    Err(TaskError::Invalid { field, reason })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`: 1 to 255 bytes of printable Unicode.
            pub fn new(text: impl AsRef<str>) -> Result<Self, TaskError> {
                checked($field, text.as_ref()).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TaskError;
            fn from_str(text: &str) -> Result<Self, TaskError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = TaskError;
            fn try_from(text: String) -> Result<Self, TaskError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = TaskError;
            fn try_from(text: &str) -> Result<Self, TaskError> {
                Self::new(text)
            }
        }

        impl TryFrom<&$name> for $name {
            type Error = TaskError;
            fn try_from(name: &$name) -> Result<Self, TaskError> {
                Ok(name.clone())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a task, unique within a store: 1 to 255 bytes of printable Unicode.
    ///
    /// ```
    /// use callboard::task::TaskId;
    ///
    /// assert_eq!(TaskId::new("payroll")?.as_str(), "payroll");
    /// assert!(TaskId::new("").is_err());
    /// # Ok::<(), callboard::task::TaskError>(())
    /// ```
    TaskId, "id"
}

name! {
    /// The name under which a scheduler knows a store or an executor.
    Alias, "alias"
}

impl TaskId {
    /// A fresh id that no other task has (a random UUID).
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl Alias {
    /// Equality that is quick between copies of one alias.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self == other
    }

    /// The alias `default`: where tasks go that name no store or executor.
    pub fn default_alias() -> Self {
        Self("default".into())
    }
}

/// The name of one run. Unique across restarts; later runs of one scheduler sort after earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    /// The scheduler that made it; see [`OwnerId`].
    pub owner: OwnerId,
    /// Counts that scheduler's runs.
    pub serial: u64,
}

/// One life of one scheduler: it changes with every start, so that what a dead one left behind can
/// be told from what a living one is doing. Sorts by the time of the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

impl OwnerId {
    /// A fresh one for a scheduler started at `now`: seconds in the high half, chance in the low.
    pub fn generate(now: chrono::DateTime<chrono::Utc>) -> Self {
        Self::with_chance(u32::try_from(now.timestamp().max(0)).unwrap_or(u32::MAX))
    }

    /// A fresh one that sorts after this one: for a scheduler whose clock was set back.
    pub fn successor(self) -> Self {
        Self::with_chance(((self.0 >> 32) as u32).saturating_add(1))
    }

    fn with_chance(seconds: u32) -> Self {
        let chance = uuid::Uuid::new_v4().as_u128() as u32;
        Self((u64::from(seconds) << 32) | u64::from(chance))
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.owner.0, self.serial)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let parsed = text.split_once('-').and_then(|(owner, serial)| {
            let owner = OwnerId(u64::from_str_radix(owner, 16).ok()?);
            Some(Self { owner, serial: u64::from_str_radix(serial, 16).ok()? })
        });
        parsed.ok_or_else(|| TaskError::Invalid {
            field: "run id",
            reason: format!("`{text}` is none; one looks like 6920f3a01c5d4e2b-1f"),
        })
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for RunId {
    type Error = TaskError;
    fn try_from(text: String) -> Result<Self, TaskError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_also_when_decoded() {
        assert!(TaskId::new("день выплат 💰").is_ok());
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
            assert!(serde_json::from_value::<TaskId>(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn owners_sort_by_their_starts() {
        let at = |text: &str| OwnerId::generate(text.parse().unwrap());
        let mut owners: Vec<_> = ["1969-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]
            .into_iter()
            .map(at)
            .collect();
        owners.extend([owners[2].successor(), owners[2].successor().successor()]);
        assert!(owners.is_sorted(), "{owners:?}");
        assert_ne!(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
        assert_ne!(at("2200-01-01T00:00:00Z"), at("2300-01-01T00:00:00Z"));
    }

    #[test]
    fn run_ids_print_and_parse() {
        let id = RunId { owner: OwnerId(0x6920_f3a0_1c5d_4e2b), serial: 31 };
        assert_eq!(id.to_string(), "6920f3a01c5d4e2b-1f");
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        assert!("nonsense".parse::<RunId>().is_err());
    }
}
