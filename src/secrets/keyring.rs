//! The keys of a node: one that seals, and those that open what others sealed.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use super::file::{KeyFileError, read_key};
use super::key::Key;
use crate::model::spec::SealedSecret;
use crate::model::{Kind, Name};

/// Where a secret stands. A sealed one opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Of the resource.
    pub kind: Kind,
    /// Of the resource.
    pub name: &'a Name,
    /// Of its spec.
    pub field: &'a str,
}

impl Place<'_> {
    /// Neither kinds, names nor fields hold a zero byte, so that no two places run together.
    fn bytes(&self) -> Vec<u8> {
        [self.kind.as_str(), self.name.as_str(), self.field].join("\0").into_bytes()
    }
}

/// Why a secret cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// No key is configured.
    #[error(
        "this node has no key to seal it with: set `secrets.key_file` (raftgate secrets new-key FILE makes one) on every node"
    )]
    NoKey,
    /// No random bytes.
    #[error("the system's cryptography failed")]
    Cryptography,
}

/// Why a sealed secret cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It was sealed with a key that this node does not have.
    #[error(
        "it is sealed with the key {key_id}, which this node does not have: name its file in `secrets.key_file` or \
         `secrets.previous_key_files`"
    )]
    UnknownKey {
        /// Which key.
        key_id: String,
    },
    /// It was changed, or belongs to another resource.
    #[error("it is not what the key {key_id} sealed here: it was changed, or comes from another resource")]
    Tampered {
        /// Which key.
        key_id: String,
    },
}

/// A node's keys.
#[derive(Default)]
pub struct Keyring {
    /// The first one seals.
    keys: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Keyring {
    /// Reads the key that seals, and those that were used before. Warns about files that others can read.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or holds no key.
    pub fn load(key_file: Option<&Path>, previous: &[PathBuf]) -> Result<Keyring, KeyFileError> {
        let files = key_file.into_iter().chain(previous.iter().map(PathBuf::as_path));
        Ok(Keyring { keys: files.map(read_key).collect::<Result<_, _>>()? })
    }

    /// A keyring whose keys are made of one byte each, for tests.
    #[cfg(test)]
    pub(crate) fn of_bytes(bytes: &[u8]) -> Keyring {
        let key = |byte: &u8| Key::derive(&[*byte; super::key::KEY_BYTES]).expect("a key");
        Keyring { keys: bytes.iter().map(key).collect() }
    }

    /// Whether it can seal.
    pub fn can_seal(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The ids of its keys; the first one seals.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Seals `plain` for `place`. Where `stored` is this very secret, sealed with the key that seals now, it stays as it is: a write that
    /// changes nothing makes no revision.
    ///
    /// # Errors
    ///
    /// There is no key.
    pub fn seal(&self, place: Place<'_>, plain: &str, stored: Option<&SealedSecret>) -> Result<SealedSecret, SealError> {
        let key = self.keys.first().ok_or(SealError::NoKey)?;
        let at = place.bytes();
        let digest = key.digest(&at, plain.as_bytes());
        if let Some(stored) = stored
            && stored.key_id == key.id
            && stored.digest == digest
            && self.open(place, stored).is_ok()
        {
            return Ok(stored.clone());
        }
        let sealed = key.seal(&SystemRandom::new(), &about(&at, &digest), plain.as_bytes());
        let sealed = sealed.map_err(|_| SealError::Cryptography)?;
        Ok(SealedSecret { sealed: STANDARD.encode(sealed), key_id: key.id.clone(), digest })
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    ///
    /// The key is not here, or it is not what was sealed.
    pub fn open(&self, place: Place<'_>, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let key_id = || sealed.key_id.clone();
        let key = self.keys.iter().find(|key| key.id == sealed.key_id);
        let key = key.ok_or_else(|| OpenError::UnknownKey { key_id: key_id() })?;
        let text = STANDARD.decode(&sealed.sealed).map_err(|_| OpenError::Tampered { key_id: key_id() })?;
        key.open(&about(&place.bytes(), &sealed.digest), &text).map_err(|_| OpenError::Tampered { key_id: key_id() })
    }

    /// A digest of `bytes` that nobody without the key that seals can try guesses on; `None`: there is no key.
    pub fn fingerprint(&self, bytes: &[u8]) -> Option<String> {
        Some(self.keys.first()?.digest(b"fingerprint", bytes))
    }
}

/// What authenticates a sealed secret beside its text.
fn about(place: &[u8], digest: &str) -> Vec<u8> {
    [place, b"\0", digest.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "-----BEGIN PRIVATE KEY-----";

    fn place<'a>(name: &'a Name, field: &'a str) -> Place<'a> {
        Place { kind: Kind::Certificate, name, field }
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let ring = Keyring::of_bytes(&[1, 2]);
        let sealed = ring.seal(place(&a, "f"), PLAIN, None).unwrap();
        assert_eq!(ring.open(place(&a, "f"), &sealed).unwrap().as_slice(), PLAIN.as_bytes());
        let tampered = |place, sealed: &SealedSecret| {
            assert!(matches!(ring.open(place, sealed), Err(OpenError::Tampered { .. })), "{place:?} {sealed:?}");
        };
        tampered(place(&b, "f"), &sealed);
        tampered(place(&a, "g"), &sealed);
        tampered(Place { kind: Kind::Service, ..place(&a, "f") }, &sealed);
        tampered(
            place(&a, "f"),
            &SealedSecret { digest: ring.seal(place(&a, "f"), "x", None).unwrap().digest, ..sealed.clone() },
        );
        let other = ring.key_ids().nth(1).unwrap().to_owned();
        tampered(place(&a, "f"), &SealedSecret { key_id: other, ..sealed.clone() });
        for text in ["", "AA==", "not base64"] {
            tampered(place(&a, "f"), &SealedSecret { sealed: text.to_owned(), ..sealed.clone() });
        }
        let bytes = STANDARD.decode(&sealed.sealed).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            tampered(place(&a, "f"), &SealedSecret { sealed: STANDARD.encode(changed), ..sealed.clone() });
        }
    }

    #[test]
    fn the_same_secret_stays_sealed_as_it_is_until_the_key_changes() {
        let name = Name::new("a").unwrap();
        let at = place(&name, "f");
        let (old, both) = (Keyring::of_bytes(&[1]), Keyring::of_bytes(&[2, 1]));
        let sealed = old.seal(at, PLAIN, None).unwrap();
        assert_eq!(old.seal(at, PLAIN, Some(&sealed)).unwrap(), sealed);
        assert_ne!(old.seal(at, PLAIN, None).unwrap().sealed, sealed.sealed, "each nonce is another one");
        let changed = old.seal(at, "other", Some(&sealed)).unwrap();
        assert_ne!(changed.digest, sealed.digest);
        assert_eq!(both.open(at, &sealed).unwrap().as_slice(), PLAIN.as_bytes());
        let again = both.seal(at, PLAIN, Some(&sealed)).unwrap();
        assert_ne!((&again.key_id, &again.digest), (&sealed.key_id, &sealed.digest));
        assert_eq!(old.open(at, &again), Err(OpenError::UnknownKey { key_id: again.key_id.clone() }));
        assert_eq!(Keyring::default().seal(at, PLAIN, None), Err(SealError::NoKey));
        let damaged = SealedSecret { sealed: "AAAA".to_owned(), ..sealed };
        assert_ne!(old.seal(at, PLAIN, Some(&damaged)).unwrap().sealed, damaged.sealed, "what does not open is not kept");
    }

    #[test]
    fn equal_secrets_have_unlike_digests_in_unlike_places() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let ring = Keyring::of_bytes(&[1]);
        let digest = |name| ring.seal(place(name, "f"), PLAIN, None).unwrap().digest;
        assert_ne!(digest(&a), digest(&b));
        assert!(!format!("{ring:?}").contains("cipher"));
    }
}
