//! The wrapping of a record on disk: three bytes that say what it is, then its content as JSON.
//!
//! ```text
//! byte 0   kind: S spec, T state, R run, M mark of the store
//! byte 1   version of the kind's format, from 1
//! byte 2   codec of the rest: j JSON
//! ```
//!
//! What cannot be read is described, for people; nobody deletes it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Spec = b'S',
    State = b'T',
    Run = b'R',
    Mark = b'M',
}

const VERSION: u8 = 1;
const JSON: u8 = b'j';
/// In place of a kind: the rest says why there is no record.
const BROKEN: u8 = b'!';

pub(super) fn encode<T: Serialize>(kind: Kind, content: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend([kind as u8, VERSION, JSON]);
    serde_json::to_writer(&mut bytes, content).map_err(|error| error.to_string())?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, String> {
    let [found, version, codec, content @ ..] = bytes else {
        return Err(format!("it has {} bytes, too few for a record", bytes.len()));
    };
    if *found == BROKEN {
        return Err(String::from_utf8_lossy(content).into_owned());
    }
    if *found != kind as u8 {
        return Err(format!("it is no {kind:?} record (it begins with byte {found:#04x})"));
    }
    if *version != VERSION {
        return Err(format!(
            "it has format {version}, and this version of callboard reads format {VERSION}; use a newer one"
        ));
    }
    if *codec != JSON {
        return Err(format!("its codec {codec:#04x} is unknown to this version of callboard"));
    }
    serde_json::from_slice(content).map_err(|error| format!("its content does not decode: {error}"))
}

/// A record that stands for one that cannot be read: to decode it fails with `reason`.
#[cfg(feature = "file")]
pub(super) fn broken(reason: &str) -> Vec<u8> {
    [&[BROKEN, VERSION, JSON], reason.as_bytes()].concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_described() {
        let bytes = encode(Kind::State, &vec![1, 2]).unwrap();
        assert_eq!(decode::<Vec<u8>>(Kind::State, &bytes).unwrap(), [1, 2]);
        let reason = |kind, bytes: &[u8]| decode::<Vec<u8>>(kind, bytes).unwrap_err();
        assert!(reason(Kind::State, &[]).contains("0 bytes"));
        assert!(reason(Kind::Spec, &bytes).contains("no Spec record"));
        assert!(reason(Kind::State, b"T\x09j[]").contains("format 9"));
        assert!(reason(Kind::State, b"T\x01z[]").contains("codec 0x7a"));
        assert!(reason(Kind::State, b"T\x01j[1,").contains("does not decode"));
    }
}
