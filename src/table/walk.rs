//! The enumerator: candidates whose host and path match, in order of precedence.

use std::ops::ControlFlow;

use itertools::Itertools as _;

use super::bucket::{Bucket, Placed};
use super::hosts::Level;
use super::index::Index;
use super::key::{Prefixes, key, text_hash};
use super::rule::Candidate;
use crate::model::spec::PathMatchType;

impl Level<'_, '_> {
    fn holds(&self, placed: &Placed) -> bool {
        placed.host == self.host.id
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
        *self.whole.get_or_insert_with(|| text_hash(self.path))
    }

    fn prefixes(&mut self) -> &Prefixes {
        self.prefixes.get_or_insert_with(|| Prefixes::new(self.path, self.depth_max))
    }
}

impl Index {
    /// Visits every candidate whose host and path match, best first, until `visit` breaks.
    pub(super) fn walk<'t, B>(
        &'t self,
        host: &str,
        path: &str,
        visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut hashes = Hashes { path, depth_max: self.depths.max(), whole: None, prefixes: None };
        self.hosts.levels(host, &mut |level| self.walk_level(level, &mut hashes, visit))
    }

    fn walk_level<'t, B>(
        &'t self,
        level: Level<'t, '_>,
        hashes: &mut Hashes<'_>,
        visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let path = hashes.path;
        if level.host.depths.has(PathMatchType::Exact)
            && let Some(bucket) = self.exact.get(key(level.hash, hashes.whole()), |_| true)
        {
            visit_those(bucket, &level, path, visit)?;
        }
        for depth in level.host.depths.deepest_first(PathMatchType::PathTemplate) {
            let Some(prefix) = hashes.prefixes().get(depth) else { continue };
            let Some(shard) = self.templates.get(key(level.hash, prefix.hash), |_| true) else { continue };
            let (literal, tail) = path.split_at(prefix.end);
            shard.walk(literal, tail, &mut |placed| match level.holds(placed) {
                true => visit(&placed.candidate),
                false => ControlFlow::Continue(()),
            })?;
        }
        self.walk_expressions(level, hashes, visit)?;
        for depth in level.host.depths.deepest_first(PathMatchType::PathPrefix) {
            let Some(prefix) = hashes.prefixes().get(depth) else { continue };
            let Some(bucket) = self.prefixes.get(key(level.hash, prefix.hash), |_| true) else { continue };
            visit_those(bucket, &level, &path[..prefix.end], visit)?;
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
        if !level.host.depths.has(PathMatchType::RegularExpression) {
            return ControlFlow::Continue(());
        }
        let path = hashes.path;
        let prefixes = hashes.prefixes();
        let depths = level.host.depths.deepest_first(PathMatchType::RegularExpression);
        let keys = depths.filter_map(|depth| prefixes.get(depth)).map(|prefix| key(level.hash, prefix.hash));
        let buckets = keys.filter_map(|key| self.expressions.get(key, |_| true)).map(Bucket::iter);
        let of_level = buckets.kmerge().filter(|placed| level.holds(placed)).map(|placed| &placed.candidate);
        let mut fitting = of_level.filter(|candidate| candidate.pattern_holds(path));
        fitting.try_for_each(&mut *visit)
    }
}

/// Visits those candidates of a bucket that stand under this level and path.
fn visit_those<'t, B>(
    bucket: &'t Bucket,
    level: &Level<'_, '_>,
    path: &str,
    visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>,
) -> ControlFlow<B> {
    bucket.walk(&mut |placed| {
        if level.holds(placed) && placed.candidate.pattern().1 == path {
            return visit(&placed.candidate);
        }
        ControlFlow::Continue(())
    })
}
