//! Records sealed with keys.
//!
//! ```text
//! byte 0–2     kind, version, codec x
//! byte 3–10    id of the key
//! byte 11–34   nonce
//! byte 35–     XChaCha20-Poly1305 of the content, with its tag of 16 bytes
//! ```
//!
//! What is authenticated besides the content: bytes 0 to 10, the identity of the store, and the key
//! of the row, which has the kind of the record and the id of its task (and of its run). Nonces are
//! random: 24 bytes are long enough for that, however many records are written.

mod keys;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

#[cfg(feature = "config")]
pub(crate) use keys::is_key;
use keys::{ID, Key};
pub use keys::{KeyError, KeyId, Keyring, Keys};

use super::envelope::{HEAD, SEALED, Unread};
use super::message::Cause;

const NONCE: usize = 24;
/// Where the nonce begins; what comes before is authenticated.
const FRONT: usize = HEAD + ID;

/// Seals and opens the records of one store.
#[derive(Debug, Clone)]
pub(super) struct Cipher {
    pub keys: Keyring,
    /// The identity of the store.
    pub store: [u8; 16],
    pub refuse_plain: bool,
}

impl Cipher {
    /// Seals a plain record.
    pub(super) fn seal(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        let [kind, version, _, content @ ..] = plain else { return Err("it is no record".to_owned()) };
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let key = &self.keys.current;
        let mut sealed = Vec::with_capacity(FRONT + NONCE + content.len() + 16);
        sealed.extend([*kind, *version, SEALED]);
        sealed.extend(key.id.0);
        let aad = self.bound_to(&sealed, row);
        let content = cipher(key)
            .encrypt(&XNonce::from(nonce), Payload { msg: content, aad: &aad })
            .map_err(|_| "it could not be encrypted".to_owned())?;
        sealed.extend(nonce);
        sealed.extend(content);
        Ok(sealed)
    }

    /// The plain record in a sealed one.
    pub(super) fn unseal(&self, row: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Unread> {
        let Some((front, nonce, content)) = parts(bytes) else { return Err(cut_off(bytes)) };
        let id = key_of(front);
        let Some(key) = self.keys.find(id) else {
            let reason = format!(
                "its key is missing: it is encrypted with the key {id}, which is not among those of the store; give \
                 that key back"
            );
            return Err(Unread::new(Cause::UnknownKey, reason));
        };
        let aad = self.bound_to(front, row);
        let opened = cipher(key).decrypt(&XNonce::from(*nonce), Payload { msg: content, aad: &aad });
        let content = opened.map_err(|_| {
            let reason = "it was changed since it was encrypted, or copied here from another task or store";
            Unread::new(Cause::Forged, reason)
        })?;
        let mut plain = Vec::with_capacity(HEAD + content.len());
        plain.extend(front.iter().take(HEAD - 1));
        plain.push(b'j');
        plain.extend(content);
        Ok(plain)
    }

    /// Whether a record is sealed with the current key.
    pub(super) fn is_current(&self, bytes: &[u8]) -> bool {
        bytes.get(HEAD - 1) == Some(&SEALED) && bytes.get(HEAD..FRONT) == Some(&self.keys.current.id.0)
    }

    fn bound_to(&self, front: &[u8], row: &[u8]) -> Vec<u8> {
        [front, &self.store, row].concat()
    }
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&*key.bytes).into())
}

fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8; NONCE], &[u8])> {
    let (front, rest) = bytes.split_at_checked(FRONT)?;
    let (nonce, content) = rest.split_first_chunk()?;
    Some((front, nonce, content))
}

fn key_of(front: &[u8]) -> KeyId {
    KeyId(front.last_chunk().copied().unwrap_or_default())
}

fn cut_off(bytes: &[u8]) -> Unread {
    let reason = format!("it has {} bytes, too few for a record that is encrypted", bytes.len());
    Unread::new(Cause::Corrupt, reason)
}

/// A sealed record in a store that was given no keys.
pub(super) fn no_keys(bytes: &[u8]) -> Unread {
    match parts(bytes) {
        Some((front, ..)) => {
            let id = key_of(front);
            let reason = format!(
                "its key is missing: it is encrypted with the key {id}, and the store was given no keys"
            );
            Unread::new(Cause::UnknownKey, reason)
        }
        None => cut_off(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(ring: &Keyring) -> Cipher {
        Cipher { keys: ring.clone(), store: [7; 16], refuse_plain: false }
    }

    fn ring() -> Keyring {
        Keyring::generate().unwrap()
    }

    #[test]
    fn only_the_same_row_of_the_same_store_opens_it() {
        let keyring = ring();
        let here = cipher(&keyring);
        let plain = b"S\x01j{\"secret\":true}";
        let sealed = here.seal(b"sa", plain).unwrap();
        assert_eq!(here.unseal(b"sa", &sealed).unwrap(), plain);
        assert_ne!(here.seal(b"sa", plain).unwrap(), sealed, "nonces differ");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(here.unseal(b"sb", &sealed).unwrap_err().cause, Cause::Forged);
        assert_eq!(here.unseal(b"ta", &sealed).unwrap_err().cause, Cause::Forged);
        let there = Cipher { store: [8; 16], ..here.clone() };
        assert_eq!(there.unseal(b"sa", &sealed).unwrap_err().cause, Cause::Forged);
        let unread = cipher(&ring()).unseal(b"sa", &sealed).unwrap_err();
        assert_eq!(unread.cause, Cause::UnknownKey);
        assert!(unread.reason.contains(&keyring.current().to_string()), "{}", unread.reason);
    }

    #[test]
    fn every_bit_counts() {
        let here = cipher(&ring());
        let sealed = here.seal(b"sa", b"S\x01j{}").unwrap();
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            here.unseal(b"sa", &broken).unwrap_err();
            here.unseal(b"sa", &sealed[..at]).unwrap_err();
        }
    }

    #[test]
    fn older_keys_open_and_the_current_one_seals() {
        let (old, new) = (ring(), ring());
        let sealed = cipher(&old).seal(b"sa", b"S\x01j{}").unwrap();
        let both = cipher(&new.clone().older(&old));
        assert_eq!(both.unseal(b"sa", &sealed).unwrap(), b"S\x01j{}");
        assert!(!both.is_current(&sealed));
        let again = both.seal(b"sa", b"S\x01j{}").unwrap();
        assert!(both.is_current(&again) && cipher(&new).unseal(b"sa", &again).is_ok());
    }
}
