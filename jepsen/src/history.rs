//! What the clients did and saw: the one thing that checkers judge.
//!
//! The last event of a history that is complete is its end, which says how many there are, with a checksum over them, and what only the run itself saw.
//!
//! Each operation is invoked once and ends at most once: `ok` (it happened), `fail` (it certainly did not), `info` (nobody knows; the
//! process that asked is never used again). An operation that never ended counts as `info`.

use crate::test::Verdict;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Process {
    /// A client; one operation at a time.
    Client(u32),
    /// What breaks and heals.
    Nemesis,
}

/// Where in its life an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It certainly did not happen.
    Fail,
    /// It may have happened.
    Info,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Its place in the history, from 0.
    pub(crate) index: u64,
    /// Nanoseconds since the test began, by one monotonic clock.
    pub(crate) time: u64,
    pub(crate) process: Process,
    pub(crate) kind: Kind,
    /// The node that was asked (from 1); none for the nemesis.
    pub(crate) node: Option<u32>,
    pub(crate) op: Op,
    /// Why it failed or is unknown.
    pub(crate) error: Option<String>,
}

/// What is asked, and in an `ok` event what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// A linearizable read of routes; one key for `register`, both keys of a pair for `txn`, read in one answer of one revision.
    Read { keys: Vec<Key>, seen: Option<Read> },
    /// A transaction: all of it or nothing. A precondition that does not hold makes it fail.
    Write { writes: Vec<(Key, Value)>, preconditions: Vec<(Key, u64)>, idempotency_key: Option<String>, made: Option<Written> },
    /// All routes of the `set` workload with a linearizable read, at the end of a test and now and then.
    ReadAll { seen: Option<ReadAll> },
    /// The revision and digest that a node has, from its `/v1/table`: what it serves now.
    Poll { seen: Option<Polled> },
    /// A request through a proxy.
    Request { key: Key, answer: Option<Answered> },
    /// A change of the cluster's membership, in words, and who is no member after it.
    Membership { change: String, leaves: Option<u32> },
    /// A fault that begins (`invoke`), has taken effect (`ok`) or did not (`fail`). `heals`: it ends the fault of that name.
    Fault { name: String, nodes: Vec<u32>, heals: bool, detail: String },
    /// The test is over, and this is its last event: the verdicts of the run itself, which no other event shows, when the machine kept
    /// the suite waiting, and what stands before it; a history of a suite before there was a seal has none.
    End { verdicts: Vec<Verdict>, stalls: Vec<Stall>, seal: Option<Seal> },
}

/// What tells all the events before the end from some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// How many there are.
    pub(crate) events: u64,
    /// CRC-32C of their lines, each with its line feed.
    pub(crate) crc32c: u32,
}

/// A time in which the suite itself was not scheduled, in nanoseconds: what it measured then is also the machine's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    /// Since the test began.
    pub(crate) begin: u64,
    pub(crate) length: u64,
}

/// A route of the workload.
pub(crate) type Key = u32;

/// What a workload writes into a route; every write of a test writes another one.
pub(crate) type Value = u64;

/// What a read of some keys saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    /// The revision it was answered at (`Raftgate-Revision`).
    pub(crate) revision: u64,
    /// For each key, in the order asked: the route's own revision and value; none where it does not exist.
    pub(crate) items: Vec<Option<(u64, Value)>>,
}

/// What an acknowledged write made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) changed: bool,
}

/// What a read of everything saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadAll {
    pub(crate) revision: u64,
    pub(crate) items: Vec<(Key, u64, Value)>,
}

/// What a node serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Polled {
    pub(crate) revision: u64,
    pub(crate) digest: String,
    /// Which life of the node answered: counted up at each start.
    pub(crate) life: u32,
}

/// How a proxy answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// `Raftgate-Revision` of the answer.
    pub(crate) revision: Option<u64>,
    /// The value that the route adds to the answer (a response header that its filter sets).
    pub(crate) value: Option<Value>,
    /// The backend that answered, as it calls itself.
    pub(crate) backend: Option<String>,
    /// `Proxy-Status`, where the gateway answered itself.
    pub(crate) proxy_status: Option<String>,
    /// The life of the node.
    pub(crate) life: u32,
}

impl Answered {
    /// Error type (RFC 9209, 2.3) and service that the gateway blames: `connection_refused` and `backend-1`.
    pub(crate) fn upstream_error(&self) -> Option<(&str, &str)> {
        let (error, details) = self.proxy_status.as_deref()?.strip_prefix("raftgate; error=")?.split_once(';')?;
        let service = details.trim_start().strip_prefix("details=\"service ")?;
        Some((error, service.split([' ', ':', '"']).next()?))
    }
}

/// How many backends stand behind the proxies of a test.
pub(crate) const BACKENDS: u64 = 4;

/// The backend that a value names, as it calls itself in its answers: a write of the value points the route there.
pub(crate) fn backend_of(value: Value) -> String {
    format!("backend-{}", value % BACKENDS)
}
