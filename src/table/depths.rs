//! Which depths occur, so that only these are probed.

use crate::model::spec::PathMatchType;

/// How many patterns there are of each depth (number of elements of a path, or of labels of a host).
pub(super) type DepthCounts = Counts<u16>;

/// How many patterns of a host there are of each kind and depth.
pub(super) type KindCounts = Counts<KindDepth>;

/// A kind of path, and the depth that look-ups have to probe for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KindDepth {
    kind: PathMatchType,
    depth: u16,
}

impl KindDepth {
    pub(super) fn new(kind: PathMatchType, depth: usize) -> KindDepth {
        KindDepth { kind, depth: narrow(depth) }
    }
}

/// Of what stands for none.
impl Default for KindDepth {
    fn default() -> KindDepth {
        KindDepth { kind: PathMatchType::Exact, depth: 0 }
    }
}

/// How many there are of each.
///
/// Invariant: `others` are less than `greatest`, sorted and without zero counts; a zero count of `greatest` means that there is none.
/// There are few: a path has at most 1,024 characters. Mostly there is one, which stands in place, so that a look-up reads it without another step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counts<K> {
    greatest: Count<K>,
    others: Box<[Count<K>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count<K> {
    of: K,
    count: u32,
}

impl<K: Ord + Copy + Default> Counts<K> {
    pub(super) fn add(&mut self, of: K) {
        match self.find(of) {
            Some(found) => found.count += 1,
            None => self.change(|all| all.push(Count { of, count: 1 })),
        }
    }

    pub(super) fn remove(&mut self, of: K) {
        let found = self.find(of).expect("a pattern is counted before it is removed");
        found.count -= 1;
        if found.count == 0 {
            self.change(|_| {});
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.greatest.count == 0
    }

    /// The greatest, where there is one.
    fn greatest(&self) -> Option<K> {
        (!self.is_empty()).then_some(self.greatest.of)
    }

    fn find(&mut self, of: K) -> Option<&mut Count<K>> {
        let mut all = std::iter::once(&mut self.greatest).chain(&mut self.others);
        all.find(|present| present.of == of && present.count > 0)
    }

    /// Changes the list, and puts it in order again.
    fn change(&mut self, change: impl FnOnce(&mut Vec<Count<K>>)) {
        let mut all: Vec<Count<K>> = self.others.iter().copied().chain([self.greatest]).collect();
        change(&mut all);
        all.retain(|present| present.count > 0);
        all.sort_unstable_by_key(|present| present.of);
        self.greatest = all.pop().unwrap_or_default();
        self.others = all.into();
    }
}

impl DepthCounts {
    pub(super) fn contains(&self, depth: usize) -> bool {
        let depth = narrow(depth);
        self.greatest() == Some(depth) || self.others.iter().any(|present| present.of == depth)
    }

    /// The greatest depth; 0 where there is none.
    pub(super) fn max(&self) -> usize {
        usize::from(self.greatest.of)
    }
}

impl KindCounts {
    pub(super) fn has(&self, kind: PathMatchType) -> bool {
        self.deepest_first(kind).next().is_some()
    }

    /// The depths of one kind.
    pub(super) fn deepest_first(&self, kind: PathMatchType) -> impl Iterator<Item = usize> {
        let greatest = self.greatest().filter(|greatest| greatest.kind == kind);
        let others = if self.others.is_empty() {
            &[]
        } else {
            let from = self.others.partition_point(|present| present.of.kind < kind);
            let to = self.others.partition_point(|present| present.of.kind <= kind);
            &self.others[from..to]
        };
        greatest.into_iter().chain(others.iter().rev().map(|present| present.of)).map(|of| usize::from(of.depth))
    }
}

/// Of a depth: paths and hosts of routes have far fewer than 65,536 bytes.
pub(super) fn narrow(depth: usize) -> u16 {
    u16::try_from(depth).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_depths_deepest_first() {
        use PathMatchType::{Exact, PathPrefix, PathTemplate, RegularExpression};
        let mut counts = KindCounts::default();
        let all = [(PathPrefix, 1), (PathTemplate, 3), (PathPrefix, 4), (Exact, 0), (PathTemplate, 1), (PathPrefix, 4)];
        all.iter().for_each(|(kind, depth)| counts.add(KindDepth::new(*kind, *depth)));
        let depths = |counts: &KindCounts, kind| counts.deepest_first(kind).collect::<Vec<_>>();
        assert_eq!(depths(&counts, PathPrefix), [4, 1]);
        assert_eq!(depths(&counts, PathTemplate), [3, 1]);
        assert_eq!(depths(&counts, RegularExpression), [0; 0]);
        assert!(counts.has(Exact) && !counts.has(RegularExpression));
        counts.remove(KindDepth::new(PathPrefix, 4));
        assert_eq!(depths(&counts, PathPrefix), [4, 1]);
        counts.remove(KindDepth::new(PathPrefix, 4));
        assert_eq!(depths(&counts, PathPrefix), [1]);
        [(PathPrefix, 1), (PathTemplate, 3), (Exact, 0), (PathTemplate, 1)]
            .iter()
            .for_each(|(kind, depth)| counts.remove(KindDepth::new(*kind, *depth)));
        assert!(counts.is_empty() && counts == KindCounts::default());
    }
}
