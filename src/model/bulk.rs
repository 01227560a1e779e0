//! Many operations at once: an upload that becomes live.
//!
//! They are on different resources, so that what each of them does depends on the State before all of them. So all cores work that out side by
//! side, with the digests, which are most of it; then State takes the results in. A node that starts may find a million operations in its log.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use super::command::Operation;
use super::digest::SetHash;
use super::history::ChangeCounts;
use super::ids::{Revision, Timestamp};
use super::resource::{Resource, ResourceKey};
use super::state::{Effect, State, digest_of_resource};

/// What some of the operations do.
#[derive(Default)]
struct Effects<'o> {
    changed: Vec<(&'o ResourceKey, Option<Arc<Resource>>)>,
    counts: ChangeCounts,
    /// Of the resources as they become.
    added: SetHash,
    /// Of the resources as they were.
    removed: SetHash,
}

impl State {
    /// Applies operations, each on another resource, and counts what they change.
    pub(super) fn apply_many(&mut self, operations: &[&Operation], next: Revision, at: Timestamp) -> ChangeCounts {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let part_length = operations.len().div_ceil(cores).max(1);
        let state = &*self;
        let parts: Vec<Effects<'_>> = thread::scope(|scope| {
            let parts = operations.chunks(part_length).map(|part| scope.spawn(move || state.effects(part, next, at)));
            let parts: Vec<_> = parts.collect();
            parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let mut counts = ChangeCounts::default();
        for part in parts {
            counts.add(part.counts);
            // The hash of a set is the sum of those of its members.
            self.hash_mut().insert(part.added.digest());
            self.hash_mut().remove(part.removed.digest());
            part.changed.into_iter().for_each(|(key, resource)| self.set(key, resource));
        }
        counts
    }

    fn effects<'o>(&self, operations: &[&'o Operation], next: Revision, at: Timestamp) -> Effects<'o> {
        let mut effects = Effects::default();
        for operation in operations {
            let Some(Effect { before, after }) = self.effect(operation, next, at) else { continue };
            effects.counts.count(before.is_some(), after.is_some());
            before.iter().for_each(|resource| effects.removed.insert(digest_of_resource(resource)));
            after.iter().for_each(|resource| effects.added.insert(digest_of_resource(resource)));
            effects.changed.push((operation.key(), after));
        }
        effects
    }
}
