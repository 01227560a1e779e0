//! What survives a crash: log, vote, identity and snapshots of one node, in one data directory.
//!
//! | path | content | owner |
//! |---|---|---|
//! | `lock`, `identity`, `vote`, `mark` | small files of our own | [`sidecar`] |
//! | `log/` | the Raft log and the committed log id, in sled | [`log`], keys on one page in `log/keys.rs` |
//! | `snapshots/` | the newest snapshot and the one before it | [`snapshot`] |
//!
//! A write passes like this: openraft calls `append`, the entries stand in memory, one thread writes and syncs all that waits, the
//! low-water mark follows, openraft hears that they are durable. Once committed they reach [`StateMachine`], which publishes State.
//! On any storage error the Raft side of the process stops for good ([`Opened::failed`]) and everybody else goes on.
//!
//! [`recovery`] begins a new cluster with what a lone survivor has; it works on the directory of a stopped node.
//!
//! Left out on purpose: repair. A directory that lost what it once promised is refused with the steps to replace the member, for a
//! voter that forgets can split the cluster (Raft 5.4, and the sidecar's essay).

mod advisor;
mod blocking;
mod codec;
mod failure;
mod format;
mod log;
mod open;
mod open_error;
mod recovery;
mod runtime;
mod samples;
mod sidecar;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;

pub use advisor::{Advice, SnapshotAdvisor};
pub use blocking::Blocking;
pub use codec::{CodecError, decode_command, encode_command};
pub use failure::Failure;
pub use log::{Batch, Key, LogCloser, LogFile, LogReader, LogStore, Pairs};
pub use open::{Opened, Simulated, StoreOptions, open, open_simulated};
pub use open_error::OpenError;
pub(crate) use open_error::replace;
pub use recovery::{Recovered, RecoveryError, Survivor, SurvivorReport, finish_interrupted};
pub use runtime::Runtime;
pub use samples::{Sample, Samples};
pub use sidecar::{Identity, IdentityFile};
pub use snapshot::{IncomingSnapshot, ReceiveError, SnapshotDirectory, SnapshotFile};
#[cfg(test)]
pub(crate) use state_machine::Tamper;
pub use state_machine::{AppliedState, SnapshotBuilder, StateMachine};
pub use types::{
    Answer, ClusterId, Entry, Incarnation, LeaderId, LogId, Member, Membership, Payload, Proposal, Snapshot, SnapshotMeta,
    StoredMembership, TypeConfig, Vote,
};
