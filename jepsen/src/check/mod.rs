//! The checkers: from a history to a verdict.
//!
//! Events are paired into operations ([`operation`]); writes are gathered with what is known of their revisions ([`effect`]), and placed
//! on one timeline a route ([`timeline`]). Each checker then says what it found as [`Finding`]s, one an invariant it speaks about;
//! several may speak about one invariant, and the worst of them is its verdict.
//!
//! The history holds every write of the test's routes, from an empty table on: a value that nobody wrote is a violation. Times between
//! operations are compared by the place of their events in the history: the runner adds an invocation before it sends, and an end
//! after it received.

mod availability;
mod complete;
mod coverage;
mod effect;
pub(crate) mod fault;
mod linear;
mod node;
mod numbers;
pub(crate) mod operation;
mod order;
mod recovery;
mod replay;
mod retry;
mod set;
#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod story;
mod table;
mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use effect::Effects;
use fault::Faults;
use timeline::Timeline;

use crate::history::Event;
use crate::test::{Outcome, Results, Test, Verdict};

/// How many violations a verdict tells of; the rest are counted.
const SHOWN_MAX: usize = 5;

/// How long the search for a linear order may take, for all routes together.
const LINEAR_TIMEOUT: Duration = Duration::from_secs(60);

/// Verdicts that fail where nothing comes after the faults, or too little came at all.
const NEED_THE_END: [&str; 3] = ["I8", "coverage", "operations"];

/// Invariants that every test judges, for it polls what each node serves, writes and reads every route, and has requests at each proxy.
const IN_EVERY_TEST: [&str; 6] = ["I1", "I2", "I3", "I4", "I5", "I7"];
/// The same where a fault took effect.
const IN_EVERY_FAULT: [&str; 1] = ["I6"];
/// What is said where nothing was there to judge them by.
const UNJUDGED: &str = "in this history, and every test has some: this invariant is not judged";

/// What one checker says about one invariant.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    /// `I1` ... `I10`, or what of the run itself was looked at.
    invariant: &'static str,
    outcome: Outcome,
    detail: String,
}

impl Finding {
    fn new(invariant: &'static str, outcome: Outcome, detail: impl Into<String>) -> Finding {
        Finding { invariant, outcome, detail: detail.into() }
    }

    /// Fails with the first violations; without any it passes, where something was looked at.
    fn of(invariant: &'static str, looked_at: u64, what: &str, violations: &[String]) -> Finding {
        match (violations.len(), looked_at) {
            (0, 0) => Finding::new(invariant, Outcome::NotTested, format!("no {what}")),
            (0, _) => Finding::new(invariant, Outcome::Pass, format!("{looked_at} {what}")),
            (count, _) => {
                let shown = violations.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
                let more = if count > SHOWN_MAX { format!("; and {} more", count - SHOWN_MAX) } else { String::new() };
                Finding::new(invariant, Outcome::Fail, format!("{count} violations: {shown}{more}"))
            }
        }
    }
}

/// Judges a history, and adds what the run itself has judged.
pub(crate) fn judge(test: &Test, history: &[Event]) -> Results {
    let (operations, mut wrong) = operation::pair(history);
    let effects = Effects::gather(&operations);
    wrong.extend_from_slice(&effects.wrong);
    let timeline = Timeline::build(&effects);
    let faults = Faults::gather(&operations);
    let left = operation::left(&operations);
    let nodes: Vec<u32> = faults.survivors(test.nodes).into_iter().filter(|node| !left.contains(node)).collect();
    let (lost_of_routes, replayed) = replay::check(&operations, &effects, &timeline);
    let set = set::check(test, &operations, &effects, &nodes);
    let mut availability = availability::check(&operations, &effects, &faults);
    for finding in availability.findings.iter_mut().filter(|finding| finding.outcome == Outcome::Fail) {
        // Excuses nothing.
        finding.detail.push_str(&complete::of_worst_stall(complete::stalls(history).iter()));
    }
    let recovery = recovery::check(&operations, &faults, &nodes, complete::stalls(history));
    let numbers = numbers::of(&operations, &effects, &faults, &availability, &recovery, lost_of_routes + set.lost);
    let mut findings = vec![
        Finding::of("history", history.len() as u64, "events", &wrong),
        complete::check(history),
        linear::check(&operations, &effects, LINEAR_TIMEOUT),
        set.finding,
        node::served(&operations, &faults),
        node::digests(&operations),
        table::check(&operations, &effects, &timeline),
        retry::check(&effects),
        node::watch(test),
        recovery.finding,
        recovery.rolling,
        coverage::faults(test, &faults),
        coverage::operations(test, &operations, &faults),
        coverage::traffic(&operations, &faults),
    ];
    findings.extend(order::check(&operations, &effects, &faults));
    findings.extend(replayed);
    findings.extend(availability.findings);
    let mut verdicts = verdicts(findings);
    if complete::check(history).outcome == Outcome::Pass {
        must_be_judged(&mut verdicts, faults.windows.iter().any(|window| window.effect.is_some()));
    }
    verdicts.extend(complete::own_verdicts(test, history));
    Results { verdicts, numbers }
}

/// Judges a history that may have been cut short: what fails there for want of events is unknown, and what happened is judged as ever.
pub(crate) fn judge_again(test: &Test, history: &[Event]) -> Results {
    let mut results = judge(test, history);
    if complete::check(history).outcome != Outcome::Pass {
        let wanting = |verdict: &&mut Verdict| verdict.outcome == Outcome::Fail && NEED_THE_END.contains(&verdict.name.as_str());
        results.verdicts.iter_mut().filter(wanting).for_each(|verdict| verdict.outcome = Outcome::Unknown);
    }
    results
}

/// Of a whole history it is unknown what every test judges and this one has nothing to say about. One that was cut short is no pass anyway.
fn must_be_judged(verdicts: &mut [Verdict], had_faults: bool) {
    let must = |name: &str| IN_EVERY_TEST.contains(&name) || (had_faults && IN_EVERY_FAULT.contains(&name));
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.outcome == Outcome::NotTested && must(&verdict.name)) {
        verdict.outcome = Outcome::Unknown;
        verdict.detail = format!("{} {UNJUDGED}", verdict.detail);
    }
}

/// One verdict an invariant: the worst that was found, with all that was said.
fn verdicts(findings: Vec<Finding>) -> Vec<Verdict> {
    let mut by_name: BTreeMap<(usize, &str), Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        // I2 before I10; the run itself last.
        let order = finding.invariant.strip_prefix('I').and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
        by_name.entry((order, finding.invariant)).or_default().push(finding);
    }
    let verdict = |((_, name), mut findings): ((usize, &str), Vec<Finding>)| {
        findings.sort_by_key(|finding| rank(finding.outcome));
        let detail = findings.iter().map(|finding| finding.detail.as_str()).collect::<Vec<_>>().join(". ");
        Verdict { name: name.to_owned(), outcome: findings[0].outcome, detail }
    };
    by_name.into_iter().map(verdict).collect()
}

/// The worst first.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Fail => 0,
        Outcome::Unknown => 1,
        Outcome::Pass => 2,
        Outcome::NotTested => 3,
    }
}

/// Whether the run passes: all verdicts are `Pass` or `NotTested`, and at least one is `Pass`.
pub(crate) fn overall(results: &Results) -> Outcome {
    results.verdicts.iter().map(|verdict| verdict.outcome).min_by_key(|outcome| rank(*outcome)).unwrap_or(Outcome::NotTested)
}
