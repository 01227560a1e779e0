//! sled, and what it takes to make it durable.
//!
//! `flush()` writes sled's buffers but calls `sync_file_range`, which is no fsync (sled#1452). So a second descriptor on `<path>/db` is
//! opened at the start, and a commit is: apply the batch, `flush()`, then fdatasync on that descriptor. `conf`, the directory and its
//! parent are synced once after opening: a lost `conf` alone stops recovery. `flush_async` can deadlock (sled#1241, #1308), so all
//! calls block and run on threads of their own. The periodic flusher stays on, for without it sled gives no space back.
//!
//! Damage in the middle of the file makes sled panic: every call here that may meet it turns the panic into an error.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sled::{Batch, Db};

use super::keys::{EntryAssembler, decode_log_id, index_of, part_keys};
use crate::observe::KnownBug;
use crate::store::sidecar::sync_directory;
use crate::store::types::{Entry, LogId};

/// sled's page cache. Recent entries are read from memory, so that it has little to do.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const FLUSH_EVERY_MS: u64 = 500;
/// How long a lock of sled's may take to go.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The log's database, open.
#[derive(Debug)]
pub(crate) struct Database {
    db: Db,
    sync_file: File,
    /// Makes every sync fail, as a broken disk does.
    #[cfg(test)]
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

/// The data directory's own lock is held already, so sled's can only be one that is about to go: of a database in this process that closes,
/// or of a child process between its fork and its exec, which has inherited the descriptor.
fn open_unlocked(config: &sled::Config) -> io::Result<Db> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match catch("open", || Ok(config.open()?)) {
            Err(error) if error.to_string().contains("could not acquire lock") && Instant::now() < deadline => {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

impl Database {
    /// Opens or makes the database in `path`. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<Database> {
        fs::create_dir_all(path)?;
        remove_unfinished_snapshots(path)?;
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = open_unlocked(&config)?;
        let sync_file = File::options().write(true).open(path.join("db"))?;
        sync_file.sync_all()?;
        File::open(path.join("conf"))?.sync_all()?;
        sync_directory(path)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Database {
            db,
            sync_file,
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Writes `batch`, atomically; durable after [`Database::sync`].
    pub(crate) fn apply(&self, batch: Batch) -> io::Result<()> {
        Ok(self.db.apply_batch(batch)?)
    }

    /// Makes all that was applied durable. Never to be tried again after an error.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        #[cfg(test)]
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("injected: the disk is broken"));
        }
        if KnownBug::FlushWithoutSync.is_on() {
            return Ok(());
        }
        self.sync_file.sync_data()
    }

    /// The log id under `key`.
    pub(crate) fn log_id(&self, key: &[u8]) -> io::Result<Option<LogId>> {
        let value = catch("read", || Ok(self.db.get(key)?))?;
        Ok(value.map(|value| decode_log_id(key, &value)).transpose()?)
    }

    /// The entries `indexes` in order, each with its size. Goes over holes; what is damaged is an error that names the index.
    pub(crate) fn entries(&self, indexes: RangeInclusive<u64>) -> Entries {
        Entries { parts: self.db.range(part_keys(indexes)), assembler: None, byte_count: 0 }
    }

    /// At most `count` keys of the entries `indexes`, the first ones or the last ones.
    pub(crate) fn keys(&self, indexes: RangeInclusive<u64>, count: usize, from_end: bool) -> io::Result<Vec<sled::IVec>> {
        catch("read", || {
            let parts = self.db.range(part_keys(indexes)).keys();
            let keys: Result<_, sled::Error> =
                if from_end { parts.rev().take(count).collect() } else { parts.take(count).collect() };
            Ok(keys?)
        })
    }

    /// Bytes that the database takes on disk.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.db.size_on_disk()?)
    }
}

/// Iterator over entries; see [`Database::entries`].
pub(crate) struct Entries {
    parts: sled::Iter,
    assembler: Option<(u64, EntryAssembler)>,
    byte_count: usize,
}

impl Iterator for Entries {
    type Item = io::Result<(Entry, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = match catch("read", || Ok(self.parts.next().transpose()?)) {
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

/// Runs `work` and makes a panic of sled an error.
fn catch<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("log: {what}: sled panicked: {}", panic_message(panic.as_ref()))))
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// sled's own snapshots that a crash left half-written can stop its recovery (sled#1527).
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
