//! Directories of durable stores: what can be said of them, their exports and their keys.

#[cfg(feature = "encryption")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::store::History;
use super::value::Section;
use crate::store::{Durability, Exports};
#[cfg(feature = "encryption")]
use crate::store::{Keyring, Keys, is_key};

/// The directory of a durable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Relative to the data directory.
    pub path: PathBuf,
    /// When a change is acknowledged. Default: on the device.
    pub durability: Durability,
    /// Whether a damaged one is set aside for a fresh one. Default: no.
    pub set_aside: bool,
    /// Which run records are kept. Default: those of 7 days in 256 MiB, as the store says.
    pub history: History,
    /// Exports that are taken while the store runs; a relative directory is below the data
    /// directory. Default: none.
    pub exports: Option<Exports>,
    /// What it is encrypted with. Default: nothing.
    #[cfg(feature = "encryption")]
    pub keys: Option<KeySettings>,
    /// With keys: whether records that are plain are left alone as unreadable. Default: no.
    #[cfg(feature = "encryption")]
    pub refuse_plain: bool,
}

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
            history: History::default(),
            exports: None,
            #[cfg(feature = "encryption")]
            keys: None,
            #[cfg(feature = "encryption")]
            refuse_plain: false,
        }
    }

    /// Reads one; `usual` is where it is unless something else is said.
    pub(super) fn from_section(section: &mut Section<'_>, usual: &str) -> Self {
        let path = section.text("path");
        // The word reads as the longest of times.
        let durability = match section.duration_or("durability", "fsync") {
            None | Some(Duration::MAX) => Durability::Fsync,
            Some(interval) => Durability::Interval(interval),
        };
        let set_aside = section.flag("set_aside").unwrap_or(false);
        let history = History::from_section(section);
        let exports = exports(section);
        #[cfg(feature = "encryption")]
        let (keys, refuse_plain) = keys(section);
        #[cfg(not(feature = "encryption"))]
        no_keys(section);
        Self {
            path: path.map_or_else(|| usual.into(), PathBuf::from),
            durability,
            set_aside,
            history,
            exports,
            #[cfg(feature = "encryption")]
            keys,
            #[cfg(feature = "encryption")]
            refuse_plain,
        }
    }
}

/// Reads what is said of exports.
fn exports(section: &mut Section<'_>) -> Option<Exports> {
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
fn keys(section: &mut Section<'_>) -> (Option<KeySettings>, bool) {
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
fn no_keys(section: &mut Section<'_>) {
    for key in ["key", "key_file", "key_env", "refuse_plain"] {
        if let Some(value) = section.take(key) {
            section.problem(value.line, key, "takes the cargo feature `encryption`");
        }
    }
}
