//! The host patterns that something stands under.

use std::ops::ControlFlow;
use std::sync::Arc;

use smol_str::SmolStr;

use super::depths::{DepthCounts, KindCounts, KindDepth, narrow};
use super::index::Place;
use super::key::{HostPattern, label_count, suffixes};
use super::trie::HashTrie;

/// Which host pattern: a number that a table gives once. A pattern that went and came again has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostId(u64);

/// What there is under one host pattern, so that a look-up probes nothing else. The candidates stand in maps of the whole table. With its
/// counts it takes 80 bytes: a table may have a million hosts.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) id: HostId,
    is_wildcard: bool,
    /// Of a wildcard without `*.`.
    text: SmolStr,
    pub(super) depths: KindCounts,
}

impl Host {
    fn new(id: HostId, pattern: HostPattern<'_>) -> Host {
        let is_wildcard = matches!(pattern, HostPattern::Wildcard(_));
        Host { id, is_wildcard, text: SmolStr::new(pattern.text()), depths: KindCounts::default() }
    }

    /// Whether it is this pattern, which is not that of every host.
    fn is(&self, pattern: HostPattern<'_>) -> bool {
        self.is_wildcard == matches!(pattern, HostPattern::Wildcard(_)) && *self.text == *pattern.text()
    }

    fn is_empty(&self) -> bool {
        self.depths.is_empty()
    }

    fn count(&mut self, place: &Place<'_>) {
        self.depths.add(KindDepth::new(place.kind, place.depth));
    }

    fn discount(&mut self, place: &Place<'_>) {
        self.depths.remove(KindDepth::new(place.kind, place.depth));
    }
}

/// A host pattern that matches the request's host and holds something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level<'t, 'r> {
    pub(super) pattern: HostPattern<'r>,
    /// Of the pattern.
    pub(super) hash: u64,
    pub(super) host: &'t Host,
}

/// Host patterns. A clone costs O(1), a change O(log n).
///
/// Invariant: the counts of every host and `wildcard_labels` are those of exactly the candidates of the index; a host that counts nothing is
/// not kept.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    named: HashTrie<Arc<Host>>,
    /// The numbers of labels of the wildcards' suffixes.
    wildcard_labels: DepthCounts,
    any: Arc<Host>,
    last_id: HostId,
}

impl Default for Hosts {
    fn default() -> Hosts {
        let any = Arc::new(Host::new(HostId(0), HostPattern::Any));
        Hosts { named: HashTrie::default(), wildcard_labels: DepthCounts::default(), last_id: any.id, any }
    }
}

impl Hosts {
    /// Visits the levels of a request's host, best first.
    pub(super) fn levels<'t, 'r, B>(
        &'t self,
        host: &'r str,
        visit: &mut impl FnMut(Level<'t, 'r>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !self.named.is_empty()
            && let Some(level) = self.level(HostPattern::Exact(host))
        {
            visit(level)?;
        }
        if !self.wildcard_labels.is_empty() {
            for (labels, suffix) in suffixes(host) {
                if self.wildcard_labels.contains(labels)
                    && let Some(level) = self.level(HostPattern::Wildcard(suffix))
                {
                    visit(level)?;
                }
            }
        }
        if self.any.is_empty() {
            return ControlFlow::Continue(());
        }
        let pattern = HostPattern::Any;
        visit(Level { pattern, hash: pattern.hash(), host: &self.any })
    }

    /// The level of a pattern that is not that of every host.
    fn level<'r>(&self, pattern: HostPattern<'r>) -> Option<Level<'_, 'r>> {
        let hash = pattern.hash();
        let host = self.named.get(hash, |host| host.is(pattern))?;
        Some(Level { pattern, hash, host })
    }

    /// Counts a candidate that comes under a pattern with this hash.
    pub(super) fn count(&mut self, pattern: HostPattern<'_>, hash: u64, place: &Place<'_>) -> HostId {
        if let HostPattern::Any = pattern {
            Arc::make_mut(&mut self.any).count(place);
            return self.any.id;
        }
        if let Some(host) = self.named.get_mut(hash, |host| host.is(pattern)) {
            Arc::make_mut(host).count(place);
            return host.id;
        }
        self.last_id = HostId(self.last_id.0 + 1);
        let mut host = Host::new(self.last_id, pattern);
        host.count(place);
        self.named.insert(hash, Arc::new(host));
        if let HostPattern::Wildcard(suffix) = pattern {
            self.wildcard_labels.add(narrow(label_count(suffix)));
        }
        self.last_id
    }

    /// Takes the count of a candidate back.
    pub(super) fn discount(&mut self, pattern: HostPattern<'_>, hash: u64, place: &Place<'_>) {
        if let HostPattern::Any = pattern {
            return Arc::make_mut(&mut self.any).discount(place);
        }
        let host = self.named.get_mut(hash, |host| host.is(pattern));
        let host = Arc::make_mut(host.expect("a candidate's host is counted before it is removed"));
        host.discount(place);
        if !host.is_empty() {
            return;
        }
        self.named.remove(hash, |host| host.is(pattern));
        if let HostPattern::Wildcard(suffix) = pattern {
            self.wildcard_labels.remove(narrow(label_count(suffix)));
        }
    }

    /// Whether nothing is left, not even a count.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.wildcard_labels.is_empty() && self.any.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_its_counts_takes_80_bytes() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Host>() + counts <= 80, "{}", size_of::<Host>());
    }
}
