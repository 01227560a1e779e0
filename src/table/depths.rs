//! Which depths occur, so that only these are probed.

/// How many patterns there are at each depth (number of elements of a path, or of labels of a host).
///
/// Invariant: sorted by depth, without zero counts. There are few: a path has at most 1,024 characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DepthCounts(Vec<(u16, u32)>);

impl DepthCounts {
    pub(super) fn add(&mut self, depth: usize) {
        let depth = narrow(depth);
        match self.0.binary_search_by_key(&depth, |(depth, _)| *depth) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (depth, 1));
            }
        }
    }

    pub(super) fn remove(&mut self, depth: usize) {
        let found = self.0.binary_search_by_key(&narrow(depth), |(depth, _)| *depth);
        let at = found.expect("a pattern is counted before it is removed");
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
    }

    pub(super) fn contains(&self, depth: usize) -> bool {
        self.0.iter().any(|(present, _)| usize::from(*present) == depth)
    }

    pub(super) fn deepest_first(&self) -> impl Iterator<Item = usize> {
        self.0.iter().rev().map(|(depth, _)| usize::from(*depth))
    }

    pub(super) fn max(&self) -> usize {
        self.0.last().map_or(0, |(depth, _)| usize::from(*depth))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn narrow(depth: usize) -> u16 {
    u16::try_from(depth).expect("paths and hosts of routes have far fewer than 65,536 bytes")
}
