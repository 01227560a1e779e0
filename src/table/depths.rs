//! Which depths occur, so that only these are probed.

/// How many patterns there are at each depth (number of elements of a path, or of labels of a host).
///
/// Invariant: `others` are less deep than `deepest`, sorted by depth and without zero counts; a zero count of `deepest` means that there is none.
/// There are few: a path has at most 1,024 characters. Mostly there is one, which stands in place, so that a look-up reads it without another step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DepthCounts {
    deepest: Count,
    others: Box<[Count]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    depth: u16,
    count: u32,
}

impl DepthCounts {
    pub(super) fn add(&mut self, depth: usize) {
        match self.find(depth) {
            Some(found) => found.count += 1,
            None => self.change(|all| all.push(Count { depth: narrow(depth), count: 1 })),
        }
    }

    pub(super) fn remove(&mut self, depth: usize) {
        let found = self.find(depth).expect("a pattern is counted before it is removed");
        found.count -= 1;
        if found.count == 0 {
            self.change(|_| {});
        }
    }

    pub(super) fn contains(&self, depth: usize) -> bool {
        self.deepest_first().any(|present| present == depth)
    }

    pub(super) fn deepest_first(&self) -> impl Iterator<Item = usize> {
        let deepest = Some(self.deepest).filter(|deepest| deepest.count > 0);
        deepest.into_iter().chain(self.others.iter().rev().copied()).map(|present| usize::from(present.depth))
    }

    pub(super) fn max(&self) -> usize {
        usize::from(self.deepest.depth)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deepest.count == 0
    }

    fn find(&mut self, depth: usize) -> Option<&mut Count> {
        let mut all = std::iter::once(&mut self.deepest).chain(&mut self.others);
        all.find(|present| usize::from(present.depth) == depth && present.count > 0)
    }

    /// Changes the list of depths, and puts it in order again.
    fn change(&mut self, change: impl FnOnce(&mut Vec<Count>)) {
        let mut all: Vec<Count> = self.others.iter().copied().chain([self.deepest]).collect();
        change(&mut all);
        all.retain(|present| present.count > 0);
        all.sort_unstable_by_key(|present| present.depth);
        self.deepest = all.pop().unwrap_or_default();
        self.others = all.into();
    }
}

fn narrow(depth: usize) -> u16 {
    u16::try_from(depth).expect("paths and hosts of routes have far fewer than 65,536 bytes")
}
