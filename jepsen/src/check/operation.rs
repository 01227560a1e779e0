//! Operations: an invocation and what became of it, paired from the events.
//!
//! A history that does not pair is the suite's own fault, never the gateway's, and no checker can say anything about it: what is wrong
//! with it is told apart, as the verdict `history`.

use std::collections::{BTreeSet, HashMap};

use crate::history::{Event, Kind, Op, Process};

/// One operation, from its invocation to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub(crate) invoke: &'a Event,
    /// None where the history stops before it.
    pub(crate) end: Option<&'a Event>,
}

impl<'a> Operation<'a> {
    /// How it ended; unknown where it never did.
    pub(crate) fn outcome(&self) -> Kind {
        self.end.map_or(Kind::Info, |end| end.kind)
    }

    /// Whether it certainly happened.
    pub(crate) fn is_ok(&self) -> bool {
        self.outcome() == Kind::Ok
    }

    /// What was asked and, where it happened, what came of it.
    pub(crate) fn op(&self) -> &'a Op {
        match self.end {
            Some(end) if end.kind == Kind::Ok => &end.op,
            _ => &self.invoke.op,
        }
    }

    /// The node that was asked.
    pub(crate) fn node(&self) -> Option<u32> {
        self.invoke.node.or(self.end.and_then(|end| end.node))
    }

    /// Where in the history it began.
    pub(crate) fn begin(&self) -> u64 {
        self.invoke.index
    }

    /// Where in the history its answer came; the end of time for one without a certain outcome.
    pub(crate) fn finish(&self) -> u64 {
        match self.end {
            Some(end) if end.kind != Kind::Info => end.index,
            _ => u64::MAX,
        }
    }

    /// What a reader of the verdict looks for in the history: `events 4-9, process 2 at node 1`.
    pub(crate) fn place(&self) -> String {
        let process = match self.invoke.process {
            Process::Client(number) => format!("process {number}"),
            Process::Nemesis => "the nemesis".to_owned(),
        };
        let node = self.node().map(|node| format!(" at node {node}")).unwrap_or_default();
        match self.end {
            Some(end) => format!("events {}-{}, {process}{node}", self.invoke.index, end.index),
            None => format!("event {}, {process}{node}, never answered", self.invoke.index),
        }
    }
}

/// Pairs the events. The second is what is wrong with the history, empty for a well-formed one.
pub(crate) fn pair(history: &[Event]) -> (Vec<Operation<'_>>, Vec<String>) {
    let mut operations: Vec<Operation<'_>> = Vec::with_capacity(history.len() / 2 + 1);
    let mut open: HashMap<Process, usize> = HashMap::new();
    let mut faults: Vec<usize> = Vec::new();
    let mut retired: HashMap<Process, u64> = HashMap::new();
    let mut wrong = Vec::new();
    let mut last: Option<(u64, u64)> = None;
    for event in history {
        if let Some((index, time)) = last
            && (event.index <= index || event.time < time)
        {
            wrong.push(format!("event {} does not come after event {index} in index and time", event.index));
        }
        last = Some((event.index, event.time));
        if matches!(event.op, Op::End { .. }) {
            continue;
        }
        let fault = matches!(event.op, Op::Fault { .. });
        if event.kind == Kind::Invoke {
            if let Some(at) = retired.get(&event.process) {
                wrong.push(format!("event {}: its process must not go on after the unknown outcome of event {at}", event.index));
            }
            if fault {
                faults.push(operations.len());
            } else if let Some(before) = open.insert(event.process, operations.len()) {
                wrong.push(format!("event {}: its process is still busy with event {}", event.index, operations[before].begin()));
            }
            operations.push(Operation { invoke: event, end: None });
            continue;
        }
        // Faults overlap and share one process: the oldest open one with the same nodes is the one that ends.
        let begun = if fault {
            faults.iter().position(|&at| same_fault(&operations[at].invoke.op, &event.op)).map(|place| faults.remove(place))
        } else {
            open.remove(&event.process)
        };
        match begun {
            Some(at) if same_question(&operations[at].invoke.op, &event.op) => operations[at].end = Some(event),
            Some(at) => wrong.push(format!("event {} does not end what event {} asked", event.index, operations[at].begin())),
            None => wrong.push(format!("event {} ends nothing that was begun", event.index)),
        }
        if event.kind == Kind::Ok && !is_answered(&event.op) {
            wrong.push(format!("event {} is ok and carries no answer", event.index));
        }
        if event.kind == Kind::Info && matches!(event.process, Process::Client(_)) {
            retired.insert(event.process, event.index);
        }
    }
    (operations, wrong)
}

fn same_fault(begun: &Op, ended: &Op) -> bool {
    match (begun, ended) {
        (Op::Fault { name, nodes, heals, .. }, Op::Fault { name: name_ended, nodes: nodes_ended, heals: heals_ended, .. }) => {
            // Which nodes a fault meets (the leader, say) may be known only once it has taken effect.
            name == name_ended && heals == heals_ended && (nodes == nodes_ended || nodes.is_empty())
        }
        _ => false,
    }
}

fn same_question(begun: &Op, ended: &Op) -> bool {
    match (begun, ended) {
        (Op::Read { keys, .. }, Op::Read { keys: ended, .. }) => keys == ended,
        (Op::Write { writes, preconditions, .. }, Op::Write { writes: ended, preconditions: preconditions_ended, .. }) => {
            writes == ended && preconditions == preconditions_ended
        }
        (Op::Request { key, .. }, Op::Request { key: ended, .. }) => key == ended,
        (Op::ReadAll { .. }, Op::ReadAll { .. })
        | (Op::Poll { .. }, Op::Poll { .. })
        | (Op::Membership { .. }, Op::Membership { .. })
        | (Op::Fault { .. }, Op::Fault { .. }) => true,
        _ => false,
    }
}

fn is_answered(op: &Op) -> bool {
    match op {
        Op::Read { keys, seen } => seen.as_ref().is_some_and(|seen| seen.items.len() == keys.len()),
        Op::Write { made, .. } => made.is_some(),
        Op::ReadAll { seen } => seen.is_some(),
        Op::Poll { seen } => seen.is_some(),
        Op::Request { answer, .. } => answer.is_some(),
        Op::Membership { .. } | Op::Fault { .. } | Op::End { .. } => true,
    }
}

/// Nodes that are, or may be, no members any more at the end.
pub(crate) fn left(operations: &[Operation<'_>]) -> BTreeSet<u32> {
    let leaves = |operation: &Operation<'_>| match operation.op() {
        Op::Membership { leaves, .. } if operation.outcome() != Kind::Fail => *leaves,
        _ => None,
    };
    operations.iter().filter_map(leaves).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::story::{Story, poll, read, write, write_once};
    use crate::test::Outcome;

    #[test]
    fn an_operation_has_an_end_or_none() {
        let mut story = Story::new();
        story.begin(0, 1, &read(1, 0, None)).begin(1, 2, &write(&[(1, 10)], 1)).end(0, 1, Kind::Ok, read(1, 0, None));
        let (operations, wrong) = pair(&story.events);
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(
            operations.iter().map(Operation::place).collect::<Vec<_>>(),
            ["events 0-2, process 0 at node 1", "event 1, process 1 at node 2, never answered"]
        );
        assert_eq!((operations[1].outcome(), operations[1].finish()), (Kind::Info, u64::MAX));
    }

    #[test]
    fn who_was_removed_or_may_have_been_is_no_member_at_the_end() {
        let change = |leaves| Op::Membership { change: String::new(), leaves };
        let mut story = Story::new();
        story.run(0, 1, Kind::Ok, change(Some(1))).run(1, 1, Kind::Info, change(Some(2))).run(2, 1, Kind::Fail, change(Some(3)));
        story.run(3, 1, Kind::Ok, change(None));
        assert_eq!(left(&pair(&story.events).0), BTreeSet::from([1, 2]));
    }

    #[test]
    fn faults_overlap() {
        let mut story = Story::new();
        story.fault("kill", &[1]).fault("kill", &[2]).heal("kill", &[1]).heal("kill", &[2]);
        assert!(pair(&story.events).0.iter().all(Operation::is_ok));
    }

    #[test]
    fn a_history_that_does_not_pair_is_the_suites_own_fault() {
        let mut busy = Story::new();
        busy.begin(0, 1, &poll(1, "a", 1)).begin(0, 1, &poll(1, "a", 1));
        busy.is("history", Outcome::Fail, "event 1: its process is still busy with event 0");
        let mut nothing = Story::new();
        nothing.end(0, 1, Kind::Ok, poll(1, "a", 1)).is("history", Outcome::Fail, "event 0 ends nothing");
        let mut other = Story::new();
        other.begin(0, 1, &poll(1, "a", 1)).end(0, 1, Kind::Ok, read(1, 0, None)).is(
            "history",
            Outcome::Fail,
            "does not end what event 0 asked",
        );
        let mut retired = Story::new();
        retired.run(0, 1, Kind::Info, poll(1, "a", 1)).begin(0, 1, &poll(1, "a", 1)).is(
            "history",
            Outcome::Fail,
            "unknown outcome of event 1",
        );
        let mut unanswered = Story::new();
        unanswered.ok(0, Op::Poll { seen: None }).is("history", Outcome::Fail, "carries no answer");
        let mut disordered = Story::new();
        disordered.ok(0, poll(1, "a", 1)).events[1].index = 0;
        disordered.is("history", Outcome::Fail, "event 0 does not come after event 0");
        let mut twice = Story::new();
        twice.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(1, 10)], 2)).is("history", Outcome::Fail, "1=10");
        let mut changed = Story::new();
        changed.ok(0, write_once("a", (1, 10), 1)).ok(0, write_once("a", (1, 11), 2)).is(
            "history",
            Outcome::Fail,
            "writes something else",
        );
    }
}
