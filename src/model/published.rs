//! What a node serves, as its peers may know it.

use super::digest::Digest;
use super::ids::Revision;

/// The revision that a node's live table stands at. The table sends it; the node tells it to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// The revision of the table.
    pub revision: Revision,
    /// The digest of all resources at that revision.
    pub digest: Digest,
}
