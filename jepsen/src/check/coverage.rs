//! Whether the run says anything: each fault that was asked for took effect, enough succeeded before, during and after the faults, and the
//! proxies had requests to answer all along.

use std::collections::BTreeSet;

use super::Finding;
use super::fault::Faults;
use super::operation::Operation;
use crate::history::{Op, Process};
use crate::nemesis::MIX;
use crate::test::{Outcome, Test, Workload};

/// How many operations of clients have to succeed in each part of a test.
const SUCCESSES_MIN: u64 = 10;

/// How many kinds of faults of a mix have to take effect at least.
const MIX_EFFECTIVE_MIN: usize = 2;

/// Names of parts.
const ALL: &str = "in all";
const DURING: &str = "during them";

/// Each fault asked for by name had an effect at least once, and what was to be healed was.
///
/// `mix` draws its faults by chance, and one may find its nodes taken by another lane. At least half of those that it drew have to take
/// effect, and at least two: else what was tested is not what was asked for. Those that never did are named, also in a pass.
pub(crate) fn faults(test: &Test, faults: &Faults<'_>) -> Finding {
    let asked: Vec<&str> = test.nemeses.iter().map(String::as_str).filter(|name| *name != "none").collect();
    let drawn: BTreeSet<&str> = faults.windows.iter().map(|window| window.name).collect();
    let effective: BTreeSet<&str> =
        faults.windows.iter().filter(|window| window.effect.is_some()).map(|window| window.name).collect();
    let took_effect = |asked: &str| {
        if asked == MIX {
            return effective.len() >= MIX_EFFECTIVE_MIN.max(drawn.len().div_ceil(2));
        }
        let same = |name: &str| name == asked || name.strip_prefix(asked).is_some_and(|rest| rest.starts_with('-'));
        faults.windows.iter().any(|window| window.effect.is_some() && same(window.name))
    };
    let idle = drawn.difference(&effective).copied().collect::<Vec<_>>().join(", ");
    let mixed = format!("of {} kinds of faults that the mix drew {} took effect", drawn.len(), effective.len());
    let say = |name: &&str| match *name {
        MIX => format!("{mixed}, never {idle}"),
        name => format!("{name} never took effect"),
    };
    let mut never: Vec<String> = asked.iter().filter(|name| !took_effect(name)).map(say).collect();
    let unhealed = faults.windows.iter().filter(|window| window.healing < u64::MAX && window.end == u64::MAX);
    never.extend(unhealed.map(|window| format!("{} was not healed", window.name)));
    let mut finding = Finding::of("coverage", asked.len() as u64, "faults asked for took effect", &never);
    if asked.contains(&MIX) && never.is_empty() {
        let idle = if idle.is_empty() { String::new() } else { format!(", never {idle}") };
        finding.detail.push_str(&format!(" ({mixed}{idle})"));
    }
    finding
}

/// Enough operations succeeded before the first fault, until the last was healed, and after it.
pub(crate) fn operations(test: &Test, operations: &[Operation<'_>], faults: &Faults<'_>) -> Finding {
    let counted = operations.iter().filter(|operation| counts(test, operation));
    let parts = parts(counted.map(|operation| operation.invoke.time).collect(), faults);
    let enough = parts.iter().all(|(_, count)| *count >= SUCCESSES_MIN);
    let needed = if enough { String::new() } else { format!("; {SUCCESSES_MIN} are needed in each") };
    let outcome = if enough { Outcome::Pass } else { Outcome::Fail };
    Finding::new("operations", outcome, format!("succeeded: {}{needed}", say(&parts)))
}

/// Enough proxied requests were sent while something was broken, whatever came of them: without them nothing is known of I6.
pub(crate) fn traffic(operations: &[Operation<'_>], faults: &Faults<'_>) -> Finding {
    let sent = operations.iter().filter(|operation| matches!(operation.invoke.op, Op::Request { .. }));
    let parts = parts(sent.map(|operation| operation.invoke.time).collect(), faults);
    let enough = parts.iter().all(|(part, count)| !matches!(*part, ALL | DURING) || *count >= SUCCESSES_MIN);
    let needed = if enough { String::new() } else { format!("; {SUCCESSES_MIN} are needed {DURING} to judge I6") };
    let outcome = if enough { Outcome::Pass } else { Outcome::Fail };
    Finding::new("coverage", outcome, format!("proxied requests: {}{needed}", say(&parts)))
}

/// How many of these times are before, during and after the faults; in all, where there were none.
fn parts(times: Vec<u64>, faults: &Faults<'_>) -> Vec<(&'static str, u64)> {
    let count = |from: u64, to: u64| times.iter().filter(|time| (from..to).contains(time)).count() as u64;
    let first = faults.windows.iter().filter(|window| window.effect.is_some()).map(|window| window.begin).min();
    match (first, faults.last_heal()) {
        (None, _) => vec![(ALL, count(0, u64::MAX))],
        (Some(first), None) => vec![("before the faults", count(0, first)), (DURING, count(first, u64::MAX))],
        (Some(first), Some(healed)) => {
            vec![("before the faults", count(0, first)), (DURING, count(first, healed)), ("after them", count(healed, u64::MAX))]
        }
    }
}

fn say(parts: &[(&str, u64)]) -> String {
    parts.iter().map(|(part, count)| format!("{count} {part}")).collect::<Vec<_>>().join(", ")
}

/// Polls say that a node answers, and the requests beside a workload that its proxy does: not that the cluster works.
fn counts(test: &Test, operation: &Operation<'_>) -> bool {
    let client = matches!(operation.invoke.process, Process::Client(_));
    let works = match operation.op() {
        Op::Poll { .. } | Op::Membership { .. } => false,
        Op::Request { .. } => test.workload == Workload::Traffic,
        _ => true,
    };
    client && operation.is_ok() && works
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read, refused, register, verdict};
    use crate::history::Kind;
    use crate::test::{Outcome, Test, Workload};

    fn reads(story: &mut Story, count: u64) {
        for _ in 0..count {
            story.ok(0, read(1, 0, None));
        }
    }

    fn requests(story: &mut Story, count: u64) {
        for _ in 0..count {
            story.ok(1, refused(1, 404, Some(0)));
        }
    }

    #[test]
    fn the_proxies_have_requests_to_answer_all_along() {
        for (counts, outcome, words) in [
            ([10, 10, 10], Outcome::Pass, "proxied requests: 10 before the faults, 10 during them, 10 after them"),
            ([0, 10, 0], Outcome::Pass, "0 before the faults"),
            ([10, 9, 10], Outcome::Fail, "9 during them, 10 after them; 10 are needed during them to judge I6"),
        ] {
            let mut story = Story::new();
            requests(&mut story, counts[0]);
            story.fault("kill", &[1]);
            requests(&mut story, counts[1]);
            story.heal("kill", &[1]);
            requests(&mut story, counts[2]);
            story.is("coverage", outcome, words);
        }
    }

    #[test]
    fn the_requests_beside_a_workload_are_none_of_its_operations() {
        let mut story = Story::new();
        requests(&mut story, 20);
        story.is("operations", Outcome::Fail, "0 in all");
        let traffic = Test { workload: Workload::Traffic, ..register() };
        assert_eq!(verdict(&crate::check::judge(&traffic, &story.events), "operations").0, Outcome::Pass);
    }

    #[test]
    fn each_fault_asked_for_took_effect() {
        let test = Test { nemeses: vec!["kill".to_owned(), "partition".to_owned()], ..register() };
        let judged = |story: &Story| verdict(&crate::check::judge(&test, &story.events), "coverage");
        let mut story = Story::new();
        requests(&mut story, 10);
        story.fault("kill-leader", &[1]);
        requests(&mut story, 10);
        story.heal("kill-leader", &[1]).nemesis("partition", &[1], false, Kind::Fail);
        story.nemesis("partitioned", &[1], false, Kind::Ok);
        let (outcome, detail) = judged(&story);
        assert!(outcome == Outcome::Fail && detail.contains("partition never took effect"), "{detail}");
        story.fault("partition", &[1]);
        requests(&mut story, 10);
        assert_eq!(judged(&story).0, Outcome::Pass);
        let (outcome, detail) = judged(story.nemesis("partition", &[1], true, Kind::Fail));
        assert!(outcome == Outcome::Fail && detail.contains("partition was not healed"), "{detail}");
    }

    #[test]
    fn enough_succeeds_before_during_and_after() {
        for (counts, outcome) in [
            ([10, 10, 10], Outcome::Pass),
            ([9, 10, 10], Outcome::Fail),
            ([10, 9, 10], Outcome::Fail),
            ([10, 10, 9], Outcome::Fail),
        ] {
            let mut story = Story::new();
            reads(&mut story, counts[0]);
            story.fault("kill", &[1]);
            reads(&mut story, counts[1]);
            story.heal("kill", &[1]);
            reads(&mut story, counts[2]);
            story.is("operations", outcome, &format!("{} after them", counts[2]));
        }
        let mix = Test { nemeses: vec!["mix".to_owned()], ..register() };
        let mut story = Story::new();
        requests(&mut story, 10);
        for (fault, outcome) in [("kill-all", Outcome::Fail), ("kill-all", Outcome::Fail), ("loss", Outcome::Pass)] {
            story.fault(fault, &[1]);
            requests(&mut story, 10);
            story.heal(fault, &[1]);
            requests(&mut story, 10);
            assert_eq!(verdict(&crate::check::judge(&mix, &story.events), "coverage").0, outcome);
        }
        // Of five kinds, two are less than half, and three are not.
        for missed in ["kill-majority", "pause-leader", "stuck-disk"] {
            story.nemesis(missed, &[1], false, Kind::Fail);
        }
        let judged = |story: &Story| verdict(&crate::check::judge(&mix, &story.events), "coverage");
        let (outcome, detail) = judged(&story);
        assert!(outcome == Outcome::Fail && detail.contains("never kill-majority, pause-leader, stuck-disk"), "{detail}");
        story.fault("stuck-disk", &[1]);
        requests(&mut story, 10);
        let (outcome, detail) = judged(story.heal("stuck-disk", &[1]));
        let named = "of 5 kinds of faults that the mix drew 3 took effect, never kill-majority, pause-leader";
        assert!(outcome == Outcome::Pass && detail.contains(named), "{detail}");
        let mut story = Story::new();
        reads(&mut story, 3);
        story.is("operations", Outcome::Fail, "3 in all; 10 are needed");
    }
}
