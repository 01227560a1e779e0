//! sled, and what it takes to make it durable.
//!
//! `flush()` writes sled's buffers but calls `sync_file_range`, which is no fsync (sled#1452). So a second descriptor on `<path>/db` is
//! opened at the start, and a commit is: apply the batch, `flush()`, then fdatasync on that descriptor. `conf`, the directory and its
//! parent are synced once after opening: a lost `conf` alone stops recovery. `flush_async` can deadlock (sled#1241, #1308), so all
//! calls block and run on threads of their own. The periodic flusher stays on, for without it sled gives no space back.
//!
//! Damage in the middle of the file makes sled panic: every call here that may meet it turns the panic into an error.

use std::fs::{self, File};
use std::future::ready;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sled::Db;

use super::file::{Batch, Key, LogFile, Pairs};
use super::panic_message;
use crate::observe::{KnownBug, delay_sync};
use crate::store::sidecar::sync_directory;

/// sled's page cache. Recent entries are read from memory, so that it has little to do.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const FLUSH_EVERY_MS: u64 = 500;
/// How long a lock of sled's may take to go.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The log's file, open.
#[derive(Debug)]
pub(crate) struct SledFile {
    db: Db,
    sync_file: File,
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

impl SledFile {
    /// Opens or makes the database in `path`. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<SledFile> {
        fs::create_dir_all(path)?;
        remove_unfinished_snapshots(path)?;
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = open_unlocked(&config)?;
        let sync_file = File::options().write(true).open(path.join("db"))?;
        sync_file.sync_all()?;
        File::open(path.join("conf"))?.sync_all()?;
        sync_directory(path)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(SledFile { db, sync_file })
    }

    fn flush_and_sync(&self) -> io::Result<()> {
        self.db.flush()?;
        delay_sync();
        if KnownBug::FlushWithoutSync.is_on() {
            return Ok(());
        }
        self.sync_file.sync_data()
    }
}

impl LogFile for SledFile {
    fn apply(&self, batch: Batch) -> io::Result<()> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        Ok(self.db.apply_batch(changes)?)
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        ready(self.flush_and_sync()).boxed()
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = catch("read", || Ok(self.db.get(key)?))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn pairs(&self, keys: RangeInclusive<Key>, backwards: bool) -> Pairs {
        let mut pairs = self.db.range(keys);
        Box::new(std::iter::from_fn(move || {
            let pair = catch("read", || Ok(if backwards { pairs.next_back() } else { pairs.next() }.transpose()?));
            pair.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).transpose()
        }))
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.db.size_on_disk()?)
    }
}

/// Runs `work` and makes a panic of sled an error.
fn catch<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("log: {what}: sled panicked: {}", panic_message(panic.as_ref()))))
    })
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
