//! The Raft log: openraft's view of it.
//!
//! [`LogStore`] changes what stands in memory ([`tail`]) at once and queues the same change ([`queue`]) for the one thread that writes
//! ([`writer`]) into sled ([`sled_file`], behind [`database`]) under the keys of [`keys`]. `append` returns as soon as the entries stand
//! in memory; its callback comes once they are durable. [`LogReader`] reads from memory, and older entries from disk.

pub(crate) mod database;
mod file;
pub(crate) mod keys;
mod queue;
mod reader;
pub(crate) mod sled_file;
mod tail;
pub(crate) mod writer;

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use tokio::sync::{Semaphore, oneshot, watch};

use self::database::Database;
pub use self::file::{Batch, Key, LogFile, Pairs};
use self::queue::{Job, Queue, Waiter};
pub use self::reader::LogReader;
pub(crate) use self::tail::Tail;
use super::blocking::Blocking;
use super::failure::Failure;
use super::types::{Entry, LogId, Payload, TypeConfig, Vote};
use crate::observe::{Metrics, crash_point};

/// KiB of appended entries that may wait for the disk. Beyond it `append` itself waits, and with it this node's heartbeats: a disk that
/// is stuck costs the node its leadership.
const WAITING_KIB_MAX: usize = 64 * 1024;

/// Bytes that an entry takes beside its command.
const ENTRY_BYTES: usize = 64;

/// What the log store, its readers and its thread share.
pub(crate) struct LogShared {
    tail: Mutex<Tail>,
    queue: Queue,
    /// `None` once the log is closed.
    database: Mutex<Option<Arc<Database>>>,
    failure: Failure,
    budget: Arc<Semaphore>,
    blocking: Blocking,
    metrics: Metrics,
    ended: watch::Sender<bool>,
    /// Where a known bug publishes too early.
    #[cfg(feature = "known-bugs")]
    early: std::sync::OnceLock<watch::Sender<crate::model::State>>,
}

impl LogShared {
    pub(crate) fn new(tail: Tail, database: Arc<Database>, blocking: Blocking, failure: Failure, metrics: Metrics) -> LogShared {
        LogShared {
            tail: Mutex::new(tail),
            queue: Queue::default(),
            database: Mutex::new(Some(database)),
            failure,
            budget: Arc::new(Semaphore::new(WAITING_KIB_MAX)),
            blocking,
            metrics,
            ended: watch::Sender::new(false),
            #[cfg(feature = "known-bugs")]
            early: std::sync::OnceLock::new(),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, reason: &str) {
        self.failure.set(reason);
    }

    fn database(&self) -> io::Result<Arc<Database>> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| self.stopped())
    }

    fn forget_database(&self) {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The error for work that comes after the end.
    fn stopped(&self) -> io::Error {
        let reason = self.failure.reason().unwrap_or_else(|| "the log is closed".to_owned());
        io::Error::other(reason)
    }

    #[cfg(feature = "known-bugs")]
    pub(crate) fn publish_early_to(&self, states: watch::Sender<crate::model::State>) {
        let _ = self.early.set(states);
    }

    /// The known bug: State as if these entries were committed.
    #[cfg(feature = "known-bugs")]
    fn publish_early(&self, entries: &[Entry]) {
        let Some(states) = self.early.get().filter(|_| crate::observe::KnownBug::PublishOnAppend.is_on()) else { return };
        let mut state = states.borrow().clone();
        for entry in entries {
            if let Payload::Normal(proposal) = &entry.payload
                && let Ok(command) = super::decode_command(&proposal.0)
            {
                state.apply(&command);
            }
        }
        states.send_replace(state);
    }

    /// Queues a job, unless the log is closed or anything of this store has failed.
    fn push(&self, job: Job) -> io::Result<()> {
        let refused = if self.failure.reason().is_some() { Err(job) } else { self.queue.push(job) };
        refused.map_err(|job| {
            let error = self.stopped();
            job.fail(&error.to_string());
            error
        })
    }
}

/// The log. Dropping it closes the log, as [`LogCloser::close`] does.
pub struct LogStore {
    shared: Arc<LogShared>,
}

impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").field("tail", &*self.shared.tail()).finish_non_exhaustive()
    }
}

impl LogStore {
    pub(crate) fn new(shared: Arc<LogShared>) -> LogStore {
        LogStore { shared }
    }

    /// Waits for what `job` makes of the waiter.
    async fn wait_for(&self, job: impl FnOnce(Waiter) -> Job) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared.push(job(Waiter::Done(sender)))?;
        receiver.await.unwrap_or_else(|_| Err(self.shared.stopped()))
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// Closes the log and waits for it.
#[derive(Clone)]
pub struct LogCloser {
    shared: Arc<LogShared>,
}

impl std::fmt::Debug for LogCloser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogCloser").finish_non_exhaustive()
    }
}

impl LogCloser {
    pub(crate) fn new(shared: Arc<LogShared>) -> LogCloser {
        LogCloser { shared }
    }

    /// Makes every later sync of the log fail.
    #[cfg(test)]
    pub(crate) fn break_disk(&self) {
        self.shared.database().unwrap().broken.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Takes no more work, writes what waits, syncs log and mark, closes the database and gives the data directory free. Call it once
    /// Raft has stopped.
    pub async fn close(&self) {
        self.shared.queue.close();
        // The sender lives in `shared`, which `self` holds.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.wait_for(|waiter| Job::Vote { vote: *vote, waiter }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.tail().set_committed(committed);
        self.shared.push(Job::Committed(committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.tail().committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let kib = entries.iter().map(entry_bytes).sum::<usize>().div_ceil(1024).clamp(1, WAITING_KIB_MAX);
        let budget = Arc::clone(&self.shared.budget);
        let permit = budget.acquire_many_owned(kib as u32).await.map_err(io::Error::other)?;
        {
            let mut tail = self.shared.tail();
            for entry in &entries {
                tail.push(entry.clone(), entry_bytes(entry)).map_err(io::Error::other)?;
            }
        }
        #[cfg(feature = "known-bugs")]
        self.shared.publish_early(&entries);
        crash_point("append-queued");
        self.shared.push(Job::Append { entries, waiter: Waiter::Callback(callback), permit })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let last = {
            let mut tail = self.shared.tail();
            if !tail.truncate(last_log_id) {
                return Ok(());
            }
            tail.last()
        };
        self.wait_for(|waiter| Job::Truncate { after: last, waiter }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        if self.shared.tail().purge(log_id) {
            self.shared.push(Job::Purge(log_id))?;
        }
        Ok(())
    }
}

/// The memory that an entry takes, about.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        Payload::Normal(proposal) => proposal.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    };
    payload + ENTRY_BYTES
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
