//! Histories for the tests of checkers, told line by line.

use super::complete::REQUIRED;
use super::{judge, overall};
use crate::history::{Answered, Event, Key, Kind, Op, Polled, Process, Read, ReadAll, Stall, Value, Written, backend_of};
use crate::test::{Outcome, Results, Test, Verdict, Workload};

/// A history that grows. Each event is a millisecond after the one before it.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    millis: u64,
}

impl Story {
    pub(crate) fn new() -> Story {
        Story::default()
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, millis: u64) -> &mut Story {
        self.millis += millis;
        self
    }

    pub(crate) fn begin(&mut self, process: u32, node: u32, op: &Op) -> &mut Story {
        self.add(Process::Client(process), Kind::Invoke, Some(node), asked(op))
    }

    pub(crate) fn end(&mut self, process: u32, node: u32, kind: Kind, op: Op) -> &mut Story {
        let op = if kind == Kind::Ok { op } else { asked(&op) };
        self.add(Process::Client(process), kind, Some(node), op)
    }

    /// Begins and ends with nothing in between.
    pub(crate) fn run(&mut self, process: u32, node: u32, kind: Kind, op: Op) -> &mut Story {
        self.begin(process, node, &op).end(process, node, kind, op)
    }

    pub(crate) fn ok(&mut self, process: u32, op: Op) -> &mut Story {
        self.run(process, 1, Kind::Ok, op)
    }

    pub(crate) fn fault(&mut self, name: &str, nodes: &[u32]) -> &mut Story {
        self.nemesis(name, nodes, false, Kind::Ok)
    }

    /// A fault that says more than its nodes.
    pub(crate) fn fault_told(&mut self, name: &str, nodes: &[u32], detail: &str) -> &mut Story {
        self.nemesis_told(name, nodes, false, Kind::Ok, detail)
    }

    pub(crate) fn heal(&mut self, name: &str, nodes: &[u32]) -> &mut Story {
        self.nemesis(name, nodes, true, Kind::Ok)
    }

    pub(crate) fn heal_told(&mut self, name: &str, nodes: &[u32], detail: &str) -> &mut Story {
        self.nemesis_told(name, nodes, true, Kind::Ok, detail)
    }

    pub(crate) fn nemesis(&mut self, name: &str, nodes: &[u32], heals: bool, kind: Kind) -> &mut Story {
        self.nemesis_told(name, nodes, heals, kind, "")
    }

    fn nemesis_told(&mut self, name: &str, nodes: &[u32], heals: bool, kind: Kind, detail: &str) -> &mut Story {
        let fault = Op::Fault { name: name.to_owned(), nodes: nodes.to_vec(), heals, detail: detail.to_owned() };
        self.add(Process::Nemesis, Kind::Invoke, None, fault.clone()).add(Process::Nemesis, kind, None, fault)
    }

    /// The test is over, and the run itself saw nothing wrong.
    pub(crate) fn over(&mut self) -> &mut Story {
        self.over_with(Vec::new(), Vec::new())
    }

    /// The same with what the run itself saw; where that leaves out what every run judges, it saw nothing wrong there.
    pub(crate) fn over_with(&mut self, verdicts: Vec<Verdict>, stalls: Vec<Stall>) -> &mut Story {
        let op = end_of(&self.events, verdicts, stalls);
        self.add(Process::Nemesis, Kind::Ok, None, op)
    }

    fn add(&mut self, process: Process, kind: Kind, node: Option<u32>, op: Op) -> &mut Story {
        let time = self.millis * 1_000_000;
        self.millis += 1;
        self.events.push(Event { index: self.events.len() as u64, time, process, kind, node, op, error: None });
        self
    }

    /// The outcome for an invariant, with what was said.
    pub(crate) fn verdict(&self, name: &str) -> (Outcome, String) {
        verdict(&judge(&register(), &self.events), name)
    }

    /// Asserts what the verdict for an invariant is, and that a violation is told with these words.
    #[track_caller]
    pub(crate) fn is(&self, name: &str, outcome: Outcome, words: &str) {
        let (found, detail) = self.verdict(name);
        assert_eq!(found, outcome, "{name}: {detail}");
        assert!(detail.contains(words), "{name}: {detail}");
    }
}

/// The end of a whole history.
pub(crate) fn end_of(before: &[Event], mut verdicts: Vec<Verdict>, stalls: Vec<Stall>) -> Op {
    for name in REQUIRED {
        if verdicts.iter().all(|verdict| verdict.name != name) {
            verdicts.push(Verdict { name: name.to_owned(), outcome: Outcome::Pass, detail: String::new() });
        }
    }
    Op::End { verdicts, stalls, seal: Some(crate::report::seal(before)) }
}

/// A test of three nodes without faults.
pub(crate) fn register() -> Test {
    Test {
        workload: Workload::Register,
        nemeses: Vec::new(),
        nodes: 3,
        seconds: 60,
        seed: 7,
        isolation: "loopback".to_owned(),
        command: "raftgate-jepsen test --seed 7".to_owned(),
    }
}

pub(crate) fn verdict(results: &Results, name: &str) -> (Outcome, String) {
    let found = results.verdicts.iter().find(|verdict| verdict.name == name).expect("each invariant has a verdict");
    (found.outcome, found.detail.clone())
}

/// Whether no invariant fails; what fails otherwise.
pub(crate) fn sound(results: &Results) -> Result<(), String> {
    let wrong = results.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Fail | Outcome::Unknown));
    let wrong: Vec<String> = wrong.map(|verdict| format!("{}: {}", verdict.name, verdict.detail)).collect();
    match overall(results) {
        Outcome::Pass => Ok(()),
        _ => Err(wrong.join("\n")),
    }
}

/// The operation as it is asked, without what came of it.
pub(crate) fn asked(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Read { seen, .. } => *seen = None,
        Op::Write { made, .. } => *made = None,
        Op::ReadAll { seen } => *seen = None,
        Op::Poll { seen } => *seen = None,
        Op::Request { answer, .. } => *answer = None,
        Op::Membership { .. } | Op::Fault { .. } | Op::End { .. } => {}
    }
    op
}

pub(crate) fn read(key: Key, revision: u64, item: Option<(u64, Value)>) -> Op {
    read_all_of(&[key], revision, &[item])
}

pub(crate) fn read_all_of(keys: &[Key], revision: u64, items: &[Option<(u64, Value)>]) -> Op {
    Op::Read { keys: keys.to_vec(), seen: Some(Read { revision, items: items.to_vec() }) }
}

pub(crate) fn write(writes: &[(Key, Value)], revision: u64) -> Op {
    write_if(writes, &[], revision)
}

pub(crate) fn write_if(writes: &[(Key, Value)], preconditions: &[(Key, u64)], revision: u64) -> Op {
    let made = Some(Written { revision, changed: true });
    Op::Write { writes: writes.to_vec(), preconditions: preconditions.to_vec(), idempotency_key: None, made }
}

/// A write of one route with an idempotency key.
pub(crate) fn write_once(idempotency_key: &str, write: (Key, Value), revision: u64) -> Op {
    let made = Some(Written { revision, changed: true });
    Op::Write { writes: vec![write], preconditions: Vec::new(), idempotency_key: Some(idempotency_key.to_owned()), made }
}

pub(crate) fn read_all(revision: u64, items: &[(Key, u64, Value)]) -> Op {
    Op::ReadAll { seen: Some(ReadAll { revision, items: items.to_vec() }) }
}

pub(crate) fn poll(revision: u64, digest: &str, life: u32) -> Op {
    Op::Poll { seen: Some(Polled { revision, digest: digest.to_owned(), life }) }
}

/// A proxied request that a backend answered.
pub(crate) fn request(key: Key, revision: u64, value: Value) -> Op {
    let backend = Some(backend_of(value));
    let answer = Answered { status: 200, revision: Some(revision), value: Some(value), backend, proxy_status: None, life: 1 };
    Op::Request { key, answer: Some(answer) }
}

/// A proxied request that the gateway answered itself.
pub(crate) fn refused(key: Key, status: u16, revision: Option<u64>) -> Op {
    let answer = Answered { status, revision, value: None, backend: None, proxy_status: None, life: 1 };
    Op::Request { key, answer: Some(answer) }
}

/// A proxied request that the gateway answered itself, for something that a backend did.
pub(crate) fn failed_upstream(key: Key, status: u16, revision: u64, error: &str, backend: &str) -> Op {
    let proxy_status = Some(format!("raftgate; error={error}; details=\"service {backend}: it broke\""));
    let answer = Answered { status, revision: Some(revision), value: None, backend: None, proxy_status, life: 1 };
    Op::Request { key, answer: Some(answer) }
}
