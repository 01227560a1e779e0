//! The end of the Raft side: a storage error that this process does not come back from.

use std::sync::Arc;

use tokio::sync::watch;

use crate::observe::Metrics;

/// Where a storage error is published, once. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Failure {
    reason: Arc<watch::Sender<Option<String>>>,
    metrics: Metrics,
}

impl Failure {
    pub(crate) fn new(metrics: Metrics) -> Failure {
        Failure { reason: Arc::new(watch::Sender::new(None)), metrics }
    }

    /// Publishes the reason; the first one stands. The log takes no more work from here on.
    pub fn set(&self, reason: &str) {
        self.metrics.storage_failed.set(1);
        self.reason.send_if_modified(|present| {
            let is_first = present.is_none();
            present.get_or_insert_with(|| reason.to_owned());
            is_first
        });
    }

    /// Why storage failed, if it did.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.reason.subscribe()
    }
}
