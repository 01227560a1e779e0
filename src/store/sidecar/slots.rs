//! One small value in a file, overwritten in place.
//!
//! Two slots, each on a page of its own, written in turn with a counter and a checksum. A write that is torn leaves the other slot,
//! which holds the value before it: and that one was not acknowledged yet.

use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sync_directory;
use crate::observe::{KnownBug, crash_point};
use crate::store::codec::{SEAL_BYTES, seal, unseal};

const VERSION: u8 = 1;
const SLOT_BYTES: usize = 4096;
/// Bytes before a sealed value: its length.
const LENGTH_BYTES: usize = 2;

/// The file, and the counter of its last write.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    file: File,
    context: &'static [u8],
    sequence: u64,
    value: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Slots<T> {
    /// Opens the file, or makes it, durably, without a value; gives the newest value in it. `context` tells one file's values from
    /// another's. A file of which neither slot is good is an error. Blocks.
    pub(crate) fn open(path: &Path, context: &'static [u8]) -> io::Result<(Slots<T>, Option<T>)> {
        if !path.exists() {
            create::<T>(path, context)?;
        }
        let file = File::options().read(true).write(true).open(path)?;
        let mut newest: Option<(u64, Option<T>)> = None;
        for slot in 0..2 {
            match read(&file, slot, context)? {
                Slot::Empty => {}
                Slot::Damaged => tracing::warn!(path = %path.display(), slot, "one of the two copies in this file is damaged"),
                Slot::Good(sequence, value) => {
                    if newest.as_ref().is_none_or(|(present, _)| *present < sequence) {
                        newest = Some((sequence, value));
                    }
                }
            }
        }
        let (sequence, value) = newest
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{}: both slots are damaged", path.display())))?;
        Ok((Slots { file, context, sequence, value: PhantomData }, value))
    }

    /// Overwrites the older slot. Survives the process, and a power cut only after [`Slots::sync`]. Blocks.
    pub(crate) fn write(&mut self, value: &T) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let page = encode(self.context, sequence, Some(value))?;
        self.file.write_all_at(&page, sequence % 2 * SLOT_BYTES as u64)?;
        self.sequence = sequence;
        Ok(())
    }

    /// Overwrites both slots with `value`, one after the other; durable when this returns. A slot that is damaged later leaves the other,
    /// with the same value: for what must never go back. Blocks.
    pub(crate) fn write_twice(&mut self, value: &T) -> io::Result<()> {
        self.write(value)?;
        self.sync()?;
        crash_point("vote-once");
        self.write(value)?;
        self.sync()
    }

    /// Makes the last write durable. Never to be tried again after an error. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if KnownBug::VoteNotSynced.is_on() && self.context == b"vote" {
            return Ok(());
        }
        self.file.sync_data()
    }
}

/// Makes the file under another name first, so that a crash in between leaves none, and no doubt whether a vote was lost.
fn create<T: Serialize>(path: &Path, context: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary)?;
    file.write_all_at(&encode::<T>(context, 0, None)?, 0)?;
    file.set_len(2 * SLOT_BYTES as u64)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// A whole slot.
fn encode<T: Serialize>(context: &[u8], sequence: u64, value: Option<&T>) -> io::Result<Vec<u8>> {
    let sealed = seal(VERSION, context, &(sequence, value))?;
    let length = u16::try_from(sealed.len()).ok().filter(|&length| usize::from(length) + LENGTH_BYTES <= SLOT_BYTES);
    let length = length.ok_or_else(|| io::Error::other("a value larger than its slot"))?;
    let mut page = length.to_le_bytes().to_vec();
    page.extend_from_slice(&sealed);
    page.resize(SLOT_BYTES, 0);
    Ok(page)
}

/// What a slot holds.
enum Slot<T> {
    /// Nothing was written to it yet.
    Empty,
    /// A torn write, or a damaged one.
    Damaged,
    /// The number of its write, and its value.
    Good(u64, Option<T>),
}

fn read<T: DeserializeOwned>(file: &File, slot: u64, context: &[u8]) -> io::Result<Slot<T>> {
    let mut page = Vec::with_capacity(SLOT_BYTES);
    let mut buffer = [0; SLOT_BYTES];
    let start = slot * SLOT_BYTES as u64;
    while page.len() < SLOT_BYTES {
        let count = file.read_at(&mut buffer[..SLOT_BYTES - page.len()], start + page.len() as u64)?;
        if count == 0 {
            break;
        }
        page.extend_from_slice(&buffer[..count]);
    }
    if page.len() == SLOT_BYTES && page.iter().all(|&byte| byte == 0) {
        return Ok(Slot::Empty);
    }
    let Some((length, rest)) = page.split_first_chunk::<LENGTH_BYTES>() else { return Ok(Slot::Damaged) };
    let length = usize::from(u16::from_le_bytes(*length));
    let sealed = rest.get(..length).filter(|sealed| sealed.len() > SEAL_BYTES);
    Ok(match sealed.and_then(|sealed| unseal(VERSION, context, sealed).ok()) {
        Some((sequence, value)) => Slot::Good(sequence, value),
        None => Slot::Damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_value_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vote");
        let (mut slots, none) = Slots::<u64>::open(&path, b"vote").unwrap();
        assert_eq!(none, None);
        for value in 1..=7u64 {
            slots.write(&value).unwrap();
        }
        slots.sync().unwrap();
        // The seventh write went to the second page; half of it is torn away, then all of it.
        for torn_from in [7, 0] {
            slots.file.write_all_at(&[0xee; 64], SLOT_BYTES as u64 + torn_from).unwrap();
            let (mut again, value) = Slots::<u64>::open(&path, b"vote").unwrap();
            assert_eq!(value, Some(6));
            again.write(&7).unwrap();
        }
        assert_eq!(Slots::<u64>::open(&path, b"vote").unwrap().1, Some(7));
    }

    #[test]
    fn a_value_that_was_written_twice_survives_damage_to_either_slot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vote");
        let (mut slots, _) = Slots::<u64>::open(&path, b"vote").unwrap();
        for value in 1..=5u64 {
            slots.write_twice(&value).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for slot in 0..2 {
            let mut damaged = whole.clone();
            damaged[slot * SLOT_BYTES + 6] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(Slots::<u64>::open(&path, b"vote").unwrap().1, Some(5), "slot {slot}");
        }
    }

    #[test]
    fn two_damaged_slots_and_another_files_value_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        let (mut slots, _) = Slots::<u64>::open(&path, b"mark").unwrap();
        slots.write(&1).unwrap();
        assert!(Slots::<u64>::open(&path, b"vote").is_err());
        slots.file.write_all_at(&[0xee; 2 * SLOT_BYTES], 0).unwrap();
        let error = Slots::<u64>::open(&path, b"mark").unwrap_err();
        assert!(error.to_string().contains("both slots"), "{error}");
    }
}
