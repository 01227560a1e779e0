//! Reading the log: from memory, and what is older from disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::RaftLogReader;

use super::LogShared;
use super::database::{Database, damaged};
use crate::store::types::{Entry, TypeConfig, Vote};

/// Bytes of entries that one read for replication gives, unless the first is larger.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A reader of the log. Cloning is cheap.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<LogShared>,
}

impl Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<LogShared>) -> LogReader {
        LogReader { shared }
    }

    /// The entries of `range` that the log holds; at least one where there is one, and no more than fit into `bytes_max`.
    ///
    /// The disk is read without holding a lock. If the log was truncated or purged in the meantime, what was read may be neither the
    /// old log nor the new one: it is read again.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let plan = self.shared.tail().plan(range.clone());
            if plan.on_disk.is_empty() {
                return Ok(limit(plan.in_memory, bytes_max));
            }
            let database = self.shared.database()?;
            let on_disk = plan.on_disk.clone();
            let found = self.shared.blocking.run(move || read_disk(&database, on_disk, bytes_max)).await;
            if self.shared.tail().generation() != plan.generation {
                continue;
            }
            let mut found = found.inspect_err(|error| self.shared.fail(&error.to_string()))?;
            if found.len() as u64 == plan.on_disk.end - plan.on_disk.start {
                found.extend(plan.in_memory);
            }
            return Ok(limit(found, bytes_max));
        }
    }
}

/// The entries `range`, all of which must be there, as far as they fit.
fn read_disk(database: &Database, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(Entry, usize)>> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut expected = range.start;
    for entry in database.entries(range.start..=range.end - 1) {
        let (entry, byte_count) = entry?;
        if entry.log_id.index != expected {
            break;
        }
        expected += 1;
        bytes += byte_count;
        found.push((entry, byte_count));
        if bytes >= bytes_max {
            return Ok(found);
        }
    }
    if expected < range.end { Err(damaged(expected, &"it is missing")) } else { Ok(found) }
}

fn limit(entries: Vec<(Entry, usize)>, bytes_max: usize) -> Vec<Entry> {
    let mut bytes = 0usize;
    let fits = |(index, (_, byte_count)): &(usize, (Entry, usize))| {
        bytes = bytes.saturating_add(*byte_count);
        *index == 0 || bytes <= bytes_max
    };
    entries.into_iter().enumerate().take_while(fits).map(|(_, (entry, _))| entry).collect()
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.tail().vote())
    }
}
