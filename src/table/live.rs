//! The cell that requests load their snapshot from.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::model::Published;

/// The live table: one atomic pointer, and a watch of its revision.
///
/// A request calls [`Live::load`] once and uses nothing newer. It gets an `Arc` and not a guard: guards are few for each thread and must
/// not be held across an await; and there is no `arc_swap::Cache`, which would keep a retired table alive in an idle worker.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    published: watch::Sender<Published>,
}

impl Live {
    /// A cell with the empty table of revision 0.
    pub fn new() -> Live {
        let empty = Snapshot::empty();
        let published = watch::Sender::new(empty.identity());
        Live { snapshot: ArcSwap::from_pointee(empty), published }
    }

    /// The present snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Publishes a snapshot: requests that load from now on see it. Notes in it the time, and tells the watch, in this order.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        snapshot.note_published();
        let identity = snapshot.identity();
        self.snapshot.store(snapshot);
        self.published.send_replace(identity);
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
