//! The log's file: applied batches show at once, and a crash forgets some or all of those that no sync has covered.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use raftgate::store::{Batch, Key, LogFile, Pairs};
use serde::{Deserialize, Serialize};

use crate::record::Record;

const SYNC_MICROS: std::ops::Range<u64> = 200..4_000;
const SLOW_SYNC_MICROS: std::ops::Range<u64> = 20_000..300_000;

/// Whether a sync is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Honesty {
    Honest,
    /// A crash forgets synced batches too: what a flush without a sync is.
    Forgetful,
}

/// One node's disk. It outlives the node's crashes.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    node: u64,
    honesty: Honesty,
    record: Record,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug)]
struct Content {
    durable: BTreeMap<Key, Vec<u8>>,
    visible: BTreeMap<Key, Vec<u8>>,
    /// Applied and not covered by a sync, oldest first.
    unsynced: Vec<Batch>,
    slow: bool,
    random: fastrand::Rng,
    lost_batches: u64,
}

impl Disk {
    pub(crate) fn new(node: u64, honesty: Honesty, record: Record, random: fastrand::Rng) -> Disk {
        let content = Content {
            durable: BTreeMap::new(),
            visible: BTreeMap::new(),
            unsynced: Vec::new(),
            slow: false,
            random,
            lost_batches: 0,
        };
        Disk { node, honesty, record, content: Arc::new(Mutex::new(content)) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Takes effect with the next sync.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.content().slow = slow;
    }

    /// The power goes: of what was not synced, the first so many batches are there.
    pub(crate) fn crash(&self) {
        let mut content = self.content();
        let count = content.unsynced.len();
        let kept = content.random.usize(..=count);
        let unsynced = std::mem::take(&mut content.unsynced);
        content.lost_batches += (count - kept) as u64;
        for batch in unsynced.into_iter().take(kept) {
            change(&mut content.durable, batch);
        }
        content.visible = content.durable.clone();
    }

    pub(crate) fn lost_batches(&self) -> u64 {
        self.content().lost_batches
    }
}

fn change(pairs: &mut BTreeMap<Key, Vec<u8>>, batch: Batch) {
    for (key, value) in batch.changes {
        match value {
            Some(value) => drop(pairs.insert(key, value)),
            None => drop(pairs.remove(&key)),
        }
    }
}

impl LogFile for Disk {
    fn apply(&self, batch: Batch) -> io::Result<()> {
        self.record.note(self.node, format_args!("disk: {} changes", batch.changes.len()));
        let mut content = self.content();
        change(&mut content.visible, batch.clone());
        content.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        let (covered, takes) = {
            let mut content = self.content();
            let micros = if content.slow { SLOW_SYNC_MICROS } else { SYNC_MICROS };
            (content.unsynced.len(), Duration::from_micros(content.random.u64(micros)))
        };
        async move {
            tokio::time::sleep(takes).await;
            if self.honesty == Honesty::Honest {
                let mut content = self.content();
                let batches: Vec<Batch> = content.unsynced.drain(..covered).collect();
                batches.into_iter().for_each(|batch| change(&mut content.durable, batch));
            }
            self.record.note(self.node, "disk: synced");
            Ok(())
        }
        .boxed()
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content().visible.get(key).cloned())
    }

    fn pairs(&self, keys: RangeInclusive<Key>, backwards: bool) -> Pairs {
        let mut found: Vec<_> = self.content().visible.range(keys).map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        if backwards {
            found.reverse();
        }
        Box::new(found.into_iter())
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.content().visible.values().map(|value| value.len() as u64).sum())
    }
}
