//! The Raft node: propose, read, and what peers say to each other.
//!
//! ```text
//!  propose --> proposals --+--> raft core (openraft) --> store: log, sync, apply --> State
//!  read -----> reads ------+        |      ^
//!                                network  server
//!                                   |      ^
//!                                   +-> peers (gRPC, proto/peer.proto)
//! ```
//!
//! - [`Node`] is the handle. Everything behind it lives in one `Shared` value and in tasks that end with the node.
//! - `bootstrap` forms a new cluster, `join` lets a node into a running one, `members` changes who votes,
//!   `hand_over` who leads.
//! - `identity` says who speaks in every message and refuses whom this node must not hear.
//! - `proposals` keeps "not applied" and "unknown" apart, `batches` takes commands to the leader in batches.
//! - `reads` shares ReadIndex rounds; `live` waits for published tables.
//! - `peers` keeps connections, by what `transport` brings: `clear_text`, TLS (`handshakes`), or a simulated network. `strangers` tells of
//!   those that come to nothing.
//! - `board` knows how the peers are; `divergence` compares what they hold; `compaction` makes snapshots and purges the log.
//!
//! openraft's API still moves: outside of here and of `store` nobody knows it. Its own formats never reach the wire or the disk (`wire`).
//! Left out on purpose: leases for reads (they trust clocks), and more than one hop (a forwarded call never travels on).

mod batches;
mod board;
mod bootstrap;
mod clear_text;
mod compaction;
mod divergence;
mod error;
mod feature_level;
mod hand_over;
mod handshakes;
mod identity;
mod join;
mod live;
mod members;
mod network;
mod node;
mod options;
mod peers;
mod proposals;
mod reads;
mod server;
mod shared;
mod status;
mod strangers;
#[cfg(test)]
mod tests;
mod transport;
mod wire;
mod wire_outcome;

pub use error::{MemberError, NotAppliedKind, ProposeError, ReadError, StartError};
pub use members::MemberChange;
pub use node::Node;
pub use options::{NodeOptions, RaftSettings};
pub use status::{ClusterStatus, MemberLive, MemberStatus, Role};
pub use transport::{Connection, Dialer, Proved, Transport};
