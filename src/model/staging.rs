//! Staged uploads: operations that wait in State, chunk by chunk, until one command makes all of them live.
//!
//! A configuration that is larger than one transaction cannot be one entry of the log: a follower takes an entry whole, and while it does
//! no heartbeat passes. So it comes as [`Chunk`]s, each an entry of ordinary size, and an [`Activation`] that applies them in one revision.
//! Until then they change nothing that anybody can see. An upload that its author has left expires by State's clock.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::command::{IdempotencyKey, Operation, Precondition};
use super::digest::Digest;
use super::ids::Timestamp;
use super::limits::{
    DOCUMENT_BYTES_MAX, STAGED_BYTES_MAX, STAGED_OPERATIONS_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX,
    UPLOAD_RETENTION, UPLOADS_MAX,
};
use super::outcome::Refusal;

/// Names one upload: a random number of its author's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadId(pub [u8; 16]);

/// A part of an upload. Sent twice it is taken once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Which upload; the first chunk makes it.
    pub upload: UploadId,
    /// 0, 1, 2 ... without gaps.
    pub sequence: u32,
    /// As many as a transaction may have.
    pub operations: Vec<Operation>,
}

/// Makes an upload live, in one revision or not at all. The upload is gone after that; refused, it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Which upload.
    pub upload: UploadId,
    /// The number of its chunks: all have to be there.
    pub chunk_count: u32,
    /// All must hold at the State before the first operation.
    pub preconditions: Vec<Precondition>,
    /// Remembered with the outcome, so that a retry does not apply twice.
    pub idempotency: Option<IdempotencyKey>,
}

/// A chunk as State holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedChunk {
    /// State's clock when it came.
    pub at: Timestamp,
    /// What it holds.
    pub operations: Vec<Operation>,
}

/// An upload in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Upload {
    chunks: Vector<Arc<StagedChunk>>,
    operation_count: usize,
    byte_count: usize,
    /// Of the chunks, in order.
    digest: Digest,
    last_digest: Digest,
    touched: Timestamp,
}

impl Upload {
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn operation_count(&self) -> usize {
        self.operation_count
    }

    pub(super) fn byte_count(&self) -> usize {
        self.byte_count
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.chunks.iter().flat_map(|chunk| chunk.operations.iter())
    }

    fn push(&mut self, chunk: StagedChunk) {
        self.operation_count += chunk.operations.len();
        self.byte_count += byte_count(&chunk.operations);
        self.last_digest = digest_of(&chunk.operations);
        let at = chunk.at.0.to_le_bytes();
        self.digest = Digest::of_parts([self.digest.0.as_slice(), self.last_digest.0.as_slice(), at.as_slice()]);
        self.touched = chunk.at;
        self.chunks.push_back(Arc::new(chunk));
    }
}

/// All uploads in the making.
///
/// Invariant: the counts are those of exactly the chunks that are held.
#[derive(Debug, Clone, Default)]
pub(super) struct Staging {
    uploads: OrdMap<UploadId, Upload>,
    operation_count: usize,
    byte_count: usize,
}

impl Staging {
    /// Takes a chunk, or says why not.
    pub(super) fn stage(&mut self, chunk: &Chunk, clock: Timestamp) -> Result<(), Refusal> {
        let present = self.uploads.get(&chunk.upload);
        let (count, last) = present.map_or((0, None), |upload| (upload.chunks.len(), Some(upload.last_digest)));
        let sequence = chunk.sequence as usize;
        if sequence + 1 == count && last == Some(digest_of(&chunk.operations)) {
            return Ok(());
        }
        if sequence != count {
            return Err(Refusal::Upload { chunks: present.map(|upload| upload.chunks.len() as u32) });
        }
        if let Some(refusal) = self.over_limit(chunk, present.is_none()) {
            return Err(refusal);
        }
        self.restore(chunk.upload, StagedChunk { at: clock, operations: chunk.operations.clone() });
        Ok(())
    }

    fn over_limit(&self, chunk: &Chunk, is_new: bool) -> Option<Refusal> {
        let (operations, bytes) = (chunk.operations.len(), byte_count(&chunk.operations));
        let longest = chunk.operations.iter().map(document_bytes).max().unwrap_or(0);
        let limits = [
            ("operations in the chunk", operations, TRANSACTION_OPERATIONS_MAX),
            ("bytes of the chunk", bytes, TRANSACTION_BYTES_MAX),
            ("bytes of one document", longest, DOCUMENT_BYTES_MAX),
        ];
        if let Some((what, count, limit)) = limits.into_iter().find(|(_, count, limit)| count > limit) {
            return Some(Refusal::too_large(what, count, limit));
        }
        let is_full = is_new && self.uploads.len() >= UPLOADS_MAX
            || self.operation_count + operations > STAGED_OPERATIONS_MAX
            || self.byte_count + bytes > STAGED_BYTES_MAX;
        is_full.then_some(Refusal::StagingFull)
    }

    /// Puts back what a snapshot holds.
    pub(super) fn restore(&mut self, id: UploadId, chunk: StagedChunk) {
        self.operation_count += chunk.operations.len();
        self.byte_count += byte_count(&chunk.operations);
        self.uploads.entry(id).or_default().push(chunk);
    }

    pub(super) fn get(&self, id: UploadId) -> Option<&Upload> {
        self.uploads.get(&id)
    }

    pub(super) fn remove(&mut self, id: UploadId) {
        if let Some(upload) = self.uploads.remove(&id) {
            self.operation_count -= upload.operation_count;
            self.byte_count -= upload.byte_count;
        }
    }

    /// Drops the uploads that got no chunk for longer than [`UPLOAD_RETENTION`].
    pub(super) fn expire(&mut self, clock: Timestamp) {
        let retention = UPLOAD_RETENTION.as_millis() as u64;
        let is_left = |(id, upload): (&UploadId, &Upload)| (upload.touched.plus_millis(retention) < clock).then_some(*id);
        let left: Vec<UploadId> = self.uploads.iter().filter_map(is_left).collect();
        left.into_iter().for_each(|id| self.remove(id));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }

    pub(super) fn operation_count(&self) -> usize {
        self.operation_count
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = (UploadId, &StagedChunk)> {
        self.uploads.iter().flat_map(|(id, upload)| upload.chunks.iter().map(|chunk| (*id, chunk.as_ref())))
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of_parts(self.uploads.iter().flat_map(|(id, upload)| [id.0.as_slice(), upload.digest.0.as_slice()]))
    }
}

fn document_bytes(operation: &Operation) -> usize {
    match operation {
        Operation::Put { spec, .. } => spec.len(),
        Operation::Delete { .. } => 0,
    }
}

fn byte_count(operations: &[Operation]) -> usize {
    operations.iter().map(Operation::byte_count).sum()
}

fn digest_of(operations: &[Operation]) -> Digest {
    let parts = operations.iter().map(|operation| {
        let key = operation.key();
        let spec = match operation {
            Operation::Put { spec, .. } => Digest::of_parts([b"put".as_slice(), spec]),
            Operation::Delete { .. } => Digest::default(),
        };
        Digest::of_parts([u16::from(key.kind).to_le_bytes().as_slice(), key.name.as_str().as_bytes(), spec.0.as_slice()])
    });
    Digest::of_parts(parts.collect::<Vec<_>>().iter().map(|digest| digest.0.as_slice()))
}
