//! The handle to a running node.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{Command, NodeId, Outcome, Revision, State};

use super::error::{ProposeError, ReadError, StartError};
use super::options::NodeOptions;
use super::status::{ClusterStatus, MemberLive};

/// A running node. Clones are cheap and share it.
#[derive(Debug, Clone)]
pub struct Node {
    states: watch::Receiver<State>,
}

impl Node {
    /// Starts the node: serves its peers at once, forms or joins its cluster in the background.
    pub async fn start(options: NodeOptions) -> Result<Node, StartError> {
        Err(StartError::Members(options.cluster_name))
    }

    /// Proposes a command at the leader, from here or over one hop, and waits for its outcome until `deadline`.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        Err(ProposeError::Unknown { reason: format!("{command:?} {deadline:?}") })
    }

    /// A State that holds everything that was acknowledged before this call (ReadIndex, Raft 6.4).
    pub async fn read(&self, deadline: Instant) -> Result<State, ReadError> {
        Err(ReadError::Unavailable(format!("{deadline:?}")))
    }

    /// This node's State as it stands; it may be behind.
    pub fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// Follows this node's State, after every applied batch.
    pub fn states(&self) -> watch::Receiver<State> {
        self.states.clone()
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        0
    }

    /// The cluster's id in hexadecimal; `None` until this node belongs to one.
    pub fn cluster_id(&self) -> Option<Arc<str>> {
        None
    }

    /// What this node knows of the cluster.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }

    /// Waits until every member has published `revision`, has not answered for a second, or `deadline` has passed.
    pub async fn wait_live(&self, revision: Revision, deadline: Instant) -> Vec<MemberLive> {
        let _ = (revision, deadline);
        Vec::new()
    }

    /// Hands leadership to a voter that is caught up, and waits for a new leader until `deadline`. Does nothing at a follower.
    /// True when this node does not lead any more.
    pub async fn hand_over(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }

    /// Stops the Raft side and its peer server. Calls under way end with an error.
    pub async fn shutdown(&self) {}
}
