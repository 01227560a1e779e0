//! Plain structs that stand for openraft's types on disk.
//!
//! openraft's own serde derives are not a stable format (its docs say so). These are ours: nothing here is ever reordered or changed,
//! a different shape is a new struct under a new version number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use super::codec::CodecError;
use super::types::{Entry, Incarnation, LeaderId, LogId, Member, Membership, Proposal, StoredMembership, Vote};
use crate::model::NodeId;

/// A log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskLogId {
    term: u64,
    node_id: NodeId,
    index: u64,
}

impl From<LogId> for DiskLogId {
    fn from(log_id: LogId) -> DiskLogId {
        DiskLogId { term: log_id.leader_id.term, node_id: log_id.leader_id.node_id, index: log_id.index }
    }
}

impl From<DiskLogId> for LogId {
    fn from(disk: DiskLogId) -> LogId {
        LogId::new(LeaderId { term: disk.term, node_id: disk.node_id }, disk.index)
    }
}

/// A vote.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DiskVote {
    term: u64,
    node_id: NodeId,
    committed: bool,
}

impl From<&Vote> for DiskVote {
    fn from(vote: &Vote) -> DiskVote {
        DiskVote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<DiskVote> for Vote {
    fn from(disk: DiskVote) -> Vote {
        Vote { leader_id: LeaderId { term: disk.term, node_id: disk.node_id }, committed: disk.committed }
    }
}

/// The low-water mark: what the log held at its last sync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskMark {
    pub(crate) last: Option<DiskLogId>,
    pub(crate) purged: Option<DiskLogId>,
}

/// A member of a membership.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DiskMember {
    peer_address: String,
    admin_address: String,
    incarnation: [u8; 16],
}

/// A membership: voter sets (two while it is joint) and everybody's addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DiskMembership {
    configurations: Vec<BTreeSet<NodeId>>,
    members: BTreeMap<NodeId, DiskMember>,
}

impl From<&Membership> for DiskMembership {
    fn from(membership: &Membership) -> DiskMembership {
        let member = |(id, member): (&NodeId, &Member)| {
            let disk = DiskMember {
                peer_address: member.peer_address.clone(),
                admin_address: member.admin_address.clone(),
                incarnation: member.incarnation.0,
            };
            (*id, disk)
        };
        DiskMembership {
            configurations: membership.get_joint_config().clone(),
            members: membership.nodes().map(member).collect(),
        }
    }
}

impl TryFrom<DiskMembership> for Membership {
    type Error = CodecError;

    fn try_from(disk: DiskMembership) -> Result<Membership, CodecError> {
        let member = |(id, disk): (NodeId, DiskMember)| {
            let incarnation = Incarnation(disk.incarnation);
            (id, Member { peer_address: disk.peer_address, admin_address: disk.admin_address, incarnation })
        };
        let members: BTreeMap<NodeId, Member> = disk.members.into_iter().map(member).collect();
        if disk.configurations.is_empty() && members.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(disk.configurations, members).map_err(|error| CodecError::Body(format!("membership: {error}")))
    }
}

/// A membership and where it stands in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DiskStoredMembership {
    log_id: Option<DiskLogId>,
    membership: DiskMembership,
}

impl From<&StoredMembership> for DiskStoredMembership {
    fn from(stored: &StoredMembership) -> DiskStoredMembership {
        DiskStoredMembership { log_id: stored.log_id().map(DiskLogId::from), membership: stored.membership().into() }
    }
}

impl TryFrom<DiskStoredMembership> for StoredMembership {
    type Error = CodecError;

    fn try_from(disk: DiskStoredMembership) -> Result<StoredMembership, CodecError> {
        Ok(StoredMembership::new(disk.log_id.map(LogId::from), disk.membership.try_into()?))
    }
}

/// An entry of the log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DiskEntry {
    log_id: DiskLogId,
    payload: DiskPayload,
}

/// What an entry carries. Variants are appended, never reordered.
#[derive(Debug, Serialize, Deserialize)]
enum DiskPayload {
    Blank,
    Command(Bytes),
    Membership(DiskMembership),
}

impl From<&Entry> for DiskEntry {
    fn from(entry: &Entry) -> DiskEntry {
        let payload = match &entry.payload {
            EntryPayload::Blank => DiskPayload::Blank,
            EntryPayload::Normal(proposal) => DiskPayload::Command(proposal.0.clone()),
            EntryPayload::Membership(membership) => DiskPayload::Membership(membership.into()),
        };
        DiskEntry { log_id: entry.log_id.into(), payload }
    }
}

impl DiskEntry {
    /// openraft's entry. Not a `TryFrom`: its entry type is generic, which makes that a conflict.
    pub(crate) fn into_entry(self) -> Result<Entry, CodecError> {
        let payload = match self.payload {
            DiskPayload::Blank => EntryPayload::Blank,
            DiskPayload::Command(bytes) => EntryPayload::Normal(Proposal(bytes)),
            DiskPayload::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: self.log_id.into(), payload })
    }
}
