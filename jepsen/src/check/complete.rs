//! Whether the history is all of it: cut short it lacks what would have shown a loss, and must not pass.
//!
//! The end is the last event that the run records, after the last read of every key at every node; its index is the number of events
//! before it. It carries what only the run itself saw: without it, nobody can tell.

use super::Finding;
use super::recovery::seconds;
use crate::history::{Event, Op, Stall};
use crate::test::{Outcome, Verdict};

/// The last event is the end, and none is missing before it.
pub(crate) fn check(history: &[Event]) -> Finding {
    let unknown = |detail: String| Finding::new("complete", Outcome::Unknown, detail);
    let Some((last, before)) = history.split_last().filter(|(last, _)| matches!(last.op, Op::End { .. })) else {
        let count = history.len();
        return unknown(format!("the history was cut short: after {count} events it does not come to its end"));
    };
    match last.index.saturating_sub(before.len() as u64) {
        0 => Finding::new("complete", Outcome::Pass, format!("{} events and the end", before.len())),
        missing => unknown(format!("{missing} events are missing before the end")),
    }
}

/// What the run itself has judged, which no other event shows.
pub(crate) fn own_verdicts(history: &[Event]) -> &[Verdict] {
    match history.last().map(|last| &last.op) {
        Some(Op::End { verdicts, .. }) => verdicts,
        _ => &[],
    }
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
    use crate::check::story::{Story, read, register, write};
    use crate::test::{Outcome, Verdict};

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
}
