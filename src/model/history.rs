//! History: who changed what, when, before and after. Bounded by count and bytes, independent of what the Raft log still holds.

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, PartsHasher};
use super::ids::{Revision, Timestamp};
use super::limits::{HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX};
use super::resource::ResourceKey;

/// One revision: the transaction that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The revision that it made.
    pub revision: Revision,
    /// The proposer's wall clock.
    pub at: Timestamp,
    /// Who asked for it.
    pub actor: String,
    /// The resources that it changed, in the order of the operations.
    pub changes: Vec<Change>,
    /// The digest of all resources after it.
    pub digest: Digest,
    /// How many resources it changed, where they are too many to be kept: `changes` is empty then. Snapshots hold it in a record of its own
    /// ([`super::StateRecord::LargeRevision`]).
    #[serde(skip)]
    pub omitted: Option<ChangeCounts>,
}

/// How many resources a revision changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Made.
    pub created: u64,
    /// Given another content.
    pub updated: u64,
    /// Removed.
    pub deleted: u64,
}

impl ChangeCounts {
    /// Counts a change of a resource that was there or not, and is there or not after it.
    pub(super) fn count(&mut self, was_there: bool, is_there: bool) {
        match (was_there, is_there) {
            (false, _) => self.created += 1,
            (true, false) => self.deleted += 1,
            (true, true) => self.updated += 1,
        }
    }

    pub(super) fn add(&mut self, other: ChangeCounts) {
        self.created += other.created;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }

    /// All of them.
    pub fn sum(self) -> u64 {
        self.created + self.updated + self.deleted
    }
}

/// What happened to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which resource.
    pub key: ResourceKey,
    /// What it was; `None` where the change made it.
    pub before: Option<Version>,
    /// What it became; `None` where the change removed it.
    pub after: Option<Version>,
}

/// A resource's content at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The revision that made the resource.
    pub created_revision: Revision,
    /// The revision that gave it this content.
    pub revision: Revision,
    /// The wall clock of that change's proposer.
    pub updated_at: Timestamp,
    /// The spec as canonical JSON.
    pub spec: Bytes,
}

impl HistoryEntry {
    /// Bytes that count against [`HISTORY_BYTES_MAX`].
    pub fn byte_count(&self) -> usize {
        let version = |version: &Option<Version>| version.as_ref().map_or(0, |v| v.spec.len() + 24);
        let changes: usize =
            self.changes.iter().map(|c| c.key.name.as_str().len() + version(&c.before) + version(&c.after) + 16).sum();
        changes + self.actor.len() + 64
    }

    fn digest_of_entry(&self) -> Digest {
        // The content of a revision is already in `digest` and the sequence of revisions; what else tells two histories apart is
        // who, when and which resources.
        let mut parts = PartsHasher::default();
        parts.add(&self.revision.0.to_le_bytes());
        parts.add(&self.at.0.to_le_bytes());
        parts.add(self.actor.as_bytes());
        parts.add(&self.digest.0);
        let revision = |version: &Option<Version>| version.as_ref().map_or(0, |version| version.revision.0).to_le_bytes();
        for change in &self.changes {
            parts.add(&u16::from(change.key.kind).to_le_bytes());
            parts.add(change.key.name.as_str().as_bytes());
            parts.add(&revision(&change.before));
            parts.add(&revision(&change.after));
        }
        if let Some(ChangeCounts { created, updated, deleted }) = self.omitted {
            [created, updated, deleted].iter().for_each(|count| parts.add(&count.to_le_bytes()));
        }
        parts.digest()
    }
}

/// The kept revisions, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    entries: OrdMap<Revision, std::sync::Arc<HistoryEntry>>,
    byte_count: usize,
    hash: super::digest::SetHash,
}

impl History {
    /// Adds the newest revision and drops the oldest beyond the bounds.
    pub(super) fn push(&mut self, entry: HistoryEntry) {
        self.byte_count += entry.byte_count();
        self.hash.insert(entry.digest_of_entry());
        self.entries.insert(entry.revision, std::sync::Arc::new(entry));
        while self.entries.len() > 1 && (self.entries.len() > HISTORY_REVISIONS_MAX || self.byte_count > HISTORY_BYTES_MAX) {
            let Some((oldest, entry)) = self.entries.get_min().cloned() else { break };
            self.entries.remove(&oldest);
            self.byte_count -= entry.byte_count();
            self.hash.remove(entry.digest_of_entry());
        }
    }

    pub(super) fn get(&self, revision: Revision) -> Option<&HistoryEntry> {
        self.entries.get(&revision).map(AsRef::as_ref)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &HistoryEntry> {
        self.entries.values().map(AsRef::as_ref)
    }

    pub(super) fn hash(&self) -> Digest {
        self.hash.digest()
    }
}
