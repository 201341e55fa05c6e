//! The wrapping of a record on disk: bytes that say what it is, then its content as JSON, sealed or
//! not.
//!
//! ```text
//! byte 0   kind: S spec, T state, R run, M mark of the store, I its identity, Q quarantine, Z rules of time zones
//! byte 1   version of the kind's format, from 1
//! byte 2   codec of the rest: j JSON, x sealed JSON (`cipher.rs` has what follows)
//! ```
//!
//! A version is raised whenever older programs would misread what is written, and they refuse what
//! is newer than they are. Older versions are migrated when they are read (see `migrate.rs`), and
//! written in the present one when they change next.
//!
//! What cannot be read is described, for people; nobody deletes it.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "encryption")]
use super::cipher::Cipher;
use super::message::Cause;
use super::migrate;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Spec = b'S',
    State = b'T',
    Run = b'R',
    #[cfg(any(feature = "sled", feature = "redb"))]
    Mark = b'M',
    Identity = b'I',
    Quarantine = b'Q',
    Rules = b'Z',
}

impl Kind {
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::Spec, Self::State, Self::Run, Self::Mark, Self::Identity, Self::Quarantine, Self::Rules];

    /// Whether it says something about tasks, and is sealed in a store that has keys.
    #[cfg(feature = "encryption")]
    fn is_secret(self) -> bool {
        matches!(self, Self::Spec | Self::State | Self::Run)
    }
}

pub(super) const HEAD: usize = 3;
const JSON: u8 = b'j';
/// In place of a kind: the rest says why there is no record.
const BROKEN: u8 = b'!';
pub(super) const SEALED: u8 = b'x';

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    pub cause: Cause,
    /// For people.
    pub reason: String,
}

impl Unread {
    pub(super) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// The same, told of a part of something.
    pub(super) fn of(self, part: &str) -> Self {
        Self { reason: format!("{part}: {}", self.reason), ..self }
    }
}

/// What one store writes and reads its records with. Records are bound to the row they lie in: what
/// was sealed for one row does not open in another, nor in another store.
#[derive(Debug, Clone, Default)]
pub(super) struct Codec {
    /// `None` in a store without keys.
    #[cfg(feature = "encryption")]
    pub(super) cipher: Option<Cipher>,
}

impl Codec {
    /// Writes everything so that anybody can read it.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    #[cfg_attr(not(feature = "encryption"), expect(unused_variables, reason = "nothing is sealed"))]
    pub(super) fn encode<T: Serialize>(
        &self,
        kind: Kind,
        row: &[u8],
        content: &T,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([kind as u8, migrate::version(kind), JSON]);
        serde_json::to_writer(&mut bytes, content).map_err(|error| error.to_string())?;
        #[cfg(feature = "encryption")]
        if let (Some(cipher), true) = (&self.cipher, kind.is_secret()) {
            return cipher.seal(row, &bytes);
        }
        Ok(bytes)
    }

    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        kind: Kind,
        row: &[u8],
        bytes: &[u8],
    ) -> Result<T, Unread> {
        let plain = self.open(kind, row, bytes)?;
        let sealed = matches!(plain, Cow::Owned(_));
        let failed = |error: serde_json::Error| {
            // What was secret is not told in a log.
            let reason = match sealed {
                true => format!("its content does not decode (column {})", error.column()),
                false => format!("its content does not decode: {error}"),
            };
            Unread::new(Cause::Corrupt, reason)
        };
        let (version, content) = (version_of(&plain), plain.get(HEAD..).unwrap_or_default());
        if version == migrate::version(kind) {
            return serde_json::from_slice(content).map_err(failed);
        }
        let old = serde_json::from_slice(content).map_err(failed)?;
        let reason = |reason| {
            Unread::new(Cause::Corrupt, format!("its content is not that of format {version}: {reason}"))
        };
        serde_json::from_value(migrate::to_present(kind, version, old).map_err(reason)?).map_err(failed)
    }

    /// The record as it would be without a seal, if it is of this kind and of a version that is
    /// known. Its content was not looked at.
    pub(super) fn open<'a>(&self, kind: Kind, row: &[u8], bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, Unread> {
        let [found, version, codec, ..] = *bytes else {
            let reason = format!("it has {} bytes, too few for a record", bytes.len());
            return Err(Unread::new(Cause::Corrupt, reason));
        };
        if found == BROKEN {
            let reason = String::from_utf8_lossy(bytes.get(HEAD..).unwrap_or_default());
            return Err(Unread::new(Cause::Corrupt, reason));
        }
        if found != kind as u8 {
            let reason = format!("it is no {kind:?} record (it begins with byte {found:#04x})");
            return Err(Unread::new(Cause::Corrupt, reason));
        }
        let latest = migrate::version(kind);
        if version == 0 || version > latest {
            let reason = format!(
                "it has format {version}, and this version of callboard reads up to format {latest}; use a newer one"
            );
            return Err(Unread::new(Cause::Newer, reason));
        }
        match codec {
            JSON => self.admit(kind, bytes),
            #[cfg(feature = "encryption")]
            SEALED => match &self.cipher {
                Some(cipher) => cipher.unseal(row, bytes).map(Cow::Owned),
                None => Err(super::cipher::no_keys(bytes)),
            },
            #[cfg(not(feature = "encryption"))]
            SEALED => {
                let _ = row;
                let reason =
                    "it is encrypted; that takes the cargo feature `encryption` and the store's keys";
                Err(Unread::new(Cause::UnknownKey, reason))
            }
            other => {
                let reason = format!(
                    "its codec {other:#04x} is unknown to this version of callboard; use a newer one"
                );
                Err(Unread::new(Cause::Newer, reason))
            }
        }
    }

    /// A record that is not sealed, unless the store takes none.
    #[cfg_attr(
        not(feature = "encryption"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "there are no keys")
    )]
    fn admit<'a>(&self, kind: Kind, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, Unread> {
        #[cfg(feature = "encryption")]
        if kind.is_secret() && self.cipher.as_ref().is_some_and(|cipher| cipher.refuse_plain) {
            let reason = "it is not encrypted, and this store takes nothing that is not";
            return Err(Unread::new(Cause::NotEncrypted, reason));
        }
        Ok(Cow::Borrowed(bytes))
    }

    /// A plain record as this codec writes it.
    #[cfg_attr(
        not(feature = "encryption"),
        expect(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            unused_variables,
            reason = "there are no keys"
        )
    )]
    pub(super) fn close(&self, kind: Kind, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        #[cfg(feature = "encryption")]
        if let (Some(cipher), true) = (&self.cipher, kind.is_secret()) {
            return cipher.seal(row, plain);
        }
        Ok(plain.to_vec())
    }

    /// The record as this codec would write it, or nothing when that is how it is written.
    pub(super) fn renew(&self, kind: Kind, row: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, Unread> {
        let plain = self.open(kind, row, bytes)?;
        #[cfg(feature = "encryption")]
        if let Some(cipher) = &self.cipher
            && !cipher.is_current(bytes)
        {
            let sealed = cipher.seal(row, &plain);
            return sealed.map(Some).map_err(|reason| Unread::new(Cause::Corrupt, reason));
        }
        drop(plain);
        Ok(None)
    }
}

/// A record that stands for one that cannot be read: to decode it fails with `reason`.
#[cfg(feature = "file")]
pub(super) fn broken(reason: &str) -> Vec<u8> {
    [&[BROKEN, 1, JSON], reason.as_bytes()].concat()
}

/// The parts of a record whose content is JSON: kind, version, content.
#[cfg(feature = "file")]
pub(super) fn open(record: &[u8]) -> Option<(char, u8, &str)> {
    match record {
        [kind, version, JSON, content @ ..] if kind.is_ascii_alphabetic() => {
            Some((char::from(*kind), *version, std::str::from_utf8(content).ok()?))
        }
        _ => None,
    }
}

/// The record of these parts.
#[cfg(feature = "file")]
pub(super) fn close(kind: char, version: u8, content: &str) -> Result<Vec<u8>, String> {
    let kind = u8::try_from(kind).ok().filter(u8::is_ascii_alphabetic);
    let kind = kind.ok_or("the kind of a record is a letter")?;
    Ok([&[kind, version, JSON], content.as_bytes()].concat())
}

fn version_of(bytes: &[u8]) -> u8 {
    bytes.get(1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_described() {
        let codec = Codec::plain();
        let bytes = codec.encode(Kind::State, b"ta", &vec![1, 2]).unwrap();
        assert_eq!(codec.decode::<Vec<u8>>(Kind::State, b"ta", &bytes).unwrap(), [1, 2]);
        let unread = |kind, bytes: &[u8]| codec.decode::<Vec<u8>>(kind, b"ta", bytes).unwrap_err();
        let expect = |kind, bytes: &[u8], cause, reason: &str| {
            let unread = unread(kind, bytes);
            assert!(unread.cause == cause && unread.reason.contains(reason), "{unread:?}");
        };
        expect(Kind::State, &[], Cause::Corrupt, "0 bytes");
        expect(Kind::Spec, &bytes, Cause::Corrupt, "no Spec record");
        expect(Kind::State, b"T\x09j[]", Cause::Newer, "format 9");
        expect(Kind::State, b"T\x00j[]", Cause::Newer, "format 0");
        expect(Kind::State, b"T\x01z[]", Cause::Newer, "codec 0x7a");
        expect(Kind::State, b"T\x02j[1,", Cause::Corrupt, "does not decode");
        expect(Kind::State, b"T\x01j[1,2]", Cause::Corrupt, "not that of format 1");
    }
}
