//! Every key space of the log's sled database, on one page. There is one tree, the default one.
//!
//! | key | value | written |
//! |---|---|---|
//! | `e` index:u64 part:u32 (big-endian) | one part of an entry | by append, synced before its callback |
//! | `m` `committed` | the committed log id | in order with the appends, at the latest 50 ms after the last one |
//! | `m` `purged` | the last purged log id | synced before any entry up to it is removed |
//!
//! A value is sealed (version, CRC-32C, body), its key being part of the checksum. An entry's bytes are cut into parts of at most
//! [`PART_BYTES_MAX`]; each part's body begins with the number of parts, so that a lost tail of parts shows.
//!
//! Why parts are so small: sled keeps up to 17 items in a page, and a page over 128 KiB goes to a blob file *which sled never syncs*.
//! Seventeen full parts make 70 KiB, so that no page ever does; a test looks for blob files.

use std::ops::RangeInclusive;

use openraft::entry::RaftEntry;

use super::super::codec::{CodecError, decode_body, encode_into, seal, seal_bytes, unseal, unseal_bytes};
use super::super::format::{DiskEntry, DiskLogId};
use super::super::types::{Entry, LogId};
use super::file::Key;

/// Where the committed log id stands.
pub(crate) const COMMITTED: &[u8] = b"mcommitted";
/// Where the last purged log id stands.
pub(crate) const PURGED: &[u8] = b"mpurged";

/// Bytes of an entry in one value, at most.
pub(crate) const PART_BYTES_MAX: usize = 4096;

const VERSION: u8 = 1;
const ENTRY_PREFIX: u8 = b'e';
const COUNT_BYTES: usize = 4;

/// The key of an entry's part.
pub(crate) type PartKey = [u8; 13];

/// The key of part `part` of the entry at `index`.
pub(crate) fn part_key(index: u64, part: u32) -> PartKey {
    let mut key = [ENTRY_PREFIX; 13];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The keys of all parts of the entries `indexes`.
pub(crate) fn part_keys(indexes: RangeInclusive<u64>) -> RangeInclusive<Key> {
    part_key(*indexes.start(), 0).to_vec()..=part_key(*indexes.end(), u32::MAX).to_vec()
}

/// The index in the key of a part.
pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

/// An entry as keys and values.
pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<(PartKey, Vec<u8>)>, CodecError> {
    let mut bytes = Vec::new();
    encode_into(&DiskEntry::from(entry), &mut bytes)?;
    let index = entry.log_id.index;
    let parts = bytes.chunks(PART_BYTES_MAX);
    let count = u32::try_from(parts.len()).map_err(|_| CodecError::Body("an entry of over 16 TiB".to_owned()))?;
    let encode_part = |(part, chunk): (u32, &[u8])| {
        let key = part_key(index, part);
        let mut body = Vec::with_capacity(COUNT_BYTES + chunk.len());
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(chunk);
        (key, seal_bytes(VERSION, &key, &body))
    };
    Ok((0..count).zip(parts).map(encode_part).collect())
}

/// Puts an entry together again, part by part.
#[derive(Debug)]
pub(crate) struct EntryAssembler {
    index: u64,
    bytes: Vec<u8>,
    parts_seen: u32,
}

impl EntryAssembler {
    /// For the entry at `index`.
    pub(crate) fn new(index: u64) -> EntryAssembler {
        EntryAssembler { index, bytes: Vec::new(), parts_seen: 0 }
    }

    /// Takes the next part; gives the entry with its last one.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Entry>, CodecError> {
        if key != part_key(self.index, self.parts_seen) {
            return Err(CodecError::Body(format!("part {} is missing", self.parts_seen)));
        }
        let body = unseal_bytes(VERSION, key, value)?;
        let (count, chunk) = body.split_first_chunk::<COUNT_BYTES>().ok_or(CodecError::Short(value.len()))?;
        self.bytes.extend_from_slice(chunk);
        self.parts_seen += 1;
        if self.parts_seen < u32::from_le_bytes(*count) {
            return Ok(None);
        }
        let entry = decode_body::<DiskEntry>(&self.bytes)?.into_entry()?;
        if entry.index() != self.index {
            return Err(CodecError::Body(format!("it says index {}", entry.index())));
        }
        Ok(Some(entry))
    }
}

/// A log id as the value of `key`.
pub(crate) fn encode_log_id(key: &[u8], log_id: LogId) -> Result<Vec<u8>, CodecError> {
    seal(VERSION, key, &DiskLogId::from(log_id))
}

/// The log id in the value of `key`.
pub(crate) fn decode_log_id(key: &[u8], value: &[u8]) -> Result<LogId, CodecError> {
    unseal::<DiskLogId>(VERSION, key, value).map(LogId::from)
}
