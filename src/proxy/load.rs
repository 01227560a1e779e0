//! How many connections of one address each worker has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of this many connections of the least loaded worker, another may have one more than it before new ones are handed over. What the
/// kernel does to many connections is even enough.
const UNEVENNESS: usize = 8;

/// The connections of one address by worker.
#[derive(Debug, Clone)]
pub(super) struct Loads(Arc<[AtomicUsize]>);

/// One connection that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    loads: Loads,
    worker: usize,
}

impl Loads {
    pub(super) fn new(workers: usize) -> Loads {
        Loads((0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect())
    }

    /// A worker's share of what all may have.
    pub(super) fn share(&self, most: usize) -> usize {
        most.div_ceil(self.0.len()).max(1)
    }

    pub(super) fn of(&self, worker: usize) -> usize {
        self.0.get(worker).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    /// Counts a connection.
    pub(super) fn add(&self, worker: usize) -> Load {
        if let Some(load) = self.0.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        Load { loads: self.clone(), worker }
    }

    /// The worker that a new connection is better off with.
    pub(super) fn less_loaded_than(&self, worker: usize) -> Option<usize> {
        let own = self.of(worker);
        let (other, least) = (0..self.0.len()).map(|other| (other, self.of(other))).min_by_key(|(_, load)| *load)?;
        (own > least + least / UNEVENNESS).then_some(other)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_even_and_many_nearly_so() {
        let loads = Loads::new(2);
        let mut held = Vec::new();
        // The kernel gives all of them to the first.
        for count in 1..=40 {
            let other = loads.less_loaded_than(0).unwrap_or(0);
            held.push(loads.add(other));
            let (most, least) = (loads.of(0), loads.of(1));
            assert!(most <= least + least / UNEVENNESS + 1, "{most} and {least} of {count}");
        }
        assert_eq!(loads.of(0) + loads.of(1), 40);
        held.clear();
        assert_eq!((loads.of(0), loads.of(1), loads.less_loaded_than(0)), (0, 0, None));
        assert_eq!((loads.share(5), loads.share(0)), (3, 1));
    }
}
