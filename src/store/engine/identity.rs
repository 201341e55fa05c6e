//! The identity of a store: what its sealed records are bound to, and what tells it from another one
//! that lies where it was. A store is not its path.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::load::gone;
use super::whereabouts::replaced;
use super::{Disk, Order, Place, keys};
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

/// What a row of a database says that may be another store's.
#[cfg(any(feature = "sled", feature = "redb"))]
pub(in crate::store) fn identity_in(row: Option<&[u8]>) -> Option<Uuid> {
    let identity = Codec::plain().decode::<Identity>(Kind::Identity, keys::IDENTITY, row?).ok()?;
    Uuid::parse_str(&identity.store).ok()
}

/// The row of an identity.
pub(super) fn row(identity: Uuid) -> Result<(Vec<u8>, Option<Vec<u8>>), StoreError> {
    let store = identity.simple().to_string();
    let bytes = Codec::plain().encode(Kind::Identity, keys::IDENTITY, &Identity { store });
    Ok((keys::IDENTITY.to_vec(), Some(bytes.map_err(StoreError::unavailable)?)))
}

/// The identity, made at random when there is none.
pub(super) fn establish<D: Disk>(disk: &mut D) -> Result<Uuid, StoreError> {
    let identity = match find(disk)? {
        Some(identity) => identity,
        None => give(disk, Uuid::new_v4())?,
    };
    disk.set_identity(identity)?;
    Ok(identity)
}

/// An error unless the disk is that of the store `known`, which was open before. One that was written
/// before stores had identities may be a backup of it, and is given this one, unless it is empty.
pub(super) fn recognize<P: Place>(disk: &mut P::Disk, known: Uuid, place: &P) -> Result<(), StoreError> {
    match find(disk)? {
        Some(found) if found == known => {}
        Some(_) => return Err(replaced(place.path(), "another store is there")),
        None if is_empty(disk)? => return Err(replaced(place.path(), "an empty store is there")),
        None => drop(give(disk, known)?),
    }
    disk.set_identity(known)
}

fn give<D: Disk>(disk: &mut D, identity: Uuid) -> Result<Uuid, StoreError> {
    disk.apply(vec![row(identity)?])?;
    disk.sync()?;
    disk.tidy()?;
    Ok(identity)
}

/// Whether it knows of no task.
fn is_empty<D: Disk>(disk: &D) -> Result<bool, StoreError> {
    let mut empty = gone(disk)?.is_empty();
    for prefix in [keys::SPEC, keys::STATE, keys::RUN] {
        disk.scan(prefix, Order::Ascending, &mut |_, _| {
            empty = false;
            std::ops::ControlFlow::Break(())
        })?;
    }
    Ok(empty)
}
