//! Durable stores: exports, keys, and how each is opened.

use std::path::{Path, PathBuf};

use super::value::Section;
use super::{Directory, StoreSettings};
use crate::scheduler::Builder;
#[cfg(feature = "file")]
use crate::store::FileStore;
#[cfg(feature = "redb")]
use crate::store::RedbStore;
#[cfg(feature = "sled")]
use crate::store::SledStore;
use crate::store::{Durability, Exports, MemoryStore, StoreError, Vault};
#[cfg(feature = "encryption")]
use crate::store::{Keyring, Keys, is_key};

/// Where a store has its keys from.
#[cfg(feature = "encryption")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySettings {
    /// They stand in the settings.
    Given(Keyring),
    /// A file, relative to the data directory.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

#[cfg(feature = "encryption")]
impl KeySettings {
    /// The keys, or where they are looked for, of a service on the directory `data`.
    pub fn keys(&self, data: &Path) -> Keys {
        match self {
            Self::Given(ring) => Keys::new(ring.clone()),
            Self::File(path) => Keys::file(data.join(path)),
            Self::Variable(name) => Keys::env(name),
        }
    }
}

impl Directory {
    /// A directory with the defaults of everything else: acknowledged is on the device, nothing is
    /// set aside, exported or encrypted.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Fsync,
            set_aside: false,
            history: None,
            history_age: None,
            exports: None,
            #[cfg(feature = "encryption")]
            keys: None,
            #[cfg(feature = "encryption")]
            refuse_plain: false,
        }
    }
}

/// The keys of a durable store that a memory store has not.
pub(super) const DURABLE: &[&str] = &[
    "path",
    "durability",
    "set_aside",
    "history",
    "history_age",
    "exports",
    "key",
    "key_file",
    "key_env",
    "refuse_plain",
];

/// Reads what is said of exports.
pub(super) fn exports(section: &mut Section<'_>) -> Option<Exports> {
    let mut exports = section.section("exports")?;
    let every = exports.duration("every");
    let (keep, dir) = (exports.count("keep"), exports.text("dir"));
    if every.is_none() && exports.peek("every").is_none() {
        exports.problem(None, "every", "is missing; it must be a duration such as \"1h\"");
    }
    exports.finish();
    let mut settings = Exports::every(every?);
    if let Some(keep) = keep {
        settings = settings.keep(keep as usize);
    }
    Some(match dir {
        Some(dir) => settings.dir(dir),
        None => settings,
    })
}

/// Reads what is said of keys, and whether plain records are refused.
#[cfg(feature = "encryption")]
pub(super) fn keys(section: &mut Section<'_>) -> (Option<KeySettings>, bool) {
    // Not `text`: an error would show it.
    let given = section.take("key").and_then(|value| match &value.kind {
        super::value::Kind::Text(text) => match Keyring::parse(text) {
            Ok(ring) => Some(KeySettings::Given(ring)),
            Err(error) => {
                section.problem(value.line, "key", error.to_string());
                None
            }
        },
        _ => {
            section.problem(value.line, "key", "must be text in quotes");
            None
        }
    });
    let mut name = |key| {
        let text = section.text(key)?;
        if is_key(&text) {
            section.problem(None, key, "is a key, and must be the name of where it is; see `key`");
            return None;
        }
        Some(text)
    };
    let file = name("key_file").map(|path| KeySettings::File(path.into()));
    let variable = name("key_env").map(KeySettings::Variable);
    let refuse_plain = section.flag("refuse_plain").unwrap_or(false);
    let mut all = [given, file, variable].into_iter().flatten();
    let first = all.next();
    if all.next().is_some() {
        section.problem(
            None,
            "",
            "has its keys from more than one place; keep one of key, key_file and key_env",
        );
    }
    if refuse_plain && first.is_none() {
        section.problem(None, "refuse_plain", "needs keys; add key_file or key_env");
    }
    (first, refuse_plain)
}

/// Without the feature, keys are refused rather than left out.
#[cfg(not(feature = "encryption"))]
pub(super) fn keys(section: &mut Section<'_>) {
    for key in ["key", "key_file", "key_env", "refuse_plain"] {
        if let Some(value) = section.take(key) {
            section.problem(value.line, key, "takes the cargo feature `encryption`");
        }
    }
}

/// A store with the settings of a directory.
macro_rules! configured {
    ($store:ident, $directory:ident, $data:ident) => {{
        let mut store = $store::open($data.join(&$directory.path))?
            .durability($directory.durability)
            .set_aside($directory.set_aside);
        if let Some(runs) = $directory.history {
            store = store.history(runs as usize);
        }
        if let Some(age) = $directory.history_age {
            store = store.history_age(age);
        }
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
    /// `builder` with the store under `alias`; relative paths are below `data`.
    pub(super) fn add_to(&self, builder: Builder, alias: &str, data: &Path) -> Result<Builder, StoreError> {
        Ok(match self {
            Self::Memory => builder.store(alias, MemoryStore::new()),
            #[cfg(feature = "sled")]
            Self::Sled(directory) => builder.store(alias, configured!(SledStore, directory, data)),
            #[cfg(feature = "redb")]
            Self::Redb(directory) => builder.store(alias, configured!(RedbStore, directory, data)),
            #[cfg(feature = "file")]
            Self::File(directory) => builder.store(alias, configured!(FileStore, directory, data)),
        })
    }

    /// The directory of a durable store; a relative one is below `data`.
    pub fn path(&self, data: &Path) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
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
    pub fn vault(&self, data: &Path) -> Result<Vault, StoreError> {
        match self {
            Self::Memory => Err(StoreError::Unsupported { deed: "be opened: it is in memory" }),
            #[cfg(feature = "sled")]
            Self::Sled(directory) => configured!(SledStore, directory, data).vault(),
            #[cfg(feature = "redb")]
            Self::Redb(directory) => configured!(RedbStore, directory, data).vault(),
            #[cfg(feature = "file")]
            Self::File(directory) => configured!(FileStore, directory, data).vault(),
        }
    }
}
