//! Why a data directory cannot be used, and what its operator does about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::NodeId;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("data directory {path}: another process uses it")]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to another node.
    #[error("data directory {path}: it belongs to node {found}, node_id is {configured}")]
    OtherNode {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// The configured id.
        configured: NodeId,
    },
    /// It belongs to a node of another cluster.
    #[error("data directory {path}: it belongs to cluster {found:?}, cluster.name is {configured:?}")]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// The configured name.
        configured: String,
    },
    /// A recovery was cut off between its last two steps.
    #[error("data directory {path}: its recovery was interrupted: run `raftgate recover` again, which finishes it")]
    Interrupted {
        /// The data directory.
        path: PathBuf,
    },
    /// The disk failed or is full. What stands on it may be whole.
    #[error("data directory {path}: {what}: {source}{}", repair(.source))]
    File {
        /// The data directory.
        path: PathBuf,
        /// What was read or written.
        what: &'static str,
        /// Why that failed.
        source: io::Error,
    },
    /// A later version wrote it.
    #[error(
        "data directory {path}: the cluster is at feature level {found}, this version knows up to {known}: run a later version"
    )]
    FeatureLevel {
        /// The data directory.
        path: PathBuf,
        /// The level of its State.
        found: u32,
        /// What this version knows.
        known: u32,
    },
    /// The log, or a small file beside it, is damaged.
    #[error("data directory {path}: {reason}; {}", replace(*.node_id))]
    Log {
        /// The data directory.
        path: PathBuf,
        /// Whose it is, where that is known.
        node_id: Option<NodeId>,
        /// What is wrong.
        reason: String,
    },
    /// No snapshot is good.
    #[error("data directory {path}: no snapshot can be read ({}); {}", .reasons.join("; "), replace(*.node_id))]
    Snapshots {
        /// The data directory.
        path: PathBuf,
        /// Whose it is, where that is known.
        node_id: Option<NodeId>,
        /// What is wrong with each.
        reasons: Vec<String>,
    },
}

/// What the operator does about a data directory that lost something. A voter never repairs itself under its old id: what it forgot, it
/// may have promised to others.
pub(crate) fn replace(node_id: Option<NodeId>) -> String {
    let id = node_id.map_or_else(|| "with its node_id".to_owned(), |id| id.to_string());
    format!(
        "this node must not vote again under this id: remove the member (raftgate cluster remove {id}), start a node with an empty data \
         directory under a new id (serve --join ADDRESS, without cluster.initial_members and the old node_id), and promote it (raftgate \
         cluster promote with the new id)"
    )
}

/// What the operator does about a disk that cannot be used at present, where the error tells.
fn repair(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; nothing is lost by that: free space on this disk and start the node again with this directory"
        }
        io::ErrorKind::PermissionDenied => "; let the user that runs this node read and write it",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it for writing",
        _ => "",
    }
}

/// Whether an error says nothing of what stands on the disk.
pub(super) fn is_passing(error: &io::Error) -> bool {
    !repair(error).is_empty()
}
