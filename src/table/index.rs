//! The index: every candidate under its host pattern and path.

use super::bucket::{Bucket, Placed};
use super::depths::{DepthCounts, narrow};
use super::hosts::{HostId, Hosts};
use super::key::{HostPattern, depth, key, prefix_hash, text_hash};
use super::rule::Candidate;
use super::shard::{Shard, literal_prefix, template_tail};
use super::trie::{Counted, HashTrie};
use crate::model::spec::{PathMatchType, Pattern};

/// Where a candidate stands.
pub(super) struct Place<'c> {
    pub(super) kind: PathMatchType,
    pub(super) depth: usize,
    host: HostPattern<'c>,
    host_hash: u64,
    key: u64,
}

impl Place<'_> {
    fn of(candidate: &Candidate) -> Place<'_> {
        let (kind, path) = candidate.pattern();
        let (hash, depth) = match kind {
            PathMatchType::Exact => (text_hash(path), 0),
            PathMatchType::PathPrefix => (prefix_hash(path), depth(path)),
            PathMatchType::PathTemplate => {
                let prefix = literal_prefix(path);
                (prefix_hash(prefix), depth(prefix))
            }
            PathMatchType::RegularExpression => {
                let prefix = candidate.route_match().path.pattern.as_deref().map_or("", leading_elements);
                (prefix_hash(prefix), depth(prefix))
            }
        };
        let host = HostPattern::parse(candidate.host());
        let host_hash = host.hash();
        Place { kind, depth, host, host_hash, key: key(host_hash, hash) }
    }
}

/// The whole elements that every path which the expression matches begins with.
fn leading_elements(pattern: &Pattern) -> &str {
    let literal = std::str::from_utf8(pattern.literal()).unwrap_or_default();
    match literal.rfind('/') {
        Some(end) if literal.starts_with('/') => &literal[..end],
        _ => "",
    }
}

/// Candidates by host pattern and path. A clone costs O(1), a change O(log n).
///
/// Invariant: the counts of `hosts` and of `depths` are those of exactly the candidates that the tries hold; what counts zero is not kept. A key
/// of (host pattern, path) stands once in a trie; what else has its hash stands with it, and is told apart by who looks.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) hosts: Hosts,
    pub(super) exact: HashTrie<Bucket>,
    pub(super) prefixes: HashTrie<Bucket>,
    /// By literal prefix.
    pub(super) templates: HashTrie<Shard>,
    /// Regular expressions, by the elements that they begin with.
    pub(super) expressions: HashTrie<Bucket>,
    /// Depths of prefixes, and of what templates and expressions begin with, over all hosts.
    pub(super) depths: DepthCounts,
}

/// Every value under a hash is meant.
fn any<V>(_: &V) -> bool {
    true
}

impl Index {
    /// The index of these candidates: what adding them one by one makes, in less time.
    pub(super) fn of(candidates: impl Iterator<Item = Candidate>) -> Index {
        let mut index = Index::default();
        let (mut exact, mut prefixes, mut templates, mut expressions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for candidate in candidates {
            let place = Place::of(&candidate);
            let list = match place.kind {
                PathMatchType::Exact => &mut exact,
                PathMatchType::PathPrefix => &mut prefixes,
                PathMatchType::PathTemplate => &mut templates,
                PathMatchType::RegularExpression => &mut expressions,
            };
            let (key, host) = (place.key, index.count(&place));
            list.push((key, Placed { candidate, host }));
        }
        index.exact = gathered(exact, Bucket::One, Bucket::insert);
        index.prefixes = gathered(prefixes, Bucket::One, Bucket::insert);
        index.templates = gathered(templates, Shard::new, Shard::insert);
        index.expressions = gathered(expressions, Bucket::One, Bucket::insert);
        index
    }

    /// Adds a candidate that is not in it.
    pub(super) fn insert(&mut self, candidate: Candidate) {
        let place = Place::of(&candidate);
        let host = self.count(&place);
        let (kind, key) = (place.kind, place.key);
        let placed = Placed { candidate, host };
        match self.buckets_mut(kind) {
            Some(buckets) => add(buckets, key, placed, Bucket::One, Bucket::insert),
            None => add(&mut self.templates, key, placed, Shard::new, Shard::insert),
        }
    }

    /// Takes a candidate out that is in it.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        let place = Place::of(candidate);
        self.depths.remove(narrow(place.depth));
        self.hosts.discount(place.host, place.host_hash, &place);
        match self.buckets_mut(place.kind) {
            Some(buckets) => take(buckets, place.key, |bucket| bucket.remove(candidate)),
            None => take(&mut self.templates, place.key, |shard| shard.remove(candidate)),
        }
    }

    /// Puts a candidate in the place of the one that stands in it under the same pattern, and is equal in order.
    pub(super) fn replace(&mut self, candidate: &Candidate) {
        let Place { kind, key, .. } = Place::of(candidate);
        let bucket = match self.buckets_mut(kind) {
            Some(buckets) => buckets.get_mut(key, any),
            None => self.templates.get_mut(key, any).and_then(|shard| shard.bucket_mut(template_tail(candidate))),
        };
        bucket.into_iter().for_each(|bucket| bucket.replace(candidate));
    }

    /// The candidate of the same place in the order, if it is in it.
    pub(super) fn find(&self, candidate: &Candidate) -> Option<&Candidate> {
        let place = Place::of(candidate);
        let bucket = match place.kind {
            PathMatchType::Exact => self.exact.get(place.key, any),
            PathMatchType::PathPrefix => self.prefixes.get(place.key, any),
            PathMatchType::RegularExpression => self.expressions.get(place.key, any),
            PathMatchType::PathTemplate => self.templates.get(place.key, any)?.bucket(template_tail(candidate)),
        };
        bucket?.find(candidate)
    }

    /// Whether nothing is left, not even a count.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.templates.is_empty()
            && self.expressions.is_empty()
            && self.depths.is_empty()
    }

    fn count(&mut self, place: &Place<'_>) -> HostId {
        self.depths.add(narrow(place.depth));
        self.hosts.count(place.host, place.host_hash, place)
    }

    /// Those of a kind that has no shards.
    fn buckets_mut(&mut self, kind: PathMatchType) -> Option<&mut HashTrie<Bucket>> {
        match kind {
            PathMatchType::Exact => Some(&mut self.exact),
            PathMatchType::PathPrefix => Some(&mut self.prefixes),
            PathMatchType::RegularExpression => Some(&mut self.expressions),
            PathMatchType::PathTemplate => None,
        }
    }
}

fn add<V: Counted>(trie: &mut HashTrie<V>, key: u64, placed: Placed, make: fn(Placed) -> V, add: fn(&mut V, Placed)) {
    match trie.get_mut(key, any) {
        Some(value) => add(value, placed),
        None => trie.insert(key, make(placed)),
    }
}

/// Changes a value by `remove`, which says whether nothing is left of it.
fn take<V: Counted>(trie: &mut HashTrie<V>, key: u64, remove: impl Fn(&mut V) -> bool) {
    if trie.get_mut(key, any).is_some_and(remove) {
        trie.remove(key, any);
    }
}

/// Puts candidates together that have one key: the first makes a value, the others are added to it.
fn gathered<V>(mut placed: Vec<(u64, Placed)>, make: fn(Placed) -> V, add: fn(&mut V, Placed)) -> HashTrie<V> {
    placed.sort_unstable_by_key(|(key, _)| *key);
    let mut values: Vec<(u64, V)> = Vec::with_capacity(placed.len());
    for (key, placed) in placed {
        match values.last_mut() {
            Some((last, value)) if *last == key => add(value, placed),
            _ => values.push((key, make(placed))),
        }
    }
    HashTrie::from_sorted(values)
}
