//! Names of zones for a process that has read no database.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{OTHERS, Zone};

/// The names of zones that this process knows from a database that it has read, for another process that
/// has not: what names them can be read after them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Learned(Vec<&'static str>);

impl Learned {
    pub(crate) fn here() -> Self {
        let others = OTHERS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        Self(others.names.iter().skip(others.everywhere).copied().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Learned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Learned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(Self(names.iter().filter_map(|name| Zone::learn(name)).map(Zone::name).collect()))
    }
}
