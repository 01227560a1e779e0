//! What the parts of a running node share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Instant as _, ReadPolicy};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batches::Lanes;
use super::board::Board;
use super::divergence::Divergence;
use super::identity::Identity;
use super::join::Invitation;
use super::options::RaftSettings;
use super::peers::{CallError, Peer, Peers, call};
use super::proposals::Admission;
use super::reads::{RoundAnswer, Rounds};
use super::wire;
use crate::model::{NodeId, Published, State};
use crate::observe::{Metrics, SchedulingGap};
use crate::pb::peer as pb;
use crate::store::{AppliedState, Blocking, Failure, Samples, SnapshotDirectory, StateMachine, TypeConfig};

/// The Raft core.
pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// How long a follower's round waits for the leader.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries of a call that found no leader.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// One a node, behind an `Arc`.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Peers>,
    pub(super) cluster_name: Arc<str>,
    pub(super) initial_members: BTreeMap<NodeId, String>,
    /// Of the cluster's name and the initial members.
    pub(super) members_hash: Bytes,
    /// Where peers reach this node, as it tells a cluster that it joins.
    pub(super) peer_address: String,
    pub(super) admin_address: String,
    /// Set once, when this node belongs to a cluster.
    pub(super) raft: watch::Sender<Option<Raft>>,
    pub(super) applied: watch::Receiver<AppliedState>,
    pub(super) states: watch::Receiver<State>,
    pub(super) published: watch::Receiver<Published>,
    pub(super) snapshots: SnapshotDirectory,
    /// One snapshot arrives at a time.
    pub(super) receiving: Arc<Semaphore>,
    pub(super) admission: Admission,
    pub(super) lanes: Lanes,
    /// Rounds that this node makes as the leader, for its own readers and for followers.
    pub(super) leader_rounds: Rounds,
    /// Rounds that this node makes as a follower, by asking the leader.
    pub(super) follower_rounds: Rounds,
    pub(super) board: Board,
    pub(super) divergence: Divergence,
    /// What State was at recent log ids.
    pub(super) samples: Samples,
    /// Why the storage failed.
    pub(super) storage_failed: watch::Receiver<Option<String>>,
    /// Where the end of the Raft core is reported.
    pub(super) failure: Failure,
    /// Where work runs that waits for the disk.
    pub(super) blocking: Blocking,
    /// Why this node cannot form or join its cluster.
    pub(super) bootstrap_failed: watch::Sender<Option<String>>,
    /// Why this node was removed from the cluster, once it heard so.
    pub(super) removed: watch::Sender<Option<String>>,
    /// Whom to ask for a cluster to join.
    pub(super) invitation: watch::Sender<Option<Invitation>>,
    /// How many hand-overs of leadership are under way: what this node is to write as the leader waits until they are over.
    pub(super) handing_over: watch::Sender<usize>,
    /// One change of the members at a time.
    pub(super) member_turn: Arc<Mutex<()>>,
    pub(super) metrics: Metrics,
    pub(super) scheduling_gap: SchedulingGap,
    pub(super) settings: RaftSettings,
    pub(super) stopping: CancellationToken,
    /// Where its tasks run, whoever calls: callers of [`super::Node`] may be on threads that have other work.
    pub(super) runtime: Handle,
    pub(super) tasks: TaskTracker,
}

impl Shared {
    pub(super) fn node_id(&self) -> NodeId {
        self.identity.node_id()
    }

    pub(super) fn raft(&self) -> Option<Raft> {
        self.raft.borrow().clone()
    }

    pub(super) fn storage_failure(&self) -> Option<String> {
        self.storage_failed.borrow().clone()
    }

    /// Who leads, as far as this node knows; after a storage error or its removal it hears of nobody any more.
    pub(super) fn leader(&self) -> Option<NodeId> {
        if self.storage_failed.borrow().is_some() || self.removed.borrow().is_some() {
            return None;
        }
        self.raft.borrow().as_ref().and_then(|raft| raft.server_metrics().borrow_watched().current_leader)
    }

    /// Whether this node knows a membership: its cluster is formed.
    pub(super) fn is_formed(&self) -> bool {
        let raft = self.raft.borrow();
        raft.as_ref().is_some_and(|raft| raft.server_metrics().borrow_watched().membership_config.nodes().next().is_some())
    }

    /// Whether this node leads and a quorum has followed within the lease.
    pub(super) fn leads_with_quorum(&self) -> bool {
        let raft = self.raft.borrow();
        let Some(raft) = raft.as_ref() else { return false };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_leader != Some(self.node_id()) {
            return false;
        }
        let alone = metrics.membership_config.voter_ids().all(|id| id == self.node_id());
        alone || metrics.last_quorum_acked.as_ref().is_some_and(|acked| acked.elapsed() < self.settings.election_timeout_max)
    }

    /// The connections to a member.
    pub(super) fn member(&self, id: NodeId) -> Result<Arc<Peer>, CallError> {
        let address = {
            let raft = self.raft.borrow();
            let raft = raft.as_ref().ok_or_else(|| CallError::NotSent("this node has not joined a cluster".to_owned()))?;
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_node(&id).map(|member| member.peer_address.clone())
        };
        let address = address.ok_or_else(|| CallError::NotSent(format!("node {id} is no member")))?;
        self.peers.get(id, &address)
    }

    /// Waits a moment before the next try; false where the deadline comes first.
    pub(super) async fn pause(&self, deadline: Instant) -> bool {
        let next = Instant::now() + RETRY_DELAY;
        tokio::time::sleep_until(next.min(deadline)).await;
        next < deadline
    }

    /// One round as the leader.
    pub(super) async fn leader_round(&self) -> RoundAnswer {
        let raft = self.raft().ok_or_else(|| "this node has not joined a cluster".to_owned())?;
        let (read_log_id, _) = raft.get_read_log_id(ReadPolicy::ReadIndex).await.map_err(|error| {
            // openraft's own text prints the whole membership.
            let reason = match error {
                RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => "the leader did not hear from a quorum",
                RaftError::APIError(LinearizableReadError::ForwardToLeader(_)) => "this node does not lead any more",
                RaftError::Fatal(_) => "the raft core of this node has stopped",
            };
            reason.to_owned()
        })?;
        Ok(*read_log_id.log_id())
    }

    /// One round as a follower: what the leader's round finds.
    pub(super) async fn follower_round(&self) -> RoundAnswer {
        let leader = self.leader().filter(|&id| id != self.node_id()).ok_or_else(|| "no leader".to_owned())?;
        let peer = self.member(leader).map_err(|error| error.to_string())?;
        let wait_ms = ROUND_TIMEOUT.as_millis() as u64;
        let request = pb::ReadIndexRequest { header: Some(self.identity.header(leader)), wait_ms };
        let mut client = peer.control();
        let response =
            call(ROUND_TIMEOUT, client.read_index(request)).await.map_err(|error| format!("leader {leader}: {error}"))?;
        match response.result {
            Some(pb::read_index_response::Result::ReadLogId(id)) => wire::read_log_id(&id).map_err(|error| error.to_string()),
            Some(pb::read_index_response::Result::Unavailable(reason)) => Err(format!("leader {leader}: {reason}")),
            None => Err(format!("leader {leader}: empty answer")),
        }
    }
}
