//! Whether the history is all of it: cut short it lacks what would have shown a loss, and must not pass.
//!
//! The end is the last event that the run records, after the last read of every key at every node. It says how many events are before it,
//! with a checksum over their lines, and what only the run itself saw: where it does not, nobody can tell.

use super::Finding;
use super::recovery::seconds;
use crate::history::{Event, Op, Stall};
use crate::report;
use crate::test::{Outcome, Test, Verdict, Workload};

/// What the run itself judges in every test.
pub(super) const REQUIRED: [&str; 3] = [report::FINAL, report::NODES, report::PHASES];

/// The last event is the end, and before it stand the events that it was written after, all of them.
pub(crate) fn check(history: &[Event]) -> Finding {
    let unknown = |detail: String| Finding::new("complete", Outcome::Unknown, detail);
    let Some((Event { index, op: Op::End { seal, .. }, .. }, before)) = history.split_last() else {
        let count = history.len();
        return unknown(format!("the history was cut short: after {count} events it does not come to its end"));
    };
    let count = before.len() as u64;
    let missing = index.saturating_sub(count);
    let Some(named) = seal else {
        return unknown("the end says neither how many events are before it nor their checksum".to_owned());
    };
    if missing > 0 {
        return unknown(format!("{missing} events are missing before the end"));
    }
    if named.events != count {
        return unknown(format!(
            "the end is not of these events: it names {} events before it, and there are {count}",
            named.events
        ));
    }
    let found = report::seal(before).crc32c;
    if named.crc32c != found {
        let named = named.crc32c;
        return unknown(format!("the end is not of these events: it names the checksum {named:08x}, and theirs is {found:08x}"));
    }
    Finding::new("complete", Outcome::Pass, format!("{count} events and the end"))
}

/// What the run itself has judged, which no other event shows. What it must judge and did not is unknown.
pub(crate) fn own_verdicts(test: &Test, history: &[Event]) -> Vec<Verdict> {
    let Some(Op::End { verdicts, .. }) = history.last().map(|last| &last.op) else { return Vec::new() };
    let mut own = verdicts.clone();
    // Some programs cannot change their membership: then that is not tested, with the reason.
    let membership = (test.workload == Workload::Membership).then_some(report::MEMBERSHIP);
    for name in REQUIRED.into_iter().chain(membership) {
        let told = verdicts.iter().find(|verdict| verdict.name == name);
        if told.is_none_or(|told| told.outcome == Outcome::NotTested && REQUIRED.contains(&name)) {
            own.retain(|verdict| verdict.name != name);
            let detail = "the end of the history does not tell it, and every run judges it".to_owned();
            own.push(Verdict { name: name.to_owned(), outcome: Outcome::Unknown, detail });
        }
    }
    own
}

/// When the machine kept the suite waiting.
pub(crate) fn stalls(history: &[Event]) -> &[Stall] {
    match history.last().map(|last| &last.op) {
        Some(Op::End { stalls, .. }) => stalls,
        _ => &[],
    }
}

/// What is said beside a finding of the worst stall that touches it.
pub(super) fn of_worst_stall<'a>(stalls: impl Iterator<Item = &'a Stall>) -> String {
    let Some(worst) = stalls.max_by_key(|stall| stall.length) else { return String::new() };
    let (length, begin) = (seconds(worst.length) * 1e3, seconds(worst.begin));
    format!("; the machine kept the suite itself waiting for up to {length:.0} ms (at {begin:.1} s)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::story::{Story, poll, read, refused, register, request, verdict, write};
    use crate::history::Kind;

    #[test]
    fn a_history_without_its_end_does_not_pass() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).ok(0, read(1, 1, Some((1, 10))));
        story.is("complete", Outcome::Unknown, "cut short: after 4 events");
        story.over().is("complete", Outcome::Pass, "4 events and the end");
        // What comes after the end, or lacks before it, is no history of a run.
        let mut longer = Story::new();
        longer.over().ok(0, write(&[(1, 10)], 1)).is("complete", Outcome::Unknown, "does not come to its end");
        story.events.remove(1);
        story.is("complete", Outcome::Unknown, "1 events are missing");
    }

    #[test]
    fn what_lacks_is_unknown_and_what_happened_is_judged() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).fault("kill-leader", &[1]);
        let judged = |story: &Story| crate::check::overall(&crate::check::judge_again(&register(), &story.events));
        assert_eq!(judged(&story), Outcome::Unknown);
        story.ok(1, read(1, 0, None));
        assert_eq!(judged(&story), Outcome::Fail);
        // With its end, too little is a failure of the run.
        let mut whole = Story::new();
        assert_eq!(judged(whole.ok(0, write(&[(1, 10)], 1)).over()), Outcome::Fail);
    }

    #[test]
    fn what_the_run_saw_counts() {
        let mut story = Story::new();
        let own = Verdict { name: "nodes".to_owned(), outcome: Outcome::Fail, detail: "node 2 has ended".to_owned() };
        story.ok(0, write(&[(1, 10)], 1)).over_with(vec![own], Vec::new()).is("nodes", Outcome::Fail, "node 2");
    }

    /// A test that passes.
    fn sound() -> Story {
        let mut story = Story::new();
        story.begin(0, 1, &write(&[(1, 10)], 1)).ok(1, refused(1, 404, Some(0))).end(0, 1, Kind::Ok, write(&[(1, 10)], 1));
        story.ok(2, poll(1, "a", 1)).run(2, 2, Kind::Ok, poll(1, "a", 1));
        for _ in 0..12 {
            story.ok(0, read(1, 1, Some((1, 10)))).ok(1, request(1, 1, 10));
        }
        story
    }

    #[test]
    fn what_the_run_must_judge_and_does_not_tell_is_unknown() {
        let membership = Test { workload: Workload::Membership, ..register() };
        let mut whole = sound();
        whole.over();
        assert_eq!(crate::check::overall(&crate::check::judge_again(&register(), &whole.events)), Outcome::Pass);
        for (test, names) in [(register(), REQUIRED.to_vec()), (membership, [&REQUIRED[..], &[report::MEMBERSHIP]].concat())] {
            for name in names {
                for told in [None, Some(Outcome::NotTested)] {
                    // That the membership could not be changed is a verdict of the run's.
                    if name == report::MEMBERSHIP && told.is_some() {
                        continue;
                    }
                    let mut story = Story::new();
                    story.events.clone_from(&whole.events);
                    let Some(Op::End { verdicts, .. }) = story.events.last_mut().map(|last| &mut last.op) else {
                        panic!("no end")
                    };
                    verdicts.retain(|verdict| verdict.name != name);
                    verdicts.extend(told.map(|outcome| Verdict { name: name.to_owned(), outcome, detail: String::new() }));
                    let results = crate::check::judge_again(&test, &story.events);
                    let (outcome, detail) = verdict(&results, name);
                    assert!(outcome == Outcome::Unknown && detail.contains("does not tell it"), "{name}: {detail}");
                    assert_eq!(results.verdicts.iter().filter(|verdict| verdict.name == name).count(), 1);
                }
            }
        }
    }

    type Chosen = fn(&Op) -> bool;

    #[test]
    fn what_every_test_judges_is_unknown_where_nothing_is_there_to_judge_it_by() {
        let polls = |op: &Op| matches!(op, Op::Poll { .. });
        let requests = |op: &Op| matches!(op, Op::Request { .. });
        let reads = |op: &Op| matches!(op, Op::Read { .. });
        let without: [(Chosen, &str, &str); 4] = [
            (polls, "I4", "no digests compared"),
            (requests, "I5", "no proxied answers"),
            (requests, "I7", "no requests answered while the table changed"),
            (reads, "I1", "no "),
        ];
        for (left_out, name, words) in without {
            let mut story = sound();
            story.events.retain(|event| !left_out(&event.op));
            story.events.iter_mut().zip(0..).for_each(|(event, index)| event.index = index);
            story.is(name, Outcome::NotTested, words);
            story.over().is("complete", Outcome::Pass, "");
            story.is(name, Outcome::Unknown, words);
        }
        // Of a fault's time there is something to say only where there was one.
        let mut story = sound();
        story.over().is("I6", Outcome::NotTested, "");
        let mut story = sound();
        story.fault("loss", &[1]).heal("loss", &[1]).over().is("I6", Outcome::Unknown, "no requests answered during faults");
    }
}
