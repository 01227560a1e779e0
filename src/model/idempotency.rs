//! The idempotency memory: a retried write is not applied twice, through any change of leader.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::IdempotencyKey;
use super::digest::{Digest, SetHash};
use super::ids::Timestamp;
use super::limits::{IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_RETENTION};
use super::outcome::Outcome;

/// One remembered request. Its outcome is kept, a refusal too: the same request gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The client's key and the hash of its request.
    pub key: IdempotencyKey,
    /// What was answered.
    pub outcome: Outcome,
    /// State's clock when it was remembered.
    pub at: Timestamp,
    /// Position in the order of remembering; breaks ties of the clock.
    pub sequence: u64,
}

impl Remembered {
    fn byte_count(&self) -> usize {
        let outcome = match &self.outcome {
            Outcome::Applied { results, .. } => results.iter().map(|item| item.key.name.as_str().len() + 32).sum(),
            Outcome::Refused { .. } => 512,
        };
        self.key.scoped_key.len() + outcome + 96
    }

    fn digest(&self) -> Digest {
        Digest::of_parts([
            self.key.scoped_key.as_bytes(),
            self.key.request_sha256.as_slice(),
            self.at.0.to_le_bytes().as_slice(),
            self.outcome.revision().0.to_le_bytes().as_slice(),
            [u8::from(matches!(self.outcome, Outcome::Applied { .. }))].as_slice(),
        ])
    }
}

/// What the memory knows of a key.
pub(super) enum Lookup {
    /// Nothing.
    New,
    /// The same request, with this outcome.
    Same(Outcome),
    /// Another request under this key.
    Other,
}

/// Remembered requests by key, and in the order in which they expire.
#[derive(Debug, Clone, Default)]
pub(super) struct IdempotencyMemory {
    by_key: OrdMap<Arc<str>, Arc<Remembered>>,
    by_age: OrdMap<(Timestamp, u64), Arc<str>>,
    byte_count: usize,
    next_sequence: u64,
    hash: SetHash,
}

impl IdempotencyMemory {
    pub(super) fn look_up(&self, key: &IdempotencyKey) -> Lookup {
        match self.by_key.get(key.scoped_key.as_str()) {
            None => Lookup::New,
            Some(known) if known.key.request_sha256 == key.request_sha256 => Lookup::Same(known.outcome.clone()),
            Some(_) => Lookup::Other,
        }
    }

    /// Drops what is older than the retention.
    pub(super) fn expire(&mut self, clock: Timestamp) {
        let retention = IDEMPOTENCY_RETENTION.as_millis() as u64;
        while let Some(((at, sequence), key)) = self.by_age.get_min().cloned() {
            if at.plus_millis(retention) >= clock {
                break;
            }
            self.by_age.remove(&(at, sequence));
            if let Some(known) = self.by_key.remove(&key) {
                self.byte_count -= known.byte_count();
                self.hash.remove(known.digest());
            }
        }
    }

    /// Whether one more request can be remembered; asked before it is applied.
    pub(super) fn has_room(&self) -> bool {
        self.by_key.len() < IDEMPOTENCY_KEYS_MAX && self.byte_count < IDEMPOTENCY_BYTES_MAX
    }

    pub(super) fn remember(&mut self, key: IdempotencyKey, outcome: Outcome, at: Timestamp) {
        let sequence = self.next_sequence;
        self.restore(Remembered { key, outcome, at, sequence });
    }

    /// Puts back what a snapshot holds.
    pub(super) fn restore(&mut self, remembered: Remembered) {
        let key: Arc<str> = Arc::from(remembered.key.scoped_key.as_str());
        self.next_sequence = self.next_sequence.max(remembered.sequence.saturating_add(1));
        self.byte_count += remembered.byte_count();
        self.hash.insert(remembered.digest());
        self.by_age.insert((remembered.at, remembered.sequence), Arc::clone(&key));
        self.by_key.insert(key, Arc::new(remembered));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.by_key.values().map(AsRef::as_ref)
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn set_next_sequence(&mut self, next_sequence: u64) {
        self.next_sequence = next_sequence;
    }

    pub(super) fn hash(&self) -> Digest {
        self.hash.digest()
    }
}
