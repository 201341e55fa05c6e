//! What a database says of itself: a mark inside, and the seal beside it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{damaged, io_error, is_out_of_descriptors, keys, known_format, overwritten, unreadable};
use crate::private_file;
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind};

/// The layout of the [keys](super::keys) and the formats of the records.
const FORMAT: u32 = 2;
const SEAL: &str = "callboard-store.json";

/// What is known of the data outside of it: a small file beside it, readable by people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Seal {
    pub format: u32,
    /// A batch that is known to be on disk. The data has this one or a later one.
    pub batch: u64,
    /// The identity of the store; stores of earlier versions have none here.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "identity")]
    pub store: Option<Uuid>,
}

/// An identity, in hexadecimal digits.
mod identity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(identity: &Option<Uuid>, to: S) -> Result<S::Ok, S::Error> {
        match identity {
            Some(identity) => to.collect_str(&identity.simple()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uuid>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Uuid::parse_str(&text).map_err(D::Error::custom)).transpose()
    }
}

impl Seal {
    /// Writes the seal of the store in the directory `path`; it is on the device when this
    /// returns. `batch` must be there already.
    pub(in crate::store) fn write(path: &Path, batch: u64, store: Option<Uuid>) -> Result<(), StoreError> {
        let text = serde_json::to_vec(&Self { format: FORMAT, batch, store })
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
        let aside = path.join(format!("{SEAL}.new"));
        let write = || {
            // Whatever must be open is, before anything changes.
            let names = if cfg!(unix) { Some(fs::File::open(path)?) } else { None };
            let mut file = private_file::create_anew(&aside)?;
            file.write_all(&text)?;
            // Renamed before its content is on the device, it could be empty after a power cut.
            file.sync_all()?;
            fs::rename(&aside, path.join(SEAL))?;
            names.map_or(Ok(()), |names| names.sync_all())
        };
        write().map_err(|error| io_error(path, "write to", error))
    }
}

impl Seal {
    /// An error unless this seal, of a store that is open, is the one that is found in its directory.
    pub(in crate::store) fn check(self, path: &Path) -> Result<(), StoreError> {
        match read_seal(path) {
            Ok(Some(found)) if found == self => Ok(()),
            // What cannot be read says nothing.
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::debug!(%error, "the seal of a store could not be looked at");
                Ok(())
            }
            _ => Err(overwritten(path, SEAL)),
        }
    }

    /// That of a store in a batch.
    pub(in crate::store) fn of(batch: u64, store: Option<Uuid>) -> Self {
        Self { format: FORMAT, batch, store }
    }
}

/// A seal that could not be written for want of descriptors is written later: what it protects is durable
/// without it.
pub(in crate::store) fn put_off(sealed: Result<(), StoreError>) -> Result<(), StoreError> {
    match sealed {
        Err(error) if is_out_of_descriptors(&error) => {
            tracing::debug!(%error, "the seal of a store is renewed later");
            Ok(())
        }
        sealed => sealed,
    }
}

/// The seal of the store in the directory `path`, if there is one.
pub(in crate::store) fn read_seal(path: &Path) -> Result<Option<Seal>, StoreError> {
    let bytes = match fs::read(path.join(SEAL)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read", error)),
    };
    let seal: Seal = serde_json::from_slice(&bytes).map_err(|error| {
        damaged(
            path,
            &format!("`{SEAL}` does not decode: {error}"),
            "put the file back from a backup, or remove it to go without its protection against lost data",
        )
    })?;
    known_format(path, seal.format, FORMAT)?;
    Ok(Some(seal))
}

/// What a store says of itself, under [`MARK`](super::keys::MARK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Mark {
    pub format: u32,
    /// The number of the latest batch.
    pub batch: u64,
}

impl Mark {
    pub(in crate::store) fn encoded(batch: u64) -> Result<Vec<u8>, StoreError> {
        Codec::plain()
            .encode(Kind::Mark, keys::MARK, &Self { format: FORMAT, batch })
            .map_err(StoreError::unavailable)
    }

    /// Reads the mark of the store at `path`; one of a newer version is an error.
    pub(in crate::store) fn decoded(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let mark: Self = Codec::plain()
            .decode(Kind::Mark, keys::MARK, bytes)
            .map_err(|unread| unreadable(path, &format!("its mark cannot be read: {}", unread.reason)))?;
        known_format(path, mark.format, FORMAT)?;
        Ok(mark)
    }
}
