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
    let mut looked_at = 0;
    for (node, (read, seen)) in &last {
        let items: HashSet<(Key, Value)> = seen.items.iter().map(|(key, _, value)| (*key, *value)).collect();
        let keys: HashSet<Key> = seen.items.iter().map(|(key, ..)| *key).collect();
        for (at, effect) in effects.all.iter().enumerate().filter(|(_, effect)| effect.acknowledged && effect.end < read.begin())
        {
            looked_at += 1;
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
    let silent: Vec<String> = nodes.iter().filter(|node| !last.contains_key(node)).map(u32::to_string).collect();
    let finding = if violations.is_empty() && !silent.is_empty() {
        Finding::new("I1", Outcome::Unknown, format!("no read of everything from node {}", silent.join(", ")))
    } else {
        Finding::of("I1", looked_at, "acknowledged writes in the last reads of the nodes", &violations)
    };
    Set { finding, lost: lost.len() as u64 }
}
