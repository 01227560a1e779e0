//! What waits for the writer thread, in order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::store::types::{Entry, LogId, TypeConfig, Vote};

/// One thing to do.
pub(crate) enum Job {
    /// Append entries. The permit bounds what waits, by bytes.
    Append { entries: Vec<Entry>, waiter: Waiter, permit: OwnedSemaphorePermit },
    /// Remove what comes after a log id.
    Truncate { after: Option<LogId>, waiter: Waiter },
    /// Remove what comes up to a log id.
    Purge(LogId),
    /// Save the vote.
    Vote { vote: Vote, waiter: Waiter },
    /// Save the committed log id.
    Committed(Option<LogId>),
}

/// Who is told that a job is durable.
pub(crate) enum Waiter {
    /// openraft.
    Callback(IOFlushed<TypeConfig>),
    /// A method of the log store that waits.
    Done(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    /// Tells it.
    pub(crate) fn complete(self, result: io::Result<()>) {
        match self {
            Waiter::Callback(callback) => callback.io_completed(result),
            // The receiver is gone when the caller was cancelled; nobody is left to be told.
            Waiter::Done(sender) => drop(sender.send(result)),
        }
    }
}

impl Job {
    /// Fails it.
    pub(crate) fn fail(self, reason: &str) {
        match self {
            Job::Append { waiter, .. } | Job::Truncate { waiter, .. } | Job::Vote { waiter, .. } => {
                waiter.complete(Err(io::Error::other(reason.to_owned())));
            }
            Job::Purge(_) | Job::Committed(_) => {}
        }
    }
}

/// The queue between the log store and its writer thread. Its length is bounded by the permits that appends carry.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// What [`Queue::take`] found.
pub(crate) enum Taken {
    /// All that waited; empty where nothing came in time.
    Jobs(VecDeque<Job>),
    /// Nothing waits, and nothing will.
    Closed,
}

impl Queue {
    /// Adds a job; gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes no more jobs. Those that wait are still taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Takes all that waits; where nothing does, waits for it, at most until `deadline`.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut state = self.state();
        while state.jobs.is_empty() && !state.closed {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        if state.jobs.is_empty() && state.closed { Taken::Closed } else { Taken::Jobs(std::mem::take(&mut state.jobs)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
