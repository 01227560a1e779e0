//! What waits for the writer, in order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

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

/// The queue between the log store and its writer, which alone takes. Its length is bounded by the permits that appends carry.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
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
    pub(crate) async fn take(&self, deadline: Option<Instant>) -> Taken {
        loop {
            if let Some(taken) = self.take_now() {
                return taken;
            }
            let woken = self.wake.notified();
            match deadline {
                None => woken.await,
                Some(deadline) => {
                    if timeout_at(deadline, woken).await.is_err() {
                        return self.take_now().unwrap_or_else(|| Taken::Jobs(VecDeque::new()));
                    }
                }
            }
        }
    }

    /// What waits, if anything does.
    fn take_now(&self) -> Option<Taken> {
        let mut state = self.state();
        match (state.jobs.is_empty(), state.closed) {
            (false, _) => Some(Taken::Jobs(std::mem::take(&mut state.jobs))),
            (true, true) => Some(Taken::Closed),
            (true, false) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
