//! What writes the log: one thread, in a simulation one task.
//!
//! It takes all that waits, in order, and puts appends together into one batch: one sync for everybody (group commit). A vote or a
//! truncation first commits what stands before it. After each commit the low-water mark is overwritten in place, and only then are
//! the waiters told. Between commits it removes purged entries, a few at a time, so that no append waits for a long purge.
//!
//! Any error, and any panic, is the end: the failure is published, everybody who waits is failed, and the thread stops. A sync is
//! never tried again, for the kernel reports a lost page once and then forgets it. Only a new process may go on.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::database::Database;
use super::file::{Batch, Key};
use super::keys::{COMMITTED, PURGED, encode_entry, encode_log_id, index_of};
use super::queue::{Job, Taken, Waiter};
use super::{LogShared, panic_message};
use crate::observe::crash_point;
use crate::store::advisor::SnapshotAdvisor;
use crate::store::format::{DiskLogId, DiskMark, DiskVote};
use crate::store::sidecar::{DirectoryLock, Slots};
use crate::store::types::{Entry, LogId, Vote};

/// A batch is committed at this size, whatever still waits.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a committed log id may wait for an append to go with.
const COMMITTED_DELAY: Duration = Duration::from_millis(50);
/// How long a written mark may wait for its sync.
const MARK_DELAY: Duration = Duration::from_millis(100);
/// Keys removed at a time.
const REMOVED_KEYS: usize = 512;
/// Between two looks at the size on disk.
const DISK_BYTES_INTERVAL: Duration = Duration::from_secs(5);

/// The vote file and the mark file.
pub(crate) struct Files {
    pub(crate) vote: Slots<DiskVote>,
    pub(crate) mark: Slots<DiskMark>,
    /// Held as long as the writer runs.
    pub(crate) lock: DirectoryLock,
}

/// The writer's own state.
pub(crate) struct Writer {
    shared: Arc<LogShared>,
    database: Arc<Database>,
    files: Files,
    advisor: SnapshotAdvisor,
    /// Taken from the queue and not begun.
    jobs: VecDeque<Job>,
    /// Begun and not durable.
    waiters: Vec<Waiter>,
    batch: Batch,
    batch_bytes: usize,
    has_appends: bool,
    /// What the log holds once `batch` is applied.
    last: Option<LogId>,
    purged: Option<LogId>,
    /// The mark as it was written last, and when it must be synced.
    mark: DiskMark,
    mark_due: Option<Instant>,
    /// When a batch without appends must be committed.
    committed_due: Option<Instant>,
    /// Entries up to here are still to be removed.
    removing_upto: Option<u64>,
    disk_bytes_due: Instant,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<LogShared>,
        database: Arc<Database>,
        files: Files,
        mark: DiskMark,
        advisor: SnapshotAdvisor,
    ) -> Writer {
        let (last, purged) = {
            let tail = shared.tail();
            (tail.last(), tail.purged())
        };
        Writer {
            shared,
            database,
            files,
            advisor,
            jobs: VecDeque::new(),
            waiters: Vec::new(),
            batch: Batch::default(),
            batch_bytes: 0,
            has_appends: false,
            last,
            purged,
            mark,
            mark_due: None,
            committed_due: None,
            // What a crash left of a purge.
            removing_upto: purged.map(|purged| purged.index),
            disk_bytes_due: Instant::now(),
        }
    }

    /// Runs until the queue is closed or the disk fails.
    pub(crate) async fn run(mut self) {
        let reason = match AssertUnwindSafe(self.write_until_closed()).catch_unwind().await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("the log's writer panicked: {}", panic_message(panic.as_ref()))),
        };
        match reason {
            None => info!("log closed"),
            Some(reason) => self.fail(&reason).await,
        }
        let Writer { shared, database, files, .. } = self;
        shared.forget_database();
        drop(database);
        drop(files.lock);
        shared.ended.send_replace(true);
    }

    async fn fail(&mut self, reason: &str) {
        error!(reason, "log failed: the Raft side of this process has stopped for good");
        self.shared.fail(reason);
        self.shared.queue.close();
        self.waiters.drain(..).for_each(|waiter| waiter.complete(Err(io::Error::other(reason.to_owned()))));
        self.jobs.drain(..).for_each(|job| job.fail(reason));
        while let Taken::Jobs(jobs) = self.shared.queue.take(None).await {
            jobs.into_iter().for_each(|job| job.fail(reason));
        }
    }

    async fn write_until_closed(&mut self) -> io::Result<()> {
        loop {
            match self.shared.queue.take(self.next_deadline()).await {
                Taken::Jobs(jobs) => self.jobs = jobs,
                Taken::Closed => return self.finish().await,
            }
            while let Some(job) = self.jobs.pop_front() {
                self.begin(job).await?;
            }
            if self.has_appends || self.committed_due.is_some_and(|due| due <= Instant::now()) {
                self.commit().await?;
            }
            self.keep_house()?;
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.removing_upto.is_some() {
            return Some(Instant::now());
        }
        self.mark_due.into_iter().chain(self.committed_due).min()
    }

    async fn begin(&mut self, job: Job) -> io::Result<()> {
        match job {
            Job::Append { entries, waiter, permit } => {
                self.waiters.push(waiter);
                for entry in &entries {
                    self.append(entry)?;
                }
                drop(permit);
                if self.batch_bytes >= BATCH_BYTES_MAX { self.commit().await } else { Ok(()) }
            }
            Job::Committed(committed) => {
                crash_point("committed-queued");
                self.put_log_id(COMMITTED, committed)
            }
            Job::Purge(upto) => self.purge(upto).await,
            Job::Vote { vote, waiter } => {
                self.commit().await?;
                self.waiters.push(waiter);
                self.save_vote(&vote)
            }
            Job::Truncate { after, waiter } => {
                self.commit().await?;
                self.waiters.push(waiter);
                self.truncate(after).await
            }
        }
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        for (key, value) in encode_entry(entry)? {
            self.batch_bytes += value.len();
            self.batch.insert(&key, value);
        }
        self.last = Some(entry.log_id);
        self.has_appends = true;
        Ok(())
    }

    /// Puts a log id into the batch, which then waits for an append to go with.
    fn put_log_id(&mut self, key: &[u8], log_id: Option<LogId>) -> io::Result<()> {
        match log_id {
            Some(log_id) => self.batch.insert(key, encode_log_id(key, log_id)?),
            None => self.batch.remove(key),
        }
        self.committed_due.get_or_insert_with(|| Instant::now() + COMMITTED_DELAY);
        Ok(())
    }

    /// Makes the batch durable, writes the mark, and tells the waiters.
    async fn commit(&mut self) -> io::Result<()> {
        if !self.has_appends && self.committed_due.is_none() {
            return Ok(());
        }
        let started = Instant::now();
        self.database.apply(std::mem::take(&mut self.batch))?;
        crash_point("append-applied");
        self.database.sync().await?;
        crash_point("append-synced");
        self.shared.metrics.log_sync_duration.observe(started.elapsed().as_secs_f64());
        self.write_mark()?;
        crash_point("append-marked");
        self.advisor.add_log_bytes(self.batch_bytes as u64);
        debug!(last = ?self.last, bytes = self.batch_bytes, waiters = self.waiters.len(), "log synced");
        (self.batch_bytes, self.has_appends, self.committed_due) = (0, false, None);
        if let Some(last) = self.last {
            self.shared.tail().evict(last.index);
        }
        self.waiters.drain(..).for_each(|waiter| waiter.complete(Ok(())));
        Ok(())
    }

    fn write_mark(&mut self) -> io::Result<()> {
        let mark = DiskMark { last: self.last.map(DiskLogId::from), purged: self.purged.map(DiskLogId::from) };
        if mark != self.mark {
            self.files.mark.write(&mark)?;
            self.mark = mark;
            self.mark_due.get_or_insert_with(|| Instant::now() + MARK_DELAY);
        }
        Ok(())
    }

    fn sync_mark(&mut self) -> io::Result<()> {
        self.mark_due = None;
        self.files.mark.sync()
    }

    fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        crash_point("vote-begun");
        self.files.vote.write_twice(&DiskVote::from(vote))?;
        crash_point("vote-synced");
        self.shared.tail().set_vote(*vote);
        self.waiters.drain(..).for_each(|waiter| waiter.complete(Ok(())));
        Ok(())
    }

    /// Lowers the mark, then removes entries from the end backwards.
    async fn truncate(&mut self, after: Option<LogId>) -> io::Result<()> {
        self.last = after;
        self.write_mark()?;
        self.sync_mark()?;
        crash_point("truncate-marked");
        let first_removed = after.map_or(0, |after| after.index + 1);
        while self.remove_from_end(first_removed)? {
            crash_point("truncate-half");
        }
        self.database.sync().await?;
        self.waiters.drain(..).for_each(|waiter| waiter.complete(Ok(())));
        Ok(())
    }

    /// Makes the purged log id durable; the entries go later, a few at a time.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.put_log_id(PURGED, Some(upto))?;
        self.purged = Some(upto);
        self.last = self.last.filter(|last| last.index > upto.index).or(Some(upto));
        self.commit().await?;
        crash_point("purge-noted");
        self.removing_upto = Some(upto.index);
        Ok(())
    }

    /// Removes some keys of the entries up to `last`, from the first on; false once there are none. Not synced: what comes back after
    /// a crash is removed again.
    fn remove_from_start(&self, last: u64) -> io::Result<bool> {
        self.remove(self.database.keys(0..=last, REMOVED_KEYS, false)?)
    }

    /// Removes the last entry, if its index is `first` or later, and with it as many whole entries before it as fit; false once there
    /// are none. A crash must not leave a part of an entry at the end of the log: that is damage to the next start.
    fn remove_from_end(&self, first: u64) -> io::Result<bool> {
        let mut keys = self.database.keys(first..=u64::MAX, REMOVED_KEYS, true)?;
        let (newest, oldest) = (keys.first().and_then(|key| index_of(key)), keys.last().and_then(|key| index_of(key)));
        if let (Some(newest), Some(oldest)) = (newest, oldest)
            && keys.len() == REMOVED_KEYS
        {
            if newest == oldest {
                keys = self.database.keys(newest..=newest, usize::MAX, true)?;
            } else {
                keys.retain(|key| index_of(key) != Some(oldest));
            }
        }
        self.remove(keys)
    }

    fn remove(&self, keys: Vec<Key>) -> io::Result<bool> {
        if keys.is_empty() {
            return Ok(false);
        }
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.remove(key));
        self.database.apply(batch)?;
        Ok(true)
    }

    /// What is due between commits.
    fn keep_house(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.mark_due.is_some_and(|due| due <= now) {
            self.sync_mark()?;
        }
        if let Some(upto) = self.removing_upto {
            if self.remove_from_start(upto)? {
                crash_point("purge-half");
            } else {
                self.removing_upto = None;
            }
        }
        if self.disk_bytes_due <= now {
            self.disk_bytes_due = now + DISK_BYTES_INTERVAL;
            self.shared.metrics.log_disk_bytes.set(i64::try_from(self.database.disk_bytes()?).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.commit().await?;
        self.database.sync().await?;
        self.sync_mark()
    }
}
