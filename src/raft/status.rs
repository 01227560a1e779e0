//! What a node knows of its cluster, for people and for readiness.

use std::sync::Arc;

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
    /// Who leads, as far as this node knows.
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
    /// A peer differs from this node at an equal revision or log id.
    pub diverged: Option<String>,
    /// The last log index on this node.
    pub last_log_index: u64,
    /// The last index that is known here to be committed.
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
    /// The revision of its State, as last reported.
    pub revision: Revision,
    /// The digest at that revision.
    pub digest: Digest,
    /// The revision that its table serves, as last reported.
    pub published: Revision,
    /// Entries that it is behind the last log index known here.
    pub lag_entries: u64,
    /// Whether it answered within the last second.
    pub reachable: bool,
}

/// What became of waiting for one member to publish a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLive {
    /// Which member.
    pub id: NodeId,
    /// What it had published when the wait ended.
    pub revision: Revision,
    /// Whether that is the awaited revision or a later one.
    pub live: bool,
    /// Why not, where it is not live.
    pub reason: Option<String>,
}
