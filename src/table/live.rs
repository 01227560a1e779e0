//! The cell that requests load their snapshot from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::model::{Published, Revision};
use crate::secrets::Keyring;

/// Publications whose time is kept.
pub const PUBLICATIONS_MAX: usize = 4_096;

/// When a revision went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    /// The revision; those between it and the publication before went live with it.
    pub revision: Revision,
    /// Nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`): processes of one machine can compare them.
    pub monotonic_nanos: u64,
}

/// The live table: one atomic pointer, and a watch of its revision.
///
/// A request calls [`Live::load`] once and uses nothing newer. It gets an `Arc` and not a guard: guards are few for each thread and must
/// not be held across an await; and there is no `arc_swap::Cache`, which would keep a retired table alive in an idle worker.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    published: watch::Sender<Published>,
    publications: Mutex<VecDeque<Publication>>,
    diverged: Mutex<Option<Arc<str>>>,
}

impl Live {
    /// A cell with the empty table of revision 0. Tables that are made of it open no secrets.
    pub fn new() -> Live {
        Live::with_keyring(Arc::default())
    }

    /// A cell with the empty table of revision 0. Those that are made of it open secrets with `keyring`.
    pub fn with_keyring(keyring: Arc<Keyring>) -> Live {
        let empty = Snapshot::with_keyring(keyring);
        let published = watch::Sender::new(empty.identity());
        Live { snapshot: ArcSwap::from_pointee(empty), published, publications: Mutex::default(), diverged: Mutex::default() }
    }

    /// The present snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The keys that its tables open secrets with.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.snapshot.load().keyring)
    }

    /// Publishes a snapshot: requests that load from now on see it. Notes in it the time, and tells the watch, in this order.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        snapshot.note_published();
        let identity = snapshot.identity();
        self.snapshot.store(snapshot);
        self.note(identity.revision);
        self.published.send_replace(identity);
    }

    /// Raises the alarm that a table differed from what it was made of. It stays until the process ends: what was served cannot be taken
    /// back.
    pub fn raise_divergence(&self, what: &str) {
        *self.diverged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::from(what));
    }

    /// What differed last, if anything ever did.
    pub fn divergence(&self) -> Option<Arc<str>> {
        self.diverged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kept publications of `from` and later, oldest first, `count` at most.
    pub fn publications(&self, from: Revision, count: usize) -> Vec<Publication> {
        let publications = self.publications.lock().unwrap_or_else(PoisonError::into_inner);
        let first = publications.partition_point(|publication| publication.revision < from);
        publications.iter().skip(first).take(count).copied().collect()
    }

    fn note(&self, revision: Revision) {
        let now = clock_gettime(ClockId::Monotonic);
        let monotonic_nanos = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        let mut publications = self.publications.lock().unwrap_or_else(PoisonError::into_inner);
        if publications.len() == PUBLICATIONS_MAX {
            publications.pop_front();
        }
        publications.push_back(Publication { revision, monotonic_nanos });
    }

    /// Follows what is published. A value that it shows is already live.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }
}

impl Default for Live {
    fn default() -> Live {
        Live::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_kept_in_order_and_bounded() {
        let live = Live::new();
        for revision in 1..=PUBLICATIONS_MAX as u64 + 10 {
            let mut snapshot = Snapshot::empty();
            // Every second revision went live together with the next.
            snapshot.revision = Revision(revision * 2);
            live.store(Arc::new(snapshot));
        }
        let all = live.publications(Revision::ZERO, usize::MAX);
        assert_eq!(all.len(), PUBLICATIONS_MAX);
        assert!(
            all.windows(2).all(|pair| pair[0].revision < pair[1].revision && pair[0].monotonic_nanos <= pair[1].monotonic_nanos)
        );
        let found = live.publications(Revision(101), 1);
        assert_eq!(found.iter().map(|publication| publication.revision).collect::<Vec<_>>(), [Revision(102)]);
        assert_eq!(live.publications(Revision(u64::MAX), 1), []);
    }
}
