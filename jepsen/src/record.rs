//! The recorder: every operation's begin and end, in one order and by one clock.
//!
//! An invocation is recorded before anything is sent and an end after everything was received, both under one lock: an operation that
//! ended before another began stands before it in the history. The recorder also hands out the numbers of processes, so that none is
//! used again after an unknown outcome.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::history::{Event, Kind, Op, Process};

/// Collects the history of one test. Shared by all that act.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: OnceLock<Instant>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    processes: u32,
    writes_in_flight: u32,
    counts: Counts,
}

/// How the operations of clients ended so far, for the terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    pub(crate) fail: u64,
    pub(crate) info: u64,
}

impl Recorder {
    /// For a test that has not begun.
    pub(crate) fn new() -> Recorder {
        Recorder { began: OnceLock::new(), state: Mutex::default() }
    }

    /// The test begins now, if it has not yet; so does the time of all events.
    pub(crate) fn begin(&self) {
        self.began.get_or_init(Instant::now);
    }

    /// A process that was never used before.
    pub(crate) fn new_process(&self) -> Process {
        let mut state = self.lock();
        state.processes += 1;
        Process::Client(state.processes - 1)
    }

    /// Records that `process` asks for `op`.
    pub(crate) fn invoke(&self, process: Process, node: Option<u32>, op: Op) {
        self.add(process, Kind::Invoke, node, op, None);
    }

    /// Records how it ended; an error is given where it is not `ok`.
    pub(crate) fn end(&self, process: Process, kind: Kind, node: Option<u32>, op: Op, error: Option<String>) {
        self.add(process, kind, node, op, error);
    }

    /// Records the last event, made of all before it: nothing can come between.
    pub(crate) fn finish(&self, end: impl FnOnce(&[Event]) -> Op) {
        let mut state = self.lock();
        let op = end(&state.events);
        self.push(&mut state, Process::Nemesis, Kind::Ok, None, op, None);
    }

    /// Writes that were sent and not answered yet.
    pub(crate) fn writes_in_flight(&self) -> u32 {
        self.lock().writes_in_flight
    }

    /// How the clients' operations ended so far.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Since the test began: with its first event at the latest.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.get_or_init(Instant::now).elapsed()
    }

    /// The history so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events_from(0)
    }

    /// The history so far without its first events.
    pub(crate) fn events_from(&self, first: usize) -> Vec<Event> {
        self.lock().events.get(first..).unwrap_or_default().to_vec()
    }

    fn add(&self, process: Process, kind: Kind, node: Option<u32>, op: Op, error: Option<String>) {
        let mut state = self.lock();
        if matches!(op, Op::Write { .. }) {
            match kind {
                Kind::Invoke => state.writes_in_flight += 1,
                Kind::Ok | Kind::Fail | Kind::Info => state.writes_in_flight -= 1,
            }
        }
        if matches!(process, Process::Client(_)) {
            match kind {
                Kind::Invoke => {}
                Kind::Ok => state.counts.ok += 1,
                Kind::Fail => state.counts.fail += 1,
                Kind::Info => state.counts.info += 1,
            }
        }
        self.push(&mut state, process, kind, node, op, error);
    }

    fn push(&self, state: &mut State, process: Process, kind: Kind, node: Option<u32>, op: Op, error: Option<String>) {
        let time = u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let index = state.events.len() as u64;
        state.events.push(Event { index, time, process, kind, node, op, error });
    }

    /// A holder that panicked pushed a whole event or none.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_in_order_and_writes_in_flight_are_counted() {
        let recorder = Recorder::new();
        let process = recorder.new_process();
        assert_ne!(process, recorder.new_process());
        let write = Op::Write { writes: vec![(1, 2)], preconditions: Vec::new(), idempotency_key: None, made: None };
        recorder.invoke(process, Some(1), write.clone());
        recorder.invoke(Process::Nemesis, None, Op::Poll { seen: None });
        assert_eq!(recorder.writes_in_flight(), 1);
        recorder.end(process, Kind::Info, Some(1), write, Some("timed out".to_owned()));
        assert_eq!((recorder.writes_in_flight(), recorder.counts()), (0, Counts { info: 1, ..Counts::default() }));
        let events = recorder.events();
        assert!(events.iter().enumerate().all(|(index, event)| event.index == index as u64));
        assert!(events.windows(2).all(|pair| pair[0].time <= pair[1].time));
    }
}
