//! Commands: what the Raft log carries.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ids::{Revision, Timestamp};
use super::resource::ResourceKey;
use super::spec;
use super::staging::{Activation, Chunk, UploadId};

/// One entry of the log. `store` puts it into a versioned envelope; a command or envelope that a node does not know stops it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's wall clock.
    pub proposed_at: Timestamp,
    /// Who asked for it, for history: a token's name, or `anonymous`.
    pub actor: String,
    /// What to do.
    pub body: CommandBody,
}

/// What a command does. A variant that came after the first version needs a feature level ([`CommandBody::feature_level`]). Variants are appended, never reordered: their position is their number on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandBody {
    /// Change resources, all or nothing.
    Transaction(Transaction),
    /// Raise the feature level to this number; a lower one changes nothing.
    RaiseFeatureLevel(u32),
    /// Keep a part of a larger change for its activation. Feature level 1.
    Stage(Chunk),
    /// Make a staged upload live. Feature level 1.
    Activate(Activation),
    /// Forget a staged upload, if it is there. Feature level 1.
    Discard(UploadId),
    /// Sets the note of State. Feature level 3.
    #[cfg(feature = "next-format")]
    SetNote(String),
}

impl CommandBody {
    /// Why a cluster at the level `present` cannot take it yet, if it cannot.
    pub fn refused_at(&self, present: u32) -> Option<String> {
        let needed = self.feature_level();
        (needed > present).then(|| {
            format!(
                "it needs feature level {needed}, and the cluster is at {present}: once every member runs a version that knows it, raise \
                 it (raftgate cluster raise-feature-level {needed})"
            )
        })
    }

    /// Whether it may be proposed again where nobody can tell what became of it: a second one finds the first one's work done.
    pub fn is_repeatable(&self) -> bool {
        match self {
            CommandBody::Transaction(transaction) => transaction.idempotency.is_some(),
            CommandBody::Activate(activation) => activation.idempotency.is_some(),
            CommandBody::RaiseFeatureLevel(_) | CommandBody::Stage(_) | CommandBody::Discard(_) => true,
            #[cfg(feature = "next-format")]
            CommandBody::SetNote(_) => false,
        }
    }

    /// The level that the cluster must have been raised to. Asked before a command is proposed, never while it is applied: what is in the
    /// log was let in.
    pub fn feature_level(&self) -> u32 {
        match self {
            CommandBody::Transaction(transaction) => level_of(&transaction.operations),
            CommandBody::RaiseFeatureLevel(_) => 0,
            CommandBody::Stage(chunk) => level_of(&chunk.operations).max(1),
            CommandBody::Activate(_) | CommandBody::Discard(_) => 1,
            #[cfg(feature = "next-format")]
            CommandBody::SetNote(_) => 3,
        }
    }
}

/// Operations that take effect together, in one revision, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transaction {
    /// All must hold at the State before the first operation.
    pub preconditions: Vec<Precondition>,
    /// Done in order. Two operations must not name one resource.
    pub operations: Vec<Operation>,
    /// Remembered with the outcome, so that a retry does not apply twice.
    pub idempotency: Option<IdempotencyKey>,
}

/// The feature level of what `operations` change.
fn level_of(operations: &[Operation]) -> u32 {
    operations.iter().map(Operation::feature_level).max().unwrap_or(0)
}

/// What must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The resource stands at exactly this revision; [`Revision::ZERO`] means that it does not exist.
    Revision {
        /// Which resource.
        key: ResourceKey,
        /// Its revision.
        revision: Revision,
    },
    /// The resource exists, at any revision.
    Exists {
        /// Which resource.
        key: ResourceKey,
    },
    /// The whole State stands at exactly this revision (a write that was computed from it).
    State {
        /// State's revision.
        revision: Revision,
    },
}

/// One change of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Make or replace the resource. A spec identical to the present one changes nothing.
    Put {
        /// Which resource.
        key: ResourceKey,
        /// Its spec as canonical JSON (RFC 8785).
        spec: Bytes,
    },
    /// Remove the resource; refused where there is none.
    Delete {
        /// Which resource.
        key: ResourceKey,
    },
}

impl Operation {
    /// The resource that it changes.
    pub fn key(&self) -> &ResourceKey {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }

    /// The level that the cluster must have been raised to.
    fn feature_level(&self) -> u32 {
        match self {
            Operation::Put { key, spec } => spec::feature_level(key.kind, spec),
            Operation::Delete { key } => key.kind.feature_level(),
        }
    }

    /// Bytes that count against [`super::limits::TRANSACTION_BYTES_MAX`].
    pub fn byte_count(&self) -> usize {
        match self {
            Operation::Put { key, spec } => key.name.as_str().len() + spec.len(),
            Operation::Delete { key } => key.name.as_str().len(),
        }
    }
}

/// A client's idempotency key, scoped by caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// `caller` and `key` joined by a zero byte.
    pub scoped_key: String,
    /// SHA-256 of what the request asked for (method, target, preconditions and body).
    pub request_sha256: [u8; 32],
}
