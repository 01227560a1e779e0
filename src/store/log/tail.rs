//! What stands in memory of the log: its ends, and its most recent entries.
//!
//! Invariants: the entries held are consecutive and end with the last entry of the log; an entry that is not durable is held;
//! what is read from disk lies before the first one held, and is durable.

use std::collections::VecDeque;
use std::ops::Range;

use crate::store::types::{Entry, LogId, Vote};

/// Bytes of durable entries that are kept for readers.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The log's ends and most recent entries.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    held: VecDeque<(Entry, usize)>,
    held_bytes: usize,
    /// Index of the log's first entry, while it has any.
    first: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
    /// Grows with every truncation and purge: a reader that went to the disk in between reads again.
    generation: u64,
}

/// Where the entries of a range are.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    /// Indexes to read from disk; all of them are there.
    pub(crate) on_disk: Range<u64>,
    /// The entries after those, with their sizes.
    pub(crate) in_memory: Vec<(Entry, usize)>,
    pub(crate) generation: u64,
}

impl Tail {
    /// The tail of a log that was just opened: it holds no entry yet.
    pub(crate) fn new(purged: Option<LogId>, committed: Option<LogId>, vote: Option<Vote>) -> Tail {
        Tail { last: purged, purged, committed, vote, ..Tail::default() }
    }

    /// Adds the next entry. The first of an empty log may have any index; a hole later is refused.
    pub(crate) fn push(&mut self, entry: Entry, byte_count: usize) -> Result<(), String> {
        let index = entry.log_id.index;
        if self.is_empty() {
            self.first = index;
        } else if index != self.next_index() {
            return Err(format!("entry {index} does not follow entry {}", self.next_index().wrapping_sub(1)));
        }
        self.last = Some(entry.log_id);
        self.held.push_back((entry, byte_count));
        self.held_bytes += byte_count;
        Ok(())
    }

    /// Forgets the oldest entries beyond the bound; only those that are durable, up to `durable`.
    pub(crate) fn evict(&mut self, durable: u64) {
        while self.held_bytes > KEPT_BYTES_MAX
            && self.held.len() > 1
            && self.held.front().is_some_and(|(entry, _)| entry.log_id.index <= durable)
        {
            self.pop_front();
        }
    }

    /// Forgets what comes after `after`. False where there is nothing.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> bool {
        let keep = after.max(self.purged);
        if self.is_empty() || keep.is_some_and(|keep| keep.index >= self.next_index() - 1) {
            return false;
        }
        let next = keep.map_or(0, |keep| keep.index + 1);
        while let Some((entry, byte_count)) = self.held.pop_back_if(|(entry, _)| entry.log_id.index >= next) {
            debug_assert!(entry.log_id.index >= next, "only what is truncated goes");
            self.held_bytes -= byte_count;
        }
        self.last = if next > self.first { keep } else { self.purged };
        self.generation += 1;
        true
    }

    /// Forgets what comes up to `upto`. False where that is purged already.
    pub(crate) fn purge(&mut self, upto: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return false;
        }
        while self.held.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.first = self.first.max(upto.index + 1);
        self.purged = Some(upto);
        self.last = self.last.filter(|last| last.index > upto.index).or(Some(upto));
        self.generation += 1;
        true
    }

    /// Where the entries of `range` are that the log holds.
    pub(crate) fn plan(&self, range: Range<u64>) -> ReadPlan {
        if self.is_empty() {
            return ReadPlan { on_disk: 0..0, in_memory: Vec::new(), generation: self.generation };
        }
        let start = range.start.max(self.first);
        let end = range.end.min(self.next_index());
        let held_from = self.held.front().map_or(self.next_index(), |(entry, _)| entry.log_id.index);
        let on_disk = start..end.min(held_from).max(start);
        let skip = usize::try_from(start.max(held_from) - held_from).unwrap_or(usize::MAX);
        let count = usize::try_from(end.saturating_sub(start.max(held_from))).unwrap_or(usize::MAX);
        let in_memory = self.held.iter().skip(skip).take(count).cloned().collect();
        ReadPlan { on_disk, in_memory, generation: self.generation }
    }

    /// See [`ReadPlan::generation`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The last entry, or the last purged one.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// Index of the first entry, while there is one.
    pub(crate) fn first_index(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first)
    }

    /// The committed log id, never beyond the last entry: it may have been written just before a crash that took entries.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed.min(self.last)
    }

    /// Sets the committed log id.
    pub(crate) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    /// The last vote that is durable.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Sets the vote.
    pub(crate) fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    fn is_empty(&self) -> bool {
        self.last == self.purged
    }

    fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn pop_front(&mut self) {
        if let Some((_, byte_count)) = self.held.pop_front() {
            self.held_bytes -= byte_count;
        }
    }
}
