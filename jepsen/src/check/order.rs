//! The order of revisions in real time (I2), and that a restarted node does not answer from before what was acknowledged (I3).
//!
//! A revision is the place of a write in the one order that all nodes agree on. So no two writes have the same; a write that began after
//! something was answered at revision R has a greater one; and a read that began after it is answered at R or later. This is strict
//! serializability of transactions, as far as revisions tell it, at the cost of a sort.

use std::collections::HashMap;

use super::Finding;
use super::effect::Effects;
use super::fault::Faults;
use super::operation::Operation;
use crate::history::Op;

/// The greatest revision that was answered, and by which operation.
type Floor = Option<(u64, usize)>;

/// Checks that revisions are unique and grow in real time.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, faults: &Faults<'_>) -> [Finding; 2] {
    let mut found = Found { restarts: faults.first_restarts(), violations: repeated(effects), ..Found::default() };
    sweep(operations, effects, &mut found);
    [
        Finding::of("I2", found.looked_at, "answers in the order of their revisions", &found.violations),
        Finding::of("I3", found.after_restart, "admin reads of restarted nodes up to date", &found.stale_after_restart),
    ]
}

#[derive(Default)]
struct Found {
    /// When each node was first restarted.
    restarts: HashMap<u32, u64>,
    looked_at: u64,
    violations: Vec<String>,
    /// Reads of nodes that had been restarted.
    after_restart: u64,
    stale_after_restart: Vec<String>,
}

impl Found {
    /// A read, or a write that changed nothing, and what was answered before it began.
    fn read(&mut self, operation: &Operation<'_>, stale: Option<String>) {
        let restarted = operation.node().and_then(|node| self.restarts.get(&node));
        if restarted.is_some_and(|restarted| *restarted <= operation.invoke.time) {
            self.after_restart += 1;
            self.stale_after_restart.extend(stale.clone());
        }
        self.violations.extend(stale);
    }
}

fn repeated(effects: &Effects<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut made: HashMap<u64, usize> = HashMap::new();
    for (at, effect) in effects.all.iter().enumerate() {
        let Some(revision) = effect.revision else { continue };
        if let Some(before) = made.insert(revision, at) {
            violations.push(format!(
                "revision {revision} was made twice, by {} and by {}",
                effects.all[before].name(),
                effect.name()
            ));
        }
    }
    violations
}

/// Walks the history once, with the greatest revision that was answered so far.
fn sweep(operations: &[Operation<'_>], effects: &Effects<'_>, found: &mut Found) {
    let mut marks: Vec<(u64, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        marks.push((operation.begin(), false, at));
        if operation.is_ok() && answered_at(operation.op()).is_some() {
            marks.push((operation.finish(), true, at));
        }
    }
    marks.sort_unstable();
    let mut floor: Floor = None;
    let mut at_begin: Vec<Floor> = vec![None; operations.len()];
    let mut of_writes: HashMap<u64, Floor> = HashMap::new();
    for (index, ended, at) in marks {
        let operation = &operations[at];
        if !ended {
            at_begin[at] = floor;
            if matches!(operation.invoke.op, Op::Write { .. }) {
                of_writes.insert(index, floor);
            }
            continue;
        }
        let Some((revision, changed)) = answered_at(operation.op()) else { continue };
        found.looked_at += 1;
        // A changing write is judged below, once, from its first attempt on: a retry is told the revision that it made long ago.
        if !changed {
            let stale = at_begin[at].filter(|(least, _)| revision < *least).map(|(least, by)| {
                let (place, before) = (operation.place(), operations[by].place());
                format!("stale: {place} was answered at revision {revision}, after {before} was at {least}")
            });
            found.read(operation, stale);
        }
        floor = floor.max(Some((revision, at)));
    }
    for effect in &effects.all {
        if let Some(revision) = effect.revision
            && let Some(Some((least, by))) = of_writes.get(&effect.begin)
            && revision <= *least
        {
            found.violations.push(format!("{} began after {} was at revision {least}", effect.name(), operations[*by].place()));
        }
    }
}

/// The revision that an answer was given at, and whether it made that revision. Polls and proxied requests are answered from what the
/// node has, which may be old: they say nothing here.
fn answered_at(op: &Op) -> Option<(u64, bool)> {
    match op {
        Op::Read { seen: Some(seen), .. } => Some((seen.revision, false)),
        Op::ReadAll { seen: Some(seen) } => Some((seen.revision, false)),
        Op::Write { made: Some(made), .. } => Some((made.revision, made.changed)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read, write};
    use crate::history::Kind;
    use crate::test::Outcome;

    #[test]
    fn overlapping_operations_may_come_in_any_order() {
        let mut story = Story::new();
        story.begin(0, 1, &write(&[(1, 10)], 2)).begin(1, 2, &write(&[(1, 11)], 1));
        story.begin(2, 3, &read(1, 0, None)).end(0, 1, Kind::Ok, write(&[(1, 10)], 2));
        story.end(1, 2, Kind::Ok, write(&[(1, 11)], 1)).end(2, 3, Kind::Ok, read(1, 0, None));
        story.ok(3, read(1, 2, Some((2, 10)))).is("I2", Outcome::Pass, "4 answers");
    }

    #[test]
    fn a_read_after_an_answer_is_not_older() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 4)).ok(1, read(2, 3, None));
        story.is("I2", Outcome::Fail, "stale: events 2-3, process 1 at node 1 was answered at revision 3, after events 0-1");
        let mut story = Story::new();
        story.ok(0, read(1, 5, None)).ok(1, read(2, 4, None)).is("I2", Outcome::Fail, "stale");
    }

    #[test]
    fn a_restarted_node_answers_from_all_that_was_acknowledged() {
        for (read_at, outcome) in [(4, Outcome::Pass), (3, Outcome::Fail)] {
            let mut story = Story::new();
            story.ok(0, write(&[(1, 10)], 4)).fault("power-cut-one", &[2]).heal("power-cut-one", &[2]);
            story.run(1, 1, Kind::Ok, read(2, 4, None)).is("I3", Outcome::NotTested, "no admin reads of restarted nodes");
            story.run(1, 2, Kind::Ok, read(2, read_at, None)).is("I3", outcome, "");
        }
    }

    #[test]
    fn a_write_after_an_answer_makes_a_later_revision() {
        let mut story = Story::new();
        story.ok(0, read(2, 5, None)).ok(1, write(&[(1, 10)], 5));
        story.is("I2", Outcome::Fail, "began after events 0-1, process 0 at node 1 was at revision 5");
    }

    #[test]
    fn no_two_writes_make_one_revision() {
        let mut story = Story::new();
        story.begin(0, 1, &write(&[(1, 10)], 1)).begin(1, 1, &write(&[(2, 11)], 1));
        story.end(0, 1, Kind::Ok, write(&[(1, 10)], 1)).end(1, 1, Kind::Ok, write(&[(2, 11)], 1));
        story.is("I2", Outcome::Fail, "revision 1 was made twice");
    }

    #[test]
    fn a_write_of_unknown_outcome_has_its_place_too() {
        let mut story = Story::new();
        story.ok(0, read(2, 5, None)).run(1, 1, Kind::Info, write(&[(1, 10)], 0)).ok(0, read(1, 7, Some((6, 10))));
        story.is("I2", Outcome::Pass, "");
        let mut story = Story::new();
        story.ok(0, read(2, 5, None)).run(1, 1, Kind::Info, write(&[(1, 10)], 0)).ok(0, read(1, 7, Some((4, 10))));
        story.is("I2", Outcome::Fail, "began after");
    }
}
