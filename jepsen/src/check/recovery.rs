//! Recovery (I8): once all faults are healed the cluster takes writes again, and every node answers linearizable reads, within a bound.
//!
//! Faults may overlap; what counts is the time at which none was on any more. Where the next fault began before the cluster had recovered,
//! nothing can be said of that time, and it is left out; the last time is never left out.

use std::collections::BTreeSet;

use super::fault::{Faults, Window};
use super::operation::Operation;
use super::{Finding, complete};
use crate::history::{Key, Op, Stall};

/// The bound, in nanoseconds.
const RECOVERY_NANOS_MAX: u64 = 30_000_000_000;

/// The longest time without a write in a rolling restart.
const ROLLING_GAP_SECONDS_MAX: f64 = 0.2;

/// What came of it. Times in seconds, sorted.
pub(crate) struct Recovery {
    pub(super) finding: Finding,
    /// From the end of the faults until a write and a read at every node had succeeded.
    pub(crate) times: Vec<f64>,
    /// The longest time without a successful write around each span of faults.
    pub(crate) write_gaps: Vec<f64>,
    /// The same around all rolling restarts and upgrades; none without one.
    pub(crate) rolling_gap: Option<f64>,
    pub(super) rolling: Finding,
}

/// Measures every recovery, and judges each that was measured, and that the last one was complete.
pub(crate) fn check(operations: &[Operation<'_>], faults: &Faults<'_>, nodes: &[u32], stalls: &[Stall]) -> Recovery {
    let spans = spans(faults);
    let is_answer = |op: &Op| matches!(op, Op::Read { .. } | Op::ReadAll { .. } | Op::Write { .. });
    let answered = operations.iter().filter(|operation| operation.is_ok() && is_answer(operation.op()));
    let mut answers: Vec<(u64, &Operation<'_>)> =
        answered.filter_map(|operation| Some((operation.end?.time, operation))).collect();
    answers.sort_by_key(|(time, _)| *time);
    let mut violations = Vec::new();
    let mut times = Vec::new();
    for (at, (_, healed)) in spans.iter().enumerate() {
        let next = spans.get(at + 1).map(|(begin, _)| *begin);
        match recovered(&answers, nodes, *healed, next) {
            Ok(when) => {
                let took = when - healed;
                times.push(seconds(took));
                if took > RECOVERY_NANOS_MAX {
                    violations.push(format!("{:.1} s from the end of the faults at {:.1} s", seconds(took), seconds(*healed)));
                }
            }
            Err(missing) if next.is_none() => {
                violations.push(format!("after the last fault, healed at {:.1} s: {missing}", seconds(*healed)));
            }
            Err(_) => {}
        }
    }
    violations.extend(unread(operations, spans.last().map_or(u64::MAX, |(_, healed)| *healed)));
    let finding = Finding::of("I8", times.len() as u64, "recoveries in time", &violations);
    times.sort_by(f64::total_cmp);
    let write_gaps = write_gaps(operations, &spans);
    let (rolling_gap, rolling) = rolling_restarts(operations, faults, stalls);
    Recovery { finding, times, write_gaps, rolling_gap, rolling }
}

/// Each node hands its leadership over before it stops: no time without a write is longer than the bound, where nothing else is broken.
/// When the machine did not let the suite run meanwhile is said beside it, and excuses nothing.
fn rolling_restarts(operations: &[Operation<'_>], faults: &Faults<'_>, stalls: &[Stall]) -> (Option<f64>, Finding) {
    let rolling = |window: &&Window<'_>| window.effect.is_some() && window.name.starts_with("rolling");
    let alone = |window: &&Window<'_>| {
        !faults.windows.iter().any(|other| other.begin != window.begin && other.overlaps(window.begin, window.end))
    };
    let ended = faults.windows.iter().filter(rolling).filter(alone).filter(|window| window.end < u64::MAX);
    let spans: Vec<(u64, u64)> = ended.map(|window| (window.begin, window.end)).collect();
    let gaps = write_gaps(operations, &spans);
    let too_long = gaps.iter().filter(|gap| **gap > ROLLING_GAP_SECONDS_MAX);
    let too_long: Vec<String> = too_long.map(|gap| format!("no write for {:.0} ms", gap * 1e3)).collect();
    let mut finding = Finding::of("rolling", gaps.len() as u64, "rolling restarts with writes going on", &too_long);
    if let Some(greatest) = gaps.last() {
        finding.detail.push_str(&format!(", longest time without a write {:.0} ms", greatest * 1e3));
    }
    let meets = |stall: &&Stall| {
        spans.iter().any(|(begin, end)| stall.begin <= *end && *begin <= stall.begin.saturating_add(stall.length))
    };
    finding.detail.push_str(&complete::of_worst_stall(stalls.iter().filter(meets)));
    (gaps.last().copied(), finding)
}

/// Spans with some fault on, apart from one another. Faults that end by themselves, as a leader transfer, end with their effect.
fn spans(faults: &Faults<'_>) -> Vec<(u64, u64)> {
    let mut on: Vec<(u64, u64)> = faults
        .windows
        .iter()
        .filter_map(|window| Some((window.begin, if window.end == u64::MAX { window.effect? } else { window.end })))
        .collect();
    on.sort_unstable();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in on {
        match spans.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => spans.push((begin, end)),
        }
    }
    spans
}

/// When a write and a read at each node, all begun after `healed`, had succeeded; or what had not by the `next` fault, or ever. Answers are
/// sorted by their times.
fn recovered(answers: &[(u64, &Operation<'_>)], nodes: &[u32], healed: u64, next: Option<u64>) -> Result<u64, String> {
    let mut waited: BTreeSet<u32> = nodes.iter().copied().collect();
    let mut wrote = false;
    let from = answers.partition_point(|(time, _)| *time < healed);
    let until_next = answers[from..].iter().take_while(|(time, _)| next.is_none_or(|next| *time <= next));
    for (time, operation) in until_next.filter(|(_, operation)| operation.invoke.time >= healed) {
        match (operation.op(), operation.node()) {
            (Op::Write { .. }, _) => wrote = true,
            (_, Some(node)) => {
                waited.remove(&node);
            }
            _ => {}
        }
        if wrote && waited.is_empty() {
            return Ok(*time);
        }
    }
    let mut missing: Vec<String> = waited.iter().map(|node| format!("no read at node {node}")).collect();
    if !wrote {
        missing.insert(0, "no write".to_owned());
    }
    Err(format!("{} succeeded", missing.join(", ")))
}

/// Routes that were read before and of which no read succeeded after the last fault.
fn unread(operations: &[Operation<'_>], healed: u64) -> Option<String> {
    let mut asked: BTreeSet<Key> = BTreeSet::new();
    let mut answered: BTreeSet<Key> = BTreeSet::new();
    for operation in operations {
        match operation.op() {
            Op::Read { keys, .. } if operation.invoke.time >= healed && operation.is_ok() => answered.extend(keys),
            Op::Read { keys, .. } => asked.extend(keys),
            Op::ReadAll { seen: Some(_) } if operation.invoke.time >= healed => return None,
            _ => {}
        }
    }
    let missing: Vec<String> = asked.difference(&answered).map(Key::to_string).collect();
    let lacks = healed < u64::MAX && !missing.is_empty();
    lacks.then(|| format!("no read succeeded after the last fault of route {}", missing.join(", ")))
}

/// The longest time without a successful write that touches each span; without one at all, none.
fn write_gaps(operations: &[Operation<'_>], spans: &[(u64, u64)]) -> Vec<f64> {
    let is_write = |operation: &&Operation<'_>| operation.is_ok() && matches!(operation.op(), Op::Write { .. });
    let mut ends: Vec<u64> = operations.iter().filter(is_write).filter_map(|operation| Some(operation.end?.time)).collect();
    ends.sort_unstable();
    let gap = |&(begin, end): &(u64, u64)| {
        let from = ends.partition_point(|time| *time < begin).saturating_sub(1);
        let to = (ends.partition_point(|time| *time <= end) + 1).min(ends.len());
        ends.get(from..to)?.windows(2).map(|pair| pair[1] - pair[0]).max().map(seconds)
    };
    let mut gaps: Vec<f64> = spans.iter().filter_map(gap).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

/// Seconds of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "times of a test are far below 2^53 ns times a thousand")]
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read, register, write};
    use crate::history::{Kind, Stall};
    use crate::test::Outcome;

    /// A write, a fault of 2 s, and what the caller tells after its end.
    fn after_a_fault(tell: impl Fn(&mut Story)) -> Story {
        let mut story = Story::new();
        story
            .ok(0, write(&[(1, 10)], 1))
            .ok(0, read(1, 1, Some((1, 10))))
            .wait(1_000)
            .fault("kill", &[1])
            .wait(2_000)
            .heal("kill", &[1]);
        tell(&mut story);
        story
    }

    fn number(story: &Story, name: &str) -> Option<f64> {
        let results = crate::check::judge(&register(), &story.events);
        results.numbers.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }

    #[test]
    fn the_time_until_a_write_and_a_read_at_every_node() {
        let story = after_a_fault(|story| {
            story.wait(100).ok(1, write(&[(1, 20)], 2)).wait(300);
            for node in 1..=3 {
                story.run(2, node, Kind::Ok, read(1, 2, Some((2, 20))));
            }
        });
        story.is("I8", Outcome::Pass, "1 recoveries in time");
        let close = |name: &str, seconds: f64| {
            let measured = number(&story, name).expect("measured");
            assert!((measured - seconds).abs() < 0.02, "{name}: {measured}");
        };
        close("recovery p50 s", 0.4);
        close("write gap max s", 3.1);
    }

    #[test]
    fn what_never_recovers_or_late() {
        after_a_fault(|_| ()).is(
            "I8",
            Outcome::Fail,
            "no write, no read at node 1, no read at node 2, no read at node 3 succeeded",
        );
        let one_node_short = after_a_fault(|story| {
            story.ok(1, write(&[(1, 20)], 2)).run(2, 1, Kind::Ok, read(1, 2, Some((2, 20)))).run(
                2,
                2,
                Kind::Ok,
                read(1, 2, Some((2, 20))),
            );
            story.run(2, 3, Kind::Fail, read(1, 2, None));
        });
        one_node_short.is("I8", Outcome::Fail, ": no read at node 3 succeeded");
        let late = after_a_fault(|story| {
            story.wait(31_000).ok(1, write(&[(1, 20)], 2));
            (1..=3).for_each(|node| {
                story.run(2, node, Kind::Ok, read(1, 2, Some((2, 20))));
            });
        });
        late.is("I8", Outcome::Fail, "31.0 s from the end of the faults at 3.0 s");
    }

    #[test]
    fn writes_go_on_in_a_rolling_restart() {
        let restart = |fault: &str, millis: u64| {
            let mut story = Story::new();
            story.ok(0, write(&[(1, 10)], 1)).fault(fault, &[1]).wait(millis).ok(0, write(&[(1, 20)], 2)).heal(fault, &[1]);
            story.ok(0, write(&[(1, 30)], 3));
            story
        };
        restart("rolling-restart", 150).is("rolling", Outcome::Pass, "1 rolling restarts with writes going on, longest");
        restart("rolling-upgrade", 250).is("rolling", Outcome::Fail, "no write for 254 ms");
        restart("kill", 250).is("rolling", Outcome::NotTested, "");
        assert_eq!(number(&restart("rolling-restart", 150), "write gap rolling max s"), Some(0.154));
        // A machine that did not let the suite run excuses nothing, and is named.
        let mut starved = restart("rolling-upgrade", 250);
        let stall = |begin: u64, length: u64| Stall { begin: begin * 1_000_000, length: length * 1_000_000 };
        starved.over_with(Vec::new(), vec![stall(10, 240), stall(900, 400)]);
        starved.is("rolling", Outcome::Fail, "kept the suite itself waiting for up to 240 ms (at 0.0 s)");
        // A leader that is killed meanwhile cannot hand anything over.
        let mut mixed = restart("rolling-restart", 250);
        mixed.events.truncate(4);
        mixed.fault("kill", &[2]).heal("kill", &[2]).wait(250).ok(0, write(&[(1, 20)], 2)).heal("rolling-restart", &[1]);
        mixed.is("rolling", Outcome::NotTested, "");
    }

    #[test]
    fn every_route_is_read_again() {
        let forgotten = after_a_fault(|story| {
            story.ok(1, write(&[(2, 20)], 2));
            (1..=3).for_each(|node| {
                story.run(2, node, Kind::Ok, read(2, 2, Some((2, 20))));
            });
        });
        forgotten.is("I8", Outcome::Fail, "no read succeeded after the last fault of route 1");
    }

    #[test]
    fn a_fault_that_was_not_healed_is_not_recovered_from() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).is("I8", Outcome::NotTested, "");
        story.fault("partition", &[1]).nemesis("partition", &[1], true, Kind::Fail).is("I8", Outcome::Fail, "");
    }
}
