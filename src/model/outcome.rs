//! Outcomes: what `apply` answers. All of them are deterministic; a local failure is never an outcome.

use serde::{Deserialize, Serialize};

use super::ids::Revision;
use super::resource::ResourceKey;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Applied {
        /// The revision that it made; the present one where nothing changed.
        revision: Revision,
        /// Whether it made a revision.
        changed: bool,
        /// One item an operation, in order.
        results: Vec<ResultItem>,
    },
    /// Not done, and nothing changed.
    Refused {
        /// State's revision at that moment.
        revision: Revision,
        /// Why.
        refusal: Refusal,
    },
}

impl Outcome {
    /// The revision that this was answered at.
    pub fn revision(&self) -> Revision {
        match self {
            Outcome::Applied { revision, .. } | Outcome::Refused { revision, .. } => *revision,
        }
    }
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultItem {
    /// Which resource.
    pub key: ResourceKey,
    /// Its revision now; for a delete, the revision that removed it.
    pub revision: Revision,
    /// Whether this operation made the resource.
    pub created: bool,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A precondition on one resource does not hold.
    Precondition {
        /// Its position in the transaction.
        index: u32,
        /// Which resource.
        key: ResourceKey,
        /// Its present revision; `None` where it does not exist.
        present: Option<Revision>,
    },
    /// [`super::Precondition::State`] does not hold.
    StateRevision {
        /// State's present revision.
        present: Revision,
    },
    /// A delete names a resource that does not exist.
    NotFound {
        /// The operation's position in the transaction.
        index: u32,
        /// Which resource.
        key: ResourceKey,
    },
    /// Two operations name one resource.
    DuplicateOperation {
        /// The second operation's position.
        index: u32,
        /// Which resource.
        key: ResourceKey,
    },
    /// Over a limit of [`super::limits`].
    TooLarge {
        /// What the limit counts.
        what: String,
        /// How many there were.
        count: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The idempotency key was used before with another request.
    IdempotencyKeyReused,
    /// The idempotency memory is full of keys that have not expired: nothing was applied, try later.
    IdempotencyMemoryFull,
    /// The staged upload has another number of chunks than the command expects; `None` where there is no such upload.
    Upload {
        /// How many it has.
        chunks: Option<u32>,
    },
    /// As much is staged as may be: nothing was applied, try later.
    StagingFull,
}

impl Refusal {
    pub(super) fn too_large(what: &str, count: usize, limit: usize) -> Refusal {
        Refusal::TooLarge { what: what.to_owned(), count: count as u64, limit: limit as u64 }
    }
}
