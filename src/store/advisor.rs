//! When to make a snapshot, and how much of the log may go.
//!
//! A snapshot is due once the log has grown by the size of the last snapshot, and by [`LOG_BYTES_MIN`] at least: writing snapshots
//! then costs at most as many bytes as writing the log does, whatever the size of State. The log may be purged up to the snapshot
//! *before* the newest, so that a damaged newest one costs nothing (see [`super::snapshot`]).

use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::SnapshotDirectory;
use super::types::LogId;
use crate::observe::Metrics;

/// A log that is shorter is not worth a snapshot, outside of simulations.
pub(super) const LOG_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// What should be done about the log's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Advice {
    /// A snapshot should be made. Stays true until one is complete.
    pub snapshot_due: bool,
    /// The log may be purged up to here, inclusive.
    pub purge_upto: Option<LogId>,
}

/// Watches the log's growth. Cloning shares it.
#[derive(Debug, Clone)]
pub struct SnapshotAdvisor {
    state: Arc<watch::Sender<Sizes>>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    /// Bytes of the log since the newest snapshot began.
    log_bytes: u64,
    snapshot_bytes: u64,
    log_bytes_min: u64,
    purge_upto: Option<LogId>,
}

impl Sizes {
    fn advice(self) -> Advice {
        Advice { snapshot_due: self.log_bytes > self.snapshot_bytes.max(self.log_bytes_min), purge_upto: self.purge_upto }
    }
}

impl SnapshotAdvisor {
    /// Starts with a log that has grown by `log_bytes` since the newest snapshot. One of `log_bytes_min` or less is not worth a snapshot.
    pub(crate) fn new(log_bytes: u64, log_bytes_min: u64, snapshots: &SnapshotDirectory, metrics: Metrics) -> SnapshotAdvisor {
        let sizes = Sizes { log_bytes_min, ..Sizes::default() };
        let advisor = SnapshotAdvisor { state: Arc::new(watch::Sender::new(sizes)), metrics };
        advisor.snapshot_complete(0, snapshots);
        advisor.add_log_bytes(log_bytes);
        advisor
    }

    /// The present advice.
    pub fn advice(&self) -> Advice {
        self.state.borrow().advice()
    }

    /// Waits until the advice differs from `known`, and gives it.
    pub async fn changed(&self, known: Advice) -> Advice {
        let mut receiver = self.state.subscribe();
        match receiver.wait_for(|sizes| sizes.advice() != known).await {
            Ok(sizes) => sizes.advice(),
            // The sender lives in `self`.
            Err(_) => known,
        }
    }

    /// Bytes of the log since the newest snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.state.borrow().log_bytes
    }

    /// The log has grown.
    pub(crate) fn add_log_bytes(&self, count: u64) {
        self.update(|sizes| sizes.log_bytes += count);
    }

    /// A snapshot is durable that was begun when the log had grown by `covered_bytes`.
    pub(crate) fn snapshot_complete(&self, covered_bytes: u64, snapshots: &SnapshotDirectory) {
        let snapshot_bytes = snapshots.newest().map_or(0, |newest| newest.byte_count());
        let purge_upto = snapshots.previous().and_then(|previous| previous.meta().last_log_id);
        self.metrics.raft_snapshot_bytes.set(i64::try_from(snapshot_bytes).unwrap_or(i64::MAX));
        self.update(|sizes| {
            sizes.log_bytes = sizes.log_bytes.saturating_sub(covered_bytes);
            sizes.snapshot_bytes = snapshot_bytes;
            sizes.purge_upto = purge_upto;
        });
    }

    /// Changes the sizes; who waits is woken only when the advice is another.
    fn update(&self, change: impl FnOnce(&mut Sizes)) {
        self.state.send_if_modified(|sizes| {
            let before = sizes.advice();
            change(sizes);
            self.metrics.log_bytes.set(i64::try_from(sizes.log_bytes).unwrap_or(i64::MAX));
            sizes.advice() != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;
    use crate::store::types::{LeaderId, SnapshotMeta};

    fn meta(index: u64) -> SnapshotMeta {
        let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
        SnapshotMeta { last_log_id: Some(log_id), ..SnapshotMeta::default() }
    }

    #[test]
    fn a_snapshot_is_due_by_bytes_and_frees_the_log_up_to_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDirectory::open(directory.path()).unwrap().ok().unwrap().directory;
        let advisor = SnapshotAdvisor::new(0, LOG_BYTES_MIN, &snapshots, Metrics::new());
        advisor.add_log_bytes(LOG_BYTES_MIN);
        assert_eq!(advisor.advice(), Advice::default());
        advisor.add_log_bytes(1);
        assert!(advisor.advice().snapshot_due);

        let covered = advisor.log_bytes();
        snapshots.write(&meta(10), &State::default()).unwrap();
        advisor.add_log_bytes(5);
        advisor.snapshot_complete(covered, &snapshots);
        assert_eq!(advisor.log_bytes(), 5, "what came while the snapshot was written counts for the next");
        assert_eq!(advisor.advice(), Advice::default(), "the only snapshot still needs the log before it");

        snapshots.write(&meta(20), &State::default()).unwrap();
        advisor.snapshot_complete(5, &snapshots);
        assert_eq!(advisor.advice(), Advice { snapshot_due: false, purge_upto: meta(10).last_log_id });
    }
}
