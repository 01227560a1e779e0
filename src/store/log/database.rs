//! The log's file, in the terms of the log.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::file::{Batch, Key, LogFile, Pairs};
use super::keys::{EntryAssembler, decode_log_id, index_of, part_keys};
use crate::store::types::{Entry, LogId};

/// The log's file, open.
#[derive(Debug)]
pub(crate) struct Database {
    file: Arc<dyn LogFile>,
    /// Makes every sync fail, as a broken disk does.
    #[cfg(test)]
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

impl Database {
    /// On a file.
    pub(crate) fn new(file: Arc<dyn LogFile>) -> Database {
        Database {
            file,
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Writes `batch`, atomically; durable after [`Database::sync`].
    pub(crate) fn apply(&self, batch: Batch) -> io::Result<()> {
        self.file.apply(batch)
    }

    /// Makes all that was applied durable. Never to be tried again after an error.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("injected: the disk is broken"));
        }
        self.file.sync().await
    }

    /// The log id under `key`.
    pub(crate) fn log_id(&self, key: &[u8]) -> io::Result<Option<LogId>> {
        let value = self.file.get(key)?;
        Ok(value.map(|value| decode_log_id(key, &value)).transpose()?)
    }

    /// The entries `indexes` in order, each with its size. Goes over holes; what is damaged is an error that names the index.
    pub(crate) fn entries(&self, indexes: RangeInclusive<u64>) -> Entries {
        Entries { parts: self.file.pairs(part_keys(indexes), false), assembler: None, byte_count: 0 }
    }

    /// At most `count` keys of the entries `indexes`, the first ones or the last ones.
    pub(crate) fn keys(&self, indexes: RangeInclusive<u64>, count: usize, from_end: bool) -> io::Result<Vec<Key>> {
        self.file.pairs(part_keys(indexes), from_end).take(count).map(|pair| pair.map(|(key, _)| key)).collect()
    }

    /// Bytes that the database takes on disk.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        self.file.disk_bytes()
    }
}

/// Iterator over entries; see [`Database::entries`].
pub(crate) struct Entries {
    parts: Pairs,
    assembler: Option<(u64, EntryAssembler)>,
    byte_count: usize,
}

impl Iterator for Entries {
    type Item = io::Result<(Entry, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = match self.parts.next().transpose() {
                Ok(Some(part)) => part,
                Ok(None) => {
                    return self.assembler.take().map(|(index, _)| Err(damaged(index, &"its last parts are missing")));
                }
                Err(error) => return Some(Err(error)),
            };
            match self.add(&part.0, &part.1) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok((entry, std::mem::take(&mut self.byte_count)))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Entries {
    fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<Option<Entry>> {
        let index = index_of(key).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "log: a key that is none"))?;
        let (index, assembler) = self.assembler.get_or_insert_with(|| (index, EntryAssembler::new(index)));
        self.byte_count += value.len();
        let entry = assembler.add(key, value).map_err(|error| damaged(*index, &error))?;
        if entry.is_some() {
            self.assembler = None;
        }
        Ok(entry)
    }
}

/// The error for a damaged entry.
pub(crate) fn damaged(index: u64, reason: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index} is damaged: {reason}"))
}
