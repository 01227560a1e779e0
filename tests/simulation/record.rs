//! What happened: a trace to compare, and what clients saw, to judge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raftgate::model::{Digest, Revision, State};

/// A client's operation. It is open until `end`; one that a crash cut off stays open.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) asked: Asked,
    pub(crate) begin: Duration,
    pub(crate) end: Option<Duration>,
    pub(crate) seen: Seen,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Gives each key the tag; where `at` is given, only if the first key stands at that revision.
    Put { keys: Vec<u64>, tag: String, at: Option<Revision> },
    /// Removes the key.
    Delete { key: u64 },
    /// A linearizable read.
    Read,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// Nothing, or that nobody knows.
    Unknown,
    /// Applied, at this revision.
    Applied(Revision),
    /// Refused by State, at this revision.
    Refused(Revision),
    /// Certainly not applied.
    NotApplied,
    /// The State that was read.
    State(Box<State>),
}

/// Shared by everything in one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    trace: Vec<String>,
    attempts: Vec<Attempt>,
    digests: BTreeMap<Revision, (Digest, u64)>,
    broken: Vec<String>,
    snapshots: u64,
}

impl Record {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn note(&self, node: u64, what: impl std::fmt::Display) {
        let line = format!("{} {node} {what}", now().as_millis());
        self.inner().trace.push(line);
    }

    pub(crate) fn begin(&self, node: u64, asked: Asked) -> usize {
        self.note(node, format_args!("ask {asked:?}"));
        let mut inner = self.inner();
        inner.attempts.push(Attempt { asked, begin: now(), end: None, seen: Seen::Unknown });
        inner.attempts.len() - 1
    }

    pub(crate) fn end(&self, node: u64, attempt: usize, seen: Seen) {
        match &seen {
            Seen::State(state) => self.note(node, format_args!("answer {attempt}: state {}", state.revision())),
            seen => self.note(node, format_args!("answer {attempt}: {seen:?}")),
        }
        let attempt = &mut self.inner().attempts[attempt];
        (attempt.end, attempt.seen) = (Some(now()), seen);
    }

    /// A node holds or serves `revision` with this digest.
    pub(crate) fn digest(&self, node: u64, revision: Revision, digest: Digest) {
        let mut inner = self.inner();
        let (known, holder) = *inner.digests.entry(revision).or_insert((digest, node));
        if known != digest {
            inner.broken.push(format!("I4: revision {revision} has one digest on node {holder} and another on node {node}"));
        }
    }

    /// Something that must never be.
    pub(crate) fn broken(&self, what: String) {
        self.inner().broken.push(what);
    }

    pub(crate) fn snapshot(&self) {
        self.inner().snapshots += 1;
    }

    pub(crate) fn snapshots(&self) -> u64 {
        self.inner().snapshots
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.inner().attempts.clone()
    }

    pub(crate) fn all_broken(&self) -> Vec<String> {
        self.inner().broken.clone()
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().trace)
    }
}

/// The simulation's time.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
