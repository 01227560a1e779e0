//! The cold start: when a node that has just started may serve its table.
//!
//! Best is a table that is proved up to date, so the node asks for a linearizable read. Without a quorum that never comes; then, after
//! `cold_start_wait`, what the disk says was committed is served: a proxy that answers from a slightly old table is worth more than none.
//!
//! What a disk says can be far from what the cluster agreed on: a node that is only joining gets the history from its beginning, and would
//! answer 404 for what was made later. So a disk counts once the State on it has this node among its members. A node that belongs to no
//! cluster has nothing that was committed, and goes on waiting.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::model::NodeId;
use crate::raft::Node;
use crate::store::AppliedState;

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

/// Done at `deadline` where the disk held a State with this node among its members, else once it has such a State.
async fn from_disk(node: &Node, deadline: Instant) {
    sleep_until(deadline).await;
    if node.applied().wait_for(|applied| has_member(applied, node.node_id())).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn has_member(applied: &AppliedState, id: NodeId) -> bool {
    applied.membership.membership().get_node(&id).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{Member, Membership, StoredMembership};

    #[test]
    fn history_from_before_a_node_was_let_in_is_not_served() {
        let members = BTreeMap::from([(1, Member::default()), (2, Member::default())]);
        let membership = Membership::new(vec![[1].into()], members).unwrap();
        let applied = AppliedState { membership: StoredMembership::new(None, membership), ..AppliedState::default() };
        assert!([1, 2].into_iter().all(|id| has_member(&applied, id)), "voters and learners");
        assert!(!has_member(&applied, 3));
        assert!(!has_member(&AppliedState::default(), 1));
    }
}
