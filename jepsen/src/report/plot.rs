//! Plots of a test: how long operations took, and how many there were, by kind and outcome, with the fault windows shaded.

use std::collections::BTreeMap;

use super::chart::{Chart, Scale, round_up, seconds};
use crate::check::fault::Faults;
use crate::check::operation::Operation;
use crate::history::{Kind, Op, Process};
use crate::test::Test;

use super::edn::workload_name;

/// Into how many steps the time is cut for rates and percentiles.
const STEPS: usize = 120;

/// How many dots a panel has at most; others are left out evenly.
const DOTS_MAX: usize = 4_000;

const OUTCOMES: [(&str, Kind, &str); 3] =
    [("ok", Kind::Ok, "#6fa8dc"), ("info", Kind::Info, "#e69138"), ("fail", Kind::Fail, "#cc0066")];
const PERCENTILES: [(&str, usize, &str); 3] = [("p50", 50, "#38761d"), ("p95", 95, "#0b5394"), ("p99", 99, "#741b47")];

/// `latency.svg`: each operation as a dot, and percentiles of those that succeeded, in milliseconds.
pub(crate) fn latency(test: &Test, operations: &[Operation<'_>], faults: &Faults<'_>) -> String {
    let length = length(operations);
    let mut chart = Chart::new(length);
    for (kind, operations) in by_kind(operations) {
        let took = |operation: &Operation<'_>| Some(seconds(operation.end?.time - operation.invoke.time) * 1e3);
        let scale = Scale::Log(0.1, 10_000.0);
        chart.panel(&format!("{kind}: latency in ms"), scale, faults);
        for (_, outcome, colour) in OUTCOMES {
            let of_outcome: Vec<_> =
                operations.iter().filter(|operation| operation.outcome() == outcome && operation.end.is_some()).collect();
            let every = of_outcome.len().div_ceil(DOTS_MAX).max(1);
            let dots = of_outcome.iter().step_by(every);
            chart.dots(scale, colour, dots.filter_map(|operation| Some((seconds(operation.invoke.time), took(operation)?))));
        }
        let mut steps: Vec<Vec<f64>> = vec![Vec::new(); STEPS];
        for operation in operations.iter().filter(|operation| operation.is_ok()) {
            steps[step_of(operation, length)].extend(took(operation));
        }
        steps.iter_mut().for_each(|step| step.sort_by(f64::total_cmp));
        for (_, percent, colour) in PERCENTILES {
            let at = |step: &Vec<f64>| step.get((step.len() * percent / 100).min(step.len().saturating_sub(1))).copied();
            let points = steps.iter().enumerate().map(|(place, step)| Some((middle(place, length), at(step)?)));
            chart.line(scale, colour, points);
        }
        let legend: Vec<_> = OUTCOMES.iter().map(|(name, _, colour)| (*name, *colour)).collect();
        let percentiles = PERCENTILES.iter().map(|(name, _, colour)| (*name, *colour));
        chart.legend(&legend.into_iter().chain(percentiles).collect::<Vec<_>>());
    }
    chart.finish(&title("Latency", test))
}

/// `rate.svg`: operations a second by outcome, counted where they ended.
#[expect(clippy::cast_precision_loss, reason = "a picture needs no more than a million steps")]
pub(crate) fn rate(test: &Test, operations: &[Operation<'_>], faults: &Faults<'_>) -> String {
    let length = length(operations);
    let width = length / STEPS as f64;
    let mut chart = Chart::new(length);
    for (kind, operations) in by_kind(operations) {
        let mut counts = [[0u32; STEPS]; OUTCOMES.len()];
        for operation in operations {
            for (place, (_, outcome, _)) in OUTCOMES.iter().enumerate() {
                counts[place][step_of(operation, length)] += u32::from(operation.outcome() == *outcome);
            }
        }
        let most = counts.iter().flatten().copied().max().unwrap_or(0);
        let scale = Scale::Linear(round_up((f64::from(most) / width).max(1.0)));
        chart.panel(&format!("{kind}: operations a second"), scale, faults);
        for ((_, _, colour), counts) in OUTCOMES.iter().zip(&counts) {
            let points = counts.iter().enumerate().map(|(place, count)| Some((middle(place, length), f64::from(*count) / width)));
            if counts.iter().any(|count| *count > 0) {
                chart.line(scale, colour, points);
            }
        }
        chart.legend(&OUTCOMES.map(|(name, _, colour)| (name, colour)));
    }
    chart.finish(&title("Rate", test))
}

fn title(what: &str, test: &Test) -> String {
    format!("{what}: {}, {} nodes, {}, seed {}", workload_name(test.workload), test.nodes, test.nemeses.join(" "), test.seed)
}

fn by_kind<'a, 'b>(operations: &'b [Operation<'a>]) -> BTreeMap<&'static str, Vec<&'b Operation<'a>>> {
    let mut kinds: BTreeMap<&str, Vec<&Operation<'_>>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| matches!(operation.invoke.process, Process::Client(_))) {
        let kind = match operation.invoke.op {
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::ReadAll { .. } => "read of all",
            Op::Poll { .. } => "poll",
            Op::Request { .. } => "proxied request",
            Op::Membership { .. } => "membership",
            Op::Fault { .. } | Op::End { .. } => continue,
        };
        kinds.entry(kind).or_default().push(operation);
    }
    kinds
}

/// How long the test took, in seconds.
fn length(operations: &[Operation<'_>]) -> f64 {
    seconds(operations.iter().map(|operation| operation.end.unwrap_or(operation.invoke).time).max().unwrap_or(0)).max(0.001)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "between 0 and STEPS")]
fn step_of(operation: &Operation<'_>, length: f64) -> usize {
    let second = seconds(operation.end.unwrap_or(operation.invoke).time);
    ((second / length * STEPS as f64) as usize).min(STEPS - 1)
}

#[expect(clippy::cast_precision_loss, reason = "between 0 and STEPS")]
fn middle(place: usize, length: f64) -> f64 {
    (place as f64 + 0.5) * length / STEPS as f64
}
