//! The Raft node: propose, read, membership, and peers over gRPC.

mod error;
mod node;
mod options;
mod status;

pub use error::{NotAppliedKind, ProposeError, ReadError, StartError};
pub use node::Node;
pub use options::{NodeOptions, RaftSettings};
pub use status::{ClusterStatus, MemberLive, MemberStatus, Role};
