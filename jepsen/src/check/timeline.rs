//! What each route held at each revision, as far as writes whose revision is known say.
//!
//! An effect of which only an upper bound is known (a proxied answer at revision R gave its value, or a repeated write was told at R that
//! nothing changes) stands at that bound: from there on it certainly was there, and before it nobody saw it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::effect::Effects;
use crate::history::{Key, Value};

/// One value of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// The revision from which on it certainly was there.
    pub(crate) revision: u64,
    /// Whether that is the very revision that made it. Where two claim one revision, that one is in force.
    pub(crate) exact: bool,
    /// Its place in [`Effects::all`].
    pub(crate) effect: usize,
    pub(crate) value: Value,
}

/// Values of all routes by revision.
#[derive(Debug)]
pub(crate) struct Timeline {
    by_key: HashMap<Key, Vec<Entry>>,
    /// Routes by the revision from which on they exist.
    born: BTreeSet<(u64, Key)>,
    /// Routes for which an effect may have happened that nobody saw.
    unsure: HashSet<Key>,
}

impl Timeline {
    /// Places all effects that certainly happened.
    pub(crate) fn build(effects: &Effects<'_>) -> Timeline {
        let mut by_key: HashMap<Key, Vec<Entry>> = HashMap::new();
        let mut unsure = HashSet::new();
        for (at, effect) in effects.all.iter().enumerate() {
            for &(key, value) in effect.writes {
                if effect.happened() {
                    let revision = effect.revision.unwrap_or(effect.latest);
                    by_key.entry(key).or_default().push(Entry { revision, exact: effect.revision.is_some(), effect: at, value });
                }
                if effect.possible && effect.revision.is_none() {
                    unsure.insert(key);
                }
            }
        }
        let mut born = BTreeSet::new();
        for (key, entries) in &mut by_key {
            entries.sort_unstable();
            born.insert((entries[0].revision, *key));
        }
        Timeline { by_key, born, unsure }
    }

    /// What a route held at a revision.
    pub(crate) fn held(&self, key: Key, revision: u64) -> Option<Entry> {
        let entries = self.by_key.get(&key)?;
        let after = entries.partition_point(|entry| entry.revision <= revision);
        after.checked_sub(1).map(|last| entries[last])
    }

    /// How many routes existed at a revision, and which.
    pub(crate) fn existing(&self, revision: u64) -> impl Iterator<Item = Key> + '_ {
        self.born.range(..=(revision, Key::MAX)).map(|(_, key)| *key)
    }

    /// Whether a write of this route may have happened that nobody saw.
    pub(crate) fn is_unsure(&self, key: Key) -> bool {
        self.unsure.contains(&key)
    }
}
