//! The index: every candidate under its host pattern and path.

use std::sync::Arc;

use super::bucket::Bucket;
use super::depths::DepthCounts;
use super::key::{HostPattern, KeyMap, TextMap, depth, key, label_count, path_hash, prefix_hash, text_map};
use super::rule::Candidate;
use super::shard::{Shard, literal_prefix};
use crate::model::spec::{PathMatchType, Pattern};

/// What there is under one host pattern, so that a look-up probes nothing else. The candidates stand in maps of the whole table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostEntry {
    pub(super) exact_count: u32,
    pub(super) prefix_depths: DepthCounts,
    pub(super) template_depths: DepthCounts,
    pub(super) expression_depths: DepthCounts,
}

impl HostEntry {
    pub(super) fn is_empty(&self) -> bool {
        let HostEntry { exact_count, prefix_depths, template_depths, expression_depths } = self;
        *exact_count == 0 && [prefix_depths, template_depths, expression_depths].iter().all(|depths| depths.is_empty())
    }

    fn count(&mut self, place: &Place) {
        match place.kind {
            PathMatchType::Exact => self.exact_count += 1,
            PathMatchType::PathPrefix => self.prefix_depths.add(place.depth),
            PathMatchType::PathTemplate => self.template_depths.add(place.depth),
            PathMatchType::RegularExpression => self.expression_depths.add(place.depth),
        }
    }

    fn discount(&mut self, place: &Place) {
        match place.kind {
            PathMatchType::Exact => self.exact_count -= 1,
            PathMatchType::PathPrefix => self.prefix_depths.remove(place.depth),
            PathMatchType::PathTemplate => self.template_depths.remove(place.depth),
            PathMatchType::RegularExpression => self.expression_depths.remove(place.depth),
        }
    }
}

/// Where a candidate stands.
struct Place {
    kind: PathMatchType,
    key: u64,
    depth: usize,
}

impl Place {
    fn of(candidate: &Candidate) -> Place {
        let (kind, path) = candidate.pattern();
        let (hash, depth) = match kind {
            PathMatchType::Exact => (path_hash(path), 0),
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
        Place { kind, key: key(HostPattern::parse(candidate.host()).hash(), hash), depth }
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
/// Invariant: the counts of every host entry, of `wildcard_labels` and of `depths` are those of exactly the candidates that the maps hold;
/// what counts zero is not kept.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) hosts: TextMap<Arc<str>, Arc<HostEntry>>,
    /// By suffix, without `*.`.
    pub(super) wildcards: TextMap<Arc<str>, Arc<HostEntry>>,
    /// The numbers of labels of the wildcards' suffixes.
    pub(super) wildcard_labels: DepthCounts,
    pub(super) any: HostEntry,
    pub(super) exact: KeyMap<Bucket>,
    pub(super) prefixes: KeyMap<Bucket>,
    /// By literal prefix.
    pub(super) templates: KeyMap<Arc<Shard>>,
    /// Regular expressions, by the elements that they begin with.
    pub(super) expressions: KeyMap<Bucket>,
    /// Depths of prefixes, and of what templates and expressions begin with, over all hosts.
    pub(super) depths: DepthCounts,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            hosts: text_map(),
            wildcards: text_map(),
            wildcard_labels: DepthCounts::default(),
            any: HostEntry::default(),
            exact: KeyMap::default(),
            prefixes: KeyMap::default(),
            templates: KeyMap::default(),
            expressions: KeyMap::default(),
            depths: DepthCounts::default(),
        }
    }
}

impl Index {
    /// Adds a candidate that is not in it.
    pub(super) fn insert(&mut self, candidate: Candidate) {
        let place = Place::of(&candidate);
        self.depths.add(place.depth);
        self.count_host(candidate.host(), &place);
        match place.kind {
            PathMatchType::Exact => insert_into(&mut self.exact, place.key, candidate),
            PathMatchType::PathPrefix => insert_into(&mut self.prefixes, place.key, candidate),
            PathMatchType::RegularExpression => insert_into(&mut self.expressions, place.key, candidate),
            PathMatchType::PathTemplate => {
                let path = candidate.pattern().1;
                let tail = path[literal_prefix(path).len()..].to_owned();
                Arc::make_mut(self.templates.entry(place.key).or_default()).insert(&tail, candidate);
            }
        }
    }

    /// Takes a candidate out that is in it.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        let place = Place::of(candidate);
        self.depths.remove(place.depth);
        self.discount_host(candidate.host(), &place);
        match place.kind {
            PathMatchType::Exact => remove_from(&mut self.exact, place.key, candidate),
            PathMatchType::PathPrefix => remove_from(&mut self.prefixes, place.key, candidate),
            PathMatchType::RegularExpression => remove_from(&mut self.expressions, place.key, candidate),
            PathMatchType::PathTemplate => {
                let path = candidate.pattern().1;
                let tail = &path[literal_prefix(path).len()..];
                if self.templates.get_mut(&place.key).is_some_and(|shard| Arc::make_mut(shard).remove(tail, candidate)) {
                    self.templates.remove(&place.key);
                }
            }
        }
    }

    /// Whether nothing is left, not even a count.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.wildcards.is_empty()
            && self.wildcard_labels.is_empty()
            && self.any.is_empty()
            && self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.templates.is_empty()
            && self.expressions.is_empty()
            && self.depths.is_empty()
    }

    fn count_host(&mut self, host: &str, place: &Place) {
        let (entries, text) = match HostPattern::parse(host) {
            HostPattern::Any => return self.any.count(place),
            HostPattern::Exact(text) => (&mut self.hosts, text),
            HostPattern::Wildcard(text) => {
                if !self.wildcards.contains_key(text) {
                    self.wildcard_labels.add(label_count(text));
                }
                (&mut self.wildcards, text)
            }
        };
        match entries.get_mut(text) {
            Some(entry) => Arc::make_mut(entry).count(place),
            None => {
                let mut entry = HostEntry::default();
                entry.count(place);
                entries.insert(Arc::from(text), Arc::new(entry));
            }
        }
    }

    fn discount_host(&mut self, host: &str, place: &Place) {
        let (entries, text) = match HostPattern::parse(host) {
            HostPattern::Any => return self.any.discount(place),
            HostPattern::Exact(text) => (&mut self.hosts, text),
            HostPattern::Wildcard(text) => (&mut self.wildcards, text),
        };
        let entry = Arc::make_mut(entries.get_mut(text).expect("a candidate's host is counted before it is removed"));
        entry.discount(place);
        if !entry.is_empty() {
            return;
        }
        entries.remove(text);
        if let HostPattern::Wildcard(suffix) = HostPattern::parse(host) {
            self.wildcard_labels.remove(label_count(suffix));
        }
    }
}

fn insert_into(buckets: &mut KeyMap<Bucket>, key: u64, candidate: Candidate) {
    match buckets.get_mut(&key) {
        Some(bucket) => bucket.insert(candidate),
        None => {
            buckets.insert(key, Bucket::One(candidate));
        }
    }
}

fn remove_from(buckets: &mut KeyMap<Bucket>, key: u64, candidate: &Candidate) {
    if buckets.get_mut(&key).is_some_and(|bucket| bucket.remove(candidate)) {
        buckets.remove(&key);
    }
}
