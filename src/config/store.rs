//! Stores: which there are, and how each is opened.

use std::path::Path;
#[cfg(feature = "_durable")]
use std::path::PathBuf;
use std::time::Duration;

use super::choice;
#[cfg(feature = "_durable")]
use super::directory::Directory;
#[cfg(all(feature = "encryption", feature = "_durable"))]
use super::directory::KeySettings;
use super::value::Section;
use crate::scheduler::Builder;
#[cfg(feature = "file")]
use crate::store::FileStore;
#[cfg(feature = "redb")]
use crate::store::RedbStore;
#[cfg(feature = "sled")]
use crate::store::SledStore;
#[cfg(feature = "_durable")]
use crate::store::Vault;
use crate::store::{MemoryStore, StoreError};

/// A store, as settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreSettings {
    /// Gone at the end of the process; how many records of runs it keeps until then.
    Memory(History),
    /// The embedded store, in a directory.
    #[cfg(feature = "sled")]
    Sled(Directory),
    /// The other embedded store, in a directory.
    #[cfg(feature = "redb")]
    Redb(Directory),
    /// A file for each task, in a directory.
    #[cfg(feature = "file")]
    File(Directory),
}

#[cfg(feature = "sled")]
const SLED_PATH: &str = "store";
/// Not that of sled: who changes the type finds the tasks of before when they change it back.
#[cfg(feature = "redb")]
const REDB_PATH: &str = "store-redb";
#[cfg(feature = "file")]
const FILE_PATH: &str = "store-file";

/// What can be said of a directory, and not of a memory store.
const DURABLE: &[&str] =
    &["path", "durability", "set_aside", "exports", "key", "key_file", "key_env", "refuse_plain"];

impl Default for StoreSettings {
    /// sled where it is there, else memory.
    fn default() -> Self {
        #[cfg(feature = "sled")]
        return Self::Sled(Directory::new(SLED_PATH));
        #[cfg(not(feature = "sled"))]
        Self::Memory(History::default())
    }
}

/// What is said of the run records that a store keeps; what is not said is as the store has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The most of a task.
    pub most: Option<u32>,
    /// How many of a task stay, and how many of those that went wrong.
    pub least: Option<u32>,
    /// How old they get.
    pub age: Option<Duration>,
    /// All together, in bytes.
    pub size: Option<u64>,
}

impl History {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        Self {
            most: section.number("history"),
            least: section.number("history_least"),
            age: section.duration("history_age"),
            size: section.size("history_size"),
        }
    }
}

/// A store with these settings of its run records.
macro_rules! keeping {
    ($store:expr, $history:expr) => {{
        let (mut store, history) = ($store, $history);
        if let Some(runs) = history.most {
            store = store.history(runs as usize);
        }
        if let Some(runs) = history.least {
            store = store.history_least(runs as usize);
        }
        if let Some(age) = history.age {
            store = store.history_age(age);
        }
        if let Some(bytes) = history.size {
            store = store.history_size(bytes);
        }
        store
    }};
}

/// A store with the settings of a directory.
#[cfg(feature = "_durable")]
macro_rules! configured {
    ($store:ident, $directory:ident, $data:ident) => {{
        // A place that cannot be is the trouble of this store, and shows when it is opened.
        let mut store = $store::at($data.join(&$directory.path))
            .durability($directory.durability)
            .set_aside($directory.set_aside);
        store = keeping!(store, &$directory.history);
        if let Some(exports) = &$directory.exports {
            store = store.exports(exports.clone().below($data));
        }
        #[cfg(feature = "encryption")]
        if let Some(keys) = &$directory.keys {
            store = store.encrypt(keys.keys($data)).refuse_plain($directory.refuse_plain);
        }
        store
    }};
}

impl StoreSettings {
    /// Reads one.
    pub(super) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let kind = section.text("type");
        let store = match kind.as_deref() {
            Some("memory") => {
                let history = History::from_section(&mut section);
                let alien = DURABLE.iter().filter_map(|key| Some((*key, section.take(key)?.line)));
                let alien: Vec<_> = alien.collect();
                for (key, line) in &alien {
                    let message = format!("a memory store has no {key}; leave it out, or use another type");
                    section.problem(*line, key, message);
                }
                alien.is_empty().then_some(Self::Memory(history))
            }
            #[cfg(feature = "sled")]
            Some("sled") => Some(Self::Sled(Directory::from_section(&mut section, SLED_PATH))),
            #[cfg(feature = "redb")]
            Some("redb") => Some(Self::Redb(Directory::from_section(&mut section, REDB_PATH))),
            #[cfg(feature = "file")]
            Some("file") => Some(Self::File(Directory::from_section(&mut section, FILE_PATH))),
            other => {
                section.problem(None, "type", choice(other, &types()));
                // Whatever it is to be: what else is wrong is told as well.
                #[cfg(feature = "_durable")]
                Directory::from_section(&mut section, "");
                #[cfg(not(feature = "_durable"))]
                {
                    History::from_section(&mut section);
                    DURABLE.iter().for_each(|key| drop(section.take(key)));
                }
                None
            }
        };
        section.finish();
        store
    }

    /// `builder` with the store under `alias`; relative paths are below `data`.
    #[cfg_attr(not(feature = "_durable"), expect(unused_variables))]
    pub(super) fn add_to(&self, builder: Builder, alias: &str, data: &Path) -> Result<Builder, StoreError> {
        Ok(match self {
            Self::Memory(history) => builder.store(alias, keeping!(MemoryStore::new(), history)),
            #[cfg(feature = "sled")]
            Self::Sled(directory) => builder.store(alias, configured!(SledStore, directory, data)),
            #[cfg(feature = "redb")]
            Self::Redb(directory) => builder.store(alias, configured!(RedbStore, directory, data)),
            #[cfg(feature = "file")]
            Self::File(directory) => builder.store(alias, configured!(FileStore, directory, data)),
        })
    }

    /// The environment variable that holds its keys.
    #[cfg(all(feature = "encryption", feature = "_durable"))]
    pub(super) fn key_variable(&self) -> Option<&str> {
        let directory = match self {
            Self::Memory { .. } => return None,
            #[cfg(feature = "sled")]
            Self::Sled(directory) => directory,
            #[cfg(feature = "redb")]
            Self::Redb(directory) => directory,
            #[cfg(feature = "file")]
            Self::File(directory) => directory,
        };
        match &directory.keys {
            Some(KeySettings::Variable(name)) => Some(name),
            _ => None,
        }
    }

    /// The directory of a durable store; a relative one is below `data`.
    #[cfg(feature = "_durable")]
    pub fn path(&self, data: &Path) -> Option<PathBuf> {
        match self {
            Self::Memory(_) => None,
            #[cfg(feature = "sled")]
            Self::Sled(directory) => Some(data.join(&directory.path)),
            #[cfg(feature = "redb")]
            Self::Redb(directory) => Some(data.join(&directory.path)),
            #[cfg(feature = "file")]
            Self::File(directory) => Some(data.join(&directory.path)),
        }
    }

    /// The store, opened for maintenance; relative paths are below `data`.
    ///
    /// # Errors
    /// [`Unsupported`](StoreError::Unsupported) for a memory store, which holds nothing while nobody
    /// runs it; else as when it is started.
    #[cfg(feature = "_durable")]
    pub fn vault(&self, data: &Path) -> Result<Vault, StoreError> {
        match self {
            Self::Memory(_) => Err(StoreError::Unsupported { deed: "be opened: it is in memory" }),
            #[cfg(feature = "sled")]
            Self::Sled(directory) => configured!(SledStore, directory, data).vault(),
            #[cfg(feature = "redb")]
            Self::Redb(directory) => configured!(RedbStore, directory, data).vault(),
            #[cfg(feature = "file")]
            Self::File(directory) => configured!(FileStore, directory, data).vault(),
        }
    }
}

/// The types of stores, those that are built in first.
fn types() -> String {
    let durable = [
        ("sled", cfg!(feature = "sled")),
        ("redb", cfg!(feature = "redb")),
        ("file", cfg!(feature = "file")),
    ];
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (kind, built_in) in durable {
        if built_in { there.push(format!("\"{kind}\"")) } else { missing.push(format!("\"{kind}\"")) }
    }
    let mut text = "\"memory\"".to_owned();
    if !there.is_empty() {
        text = format!("{} or {text}", there.join(", "));
    }
    if !missing.is_empty() {
        text.push_str(&format!(" ({} takes the cargo feature of that name)", missing.join(" or ")));
    }
    text
}
