//! Sealing: secrets of resources under a key that each node is given, so that what is replicated and stored holds none in plain text.
//!
//! The node that admits a write seals its secrets before anything is proposed; every node opens them where it compiles its table. The log,
//! snapshots, history and backups hold the sealed form alone, and reads show a digest.
//!
//! A key file holds 32 random bytes. Three things are derived from them (HKDF-SHA256, RFC 5869): the key of the cipher (AES-256-GCM, a random
//! nonce each time), the key of the digest, and the id by which a sealed value names its key. The digest is an HMAC, so that nobody without
//! the key can try guesses on it. What authenticates a sealed value covers its place (kind, name and field) and its digest: it opens in no
//! other resource.
//!
//! Absent on purpose: keys in the replicated State, wrapped or not (who holds a node's disk would hold them too), and any other way in but
//! files that the configuration names.

mod file;
mod key;
mod keyring;

pub use file::{KeyFileError, create_key_file};
pub use keyring::{Keyring, OpenError, Place, SealError};
