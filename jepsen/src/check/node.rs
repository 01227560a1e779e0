//! What nodes serve: the digest of a revision (I4), and that the served revision never goes back (I3).

use std::collections::HashMap;

use super::Finding;
use super::fault::{Class, Faults};
use super::operation::Operation;
use crate::history::{Event, Op};
use crate::test::{Outcome, Test, Workload};

/// What may be missing after a restart without a quorum: the commits of this long before the end, in nanoseconds.
const UNSAVED_NANOS: u64 = 200_000_000;

/// Equal revision means equal digest, at every node, in every life (I4).
pub(crate) fn digests(operations: &[Operation<'_>]) -> Finding {
    let mut first: HashMap<u64, (&str, &Operation<'_>)> = HashMap::new();
    let mut compared = 0;
    let mut violations = Vec::new();
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        let Op::Poll { seen: Some(seen) } = operation.op() else { continue };
        match first.get(&seen.revision) {
            None => {
                first.insert(seen.revision, (&seen.digest, operation));
            }
            Some((digest, by)) => {
                compared += 1;
                if *digest != seen.digest {
                    let (one, other) = (by.place(), operation.place());
                    violations
                        .push(format!("revision {} has digest {digest} ({one}) and {} ({other})", seen.revision, seen.digest));
                }
            }
        }
    }
    Finding::of("I4", compared, "digests compared at equal revisions", &violations)
}

/// What one life of a node has served.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// The greatest revision, and where its answer stands.
    revision: u64,
    place: u64,
    /// Time of the last sign of life.
    last: u64,
    /// The greatest revision that is older than [`UNSAVED_NANOS`] before that sign.
    saved: u64,
}

/// One answer about what a node serves.
struct Served<'a> {
    begin: &'a Event,
    end: &'a Event,
    node: u32,
    life: u32,
    revision: u64,
    operation: &'a Operation<'a>,
}

/// Within one life of a node the served revision never goes back, and a new life goes on from where the one before had been 200 ms
/// before its end (I3). Lives that begin on damaged or wiped data are new beginnings.
pub(crate) fn served(operations: &[Operation<'_>], faults: &Faults<'_>) -> Finding {
    let answers: Vec<Served<'_>> = operations.iter().filter_map(answer).collect();
    let mut violations = Vec::new();
    within_lives(&answers, &mut violations);
    across_lives(&answers, faults, &mut violations);
    Finding::of("I3", answers.len() as u64, "served revisions that never went back", &violations)
}

fn answer<'a>(operation: &'a Operation<'a>) -> Option<Served<'a>> {
    let (life, revision) = match operation.op() {
        Op::Poll { seen: Some(seen) } => (seen.life, seen.revision),
        // An error may come from before there was a table.
        Op::Request { answer: Some(answer), .. } if answer.status < 500 => (answer.life, answer.revision?),
        _ => return None,
    };
    let end = operation.end.filter(|_| operation.is_ok())?;
    Some(Served { begin: operation.invoke, end, node: operation.node()?, life, revision, operation })
}

fn within_lives(answers: &[Served<'_>], violations: &mut Vec<String>) {
    let mut marks: Vec<(u64, bool, usize)> = Vec::with_capacity(answers.len() * 2);
    for (at, answer) in answers.iter().enumerate() {
        marks.push((answer.begin.index, false, at));
        marks.push((answer.end.index, true, at));
    }
    marks.sort_unstable();
    let mut greatest: HashMap<(u32, u32), (u64, usize)> = HashMap::new();
    let mut at_begin: Vec<Option<(u64, usize)>> = vec![None; answers.len()];
    for (_, ended, at) in marks {
        let answer = &answers[at];
        let life = (answer.node, answer.life);
        if !ended {
            at_begin[at] = greatest.get(&life).copied();
            continue;
        }
        if let Some((revision, by)) = at_begin[at]
            && answer.revision < revision
        {
            violations.push(format!(
                "{} was served revision {}, after {} was served {revision} in the same life",
                answer.operation.place(),
                answer.revision,
                answers[by].operation.place()
            ));
        }
        let known = greatest.entry(life).or_insert((answer.revision, at));
        *known = (*known).max((answer.revision, at));
    }
}

fn across_lives(answers: &[Served<'_>], faults: &Faults<'_>, violations: &mut Vec<String>) {
    let mut lives: HashMap<(u32, u32), Life> = HashMap::new();
    let mut ended: Vec<&Served<'_>> = answers.iter().collect();
    ended.sort_by_key(|answer| answer.end.index);
    for answer in &ended {
        let new = Life { revision: 0, place: 0, last: 0, saved: 0 };
        let life = lives.entry((answer.node, answer.life)).or_insert(new);
        life.last = life.last.max(answer.end.time);
        if answer.revision > life.revision {
            (life.revision, life.place) = (answer.revision, answer.end.index);
        }
    }
    for answer in &ended {
        if let Some(life) = lives.get_mut(&(answer.node, answer.life))
            && answer.end.time + UNSAVED_NANOS <= life.last
        {
            life.saved = life.saved.max(answer.revision);
        }
    }
    for answer in &ended {
        let before = answer.life.checked_sub(1).and_then(|life| lives.get(&(answer.node, life)));
        let Some(before) = before.filter(|_| !faults.ever_hit(answer.node, Class::Data)) else { continue };
        if answer.revision < before.saved {
            violations.push(format!(
                "{} was served revision {} in life {}, and life {} had served {} more than 200 ms before its end",
                answer.operation.place(),
                answer.revision,
                answer.life,
                answer.life - 1,
                before.saved
            ));
        }
    }
}

/// What polls can say of watches (I10): no more than that revisions come in order, which [`served`] checks.
pub(crate) fn watch(test: &Test) -> Finding {
    let detail = match test.workload {
        Workload::Watch => "no watch in this history: its polls say only that revisions came in order, which is I3",
        _ => "no watch in this history",
    };
    Finding::new("I10", Outcome::NotTested, detail)
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, poll, request, write};
    use crate::history::Kind;
    use crate::test::Outcome;

    #[test]
    fn equal_revisions_have_equal_digests() {
        let mut story = Story::new();
        story.run(0, 1, Kind::Ok, poll(1, "a", 1)).run(0, 2, Kind::Ok, poll(2, "b", 1)).is("I4", Outcome::NotTested, "");
        story.run(0, 3, Kind::Ok, poll(1, "a", 2)).is("I4", Outcome::Pass, "1 digests");
        story.run(0, 3, Kind::Ok, poll(2, "c", 2));
        story.is("I4", Outcome::Fail, "revision 2 has digest b (events 2-3, process 0 at node 2) and c (events 6-7");
    }

    #[test]
    fn a_life_never_goes_back() {
        let mut story = Story::new();
        story.run(0, 1, Kind::Ok, poll(5, "a", 1)).run(0, 2, Kind::Ok, poll(4, "b", 1));
        story.begin(1, 1, &poll(6, "c", 1)).run(0, 1, Kind::Ok, poll(7, "d", 1)).end(1, 1, Kind::Ok, poll(6, "c", 1));
        story.is("I3", Outcome::Pass, "4 served revisions");
        story.run(0, 1, Kind::Ok, poll(6, "c", 1)).is("I3", Outcome::Fail, "was served revision 6, after");
        let mut story = Story::new();
        story.ok(3, write(&[(1, 10)], 5)).run(0, 1, Kind::Ok, poll(6, "a", 1)).run(0, 1, Kind::Ok, request(1, 5, 10));
        story.is("I3", Outcome::Fail, "in the same life");
    }

    #[test]
    fn a_new_life_may_miss_the_last_200_ms() {
        let lives = |fault: &str, served: u64| {
            let mut story = Story::new();
            story
                .run(0, 1, Kind::Ok, poll(5, "a", 1))
                .wait(300)
                .run(0, 1, Kind::Ok, poll(9, "b", 1))
                .fault(fault, &[1])
                .heal(fault, &[1]);
            story.run(0, 1, Kind::Ok, poll(served, "", 2));
            story
        };
        lives("kill", 9).is("I3", Outcome::Pass, "");
        lives("kill", 6).is("I3", Outcome::Pass, "");
        lives("kill", 4).is("I3", Outcome::Fail, "and life 1 had served 5 more than 200 ms before its end");
        lives("truncate", 4).is("I3", Outcome::Pass, "");
    }
}
