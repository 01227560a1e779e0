//! What a node knows of its cluster, for people and for readiness.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;

use super::board::Report;
use super::server::VERSION;
use super::shared::Shared;
use crate::model::{Digest, NodeId, Revision};

/// A picture of the cluster as this node sees it.
#[derive(Debug, Clone, Default)]
pub struct ClusterStatus {
    /// The cluster's id in hexadecimal; `None` until this node belongs to one.
    pub cluster_id: Option<Arc<str>>,
    /// The cluster's configured name.
    pub cluster_name: Arc<str>,
    /// This node.
    pub node_id: NodeId,
    /// The leader that a quorum follows, as far as this node knows; `None` without a quorum.
    pub leader: Option<NodeId>,
    /// The present term.
    pub term: u64,
    /// Whether this node knows of a leader that a quorum follows.
    pub quorum: bool,
    /// Every member, by id.
    pub members: Vec<MemberStatus>,
    /// Why the storage of this node failed, if it did.
    pub storage_failed: Option<String>,
    /// Why this node cannot join or form its cluster, if so.
    pub bootstrap_failed: Option<String>,
    /// Why this node was removed from the cluster, if it was.
    pub removed: Option<String>,
    /// The two sets of voters of a change that is under way.
    pub joint: Option<Vec<Vec<NodeId>>>,
    /// A member differs from this node at an equal revision or log id: who, where, and what this node does about it.
    pub diverged: Option<String>,
    /// The last log index on this node.
    pub last_log_index: u64,
    /// The last index that is known here to be committed: by Raft, or because a member has said that it applied it.
    pub committed_index: u64,
    /// The last index that was applied here.
    pub applied_index: u64,
    /// The index that the newest snapshot covers.
    pub snapshot_index: u64,
    /// The last purged index.
    pub purged_index: u64,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Votes and counts for the quorum.
    Voter,
    /// Follows the log only.
    Learner,
}

impl Role {
    /// `voter` or `learner`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Learner => "learner",
        }
    }
}

/// One member.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// What it may do.
    pub role: Role,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach its admin API.
    pub admin_address: String,
    /// The version it runs; empty until it answered once.
    pub version: String,
    /// The revision of its State, as last reported; `None` until it answered once.
    pub revision: Option<Revision>,
    /// The digest at that revision.
    pub digest: Option<Digest>,
    /// The revision that its table serves, as last reported.
    pub published: Option<Revision>,
    /// Entries that it is behind the last log index known here.
    pub lag_entries: u64,
    /// Whether it answered within the last second.
    pub reachable: bool,
    /// Where it differs from the majority, or from this node while no majority is known; `None` where it agrees.
    pub diverged: Option<String>,
}

/// What became of waiting for one member to publish a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLive {
    /// Which member.
    pub id: NodeId,
    /// What it had published as last heard; `None` where it never answered this node.
    pub revision: Option<Revision>,
    /// Whether that is the awaited revision or a later one.
    pub live: bool,
    /// Why not, where it is not live.
    pub reason: Option<String>,
}

impl Shared {
    pub(super) fn status(&self) -> ClusterStatus {
        let applied = self.applied.borrow().clone();
        let leader = self.leader_with_quorum();
        let mut diverged = self.diverged();
        let mut status = ClusterStatus {
            cluster_id: self.identity.cluster_text(),
            cluster_name: Arc::clone(&self.cluster_name),
            node_id: self.node_id(),
            leader,
            quorum: leader.is_some(),
            storage_failed: self.storage_failure(),
            bootstrap_failed: self.bootstrap_failed.borrow().clone(),
            removed: self.removed.borrow().clone(),
            diverged: diverged.summary,
            applied_index: applied.log_id.map_or(0, |id| id.index),
            ..ClusterStatus::default()
        };
        let Some(raft) = self.raft() else { return status };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        status.term = metrics.current_term;
        status.last_log_index = metrics.last_log_index.unwrap_or(0);
        let committed = metrics.cluster_committed.max(metrics.local_committed).map_or(0, |id| id.index);
        status.committed_index = committed.max(self.board.applied_elsewhere());
        status.snapshot_index = metrics.snapshot.map_or(0, |id| id.index);
        status.purged_index = metrics.purged.map_or(0, |id| id.index);
        let joint = metrics.membership_config.membership().get_joint_config();
        // A node that was removed hears no more of how a change ended.
        let is_under_way = joint.len() > 1 && status.removed.is_none();
        status.joint = is_under_way.then(|| joint.iter().map(|voters| voters.iter().copied().collect()).collect());
        let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        let reports = self.board.reports();
        // A node that was removed knows the membership from before.
        let known = metrics.membership_config.nodes().filter(|(id, _)| status.removed.is_none() || **id != status.node_id);
        for (&id, member) in known {
            let mut shown = MemberStatus {
                id,
                role: if voters.contains(&id) { Role::Voter } else { Role::Learner },
                peer_address: member.peer_address.clone(),
                admin_address: member.admin_address.clone(),
                version: String::new(),
                revision: None,
                digest: None,
                published: None,
                lag_entries: status.last_log_index,
                reachable: false,
                diverged: diverged.members.remove(&id),
            };
            if id == self.node_id() {
                shown.version = VERSION.to_owned();
                shown.admin_address = self.admin_address.clone();
                shown.revision = Some(applied.state.revision());
                shown.digest = Some(applied.state.digest());
                shown.published = Some(self.published.borrow().revision);
                shown.lag_entries = status.last_log_index.max(status.committed_index).saturating_sub(status.applied_index);
                shown.reachable = true;
            } else if let Some(report) = reports.get(&id) {
                shown.fill(report, status.last_log_index);
            }
            status.members.push(shown);
        }
        status
    }
}

impl MemberStatus {
    fn fill(&mut self, report: &Report, last_log_index: u64) {
        self.version.clone_from(&report.version);
        self.admin_address.clone_from(&report.admin_address);
        self.revision = Some(report.revision);
        self.digest = Some(report.digest);
        self.published = Some(report.published);
        self.lag_entries = last_log_index.saturating_sub(report.applied.map_or(0, |id| id.index));
        self.reachable = report.is_fresh();
        if self.diverged.is_none() {
            self.diverged = report.stands_aside.as_ref().map(|why| format!("it stands aside: {why}"));
        }
    }
}
