//! What a node is started with.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use super::transport::Transport;
use crate::model::{NodeId, Published};
use crate::observe::{Metrics, SchedulingGap};
use crate::store::Opened;

/// Raft's timing. All nodes of a cluster should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftSettings {
    /// Between two heartbeats of a leader. Default 50 ms.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a node stands for election. Default 150 ms.
    pub election_timeout_min: Duration,
    /// The longest; also the leader's lease. Default 250 ms.
    pub election_timeout_max: Duration,
}

impl Default for RaftSettings {
    fn default() -> RaftSettings {
        RaftSettings {
            heartbeat: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(250),
        }
    }
}

/// Everything that [`super::Node::start`] needs.
#[derive(Debug)]
pub struct NodeOptions {
    /// This node's id; without one it has its data directory's, or gets one from the cluster that it joins.
    pub node_id: Option<NodeId>,
    /// Nodes of a cluster with another name are refused.
    pub cluster_name: String,
    /// Peer addresses of the members of a new cluster, this node's among them. Empty: this node joins a running one.
    pub initial_members: BTreeMap<NodeId, String>,
    /// Peer address of a member of the cluster to join. Without it an empty node that has no initial members waits until it is added.
    pub join: Option<String>,
    /// Where peers reach this node, as it tells the cluster that it joins.
    pub peer_address: String,
    /// Raft's timing.
    pub settings: RaftSettings,
    /// The data directory, open.
    pub opened: Opened,
    /// Where clients reach this node's admin API; told to the other members.
    pub admin_address: String,
    /// What this node's table serves.
    pub published: watch::Receiver<Published>,
    /// How peers reach this node and it them; already bound.
    pub transport: Transport,
    /// How late this process runs.
    pub scheduling_gap: SchedulingGap,
    /// This node's metrics.
    pub metrics: Metrics,
}
