//! What a node's table stands at.

use super::digest::Digest;
use super::ids::Revision;

/// The revision that a node's live table serves. The table sends it, the Raft node reports it to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// State's revision; zero before the first table.
    pub revision: Revision,
    /// The digest of all resources at that revision.
    pub digest: Digest,
}
