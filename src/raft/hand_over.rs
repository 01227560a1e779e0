//! Handing leadership over, on request and before a node stops.
//!
//! What is proposed meanwhile waits. Else the log would go on growing, a voter that misses its last entries would refuse to take over
//! (openraft has no way back from there: the followers' leases are given up by then), and the cluster would be left to an election.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::{Raft, Shared};
use crate::model::NodeId;

/// A voter that leadership goes to has answered within this time.
const ANSWER: Duration = Duration::from_millis(100);
/// How long a leader looks for a voter that can take over, and another node for what it says then.
pub(super) const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);

impl Shared {
    /// Hands leadership over, to `wanted` or to a voter that has all of this node's log and has just answered; waits for a new
    /// leader until `deadline`. True when that voter, or without a wish another node, leads then; a follower does nothing.
    pub(super) async fn hand_over(&self, wanted: Option<NodeId>, deadline: Instant) -> bool {
        let own = self.node_id();
        let Some(raft) = self.raft() else { return true };
        if self.leader() != Some(own) {
            return true;
        }
        let _proposals_wait = Held::new(&self.handing_over);
        let mut metrics = raft.server_metrics();
        loop {
            let Some(target) = self.find_successor(&raft, wanted, deadline).await else {
                tracing::warn!(?wanted, "no voter is caught up and answers: leadership is not handed over");
                return false;
            };
            tracing::info!(target, "handing leadership over");
            let vote = metrics.borrow_and_update().vote;
            if raft.trigger().transfer_leader(target).await.is_err() {
                return true;
            }
            let led_on = async {
                loop {
                    let now = metrics.borrow_and_update().clone();
                    // This node itself, where the target lost its election.
                    if let Some(leader) = now.current_leader.filter(|&id| id != own || now.vote != vote) {
                        return Some(leader);
                    }
                    if metrics.changed().await.is_err() {
                        return None;
                    }
                }
            };
            match tokio::time::timeout_at(deadline, led_on).await {
                Ok(Some(leader)) if leader != own => return wanted.is_none_or(|wanted| wanted == leader),
                Ok(Some(_)) if Instant::now() < deadline => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// A voter that can take over. One that is only slow for a moment is waited for.
    async fn find_successor(&self, raft: &Raft, wanted: Option<NodeId>, deadline: Instant) -> Option<NodeId> {
        let give_up = deadline.min(Instant::now() + HAND_OVER_PATIENCE);
        loop {
            if let Some(target) = self.successor(raft, wanted).await {
                return Some(target);
            }
            let is_alone = raft.metrics().borrow_watched().membership_config.voter_ids().all(|id| id == self.node_id());
            if is_alone || !self.pause(give_up).await {
                return None;
            }
        }
    }

    /// A voter with the whole log, among those that answer at once and have not diverged, and among `wanted`, if somebody is.
    async fn successor(&self, raft: &Raft, wanted: Option<NodeId>) -> Option<NodeId> {
        let candidates: Vec<_> = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = |id: &NodeId| metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
            let has_all = |id: &NodeId| matched(id).map(|log_id| log_id.index) == metrics.last_log_index;
            let may_lead = |id: &NodeId| *id != self.node_id() && wanted.is_none_or(|wanted| wanted == *id) && has_all(id);
            metrics.membership_config.voter_ids().filter(may_lead).collect()
        };
        for id in candidates {
            let answered = self.poll(id, ANSWER).await;
            if answered.is_ok_and(|report| report.stands_aside.is_none()) && !self.divergence.is_outside(id) {
                return Some(id);
            }
        }
        None
    }
}

/// Proposals wait for as long as one of these lives.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(handing_over: &'a watch::Sender<usize>) -> Held<'a> {
        handing_over.send_modify(|count| *count += 1);
        Held(handing_over)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
