//! State as a stream of records, for snapshots: one record a resource, so that neither side holds a second whole copy in memory.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
use super::history::{ChangeCounts, HistoryEntry};
use super::idempotency::Remembered;
use super::ids::{NodeId, Revision, Timestamp};
use super::resource::Resource;
use super::staging::{StagedChunk, UploadId};
use super::state::{State, digest_of_resource};

/// One piece of State. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateRecord {
    /// Always first.
    Header {
        /// State's revision.
        revision: Revision,
        /// State's clock.
        clock: Timestamp,
        /// The feature level.
        feature_level: u32,
        /// Where the idempotency memory goes on counting.
        idempotency_sequence: u64,
    },
    /// A resource.
    Resource(Resource),
    /// A kept revision; they come oldest first.
    History(HistoryEntry),
    /// A remembered request.
    Remembered(Remembered),
    /// Always last: what the records before it must add up to.
    Footer {
        /// [`State::digest`].
        digest: Digest,
        /// [`State::state_digest`].
        state_digest: Digest,
    },
    /// A member that was removed.
    RemovedMember {
        /// Its id.
        id: NodeId,
        /// Its data directory's.
        incarnation: [u8; 16],
    },
    /// A part of a staged upload; they come in order. Feature level 1.
    StagedChunk {
        /// Which upload.
        upload: UploadId,
        /// The part.
        chunk: StagedChunk,
    },
    /// A kept revision without its changes. Comes among those of [`StateRecord::History`]. Feature level 1.
    LargeRevision {
        /// The revision.
        entry: HistoryEntry,
        /// How much it changed.
        omitted: ChangeCounts,
    },
    /// The note. Feature level 2.
    #[cfg(feature = "next-format")]
    Note(String),
}

/// Why records do not make a State.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The first record is not the header, or a header comes again.
    #[error("the header record is missing, repeated or not the first")]
    Header,
    /// A record comes after the footer, or the footer is missing.
    #[error("the footer record is missing or not the last")]
    Footer,
    /// The records do not add up.
    #[error("the records add up to digest {found}, the footer says {expected}")]
    Digest {
        /// What the footer says.
        expected: Digest,
        /// What the records give.
        found: Digest,
    },
}

/// A record, and the digest that it adds to its State: the larger part of the work of taking it in, which any thread can do.
#[derive(Debug)]
pub struct DigestedRecord {
    record: StateRecord,
    /// Of a resource.
    digest: Option<Digest>,
}

impl From<StateRecord> for DigestedRecord {
    fn from(record: StateRecord) -> DigestedRecord {
        let digest = match &record {
            StateRecord::Resource(resource) => Some(digest_of_resource(resource)),
            _ => None,
        };
        DigestedRecord { record, digest }
    }
}

/// Makes a State of records again.
#[derive(Debug, Default)]
pub struct StateBuilder {
    state: State,
    has_header: bool,
    footer: Option<(Digest, Digest)>,
}

impl StateBuilder {
    /// A builder that waits for the header.
    pub fn new() -> StateBuilder {
        StateBuilder::default()
    }

    /// Takes the next record.
    pub fn add(&mut self, record: impl Into<DigestedRecord>) -> Result<(), RecordError> {
        let DigestedRecord { record, digest } = record.into();
        if self.footer.is_some() {
            return Err(RecordError::Footer);
        }
        if matches!(record, StateRecord::Header { .. }) == self.has_header {
            return Err(RecordError::Header);
        }
        match record {
            StateRecord::Header { revision, clock, feature_level, idempotency_sequence } => {
                self.has_header = true;
                self.state.restore_header(revision, clock, feature_level, idempotency_sequence);
            }
            StateRecord::Resource(resource) => self.state.restore_resource(resource, digest),
            StateRecord::History(entry) => self.state.restore_history(entry),
            StateRecord::LargeRevision { entry, omitted } => {
                self.state.restore_history(HistoryEntry { omitted: Some(omitted), ..entry });
            }
            StateRecord::StagedChunk { upload, chunk } => self.state.restore_staged(upload, chunk),
            StateRecord::Remembered(remembered) => self.state.restore_remembered(remembered),
            StateRecord::RemovedMember { id, incarnation } => self.state.remember_removed_member(id, incarnation),
            #[cfg(feature = "next-format")]
            StateRecord::Note(note) => self.state.restore_note(note),
            StateRecord::Footer { digest, state_digest } => self.footer = Some((digest, state_digest)),
        }
        Ok(())
    }

    /// The State, once the footer came and agrees.
    pub fn finish(self) -> Result<State, RecordError> {
        let (digest, state_digest) = self.footer.ok_or(RecordError::Footer)?;
        for (expected, found) in [(digest, self.state.digest()), (state_digest, self.state.state_digest())] {
            if expected != found {
                return Err(RecordError::Digest { expected, found });
            }
        }
        Ok(self.state)
    }
}
