//! Newtypes that keep bare numbers apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Raft node's identity inside its cluster. Never used again once its member was removed.
pub type NodeId = u64;

/// Counts the transactions that changed something: 1, 2, 3 ... without gaps. Zero is the empty State.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of an empty State.
    pub const ZERO: Revision = Revision(0);

    /// The revision that the next change makes.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch, as a proposer's wall clock gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `milliseconds` later; saturates.
    #[must_use]
    pub fn plus_millis(self, milliseconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(milliseconds))
    }
}
