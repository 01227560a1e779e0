//! The enumerator: candidates whose host and path match, in order of precedence.

use std::ops::ControlFlow;

use itertools::Itertools as _;

use super::bucket::Bucket;
use super::index::{HostEntry, Index};
use super::key::{HostPattern, Prefixes, key, path_hash, suffixes};
use super::rule::Candidate;
use super::shard::literal_prefix;

/// A host pattern that matches the request's host and holds something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level<'t, 'r> {
    pub(super) pattern: HostPattern<'r>,
    entry: &'t HostEntry,
}

impl Level<'_, '_> {
    fn holds(&self, candidate: &Candidate) -> bool {
        HostPattern::parse(candidate.host()) == self.pattern
    }
}

/// What is computed of the path once, and only where a level asks for it.
struct Hashes<'r> {
    path: &'r str,
    depth_max: usize,
    whole: Option<u64>,
    prefixes: Option<Prefixes>,
}

impl Hashes<'_> {
    fn whole(&mut self) -> u64 {
        *self.whole.get_or_insert_with(|| path_hash(self.path))
    }

    fn prefixes(&mut self) -> &Prefixes {
        self.prefixes.get_or_insert_with(|| Prefixes::new(self.path, self.depth_max))
    }
}

impl Index {
    /// Visits the host levels, best first.
    pub(super) fn levels<'t, 'r, B>(
        &'t self,
        host: &'r str,
        visit: &mut impl FnMut(Level<'t, 'r>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(entry) = self.hosts.get(host) {
            visit(Level { pattern: HostPattern::Exact(host), entry })?;
        }
        if !self.wildcard_labels.is_empty() {
            for (labels, suffix) in suffixes(host) {
                if self.wildcard_labels.contains(labels)
                    && let Some(entry) = self.wildcards.get(suffix)
                {
                    visit(Level { pattern: HostPattern::Wildcard(suffix), entry })?;
                }
            }
        }
        if self.any.is_empty() {
            return ControlFlow::Continue(());
        }
        visit(Level { pattern: HostPattern::Any, entry: &self.any })
    }

    /// Visits every candidate whose host and path match, best first, until `visit` breaks.
    pub(super) fn walk<'t, B>(
        &'t self,
        host: &str,
        path: &str,
        visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut hashes = Hashes { path, depth_max: self.depths.max(), whole: None, prefixes: None };
        self.levels(host, &mut |level| self.walk_level(level, &mut hashes, visit))
    }

    fn walk_level<'t, B>(
        &'t self,
        level: Level<'t, '_>,
        hashes: &mut Hashes<'_>,
        visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (host, path) = (level.pattern.hash(), hashes.path);
        if level.entry.exact_count > 0
            && let Some(bucket) = self.exact.get(&key(host, hashes.whole()))
        {
            bucket.iter().filter(|c| c.pattern().1 == path && level.holds(c)).try_for_each(&mut *visit)?;
        }
        for depth in level.entry.template_depths.deepest_first() {
            let Some(prefix) = hashes.prefixes().get(depth) else { continue };
            let Some(shard) = self.templates.get(&key(host, prefix.hash)) else { continue };
            let (literal, tail) = path.split_at(prefix.end);
            shard.walk(tail, &mut |candidate| {
                if literal_prefix(candidate.pattern().1) == literal && level.holds(candidate) {
                    return visit(candidate);
                }
                ControlFlow::Continue(())
            })?;
        }
        self.walk_expressions(level, hashes, visit)?;
        for depth in level.entry.prefix_depths.deepest_first() {
            let Some(prefix) = hashes.prefixes().get(depth) else { continue };
            let Some(bucket) = self.prefixes.get(&key(host, prefix.hash)) else { continue };
            let expected = &path[..prefix.end];
            bucket.iter().filter(|c| c.pattern().1 == expected && level.holds(c)).try_for_each(&mut *visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Expressions of all depths together: the longest comes first, wherever its literal elements end.
    fn walk_expressions<'t, B>(
        &'t self,
        level: Level<'t, '_>,
        hashes: &mut Hashes<'_>,
        visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if level.entry.expression_depths.is_empty() {
            return ControlFlow::Continue(());
        }
        let (host, path) = (level.pattern.hash(), hashes.path);
        let prefixes = hashes.prefixes();
        let depths = level.entry.expression_depths.deepest_first();
        let keys = depths.filter_map(|depth| prefixes.get(depth)).map(|prefix| key(host, prefix.hash));
        let buckets = keys.filter_map(|key| self.expressions.get(&key)).map(Bucket::iter);
        let fitting = buckets.kmerge().filter(|candidate| level.holds(candidate) && candidate.pattern_holds(path));
        fitting.into_iter().try_for_each(&mut *visit)
    }
}
