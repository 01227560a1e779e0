//! Availability: traffic goes on with the last table through every fault (I6), and a change of the table fails no request (I7).
//!
//! A proxied request failed where it got no answer, or a status of 500 and above. A failure is excused only where the node could not have
//! answered, or where the answer is the right one:
//!
//! | fault | excused at its nodes |
//! |---|---|
//! | kill, crash, power cut, damaged data, removal | from the fault until the node answers again, at most 5 s after its start |
//! | pause | from the fault until 1 s after the process goes on |
//! | restart in good order | what began between SIGTERM and the node's being ready: what was under way has to be finished, and nobody else suffers |
//! | disk full, slow, broken | nothing while it lasts; the restart that heals it, as a kill |
//! | broken backends | 502, 503 and 504 whose `Proxy-Status` blames one of them, at every node, until 1 s after their healing |
//! | partitions, loss, delay, clocks, leader transfer, storms of changes | nothing |

use std::collections::HashMap;

use super::Finding;
use super::effect::Effects;
use super::fault::{Class, Faults, Window};
use super::operation::Operation;
use crate::history::{Answered, Kind, Op};
use crate::test::Outcome;

/// How long a node may take from its start to its first answer.
const START_NANOS: u64 = 5_000_000_000;

/// How long what a pause or a broken backend did to connections may be felt.
const ECHO_NANOS: u64 = 1_000_000_000;

/// How long after its acknowledgement a change may still be under way to some node.
const PUBLISH_NANOS: u64 = 1_000_000_000;

/// A request without an answer counts where the history goes on for this long.
const PATIENCE_NANOS: u64 = 10_000_000_000;

/// What came of it.
pub(crate) struct Availability {
    pub(super) findings: [Finding; 2],
    pub(crate) requests: u64,
    /// Those that a fault excuses among them.
    pub(crate) failed: u64,
    pub(crate) excused: u64,
}

/// Judges every proxied request.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, faults: &Faults<'_>) -> Availability {
    let signs = Signs::gather(operations);
    let changes = Changes::gather(effects, operations);
    let last = operations.iter().map(|operation| operation.end.unwrap_or(operation.invoke).time).max().unwrap_or(0);
    let mut found = Availability {
        findings: [Finding::of("I6", 0, "", &[]), Finding::of("I7", 0, "", &[])],
        requests: 0,
        failed: 0,
        excused: 0,
    };
    let (mut in_faults, mut in_changes) = (0, 0);
    let (mut of_faults, mut of_changes) = (Vec::new(), Vec::new());
    for operation in operations {
        let Op::Request { key, .. } = operation.invoke.op else { continue };
        let (begin, end) = (operation.invoke.time, operation.end.map_or(last, |end| end.time));
        if operation.end.is_none() && end < begin + PATIENCE_NANOS {
            continue;
        }
        found.requests += 1;
        let fault = faults.windows.iter().find(|window| window.effect.is_some() && window.overlaps(begin, end));
        let changing = changes.any(begin, end);
        let Some(why) = failure(operation) else {
            in_faults += u64::from(fault.is_some());
            in_changes += u64::from(changing);
            continue;
        };
        found.failed += 1;
        if faults.windows.iter().any(|window| excuses(window, operation, (begin, end), &signs)) {
            found.excused += 1;
            continue;
        }
        let what = format!("{}: a request for route {key} failed: {why}", operation.place());
        match (fault, changing) {
            (Some(window), _) => of_faults.push(format!("{what}, which {} does not excuse", window.name)),
            (None, true) => of_changes.push(format!("{what}, while the table changed")),
            (None, false) => of_faults.push(format!("{what}, with no fault and no change")),
        }
    }
    found.findings = [
        Finding::of("I6", in_faults, "requests answered during faults", &of_faults),
        Finding::of("I7", in_changes, "requests answered while the table changed", &of_changes),
    ];
    if found.excused > 0 && found.findings[0].outcome != Outcome::Fail {
        let excused = found.excused;
        found.findings[0]
            .detail
            .push_str(&format!(", {excused} failed at nodes that were down or for backends that were broken"));
    }
    found
}

/// Why a request failed; none for one that was served.
fn failure(operation: &Operation<'_>) -> Option<String> {
    match operation.op() {
        Op::Request { answer: Some(answer), .. } if operation.is_ok() => {
            (answer.status >= 500).then(|| answer.status.to_string())
        }
        _ => {
            let error = operation.end.and_then(|end| end.error.as_deref());
            Some(error.unwrap_or(if operation.outcome() == Kind::Fail { "refused" } else { "no answer" }).to_owned())
        }
    }
}

fn excuses(window: &Window<'_>, operation: &Operation<'_>, (begin, end): (u64, u64), signs: &Signs) -> bool {
    let Some(node) = operation.node() else { return false };
    let until_up = || signs.up_after(node, window.end);
    let echo = window.end.saturating_add(ECHO_NANOS);
    let on = |from: u64, to: u64| from <= end && begin <= to;
    match window.class {
        Class::Down | Class::Data | Class::Removed => window.hits(node) && on(window.begin, until_up()),
        // One that does not say when which node was down, as where it went wrong in between, lasts for all of them.
        Class::Restart if window.downs.is_empty() => window.hits(node) && window.begin <= begin && on(window.begin, until_up()),
        Class::Restart => {
            let nanos = |millis: u64| millis.saturating_mul(1_000_000);
            window.downs.iter().any(|down| down.node == node && (nanos(down.begin)..=nanos(down.end)).contains(&begin))
        }
        Class::Disk => window.hits(node) && window.healing < u64::MAX && on(window.healing, until_up()),
        Class::Paused => window.hits(node) && on(window.begin, echo),
        Class::Backend => {
            let right = matches!(operation.op(), Op::Request { answer: Some(answer), .. } if blames(window, answer));
            right && on(window.begin, echo)
        }
        Class::Other => false,
    }
}

/// What a gateway may say of a backend that broke (RFC 9209, 2.3): none of these is an error of its own.
const UPSTREAM_ERRORS: [&str; 7] = [
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_limit_reached",
    "destination_unavailable",
    "http_protocol_error",
    "http_response_timeout",
];

/// Whether an answer says that it failed because of one of the window's backends. A window that names none is of all.
fn blames(window: &Window<'_>, answer: &Answered) -> bool {
    let Some((error, service)) = answer.upstream_error().filter(|_| (502..=504).contains(&answer.status)) else { return false };
    let mut broken = window.detail.split([' ', ',', ':']).filter(|word| word.starts_with("backend-")).peekable();
    UPSTREAM_ERRORS.contains(&error) && (broken.peek().is_none() || broken.any(|backend| backend == service))
}

/// When nodes showed that they serve.
struct Signs(HashMap<u32, Vec<u64>>);

impl Signs {
    fn gather(operations: &[Operation<'_>]) -> Signs {
        let mut signs: HashMap<u32, Vec<u64>> = HashMap::new();
        for operation in operations.iter().filter(|operation| operation.is_ok()) {
            let serves = matches!(operation.op(), Op::Request { answer: Some(answer), .. } if answer.status < 500);
            if let (true, Some(node)) = (serves, operation.node()) {
                signs.entry(node).or_default().push(operation.invoke.time);
            }
        }
        signs.values_mut().for_each(|times| times.sort_unstable());
        Signs(signs)
    }

    /// When a node that was started at `start` first served a request, or should have.
    fn up_after(&self, node: u32, start: u64) -> u64 {
        let latest = start.saturating_add(START_NANOS);
        let times = self.0.get(&node).map_or(&[][..], Vec::as_slice);
        times.get(times.partition_point(|time| *time < start)).map_or(latest, |first| latest.min(*first))
    }
}

/// When the table may have been changing: spans by their begin, each with the latest end of it and all before.
struct Changes(Vec<(u64, u64)>);

impl Changes {
    fn gather(effects: &Effects<'_>, operations: &[Operation<'_>]) -> Changes {
        let times: HashMap<u64, u64> =
            operations.iter().filter_map(|operation| operation.end).map(|end| (end.index, end.time)).collect();
        let changed = effects.all.iter().filter(|effect| effect.happened());
        let mut spans: Vec<(u64, u64)> = changed
            .map(|effect| {
                let end = times.get(&effect.end).copied().unwrap_or(effect.first.invoke.time);
                (effect.first.invoke.time, end.saturating_add(PUBLISH_NANOS))
            })
            .collect();
        spans.sort_unstable();
        let mut latest = 0;
        for (_, end) in &mut spans {
            latest = latest.max(*end);
            *end = latest;
        }
        Changes(spans)
    }

    fn any(&self, begin: u64, end: u64) -> bool {
        let before = self.0.partition_point(|(from, _)| *from <= end);
        before.checked_sub(1).is_some_and(|last| self.0[last].1 >= begin)
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, failed_upstream, refused, request, write};
    use crate::history::Kind;
    use crate::test::Outcome;

    const NODE: u32 = 2;

    /// Requests before, during and after a fault of a node. What happens during it is told by the caller.
    fn around(fault: &str, tell: impl Fn(&mut Story)) -> Story {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).wait(5_000).run(1, NODE, Kind::Ok, request(1, 1, 10)).fault(fault, &[NODE]).wait(1_000);
        tell(&mut story);
        story.run(2, 1, Kind::Ok, request(1, 1, 10)).wait(1_000).heal(fault, &[NODE]).wait(500).run(
            2,
            NODE,
            Kind::Ok,
            request(1, 1, 10),
        );
        story
    }

    #[test]
    fn a_node_that_cannot_answer_is_excused_and_no_other() {
        for fault in ["kill-leader", "power-cut", "pause", "rolling-restart", "flip-bit"] {
            around(fault, |story| {
                story.run(1, NODE, Kind::Fail, request(1, 1, 10));
            })
            .is("I6", Outcome::Pass, "1 failed at nodes that were down");
            around(fault, |story| {
                story.run(1, 3, Kind::Fail, request(1, 1, 10));
            })
            .is(
                "I6",
                Outcome::Fail,
                &format!("a request for route 1 failed: refused, which {fault} does not excuse"),
            );
        }
    }

    #[test]
    fn what_breaks_only_the_control_plane_excuses_nothing() {
        for fault in ["partition-leader", "clock-jump", "disk-full", "slow-link", "a fault that nobody knows"] {
            let failed = around(fault, |story| {
                story.run(1, NODE, Kind::Ok, refused(1, 503, Some(1)));
            });
            failed.is("I6", Outcome::Fail, "failed: 503");
            let unknown = around(fault, |story| {
                story.run(1, NODE, Kind::Info, request(1, 1, 10));
            });
            unknown.is("I6", Outcome::Fail, "no answer");
            around(fault, |_| ()).is("I6", Outcome::Pass, "1 requests answered during faults");
        }
    }

    #[test]
    fn a_node_has_to_serve_soon_after_its_start() {
        let late = |millis: u64| {
            let mut story = around("kill", |_| ());
            // The last request of it was served: whatever fails from there on is not excused.
            story.wait(millis).run(1, NODE, Kind::Fail, request(1, 1, 10));
            story
        };
        late(0).is("I6", Outcome::Fail, "with no fault and no change");
        let mut slow = Story::new();
        slow.run(1, NODE, Kind::Ok, request(1, 0, 10)).fault("kill", &[NODE]).heal("kill", &[NODE]).wait(4_900);
        slow.run(1, NODE, Kind::Fail, request(1, 1, 10)).is("I6", Outcome::NotTested, "");
        slow.wait(200).run(1, NODE, Kind::Fail, request(1, 1, 10)).is("I6", Outcome::Fail, "");
    }

    #[test]
    fn what_was_under_way_is_finished_before_a_restart_in_good_order() {
        for (fault, outcome) in [("rolling-restart", Outcome::Fail), ("kill", Outcome::NotTested)] {
            let mut story = Story::new();
            story.begin(1, NODE, &request(1, 0, 10)).fault(fault, &[NODE]).end(1, NODE, Kind::Fail, request(1, 0, 10));
            story.heal(fault, &[NODE]).is("I6", outcome, "");
        }
    }

    #[test]
    fn a_rolling_restart_excuses_one_node_after_the_other() {
        // The fault begins at 0 ms; the request 1 ms after what is waited for.
        for (node, at, outcome) in [
            (1, 20, Outcome::NotTested),
            (2, 20, Outcome::Fail),
            (1, 80, Outcome::Fail),
            (2, 80, Outcome::NotTested),
            (3, 80, Outcome::Fail),
            // The way back, which its healing tells of.
            (1, 250, Outcome::NotTested),
            (2, 250, Outcome::Fail),
        ] {
            let mut story = Story::new();
            story.fault_told(
                "rolling-upgrade",
                &[1, 2],
                "node 1: down from 10 to 50 ms, stopped after 5 ms; node 2: down from 60 to 99 ms",
            );
            story.wait(at - 2).run(1, node, Kind::Fail, request(1, 1, 10)).wait(500 - at);
            story.heal_told("rolling-upgrade", &[1, 2], "node 1: down from 240 to 260 ms");
            story.is("I6", outcome, "");
        }
    }

    #[test]
    fn broken_backends_excuse_the_answers_that_say_so() {
        for (answer, outcome) in [
            (failed_upstream(1, 502, 1, "connection_refused", "backend-2"), Outcome::Pass),
            (failed_upstream(1, 504, 1, "http_response_timeout", "backend-2"), Outcome::Pass),
            // Not the status, not the error, not the backend of a broken one; or nobody is blamed.
            (failed_upstream(1, 500, 1, "connection_refused", "backend-2"), Outcome::Fail),
            (failed_upstream(1, 502, 1, "proxy_internal_error", "backend-2"), Outcome::Fail),
            (failed_upstream(1, 502, 1, "connection_refused", "backend-3"), Outcome::Fail),
            (refused(1, 502, Some(1)), Outcome::Fail),
        ] {
            let mut story = Story::new();
            story.ok(0, write(&[(1, 10)], 1)).wait(5_000).ok(1, request(1, 1, 10));
            story
                .fault_told("flapping-backends", &[], "backend-0, backend-2: [Gone, Resets]")
                .wait(1_000)
                .ok(1, request(1, 1, 10));
            story.ok(1, answer).heal("flapping-backends", &[]).is("I6", outcome, "");
        }
    }

    #[test]
    fn a_change_fails_no_request() {
        let mut story = Story::new();
        story.begin(0, 1, &write(&[(1, 10)], 1)).run(1, NODE, Kind::Ok, request(1, 1, 10));
        story.end(0, 1, Kind::Ok, write(&[(1, 10)], 1)).is("I7", Outcome::Pass, "1 requests");
        story.wait(500).run(1, NODE, Kind::Ok, refused(1, 502, Some(1))).is("I7", Outcome::Fail, "502, while the table changed");
        story.is("I6", Outcome::NotTested, "");
        story.wait(5_000).run(1, NODE, Kind::Ok, refused(1, 502, Some(1)));
        story.is("I6", Outcome::Fail, "with no fault and no change");
    }
}
