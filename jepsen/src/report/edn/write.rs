//! From events, tests and results to EDN.

use crate::edn::Edn;
use crate::history::{Event, Kind, Op, Process, Stall};
use crate::test::{Outcome, Results, Test, Verdict, Workload};

/// One line of `history.edn`.
pub(crate) fn of_event(event: &Event) -> Edn {
    let kind = Edn::keyword(match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    });
    let mut line = Line(Vec::with_capacity(12));
    line.put("index", event.index);
    line.put("time", event.time);
    match event.process {
        Process::Client(number) => {
            line.put("process", number);
            line.put("type", kind);
        }
        Process::Nemesis => {
            line.put("process", Edn::keyword("nemesis"));
            line.put("type", Edn::keyword("info"));
            line.put("phase", kind);
        }
    }
    let mut after = Line(Vec::new());
    let (f, value) = of_op(&event.op, &mut after);
    line.put("f", Edn::keyword(f));
    line.put("value", value);
    if let Some(error) = &event.error {
        line.put("error", error.as_str());
    }
    if let Some(node) = event.node {
        line.put("node", node);
    }
    line.0.append(&mut after.0);
    Edn::Map(line.0)
}

struct Line(Vec<(Edn, Edn)>);

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Edn>) {
        self.0.push((Edn::keyword(name), value.into()));
    }
}

/// `:f` and `:value` of an operation; what has no place there goes into the line after them.
fn of_op(op: &Op, line: &mut Line) -> (&'static str, Edn) {
    match op {
        Op::Read { keys, seen } => {
            let value = |place: usize| seen.as_ref().and_then(|seen| *seen.items.get(place)?).map(|(_, value)| value);
            if let Some(seen) = seen {
                line.put("revision", seen.revision);
                line.put("revisions", Edn::vector(seen.items.iter().map(|item| item.map(|(revision, _)| revision))));
            }
            match keys.as_slice() {
                [key] => ("read", Edn::Vector(vec![(*key).into(), value(0).into()])),
                _ => ("txn", Edn::vector(keys.iter().enumerate().map(|(place, key)| step("r", *key, value(place))))),
            }
        }
        Op::Write { writes, preconditions, idempotency_key, made } => {
            if !preconditions.is_empty() {
                line.put("preconditions", Edn::vector(preconditions.iter().map(|(key, revision)| pair(*key, *revision))));
            }
            if let Some(key) = idempotency_key {
                line.put("idempotency-key", key.as_str());
            }
            if let Some(made) = made {
                line.put("revision", made.revision);
                line.put("changed", made.changed);
            }
            match writes.as_slice() {
                [(key, value)] => ("write", pair(*key, *value)),
                _ => ("txn", Edn::vector(writes.iter().map(|(key, value)| step("w", *key, Some(*value))))),
            }
        }
        Op::ReadAll { seen: None } => ("read-all", Edn::Nil),
        Op::ReadAll { seen: Some(seen) } => {
            line.put("revision", seen.revision);
            let item =
                |(key, revision, value): &(u32, u64, u64)| Edn::Vector(vec![(*key).into(), (*revision).into(), (*value).into()]);
            ("read-all", Edn::vector(seen.items.iter().map(item)))
        }
        Op::Poll { seen } => {
            let seen = seen.as_ref().map(|seen| {
                Edn::map([
                    ("revision", seen.revision.into()),
                    ("digest", seen.digest.as_str().into()),
                    ("life", seen.life.into()),
                ])
            });
            ("poll", seen.into())
        }
        Op::Request { key, answer } => {
            if let Some(answer) = answer {
                line.put("status", answer.status);
                line.put("revision", answer.revision);
                line.put("backend", answer.backend.as_deref());
                line.put("proxy-status", answer.proxy_status.as_deref());
                line.put("life", answer.life);
            }
            let value = answer.as_ref().and_then(|answer| answer.value);
            ("request", Edn::Vector(vec![(*key).into(), value.into()]))
        }
        Op::Membership { change, leaves } => {
            if leaves.is_some() {
                line.put("leaves", *leaves);
            }
            ("membership", change.as_str().into())
        }
        Op::Fault { name, nodes, heals, detail } => {
            let nodes = Edn::vector(nodes.iter().copied());
            let value = Edn::map([("name", name.as_str().into()), ("nodes", nodes), ("detail", detail.as_str().into())]);
            (if *heals { "heal" } else { "fault" }, value)
        }
        Op::End { verdicts, stalls, seal } => {
            let stall = |stall: &Stall| Edn::Vector(vec![stall.begin.into(), stall.length.into()]);
            let mut value = Line(Vec::with_capacity(4));
            value.put("verdicts", of_verdicts(verdicts));
            value.put("stalls", Edn::vector(stalls.iter().map(stall)));
            if let Some(seal) = seal {
                value.put("events", seal.events);
                value.put("crc32c", seal.crc32c);
            }
            ("end", Edn::Map(value.0))
        }
    }
}

fn pair(key: u32, number: u64) -> Edn {
    Edn::Vector(vec![key.into(), number.into()])
}

fn step(what: &str, key: u32, value: Option<u64>) -> Edn {
    Edn::Vector(vec![Edn::keyword(what), key.into(), value.into()])
}

/// `test.edn`: what was asked for.
pub(crate) fn of_test(test: &Test) -> Edn {
    Edn::map([
        ("workload", Edn::keyword(workload_name(test.workload))),
        ("nemeses", Edn::vector(test.nemeses.iter().map(String::as_str))),
        ("nodes", test.nodes.into()),
        ("seconds", test.seconds.into()),
        ("seed", test.seed.into()),
        ("isolation", test.isolation.as_str().into()),
        ("command", test.command.as_str().into()),
    ])
}

/// `results.edn`: Jepsen's `:valid?`, a verdict an invariant, the numbers, and how to see it again.
pub(crate) fn of_results(test: &Test, results: &Results) -> Edn {
    let valid = match crate::check::overall(results) {
        Outcome::Pass => true.into(),
        Outcome::Unknown => Edn::keyword("unknown"),
        Outcome::Fail | Outcome::NotTested => false.into(),
    };
    let numbers = results.numbers.iter().map(|(name, number)| (Edn::Text(name.clone()), Edn::Float(*number)));
    Edn::map([
        ("valid?", valid),
        ("seed", test.seed.into()),
        ("replay", test.command.as_str().into()),
        ("test", of_test(test)),
        ("verdicts", of_verdicts(&results.verdicts)),
        ("numbers", Edn::Map(numbers.collect())),
    ])
}

/// Verdicts by their names.
fn of_verdicts(verdicts: &[Verdict]) -> Edn {
    let verdicts = verdicts.iter().map(|verdict| {
        let valid = match verdict.outcome {
            Outcome::Pass => true.into(),
            Outcome::Fail => false.into(),
            Outcome::Unknown => Edn::keyword("unknown"),
            Outcome::NotTested => Edn::keyword("not-tested"),
        };
        (Edn::keyword(&verdict.name), Edn::map([("valid?", valid), ("detail", verdict.detail.as_str().into())]))
    });
    Edn::Map(verdicts.collect())
}

/// A workload's name, as on the command line.
pub(crate) fn workload_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Register => "register",
        Workload::Txn => "txn",
        Workload::Set => "set",
        Workload::Watch => "watch",
        Workload::Traffic => "traffic",
        Workload::Membership => "membership",
    }
}
