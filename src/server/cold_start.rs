//! The cold start: when a node that has just started may serve its table.
//!
//! Best is a table that is proved up to date, so the node asks for a linearizable read. Without a quorum that never comes; then, after
//! `cold_start_wait`, what the disk says was committed is served: a proxy that answers from a slightly old table is worth more than none.
//! A node that belongs to no cluster has nothing that was committed, and goes on waiting.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::raft::Node;

/// Between two reads where one fails at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Done when the table may be published.
pub(super) async fn wait(node: &Node, cold_start_wait: Duration) {
    let deadline = Instant::now() + cold_start_wait;
    tokio::select! {
        () = up_to_date(node) => info!("recovered: the table is up to date"),
        () = from_disk(node, deadline) => warn!("no quorum yet: serving what the disk says was committed"),
    }
}

async fn up_to_date(node: &Node) {
    loop {
        let deadline = Instant::now() + Duration::from_secs(1);
        match timeout_at(deadline, node.read(deadline)).await {
            Ok(Ok(_)) => return,
            Ok(Err(_)) | Err(_) => sleep(RETRY_INTERVAL).await,
        }
    }
}

/// Done at `deadline` where the disk held the membership of a cluster, else once this node has one.
async fn from_disk(node: &Node, deadline: Instant) {
    sleep_until(deadline).await;
    let mut applied = node.applied();
    if applied.wait_for(|applied| applied.log_id.is_some()).await.is_err() {
        std::future::pending::<()>().await;
    }
}
