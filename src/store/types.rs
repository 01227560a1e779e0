//! The types that openraft works with here, and the names by which the rest of the program calls them.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};

use super::runtime::Runtime;
use super::snapshot::SnapshotFile;
use crate::model::{NodeId, Outcome};

openraft::declare_raft_types!(
    /// openraft's type configuration.
    pub TypeConfig:
        D = Proposal,
        R = Answer,
        NodeId = NodeId,
        Node = Member,
        AsyncRuntime = Runtime,
);

/// Term, leader and index of an entry.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Whom a node voted for, and whether a quorum did.
pub type Vote = alias::VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = alias::EntryOf<TypeConfig>;
/// Who leads, as log ids name it.
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<Proposal, NodeId, Member>;
/// Voters and learners.
pub type Membership = openraft::Membership<NodeId, Member>;
/// A membership with the log id of its entry.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers, and its file.
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// What applying an entry answers: an outcome for a command, nothing for a blank or membership entry.
pub type Answer = Option<Outcome>;

/// An encoded command (see [`super::encode_command`]). openraft and the log carry it without looking inside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a membership records of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where its admin API is reached, `host:port`.
    pub admin_address: String,
    /// Which data directory it runs on: a wiped node that comes back has another one.
    pub incarnation: Incarnation,
}

/// The random name of a cluster, made once at its bootstrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// The random name of a data directory, made at a node's first start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

macro_rules! random_name {
    ($name:ident) => {
        impl $name {
            /// A new one (UUID version 4).
            pub fn random() -> $name {
                $name(uuid::Uuid::new_v4().into_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

random_name!(ClusterId);
random_name!(Incarnation);
