//! State: a fold over commands.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::command::{Command, CommandBody, IdempotencyKey, Operation, Precondition, Transaction};
use super::digest::{Digest, SetHash};
use super::history::{Change, ChangeCounts, History, HistoryEntry, Version};
use super::idempotency::{IdempotencyMemory, Lookup, Remembered};
use super::ids::{NodeId, Revision, Timestamp};
use super::limits::{
    CLOCK_STEP_MAX, DOCUMENT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX,
};
use super::outcome::{Outcome, Refusal, ResultItem};
use super::record::StateRecord;
use super::resource::{Kind, Name, Resource, ResourceKey};
use super::staging::{Activation, StagedChunk, Staging, UploadId};

/// Everything that the cluster agrees on.
///
/// Its maps are persistent (structurally shared): a clone costs O(1), and [`State::changes_since`] skips what two States share.
///
/// Invariants: `revision` counts the transactions that changed something; `hash` is the set hash of exactly `resources`.
#[derive(Debug, Clone, Default)]
pub struct State {
    revision: Revision,
    clock: Timestamp,
    feature_level: u32,
    resources: OrdMap<ResourceKey, Arc<Resource>>,
    hash: SetHash,
    history: History,
    idempotency: IdempotencyMemory,
    /// Uploads that wait for their activation.
    staging: Staging,
    /// Members that were removed, with the incarnation of each: their ids are never used again.
    removed_members: OrdMap<NodeId, [u8; 16]>,
    #[cfg(feature = "next-format")]
    note: String,
}

/// A resource before and after an operation that changes it.
pub(super) struct Effect {
    pub(super) before: Option<Arc<Resource>>,
    pub(super) after: Option<Arc<Resource>>,
}

impl State {
    /// The number of transactions that changed something.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The digest of all resources: kind, name, revisions, time and bytes. It moves only when the revision moves.
    pub fn digest(&self) -> Digest {
        self.hash.digest()
    }

    /// The digest of everything in State, compared between nodes at the same applied log id.
    pub fn state_digest(&self) -> Digest {
        let digest = Digest::of_parts([
            self.revision.0.to_le_bytes().as_slice(),
            self.clock.0.to_le_bytes().as_slice(),
            self.feature_level.to_le_bytes().as_slice(),
            self.hash.digest().0.as_slice(),
            self.history.hash().0.as_slice(),
            self.idempotency.next_sequence().to_le_bytes().as_slice(),
            self.idempotency.hash().0.as_slice(),
            self.removed_members_digest().0.as_slice(),
        ]);
        // A field of a later level counts once it holds something: below its level all versions have one digest.
        let digest = match self.staging.is_empty() {
            true => digest,
            false => Digest::of_parts([digest.0.as_slice(), self.staging.digest().0.as_slice()]),
        };
        #[cfg(feature = "next-format")]
        if !self.note.is_empty() {
            return Digest::of_parts([digest.0.as_slice(), self.note.as_bytes()]);
        }
        digest
    }

    /// The level of features that every member understands.
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The incarnation of the member with this id, where it was removed.
    pub fn removed_member(&self, id: NodeId) -> Option<[u8; 16]> {
        self.removed_members.get(&id).copied()
    }

    /// The greatest id of a member that was removed.
    pub fn last_removed_member(&self) -> Option<NodeId> {
        self.removed_members.get_max().map(|(id, _)| *id)
    }

    /// Remembers for ever that a member was removed. Part of applying the membership that leaves it out, so that all nodes remember it
    /// from the same log id on.
    pub fn remember_removed_member(&mut self, id: NodeId, incarnation: [u8; 16]) {
        self.removed_members.insert(id, incarnation);
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are no resources.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The resource with this key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// All resources, by kind, then name.
    pub fn resources(&self) -> impl DoubleEndedIterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resources behind `after`, or all, by kind, then name. Costs O(log n) to start.
    pub fn resources_from(&self, after: Option<&ResourceKey>) -> impl Iterator<Item = &Arc<Resource>> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        self.resources.range((start, Bound::Unbounded)).map(|(_, resource)| resource)
    }

    /// The resources of one kind whose names come after `after`, by name. Costs O(log n) to start.
    pub fn resources_after(&self, kind: Kind, after: Option<&Name>) -> impl Iterator<Item = &Arc<Resource>> {
        let start = match after {
            Some(name) => Bound::Excluded(ResourceKey::new(kind, name.clone())),
            None => first_key(kind).map_or(Bound::Unbounded, Bound::Included),
        };
        self.resources.range((start, Bound::Unbounded)).map(|(_, resource)| resource).take_while(move |r| r.key.kind == kind)
    }

    /// Operations of uploads that are not live yet.
    pub fn staged_operation_count(&self) -> usize {
        self.staging.operation_count()
    }

    /// Kept revisions, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &HistoryEntry> {
        self.history.iter()
    }

    /// The transaction that made `revision`, if history still holds it.
    pub fn history_at(&self, revision: Revision) -> Option<&HistoryEntry> {
        self.history.get(revision)
    }

    /// The resources as they were at `revision`, with that revision and nothing else; `None` where history no longer holds all that came
    /// after (a staged upload that became live leaves no changes behind), or where `revision` is yet to come. Costs O(changes since).
    pub fn at(&self, revision: Revision) -> Option<State> {
        let mut past = State { revision, resources: self.resources.clone(), hash: self.hash, ..State::default() };
        let mut present = self.revision;
        for entry in self.history.iter().rev().take_while(|entry| entry.revision > revision) {
            if entry.omitted.is_some() {
                return None;
            }
            entry.changes.iter().for_each(|change| past.undo(change));
            present = Revision(entry.revision.0 - 1);
        }
        (present == revision).then_some(past)
    }

    fn undo(&mut self, change: &Change) {
        if let Some(present) = self.resources.remove(&change.key) {
            self.hash.remove(digest_of_resource(&present));
        }
        if let Some(before) = &change.before {
            let resource = Resource {
                key: change.key.clone(),
                created_revision: before.created_revision,
                revision: before.revision,
                updated_at: before.updated_at,
                spec: before.spec.clone(),
            };
            self.restore_resource(resource, None);
        }
    }

    /// What differs from `old` to `self`: pairs of before and after. Costs O(changes), not O(resources), where one State
    /// came from the other.
    pub fn changes_since<'a>(
        &'a self,
        old: &'a State,
    ) -> impl Iterator<Item = (Option<&'a Arc<Resource>>, Option<&'a Arc<Resource>>)> {
        old.resources.diff(&self.resources).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(new)),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
            DiffItem::Remove(_, old) => (Some(old), None),
        })
    }

    /// Folds one command into State (Raft 5.3). Deterministic: what it answers and what it changes depend on State and command alone.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.advance_clock(command.proposed_at);
        self.idempotency.expire(self.clock);
        self.staging.expire(self.clock);
        match &command.body {
            CommandBody::Transaction(transaction) => {
                self.once(transaction.idempotency.as_ref(), |state| state.apply_transaction(command, transaction))
            }
            CommandBody::Stage(chunk) => match self.staging.stage(chunk, self.clock) {
                Ok(()) => self.unchanged(Vec::new()),
                Err(refusal) => self.refused(refusal),
            },
            CommandBody::Activate(activation) => {
                let outcome = self.once(activation.idempotency.as_ref(), |state| state.activate(command, activation));
                if matches!(outcome, Outcome::Applied { .. }) {
                    self.staging.remove(activation.upload);
                }
                outcome
            }
            CommandBody::Discard(upload) => {
                self.staging.remove(*upload);
                self.unchanged(Vec::new())
            }
            CommandBody::RaiseFeatureLevel(level) => {
                self.feature_level = self.feature_level.max(*level);
                self.unchanged(Vec::new())
            }
            #[cfg(feature = "next-format")]
            CommandBody::SetNote(note) => {
                self.note.clone_from(note);
                self.unchanged(Vec::new())
            }
        }
    }

    /// What `transaction` would answer, and the State that it would leave. For `dryRun`.
    pub fn preview(&self, command: &Command) -> (Outcome, State) {
        let mut state = self.clone();
        let outcome = state.apply(command);
        (outcome, state)
    }

    /// State as records, header first, footer last. Read from an O(1) clone while the original goes on.
    pub fn records(&self) -> impl Iterator<Item = StateRecord> + '_ {
        let header = StateRecord::Header {
            revision: self.revision,
            clock: self.clock,
            feature_level: self.feature_level,
            idempotency_sequence: self.idempotency.next_sequence(),
        };
        let footer = StateRecord::Footer { digest: self.digest(), state_digest: self.state_digest() };
        std::iter::once(header)
            .chain(self.resources.values().map(|resource| StateRecord::Resource(resource.as_ref().clone())))
            .chain(self.history.iter().map(|entry| match entry.omitted {
                None => StateRecord::History(entry.clone()),
                Some(omitted) => StateRecord::LargeRevision { entry: entry.clone(), omitted },
            }))
            .chain(self.idempotency.iter().map(|remembered| StateRecord::Remembered(remembered.clone())))
            .chain(self.removed_members.iter().map(|(&id, &incarnation)| StateRecord::RemovedMember { id, incarnation }))
            .chain(self.staging.chunks().map(|(upload, chunk)| StateRecord::StagedChunk { upload, chunk: chunk.clone() }))
            .chain(self.later_records())
            .chain(std::iter::once(footer))
    }

    /// The clock feeds nothing but expiry. One command moves it forward by [`CLOCK_STEP_MAX`] at most, so that one node whose clock
    /// jumped does not expire what others still rely on; the first command sets it.
    fn advance_clock(&mut self, proposed_at: Timestamp) {
        let bound = self.clock.plus_millis(CLOCK_STEP_MAX.as_millis() as u64);
        let proposed = if self.clock == Timestamp::default() { proposed_at } else { proposed_at.min(bound) };
        self.clock = self.clock.max(proposed);
    }

    /// Records of later feature levels.
    fn later_records(&self) -> impl Iterator<Item = StateRecord> + '_ {
        #[cfg(feature = "next-format")]
        return (!self.note.is_empty()).then(|| StateRecord::Note(self.note.clone())).into_iter();
        #[cfg(not(feature = "next-format"))]
        std::iter::empty()
    }

    /// The note.
    #[cfg(feature = "next-format")]
    pub fn note(&self) -> &str {
        &self.note
    }

    #[cfg(feature = "next-format")]
    pub(super) fn restore_note(&mut self, note: String) {
        self.note = note;
    }

    fn removed_members_digest(&self) -> Digest {
        let parts = self.removed_members.iter().map(|(id, incarnation)| [id.to_le_bytes().as_slice(), incarnation].concat());
        Digest::of_parts(parts.collect::<Vec<_>>().iter().map(Vec::as_slice))
    }

    /// Does `work`, unless a request with this key was done before.
    fn once(&mut self, key: Option<&IdempotencyKey>, work: impl FnOnce(&mut State) -> Outcome) -> Outcome {
        let Some(key) = key else { return work(self) };
        if key.scoped_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let count = key.scoped_key.len();
            return self.refused(Refusal::too_large("bytes of the idempotency key", count, IDEMPOTENCY_KEY_BYTES_MAX));
        }
        match self.idempotency.look_up(key) {
            Lookup::Same(outcome) => return outcome,
            Lookup::Other => return self.refused(Refusal::IdempotencyKeyReused),
            Lookup::New if !self.idempotency.has_room() => return self.refused(Refusal::IdempotencyMemoryFull),
            Lookup::New => {}
        }
        let outcome = work(self);
        self.idempotency.remember(key.clone(), outcome.clone(), self.clock);
        outcome
    }

    fn apply_transaction(&mut self, command: &Command, transaction: &Transaction) -> Outcome {
        if let Some(refusal) = self.refusal(transaction) {
            return self.refused(refusal);
        }
        let next = self.revision.next();
        let mut results = Vec::with_capacity(transaction.operations.len());
        let mut changes = Vec::new();
        for operation in &transaction.operations {
            let (result, change) = self.apply_operation(operation, next, command.proposed_at);
            results.push(result);
            changes.extend(change);
        }
        if changes.is_empty() {
            return self.unchanged(results);
        }
        self.make_revision(command, changes, None);
        Outcome::Applied { revision: next, changed: true, results }
    }

    fn make_revision(&mut self, command: &Command, changes: Vec<Change>, omitted: Option<ChangeCounts>) {
        self.revision = self.revision.next();
        let (revision, at, actor, digest) = (self.revision, command.proposed_at, command.actor.clone(), self.digest());
        self.history.push(HistoryEntry { revision, at, actor, changes, digest, omitted });
    }

    /// Applies a staged upload as one transaction. It answers no results, and history keeps its changes only where it is not larger than
    /// a transaction: both would be as large as the upload. A delete of what is not there changes nothing.
    fn activate(&mut self, command: &Command, activation: &Activation) -> Outcome {
        let Some(upload) = self.staging.get(activation.upload).cloned() else {
            return self.refused(Refusal::Upload { chunks: None });
        };
        if upload.chunk_count() != activation.chunk_count as usize {
            return self.refused(Refusal::Upload { chunks: Some(upload.chunk_count() as u32) });
        }
        let mut seen = HashSet::new();
        let mut first_repeated =
            || upload.operations().zip(0..).find_map(|(operation, index)| repeated(&mut seen, operation, index));
        if let Some(refusal) = self.first_broken(&activation.preconditions).or_else(&mut first_repeated) {
            return self.refused(refusal);
        }
        let (next, at) = (self.revision.next(), command.proposed_at);
        let keeps = upload.operation_count() <= TRANSACTION_OPERATIONS_MAX && upload.byte_count() <= TRANSACTION_BYTES_MAX;
        let (changes, omitted) = match keeps {
            true => (upload.operations().filter_map(|operation| self.apply_operation(operation, next, at).1).collect(), None),
            false => (Vec::new(), Some(self.apply_many(&upload.operations().collect::<Vec<_>>(), next, at))),
        };
        if changes.is_empty() && omitted.unwrap_or_default().sum() == 0 {
            return self.unchanged(Vec::new());
        }
        self.make_revision(command, changes, omitted);
        Outcome::Applied { revision: self.revision, changed: true, results: Vec::new() }
    }

    /// The first rule that `transaction` breaks. All are checked before anything is changed.
    fn refusal(&self, transaction: &Transaction) -> Option<Refusal> {
        let operations = transaction.operations.len();
        if operations > TRANSACTION_OPERATIONS_MAX {
            return Some(Refusal::too_large("operations in the transaction", operations, TRANSACTION_OPERATIONS_MAX));
        }
        let bytes: usize = transaction.operations.iter().map(Operation::byte_count).sum();
        if bytes > TRANSACTION_BYTES_MAX {
            return Some(Refusal::too_large("bytes of the transaction", bytes, TRANSACTION_BYTES_MAX));
        }
        let mut seen = HashSet::new();
        let refused =
            |(operation, index)| repeated(&mut seen, operation, index).or_else(|| self.refused_operation(operation, index));
        self.first_broken(&transaction.preconditions).or_else(|| transaction.operations.iter().zip(0..).find_map(refused))
    }

    fn refused_operation(&self, operation: &Operation, index: u32) -> Option<Refusal> {
        match operation {
            Operation::Put { spec, .. } if spec.len() > DOCUMENT_BYTES_MAX => {
                Some(Refusal::too_large("bytes of one document", spec.len(), DOCUMENT_BYTES_MAX))
            }
            Operation::Delete { key } if !self.resources.contains_key(key) => Some(Refusal::NotFound { index, key: key.clone() }),
            Operation::Put { .. } | Operation::Delete { .. } => None,
        }
    }

    fn first_broken(&self, preconditions: &[Precondition]) -> Option<Refusal> {
        preconditions.iter().enumerate().find_map(|(index, precondition)| self.broken_precondition(index, precondition))
    }

    fn broken_precondition(&self, index: usize, precondition: &Precondition) -> Option<Refusal> {
        let (key, holds) = match precondition {
            Precondition::State { revision } => {
                return (*revision != self.revision).then_some(Refusal::StateRevision { present: self.revision });
            }
            Precondition::Exists { key } => (key, self.resources.contains_key(key)),
            Precondition::Revision { key, revision } => {
                (key, self.resources.get(key).map_or(Revision::ZERO, |resource| resource.revision) == *revision)
            }
        };
        let present = self.resources.get(key).map(|resource| resource.revision);
        (!holds).then(|| Refusal::Precondition { index: index as u32, key: key.clone(), present })
    }

    fn apply_operation(&mut self, operation: &Operation, next: Revision, at: Timestamp) -> (ResultItem, Option<Change>) {
        let key = operation.key();
        let Some(Effect { before, after }) = self.effect(operation, next, at) else {
            let revision = self.resources.get(key).map_or(self.revision, |present| present.revision);
            return (ResultItem { key: key.clone(), revision, created: false }, None);
        };
        before.iter().for_each(|present| self.hash.remove(digest_of_resource(present)));
        after.iter().for_each(|resource| self.hash.insert(digest_of_resource(resource)));
        self.set(key, after.clone());
        let result = ResultItem { key: key.clone(), revision: next, created: before.is_none() };
        let version = |resource: Arc<Resource>| Version {
            created_revision: resource.created_revision,
            revision: resource.revision,
            updated_at: resource.updated_at,
            spec: resource.spec.clone(),
        };
        (result, Some(Change { key: key.clone(), before: before.map(version), after: after.map(version) }))
    }

    /// What an operation makes of its resource, if it changes anything. A spec identical to the present one does not, nor does the deletion of
    /// what is not there.
    pub(super) fn effect(&self, operation: &Operation, next: Revision, at: Timestamp) -> Option<Effect> {
        let before = self.resources.get(operation.key());
        let after = match (operation, before) {
            (Operation::Delete { .. }, None) => return None,
            (Operation::Delete { .. }, Some(_)) => None,
            (Operation::Put { spec, .. }, Some(present)) if present.spec == *spec => return None,
            (Operation::Put { key, spec }, before) => Some(Arc::new(Resource {
                key: key.clone(),
                created_revision: before.map_or(next, |present| present.created_revision),
                revision: next,
                updated_at: at,
                spec: spec.clone(),
            })),
        };
        Some(Effect { before: before.cloned(), after })
    }

    /// Puts a resource in its place, or takes it out. The hash is the caller's.
    pub(super) fn set(&mut self, key: &ResourceKey, resource: Option<Arc<Resource>>) {
        match resource {
            Some(resource) => self.resources.insert(key.clone(), resource),
            None => self.resources.remove(key),
        };
    }

    pub(super) fn hash_mut(&mut self) -> &mut SetHash {
        &mut self.hash
    }

    fn unchanged(&self, results: Vec<ResultItem>) -> Outcome {
        Outcome::Applied { revision: self.revision, changed: false, results }
    }

    fn refused(&self, refusal: Refusal) -> Outcome {
        Outcome::Refused { revision: self.revision, refusal }
    }

    /// Does what no command did, as a fault would.
    #[cfg(test)]
    pub(crate) fn tamper(&mut self) {
        let (key, spec) = (first_key(Kind::Route).unwrap(), b"{}".as_slice().into());
        self.apply_operation(&Operation::Put { key, spec }, self.revision, self.clock);
    }

    pub(super) fn restore_header(&mut self, revision: Revision, clock: Timestamp, feature_level: u32, sequence: u64) {
        self.revision = revision;
        self.clock = clock;
        self.feature_level = feature_level;
        self.idempotency.set_next_sequence(sequence);
    }

    /// `digest` is that of the resource, where it is known.
    pub(super) fn restore_resource(&mut self, resource: Resource, digest: Option<Digest>) {
        self.hash.insert(digest.unwrap_or_else(|| digest_of_resource(&resource)));
        self.resources.insert(resource.key.clone(), Arc::new(resource));
    }

    pub(super) fn restore_history(&mut self, entry: HistoryEntry) {
        self.history.push(entry);
    }

    pub(super) fn restore_staged(&mut self, upload: UploadId, chunk: StagedChunk) {
        self.staging.restore(upload, chunk);
    }

    pub(super) fn restore_remembered(&mut self, remembered: Remembered) {
        self.idempotency.restore(remembered);
    }
}

/// Refuses an operation on a resource that one before it is on.
fn repeated<'a>(seen: &mut HashSet<&'a ResourceKey>, operation: &'a Operation, index: u32) -> Option<Refusal> {
    let key = operation.key();
    (!seen.insert(key)).then(|| Refusal::DuplicateOperation { index, key: key.clone() })
}

fn first_key(kind: Kind) -> Option<ResourceKey> {
    // "0" is the least name of all.
    Name::new("0").ok().map(|name| ResourceKey::new(kind, name))
}

pub(super) fn digest_of_resource(resource: &Resource) -> Digest {
    Digest::of_parts([
        u16::from(resource.key.kind).to_le_bytes().as_slice(),
        resource.key.name.as_str().as_bytes(),
        resource.created_revision.0.to_le_bytes().as_slice(),
        resource.revision.0.to_le_bytes().as_slice(),
        resource.updated_at.0.to_le_bytes().as_slice(),
        resource.spec.as_ref(),
    ])
}
