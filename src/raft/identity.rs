//! Who speaks: the header of every message between peers, and the check of one that comes in (`faults.md`, "Identity").
//!
//! Refused are only: a sender that its certificate does not name (over TLS), another cluster, a wrong receiver, another protocol, a member that was removed, and one that is known under another
//! incarnation (its data directory was wiped). A sender that the membership does not list is not refused, for this node's membership may be stale.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::transport::Proved;
use super::wire;
use crate::model::NodeId;
use crate::observe::{KnownBug, Metrics, Refrain};
use crate::pb::peer::Header;
use crate::store::{AppliedState, ClusterId, Incarnation};

/// The version of the messages in `proto/peer.proto`. A node refuses others.
pub(super) const PROTOCOL: u32 = 1;

/// The reason of a refusal of a member that was removed. It stands in the answer's metadata, for the sender must hear it.
const REMOVED: &str = "removed";

/// Metadata of a refusal that the sender's program reads.
const REFUSAL: &str = "raftgate-refusal";

/// The reason of a refusal while this node does not know its cluster.
const NOT_JOINED: &str = "not_joined";

/// This node's name in all its messages.
#[derive(Debug)]
pub(super) struct Identity {
    /// Set once: from the start, or when the cluster gave it.
    node_id: OnceLock<NodeId>,
    incarnation: Incarnation,
    incarnation_bytes: Bytes,
    /// Set once, when the node knows its cluster and has that on disk.
    cluster: OnceLock<Cluster>,
    applied: watch::Receiver<AppliedState>,
    metrics: Metrics,
    /// Refusals that were told, by reason and by who the sender says it is.
    refused: Refrain<(&'static str, Option<NodeId>)>,
}

#[derive(Debug)]
struct Cluster {
    id: ClusterId,
    bytes: Bytes,
    text: Arc<str>,
}

impl Identity {
    pub(super) fn new(
        node_id: Option<NodeId>,
        incarnation: Incarnation,
        applied: watch::Receiver<AppliedState>,
        metrics: Metrics,
    ) -> Identity {
        let incarnation_bytes = Bytes::copy_from_slice(&incarnation.0);
        let node_id = node_id.map_or_else(OnceLock::new, OnceLock::from);
        Identity {
            node_id,
            incarnation,
            incarnation_bytes,
            cluster: OnceLock::new(),
            applied,
            metrics,
            refused: Refrain::default(),
        }
    }

    /// This node's id; 0 until it has one.
    pub(super) fn node_id(&self) -> NodeId {
        self.node_id.get().copied().unwrap_or(0)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// From here on this node belongs to `id`, as `node_id`; the first call counts.
    pub(super) fn join(&self, id: ClusterId, node_id: NodeId) {
        let _ = self.node_id.set(node_id);
        let text = Arc::from(id.to_string());
        let _ = self.cluster.set(Cluster { id, bytes: Bytes::copy_from_slice(&id.0), text });
    }

    pub(super) fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.get().map(|cluster| cluster.id)
    }

    pub(super) fn cluster_text(&self) -> Option<Arc<str>> {
        self.cluster.get().map(|cluster| Arc::clone(&cluster.text))
    }

    /// The header of a message to `receiver`. Before the node belongs to a cluster its id is empty, and every receiver refuses.
    pub(super) fn header(&self, receiver: NodeId) -> Header {
        Header {
            cluster_id: self.cluster.get().map(|cluster| cluster.bytes.clone()).unwrap_or_default(),
            sender: self.node_id(),
            incarnation: self.incarnation_bytes.clone(),
            receiver,
            protocol: PROTOCOL,
        }
    }

    /// Checks a header that came in from a node that has proved to be `sender`; a refusal tells the sender why and is counted.
    pub(super) fn admit(&self, header: Option<&Header>, sender: Proved) -> Result<(), Status> {
        self.check_claim(header.map(|header| header.sender), sender)?;
        match self.refusal(header) {
            None => Ok(()),
            Some((reason, detail)) => Err(self.refuse(reason, detail, header.map(|header| header.sender))),
        }
    }

    /// Checks that a message claims to be from the node that its sender has proved to be.
    pub(super) fn check_claim(&self, claimed: Option<NodeId>, sender: Proved) -> Result<(), Status> {
        match (claimed, sender.0) {
            (Some(claimed), Some(proved)) if claimed != proved => {
                let detail = format!("the message is of node {claimed}, and the certificate of node {proved}");
                Err(self.refuse("certificate", detail, Some(claimed)))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, reason: &'static str, detail: String, sender: Option<NodeId>) -> Status {
        self.metrics.raft_peer_refusals.with_label_values(&[reason]).inc();
        if [NOT_JOINED, REMOVED].contains(&reason) {
            // Peers may ask before this node knows its cluster, and a removed one until it hears that it is; they try again.
            tracing::debug!(reason, detail, sender, "message of a peer refused");
        } else if let Some(count) = self.refused.note((reason, sender), Instant::now()) {
            tracing::warn!(reason, detail, sender, count, "messages of a peer refused");
        }
        let mut status = Status::failed_precondition(detail);
        if reason == REMOVED {
            status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(REMOVED));
        }
        status
    }

    fn refusal(&self, header: Option<&Header>) -> Option<(&'static str, String)> {
        let Some(header) = header else { return Some(("no_header", "no header".to_owned())) };
        if header.protocol != PROTOCOL {
            return Some(("protocol", format!("protocol {}; this node speaks {PROTOCOL}", header.protocol)));
        }
        let Some(cluster) = self.cluster.get() else {
            return Some((NOT_JOINED, format!("node {} is starting", self.node_id())));
        };
        if header.cluster_id != cluster.bytes {
            return Some(("cluster", format!("node {} belongs to cluster {}", self.node_id(), cluster.text)));
        }
        if header.receiver != self.node_id() {
            return Some(("receiver", format!("message for node {} came to node {}", header.receiver, self.node_id())));
        }
        let incarnation = match wire::read_incarnation(&header.incarnation) {
            Ok(incarnation) => incarnation,
            Err(error) => return Some(("malformed", error.to_string())),
        };
        let applied = self.applied.borrow();
        if applied.state.removed_member(header.sender) == Some(incarnation.0) {
            return Some((REMOVED, format!("node {} was removed from the cluster", header.sender)));
        }
        let known = applied.membership.membership().get_node(&header.sender)?;
        let detail = || {
            format!(
                "node {} is known with another data directory: remove that member and add this node under a new id",
                header.sender
            )
        };
        let is_other = known.incarnation != incarnation && !KnownBug::IdReuse.is_on();
        is_other.then(|| ("incarnation", detail()))
    }
}

/// Whether a peer's refusal says that this node was removed from the cluster.
pub(super) fn says_removed(status: &Status) -> bool {
    status.metadata().get(REFUSAL).is_some_and(|refusal| refusal == REMOVED)
}
