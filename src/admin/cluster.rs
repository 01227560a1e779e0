//! What the admin API asks of the node: a trait, so that tests can have a cluster without a leader, or one that loses answers.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::model::{Command, NodeId, Outcome, Revision, State};
use crate::raft::{ClusterStatus, MemberChange, MemberError, MemberLive, Node, ProposeError, ReadError};

/// A node of the cluster. [`Node`] is the one outside tests; its documentation says what each call promises.
pub trait Cluster: Send + Sync + 'static {
    /// Proposes a command and waits for its outcome.
    fn propose(&self, command: Command, deadline: Instant) -> BoxFuture<'_, Result<Outcome, ProposeError>>;
    /// A State that holds everything that was acknowledged before this call.
    fn read(&self, deadline: Instant) -> BoxFuture<'_, Result<State, ReadError>>;
    /// This node's State as it stands.
    fn state(&self) -> State;
    /// The cluster's id in hexadecimal; `None` until this node belongs to one.
    fn cluster_id(&self) -> Option<Arc<str>>;
    /// What this node knows of the cluster.
    fn status(&self) -> ClusterStatus;
    /// Waits until every member that answers has published `revision`.
    fn wait_live(&self, revision: Revision, deadline: Instant) -> BoxFuture<'_, Vec<MemberLive>>;
    /// Lets the node at `peer_address` in as a learner.
    fn add_member(
        &self,
        peer_address: String,
        id: Option<NodeId>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<NodeId, MemberError>>;
    /// Raises the level of features that commands may use.
    fn raise_feature_level(&self, level: u32, deadline: Instant) -> BoxFuture<'_, Result<(), MemberError>>;
    /// Changes one member.
    fn change_member(&self, change: MemberChange, deadline: Instant) -> BoxFuture<'_, Result<(), MemberError>>;
}

impl Cluster for Node {
    fn propose(&self, command: Command, deadline: Instant) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(Node::propose(self, command, deadline))
    }

    fn read(&self, deadline: Instant) -> BoxFuture<'_, Result<State, ReadError>> {
        Box::pin(Node::read(self, deadline))
    }

    fn state(&self) -> State {
        Node::state(self)
    }

    fn cluster_id(&self) -> Option<Arc<str>> {
        Node::cluster_id(self)
    }

    fn status(&self) -> ClusterStatus {
        Node::status(self)
    }

    fn wait_live(&self, revision: Revision, deadline: Instant) -> BoxFuture<'_, Vec<MemberLive>> {
        Box::pin(Node::wait_live(self, revision, deadline))
    }

    fn add_member(
        &self,
        peer_address: String,
        id: Option<NodeId>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<NodeId, MemberError>> {
        Box::pin(async move { Node::add_member(self, &peer_address, id, deadline).await })
    }

    fn raise_feature_level(&self, level: u32, deadline: Instant) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(Node::raise_feature_level(self, level, deadline))
    }

    fn change_member(&self, change: MemberChange, deadline: Instant) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(Node::change_member(self, change, deadline))
    }
}
