//! Bytes that outlive a version of this program.
//!
//! A *command* in the log and on the wire: a version byte, then bincode of [`Command`]. An unknown version is an error, and since
//! every node would have to apply the command, it stops the node that meets it (etcd and CockroachDB do the same).
//!
//! A *sealed* value on disk: a version byte, the CRC-32C of everything else, then bincode of a plain struct of [`super::format`].
//! bincode appends nothing and skips nothing: a changed struct is a new version, read by a branch of its own.

use bincode::config::{Configuration, standard};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::model::Command;

/// The version of [`Command`]'s encoding that this node writes and the only one that it reads.
const COMMAND_VERSION: u8 = 1;

/// Bytes before the body of a sealed value: version and checksum.
pub(crate) const SEAL_BYTES: usize = 5;

/// Why bytes are not what they should be.
#[derive(Debug, Error)]
pub enum CodecError {
    /// Fewer bytes than the smallest value has.
    #[error("cut short: {0} bytes")]
    Short(usize),
    /// Written by a later version of this program.
    #[error("version {found} is not known here, only {known}")]
    Version {
        /// What the bytes say.
        found: u8,
        /// What this node knows.
        known: u8,
    },
    /// Damaged.
    #[error("checksum {found:08x} differs from {expected:08x}")]
    Checksum {
        /// The checksum of the bytes.
        found: u32,
        /// What it was when they were written.
        expected: u32,
    },
    /// The checksum is right and the content is not.
    #[error("not decodable: {0}")]
    Body(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// A command as the log carries it.
pub fn encode_command(command: &Command) -> Result<Bytes, CodecError> {
    let mut bytes = vec![COMMAND_VERSION];
    encode_into(command, &mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// The command in `bytes`.
pub fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Short(0))?;
    if version != COMMAND_VERSION {
        return Err(CodecError::Version { found: version, known: COMMAND_VERSION });
    }
    decode_body(body)
}

/// `value` with a version and checksum before it. `context` goes into the checksum and is not stored: a value that turns up in
/// another place than it was written to does not pass.
pub(crate) fn seal(version: u8, context: &[u8], value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut body = Vec::new();
    encode_into(value, &mut body)?;
    Ok(seal_bytes(version, context, &body))
}

/// [`seal`] for bytes that are encoded already.
pub(crate) fn seal_bytes(version: u8, context: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEAL_BYTES + body.len());
    bytes.push(version);
    bytes.extend_from_slice(&checksum(version, context, body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The value that [`seal`] wrote.
pub(crate) fn unseal<T: DeserializeOwned>(version: u8, context: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    decode_body(unseal_bytes(version, context, bytes)?)
}

/// The bytes that [`seal_bytes`] wrote.
pub(crate) fn unseal_bytes<'a>(version: u8, context: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let ([found, stored @ ..], body) = bytes.split_first_chunk::<SEAL_BYTES>().ok_or(CodecError::Short(bytes.len()))?;
    let (expected, computed) = (u32::from_le_bytes(*stored), checksum(*found, context, body));
    if expected != computed {
        return Err(CodecError::Checksum { found: computed, expected });
    }
    if *found != version {
        return Err(CodecError::Version { found: *found, known: version });
    }
    Ok(body)
}

/// Appends bincode of `value`.
pub(crate) fn encode_into(value: &impl Serialize, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, bytes, configuration()).map(|_| ()).map_err(|e| CodecError::Body(e.to_string()))
}

/// The value whose bincode is exactly `body`.
pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::serde::borrow_decode_from_slice(body, configuration()).map_err(|error| CodecError::Body(error.to_string()))?;
    if used != body.len() {
        return Err(CodecError::Body(format!("{} bytes are left over", body.len() - used)));
    }
    Ok(value)
}

/// Little-endian, integers of variable length. Part of every format here: it must not change.
fn configuration() -> Configuration {
    standard()
}

fn checksum(version: u8, context: &[u8], body: &[u8]) -> u32 {
    let start = crc32c::crc32c_append(crc32c::crc32c(&[version]), context);
    crc32c::crc32c_append(start, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandBody, Timestamp};

    fn command() -> Command {
        Command { proposed_at: Timestamp(7), actor: "ops".to_owned(), body: CommandBody::RaiseFeatureLevel(3) }
    }

    #[test]
    fn a_command_comes_back_and_its_bytes_stay() {
        let bytes = encode_command(&command()).unwrap();
        assert_eq!(decode_command(&bytes).unwrap(), command());
        // The disk format: a change of these bytes is a new version.
        assert_eq!(&bytes[..], b"\x01\x07\x03ops\x01\x03");
    }

    #[test]
    fn an_unknown_or_damaged_command_is_an_error() {
        let bytes = encode_command(&command()).unwrap();
        let mut later = bytes.to_vec();
        later[0] = 2;
        assert!(matches!(decode_command(&later), Err(CodecError::Version { found: 2, known: 1 })));
        assert!(matches!(decode_command(b""), Err(CodecError::Short(0))));
        assert!(matches!(decode_command(&bytes[..bytes.len() - 1]), Err(CodecError::Body(_))));
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(decode_command(&longer), Err(CodecError::Body(_))));
    }

    #[test]
    fn a_sealed_value_shows_every_flipped_bit_and_every_other_place() {
        let sealed = seal(1, b"here", &42u64).unwrap();
        assert_eq!(unseal::<u64>(1, b"here", &sealed).unwrap(), 42);
        assert!(unseal::<u64>(1, b"there", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<u64>(1, b"here", &damaged).is_err(), "bit {bit}");
        }
    }
}
