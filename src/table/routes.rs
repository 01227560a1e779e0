//! The routes of a table, by key.

use std::sync::Arc;

use super::key::text_hash;
use super::rule::CompiledRoute;
use super::trie::HashTrie;
use crate::model::{Kind, ResourceKey};

/// Routes by key, each once. A clone costs O(1), a change O(log n).
#[derive(Debug, Clone, Default)]
pub(super) struct Routes(HashTrie<Arc<CompiledRoute>>);

impl Routes {
    /// Of routes that have different keys.
    pub(super) fn of(routes: impl Iterator<Item = Arc<CompiledRoute>>) -> Routes {
        let mut hashed: Vec<_> = routes.map(|route| (hash(&route.key), route)).collect();
        hashed.sort_unstable_by_key(|(hash, _)| *hash);
        Routes(HashTrie::from_sorted(hashed))
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Arc<CompiledRoute>> {
        self.0.get(hash(key), |route| route.key == *key)
    }

    /// Puts a route in the place of the one with its key, or beside the others.
    pub(super) fn insert(&mut self, route: Arc<CompiledRoute>) {
        let hash = hash(&route.key);
        match self.0.get_mut(hash, |present| present.key == route.key) {
            Some(present) => *present = route,
            None => self.0.insert(hash, route),
        }
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) -> Option<Arc<CompiledRoute>> {
        self.0.remove(hash(key), |route| route.key == *key)
    }

    /// All routes, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<CompiledRoute>> {
        self.0.values()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The two kinds of routes may share a name.
fn hash(key: &ResourceKey) -> u64 {
    let hash = text_hash(key.name.as_str());
    if key.kind == Kind::GrpcRoute { !hash } else { hash }
}
