//! What a node serves, in two numbers.

use super::digest::Digest;
use super::ids::Revision;

/// The revision that a node's table serves, and the digest of its resources. `table` sends it, `raft` tells it to the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// The served revision; zero before the first table.
    pub revision: Revision,
    /// The digest of the resources at that revision.
    pub digest: Digest,
}
