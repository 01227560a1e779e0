//! What can go wrong, told apart by the one question a client has: may it have happened?

use std::io;

use thiserror::Error;

/// Why [`super::Node::start`] failed.
#[derive(Debug, Error)]
pub enum StartError {
    /// The members of the new cluster do not fit this node.
    #[error("cluster.initial_members: {0}")]
    Members(String),
    /// A timing that Raft cannot work with.
    #[error("cluster timing: {0}")]
    Timing(String),
    /// The data directory belongs to another node or cluster.
    #[error("data directory: {0}")]
    Identity(String),
    /// The peer listener could not be used.
    #[error("cluster.peer_address: {0}")]
    Listener(#[source] io::Error),
    /// The Raft core did not start.
    #[error("raft core: {0}")]
    Raft(String),
}

/// Why nothing was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAppliedKind {
    /// No leader was found, or none could be reached, inside the deadline.
    NoLeader,
    /// A leader without a quorum refused it.
    NoQuorum,
    /// Too many proposals or bytes wait on this node or on the leader.
    Busy,
    /// The storage of this node or of the leader failed.
    StorageFailed,
    /// This node is stopping.
    Stopping,
    /// The cluster removed this node.
    Removed,
    /// The cluster's feature level, or the leader's version, does not have the command.
    Unsupported,
}

/// What became of a proposal that has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Certainly nothing was proposed: the client may try again.
    #[error("not applied: {reason}")]
    NotApplied {
        /// Which case.
        kind: NotAppliedKind,
        /// For people.
        reason: String,
    },
    /// It was sent or appended and its outcome never came: it may have happened.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// For people.
        reason: String,
    },
    /// The encoded command is larger than an entry may be.
    #[error("command of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// Why a linearizable read could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader with a quorum confirmed the read inside the deadline.
    #[error("not readable: {0}")]
    Unavailable(String),
    /// The storage of this node failed: it stands still.
    #[error("storage failed: {0}")]
    StorageFailed(String),
    /// This node is outside of the majority: it stands aside until it is replaced.
    #[error("this node has diverged: {0}")]
    Diverged(String),
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Why a change of the members was not made, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    /// There is no such member.
    #[error("{0}")]
    NotFound(String),
    /// Not as things stand now; later it may go.
    #[error("{0}")]
    Conflict(String),
    /// Not at all.
    #[error("{0}")]
    Refused(String),
    /// Certainly nothing was changed: the client may try again.
    #[error("not applied: {reason}")]
    NotApplied {
        /// Which case.
        kind: NotAppliedKind,
        /// For people.
        reason: String,
    },
    /// It may have happened, or may happen yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl MemberError {
    pub(super) fn not_applied(kind: NotAppliedKind, reason: impl Into<String>) -> MemberError {
        MemberError::NotApplied { kind, reason: reason.into() }
    }

    /// Whether another try inside the deadline can do no harm and may help.
    pub(super) fn may_be_tried_again(&self) -> bool {
        matches!(self, MemberError::NotApplied { kind: NotAppliedKind::NoLeader | NotAppliedKind::NoQuorum, .. })
    }
}

impl From<ProposeError> for MemberError {
    fn from(error: ProposeError) -> MemberError {
        match error {
            ProposeError::NotApplied { kind, reason } => MemberError::NotApplied { kind, reason },
            ProposeError::Unknown { reason } => MemberError::Unknown(reason),
            ProposeError::TooLarge { .. } => MemberError::Refused(error.to_string()),
        }
    }
}
