//! The set (I1): what was acknowledged is in the last read of everything at every node, and nothing is there that nobody wrote.

use std::collections::{BTreeMap, HashSet};

use super::Finding;
use super::effect::Effects;
use super::operation::Operation;
use crate::history::{Key, Op, ReadAll, Value};
use crate::test::{Outcome, Test, Workload};

/// What came of it.
pub(crate) struct Set {
    pub(super) finding: Finding,
    /// Acknowledged writes that some node's last read lacks.
    pub(crate) lost: u64,
}

/// Compares the last read of each node with the acknowledged writes. `nodes`: those that have to answer.
pub(crate) fn check(test: &Test, operations: &[Operation<'_>], effects: &Effects<'_>, nodes: &[u32]) -> Set {
    let mut last: BTreeMap<u32, (&Operation<'_>, &ReadAll)> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        if let (Op::ReadAll { seen: Some(seen) }, Some(node)) = (operation.op(), operation.node()) {
            last.insert(node, (operation, seen));
        }
    }
    if last.is_empty() && test.workload != Workload::Set {
        return Set { finding: Finding::new("I1", Outcome::NotTested, "no read of everything"), lost: 0 };
    }
    let mut violations = Vec::new();
    let mut lost = HashSet::new();
    let (mut looked_at, mut pairs) = (HashSet::new(), 0);
    for (node, (read, seen)) in &last {
        let items: HashSet<(Key, Value)> = seen.items.iter().map(|(key, _, value)| (*key, *value)).collect();
        let keys: HashSet<Key> = seen.items.iter().map(|(key, ..)| *key).collect();
        for (at, effect) in effects.all.iter().enumerate().filter(|(_, effect)| effect.acknowledged && effect.end < read.begin())
        {
            looked_at.insert(at);
            pairs += 1;
            // A route that was written again holds something else; that it is right is the replay's to say.
            if effect.writes.iter().any(|(key, _)| !keys.contains(key)) {
                lost.insert(at);
                violations.push(format!("lost at node {node} ({}): {}", read.place(), effect.name()));
            }
        }
        for (key, value) in items {
            match effects.writer(key, value).map(|at| &effects.all[at]) {
                None => {
                    violations.push(format!("unexpected at node {node} ({}): {key}={value}, which nobody wrote", read.place()))
                }
                Some(effect) if !effect.possible => {
                    violations.push(format!("unexpected at node {node} ({}): {}, which failed", read.place(), effect.name()));
                }
                Some(_) => {}
            }
        }
    }
    let asked = nodes.iter().filter(|_| test.workload == Workload::Set);
    let silent: Vec<String> = asked.filter(|node| !last.contains_key(node)).map(u32::to_string).collect();
    let finding = if violations.is_empty() && !silent.is_empty() {
        Finding::new("I1", Outcome::Unknown, format!("no read of everything from node {}", silent.join(", ")))
    } else {
        let what = format!("acknowledged writes in the last reads of the nodes ({pairs} pairs of a write and a node)");
        Finding::of("I1", looked_at.len() as u64, &what, &violations)
    };
    Set { finding, lost: lost.len() as u64 }
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read_all, register, verdict, write};
    use crate::history::{Key, Kind, Value};
    use crate::test::{Outcome, Test, Workload};

    fn judged(node_3: &[(Key, u64, Value)]) -> ((Outcome, String), f64) {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(2, 20)], 2)).run(1, 2, Kind::Fail, write(&[(3, 30)], 0));
        story.run(4, 2, Kind::Info, write(&[(4, 40)], 0));
        for (node, items) in [(1, &[(1, 1, 10), (2, 2, 20)][..]), (2, &[(1, 1, 10), (2, 2, 20), (4, 3, 40)]), (3, node_3)] {
            story.run(2, node, Kind::Ok, read_all(4, items));
        }
        let test = Test { workload: Workload::Set, ..register() };
        let results = crate::check::judge(&test, &story.events);
        let lost = results.numbers.iter().find(|(name, _)| name == "lost").expect("a number").1;
        (verdict(&results, "I1"), lost)
    }

    #[test]
    fn all_that_was_acknowledged_is_there() {
        let ((outcome, detail), lost) = judged(&[(1, 1, 10), (2, 2, 20), (4, 3, 40)]);
        assert_eq!((outcome, lost), (Outcome::Pass, 0.0), "{detail}");
        // Each once, however many nodes have it.
        assert!(detail.contains("2 acknowledged writes in the last reads of the nodes (6 pairs"), "{detail}");
    }

    #[test]
    fn what_is_lost_or_unexpected_is_listed() {
        let ((outcome, detail), lost) = judged(&[(1, 1, 10)]);
        assert_eq!((outcome, lost), (Outcome::Fail, 1.0), "{detail}");
        assert!(detail.contains("lost at node 3 (events 12-13, process 2 at node 3): the write of 2=20"), "{detail}");
        let ((outcome, detail), _) = judged(&[(1, 1, 10), (2, 2, 20), (3, 3, 30)]);
        assert!(outcome == Outcome::Fail && detail.contains("which failed"), "{detail}");
        let ((outcome, detail), _) = judged(&[(1, 1, 10), (2, 2, 20), (9, 3, 90)]);
        assert!(outcome == Outcome::Fail && detail.contains("9=90, which nobody wrote"), "{detail}");
    }

    #[test]
    fn a_node_that_was_not_read_is_not_known() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).run(2, 1, Kind::Ok, read_all(1, &[(1, 1, 10)]));
        story.is("I1", Outcome::Pass, "");
        let set = Test { workload: Workload::Set, ..register() };
        let (outcome, detail) = verdict(&crate::check::judge(&set, &story.events), "I1");
        assert!(outcome == Outcome::Unknown && detail.contains("from node 2, 3"), "{detail}");
    }
}
