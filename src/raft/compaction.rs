//! Keeps the log short: makes a snapshot when the store advises it, and purges the log up to the previous one.
//!
//! openraft's own policy is off ([`openraft::SnapshotPolicy::Never`]): it counts entries, not bytes, and purges up to the newest
//! snapshot, without which the previous one would be useless.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{Raft, Shared};
use crate::store::{Advice, SnapshotAdvisor};

/// After asking for a snapshot that did not come, for instance because one was under way.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Follows the advice until the node stops.
pub(super) async fn run(shared: Arc<Shared>, raft: Raft, advisor: SnapshotAdvisor) {
    let follow = async {
        let mut advice = advisor.advice();
        loop {
            follow_advice(&raft, advice).await;
            let changed = advisor.changed(advice);
            advice = if advice.snapshot_due {
                tokio::time::timeout(ASK_AGAIN, changed).await.unwrap_or(advice)
            } else {
                changed.await
            };
        }
    };
    shared.stopping.run_until_cancelled(follow).await;
}

async fn follow_advice(raft: &Raft, advice: Advice) {
    if advice.snapshot_due
        && let Err(error) = raft.trigger().snapshot().await
    {
        tracing::debug!(%error, "no snapshot: raft has stopped");
    }
    if let Some(upto) = advice.purge_upto
        && let Err(error) = raft.trigger().purge_log(upto.index).await
    {
        tracing::debug!(%error, "log not purged: raft has stopped");
    }
}
