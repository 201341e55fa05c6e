//! The identity of a store: what its sealed records are bound to.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Disk, keys};
use crate::store::StoreError;
use crate::store::envelope::{Codec, Kind};

#[derive(Serialize, Deserialize)]
struct Identity {
    /// In hexadecimal digits.
    store: String,
}

/// The identity that is there.
pub(super) fn find<D: Disk + ?Sized>(disk: &D) -> Result<Option<Uuid>, StoreError> {
    let Some(bytes) = disk.get(keys::IDENTITY)? else { return Ok(None) };
    let identity = Codec::plain().decode::<Identity>(Kind::Identity, keys::IDENTITY, &bytes);
    let identity = identity.map_err(|unread| unread.reason);
    let identity = identity.and_then(|it| Uuid::parse_str(&it.store).map_err(|error| error.to_string()));
    identity.map(Some).map_err(|reason| StoreError::Damaged {
        place: "the identity of the store".to_owned(),
        reason,
        advice: "restore the store from an export".to_owned(),
    })
}

/// The row of an identity.
pub(super) fn row(identity: Uuid) -> Result<(Vec<u8>, Option<Vec<u8>>), StoreError> {
    let store = identity.simple().to_string();
    let bytes = Codec::plain().encode(Kind::Identity, keys::IDENTITY, &Identity { store });
    Ok((keys::IDENTITY.to_vec(), Some(bytes.map_err(StoreError::unavailable)?)))
}

/// The identity, made at random when there is none.
pub(super) fn establish<D: Disk>(disk: &mut D) -> Result<Uuid, StoreError> {
    if let Some(identity) = find(disk)? {
        return Ok(identity);
    }
    let identity = Uuid::new_v4();
    disk.apply(vec![row(identity)?])?;
    disk.sync()?;
    disk.tidy()?;
    Ok(identity)
}
