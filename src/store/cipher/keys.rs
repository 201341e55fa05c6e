//! Keys: what they are, where they come from, and that they are never shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const KEY: usize = 32;
pub(super) const ID: usize = 8;

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no list of keys.
    #[error(
        "key {number} is not valid: {reason}; a key is 32 random bytes as 64 hexadecimal digits or as base64, for instance from `openssl rand -hex 32`"
    )]
    Invalid {
        /// Which of them, from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// There is no key in the text.
    #[error("there is no key in it; write one a line, the one to write with first")]
    Empty,
    /// The file cannot be read.
    #[error("the key file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says, or what is wrong with its text.
        reason: String,
    },
    /// The variable is not in the environment, or no keys are in it.
    #[error("the environment variable {name}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A key stands where the name of something belongs, which would be shown.
    #[error("a key stands where the name of {0} belongs; put the key in there, and give the name")]
    Misplaced(&'static str),
    /// The system gives no random numbers.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// What a key is called in records, in messages and in logs: it says nothing about the key itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; ID]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

pub(super) struct Key {
    pub id: KeyId,
    pub bytes: Zeroizing<[u8; KEY]>,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY]>) -> Self {
        let digest = Sha256::new().chain_update(b"callboard key id").chain_update(*bytes).finalize();
        let mut id = [0; ID];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self { id: KeyId(id), bytes }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0; KEY]);
        let digits = text.as_bytes();
        if digits.len() == 2 * KEY && digits.iter().all(u8::is_ascii_hexdigit) {
            let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = pair.iter().fold(0, |byte, digit| byte << 4 | nibble(*digit));
            }
            return Ok(Self::new(bytes));
        }
        // Wiped also when it does not decode to its end.
        let mut room = Zeroizing::new([0; 4 * KEY]);
        let length = STANDARD
            .decode_slice(text, &mut *room)
            .or_else(|_| STANDARD_NO_PAD.decode_slice(text, &mut *room));
        match length {
            Ok(KEY) => {
                bytes.iter_mut().zip(room.iter()).for_each(|(to, from)| *to = *from);
                Ok(Self::new(bytes))
            }
            Ok(length) => Err(format!("it has {length} bytes")),
            Err(_) => Err(format!("its {} characters are neither", text.chars().count())),
        }
    }
}

/// The keys of a store: one that it writes with, and older ones that it still reads with.
///
/// A key is 32 random bytes. Its id is made from it, so keys need no names, and a record says which
/// one it was sealed with. The keys are wiped from memory when the last copy is dropped, and are
/// never shown.
///
/// ```
/// use callboard::store::Keyring;
///
/// let old = Keyring::parse("9f1c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f00112233445f")?;
/// let new = Keyring::generate()?.older(&old);
/// assert!(new.ids().len() == 2 && new.current() != old.current());
/// assert!(!format!("{old:?}").contains("9f1c5a"));
/// # Ok::<(), callboard::store::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Keyring {
    pub(super) current: Arc<Key>,
    older: Vec<Arc<Key>>,
}

impl Keyring {
    /// One key.
    pub fn new(mut key: [u8; 32]) -> Self {
        let current = Arc::new(Key::new(Zeroizing::new(key)));
        key.zeroize();
        Self { current, older: Vec::new() }
    }

    /// A key from the random numbers of the system. For tests, and for programs that keep it
    /// somewhere themselves: with [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self { current: Arc::new(Key::new(bytes)), older: Vec::new() })
    }

    /// With the keys of `other` to read with, too.
    pub fn older(mut self, other: &Keyring) -> Self {
        for key in std::iter::once(&other.current).chain(&other.older) {
            if self.find(key.id).is_none() {
                self.older.push(key.clone());
            }
        }
        self
    }

    /// Reads keys from text, each 64 hexadecimal digits or base64, separated by white space or
    /// commas; the first is the one to write with. What follows a `#` in a line is a comment.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] and [`KeyError::Empty`], which do not show the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words = lines.flat_map(|line| line.split([' ', '\t', ',', '\r'])).filter(|word| !word.is_empty());
        let mut keys = Vec::new();
        for (word, number) in words.zip(1..) {
            keys.push(Self {
                current: Arc::new(Key::parse(word).map_err(|reason| KeyError::Invalid { number, reason })?),
                older: Vec::new(),
            });
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeyError::Empty)?;
        Ok(keys.fold(first, |ring, key| ring.older(&key)))
    }

    /// Reads the keys in a file; see [`parse`](Self::parse). A file that others than its owner can
    /// read is worth a warning in the log.
    ///
    /// # Errors
    /// [`KeyError::File`], and [`KeyError::Misplaced`] when the path is a key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        if shows_key(path) {
            return Err(KeyError::Misplaced("a file"));
        }
        let failed = |reason: String| KeyError::File { path: path.to_owned(), reason };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
        warn_if_open(path);
        Self::parse(&text).map_err(|error| failed(error.to_string()))
    }

    /// Reads the keys in an environment variable; see [`parse`](Self::parse).
    ///
    /// # Errors
    /// [`KeyError::Variable`], and [`KeyError::Misplaced`] when the name is a key.
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        if is_key(name) {
            return Err(KeyError::Misplaced("an environment variable"));
        }
        let failed = |reason: String| KeyError::Variable { name: name.to_owned(), reason };
        let text = std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => failed("it is not set; put the keys in it".to_owned()),
            // The other error would show what is in it.
            std::env::VarError::NotUnicode(_) => failed("it is no text".to_owned()),
        })?;
        Self::parse(&Zeroizing::new(text)).map_err(|error| failed(error.to_string()))
    }

    /// The key that is written with.
    pub fn current(&self) -> KeyId {
        self.current.id
    }

    /// All keys, the current one first.
    pub fn ids(&self) -> Vec<KeyId> {
        std::iter::once(&self.current).chain(&self.older).map(|key| key.id).collect()
    }

    /// The keys as text that [`parse`](Self::parse) reads: one a line. This is the secret itself.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity((2 * KEY + 1) * (1 + self.older.len())));
        for key in std::iter::once(&self.current).chain(&self.older) {
            for byte in *key.bytes {
                for nibble in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
                }
            }
            text.push('\n');
        }
        text
    }

    /// The key of this id, if it is there.
    pub(super) fn find(&self, id: KeyId) -> Option<&Key> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id).map(|key| &**key)
    }
}

/// Whether a text is a key, or several.
pub(crate) fn is_key(text: &str) -> bool {
    Keyring::parse(text).is_ok()
}

/// Whether a path, or the name in it, is a key.
fn shows_key(path: &Path) -> bool {
    [Some(path.as_os_str()), path.file_name()].into_iter().flatten().any(|it| it.to_str().is_some_and(is_key))
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = path.metadata()
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others can read the file with the keys; `chmod 600` makes it yours alone");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.ids() == other.ids()
    }
}

impl Eq for Keyring {}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

/// Where a store has its keys from. It looks there whenever it is opened, and when it is told to
/// [rekey](crate::store::message::Rekey): so keys can change while it runs.
///
/// ```no_run
/// use callboard::store::{Keys, SledStore};
///
/// let store = SledStore::open("data/tasks")?.encrypt(Keys::file("/etc/callboard/keys"));
/// # Ok::<(), callboard::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Origin>>);

enum Origin {
    Ring(Keyring),
    File(PathBuf),
    Variable(String),
}

impl Keys {
    /// These keys, until [`replace`](Self::replace).
    pub fn new(ring: Keyring) -> Self {
        Self(Arc::new(Mutex::new(Origin::Ring(ring))))
    }

    /// The keys in a file, as [`Keyring::from_file`] reads them.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Origin::File(path.into()))))
    }

    /// The keys in an environment variable, as [`Keyring::from_env`] reads them.
    pub fn env(name: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Origin::Variable(name.into()))))
    }

    /// From now on these keys, for every store that has a clone of this. A store that is open takes
    /// them when it is told to rekey. Keep the keys of before among them until that is done.
    pub fn replace(&self, ring: Keyring) {
        *self.lock() = Origin::Ring(ring);
    }

    /// Looks for the keys.
    pub(in crate::store) fn read(&self) -> Result<Keyring, KeyError> {
        match &*self.lock() {
            Origin::Ring(ring) => Ok(ring.clone()),
            Origin::File(path) => Keyring::from_file(path),
            Origin::Variable(name) => Keyring::from_env(name),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Origin> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl From<Keyring> for Keys {
    fn from(ring: Keyring) -> Self {
        Self::new(ring)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.lock() {
            Origin::Ring(ring) => ring.fmt(f),
            Origin::File(path) if !shows_key(path) => write!(f, "Keys({})", path.display()),
            Origin::Variable(name) if !is_key(name) => write!(f, "Keys(${name})"),
            Origin::File(_) | Origin::Variable(_) => write!(f, "Keys(a key, and no name)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f1c5a44c1a9a1c8a4f0f7b6e2d3c4b5a69788796a5b4c3d2e1f00112233445f";

    fn ring() -> Keyring {
        Keyring::generate().unwrap()
    }

    #[test]
    fn keys_are_read_from_text() {
        let hex = Keyring::parse(HEX).unwrap();
        let base64 = Keyring::parse("nxxaRMGpocik8Pe24tPEtaaXiHlqW0w9Lh8AESIzRF8=").unwrap();
        assert_eq!(hex.current(), base64.current());
        assert_eq!(&*hex.to_text(), &format!("{HEX}\n"));
        let other = ring();
        let text = format!("# the new one\n{}\n{HEX}, {HEX} # twice\r\n", other.to_text().trim());
        let both = Keyring::parse(&text).unwrap();
        assert_eq!(both.ids(), [other.current(), hex.current()]);
        assert_eq!(Keyring::parse(&both.to_text()).unwrap().ids(), both.ids());
        let refused = |text: &str| Keyring::parse(text).unwrap_err().to_string();
        assert_eq!(Keyring::parse(&format!("\u{feff}{HEX}\r\n")).unwrap().ids(), hex.ids());
        assert!(refused("").contains("no key"));
        assert!(refused("# none\n \n").contains("no key"));
        assert!(refused(&format!("{HEX} {}", &HEX[1..])).contains("key 2 is not valid"));
        assert!(refused("c2hvcnQ=").contains("5 bytes"));
        assert!(!refused("hunter2!").contains("hunter2"), "what may be a key is not shown");
        assert!(refused("nxxaRMGpocik8Pe24tPEtaaXiHlqW0w9Lh8AESIzRF8A").contains("33 bytes"));
        let unpadded = Keyring::parse("nxxaRMGpocik8Pe24tPEtaaXiHlqW0w9Lh8AESIzRF8").unwrap();
        assert_eq!(unpadded.current(), hex.current());
    }

    /// In place of a name, which errors and logs show.
    #[test]
    fn a_key_in_the_wrong_place_is_not_shown() {
        let keys = [Keys::file(HEX), Keys::file(Path::new("/data").join(HEX)), Keys::env(HEX)];
        for keys in keys {
            let error = keys.read().unwrap_err();
            assert!(matches!(error, KeyError::Misplaced(_)), "{error:?}");
            let shown = format!("{error} {error:?} {keys:?}");
            assert!(!shown.contains(HEX), "{shown}");
        }
    }

    #[test]
    fn keys_are_never_shown() {
        let keyring = Keyring::parse(HEX).unwrap().older(&ring());
        let keys = Keys::new(keyring.clone());
        let shown = format!(
            "{keyring:?} {keys:?} {:?} {:#?}",
            crate::store::cipher::Cipher { keys: keyring.clone(), store: [7; 16], refuse_plain: false },
            keyring
        );
        let text = keyring.to_text();
        for line in text.lines() {
            assert!(!shown.contains(line) && !shown.contains(&line[..12]), "{shown}");
        }
        // As numbers, neither.
        assert!(!shown.contains("159, 28, 90"), "{shown}");
        assert!(shown.contains(&keyring.current().to_string()));
    }
}
