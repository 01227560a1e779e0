//! Pure data: resources, commands, and the replicated `State`.
//!
//! Everything here is a function of its arguments. There is no clock, no randomness and no IO, so that every node that folds the
//! same log over [`State::apply`] arrives at the same State, byte for byte (Raft 5.3, state machine safety).
//!
//! A resource's content travels as a *document*: its spec as canonical JSON bytes (RFC 8785), made once by the node that admits
//! the write. Nobody serialises it again. A node that is older than a field therefore stores and passes on what it does not
//! understand, and a cluster of mixed versions keeps one digest. Content is validated before it is proposed (see [`spec`]); `apply`
//! refuses only by rules that every version shares: preconditions, existence, and the limits in [`limits`].

mod bulk;
mod command;
mod digest;
mod history;
pub mod hostname;
mod idempotency;
mod ids;
pub mod limits;
mod method;
mod outcome;
pub mod path;
mod published;
mod record;
mod resource;
pub mod sender;
pub mod spec;
mod staging;
mod state;
pub mod template;
#[cfg(test)]
mod tests;

pub use command::{Command, CommandBody, IdempotencyKey, Operation, Precondition, Transaction};
pub use digest::{Digest, SetHash};
pub use history::{Change, ChangeCounts, HistoryEntry, Version};
pub use ids::{NodeId, Revision, Timestamp};
pub use method::MethodRefusal;
pub use outcome::{Outcome, Refusal, ResultItem};
pub use published::Published;
pub use record::{DigestedRecord, RecordError, StateBuilder, StateRecord};
pub use resource::{Kind, Name, NameError, Resource, ResourceKey};
pub use staging::{Activation, Chunk, StagedChunk, UploadId};
pub use state::State;
