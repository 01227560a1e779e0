//! How many connections of one address there are, and how many of them each worker has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Of this many connections of the least loaded worker, another may have one more than it before new ones are handed over. What the
/// kernel does to many connections is even enough.
const UNEVENNESS: usize = 8;

/// The connections of one address. What is told is only counted, so that the counts themselves order nothing.
#[derive(Debug, Clone)]
pub(super) struct Loads(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    all: AtomicUsize,
    by_worker: Box<[AtomicUsize]>,
    /// Told when a connection ended, or when another number of them is allowed.
    changed: Notify,
}

/// One connection that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    loads: Loads,
    worker: usize,
}

impl Loads {
    pub(super) fn new(workers: usize) -> Loads {
        let by_worker = (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect();
        Loads(Arc::new(Counts { all: AtomicUsize::new(0), by_worker, changed: Notify::new() }))
    }

    pub(super) fn of(&self, worker: usize) -> usize {
        self.0.by_worker.get(worker).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    /// Counts a connection.
    pub(super) fn add(&self, worker: usize) -> Load {
        self.0.all.fetch_add(1, Ordering::Relaxed);
        self.counted(worker)
    }

    /// Counts a connection, unless there are `most` of them.
    pub(super) fn add_below(&self, worker: usize, most: usize) -> Option<Load> {
        let added = self.0.all.try_update(Ordering::Relaxed, Ordering::Relaxed, |all| (all < most).then_some(all + 1));
        added.ok().map(|_| self.counted(worker))
    }

    fn counted(&self, worker: usize) -> Load {
        if let Some(load) = self.0.by_worker.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        Load { loads: self.clone(), worker }
    }

    /// Done when it is time to ask again whether a connection may be added.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Whoever waits asks again.
    pub(super) fn tell_changed(&self) {
        self.0.changed.notify_waiters();
    }

    /// The worker that a new connection is better off with.
    pub(super) fn less_loaded_than(&self, worker: usize) -> Option<usize> {
        let own = self.of(worker);
        let (other, least) = (0..self.0.by_worker.len()).map(|other| (other, self.of(other))).min_by_key(|(_, load)| *load)?;
        (own > least + least / UNEVENNESS).then_some(other)
    }
}

impl Load {
    /// The worker that it counts for.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.by_worker.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
        self.loads.0.all.fetch_sub(1, Ordering::Relaxed);
        self.loads.tell_changed();
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
    }

    #[test]
    fn the_bound_is_that_of_all_workers_together() {
        let loads = Loads::new(2);
        let mut held: Vec<_> = (0..5).map(|count| loads.add_below(usize::from(count > 3), 5).unwrap()).collect();
        assert_eq!([loads.of(0), loads.of(1)], [4, 1]);
        assert!((0..2).all(|worker| loads.add_below(worker, 5).is_none()));
        held.pop();
        assert!(loads.add_below(0, 5).is_some());
    }
}
