//! The numbers of a run, for summaries and tables. Times are in seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::availability::Availability;
use super::effect::Effects;
use super::fault::Faults;
use super::operation::Operation;
use super::recovery::Recovery;
use crate::history::{Kind, Op, Process};

/// All of them, by name, in the order in which they are read.
pub(crate) fn of(
    operations: &[Operation<'_>],
    effects: &Effects<'_>,
    faults: &Faults<'_>,
    availability: &Availability,
    recovery: &Recovery,
    lost: u64,
) -> Vec<(String, f64)> {
    let clients = || operations.iter().filter(|operation| matches!(operation.invoke.process, Process::Client(_)));
    let ended = |kind: Kind| clients().filter(|operation| operation.outcome() == kind).count() as u64;
    let mut numbers = Numbers(Vec::new());
    numbers.count("operations", clients().count() as u64);
    numbers.count("operations ok", ended(Kind::Ok));
    numbers.count("operations fail", ended(Kind::Fail));
    numbers.count("operations info", ended(Kind::Info));
    numbers.count("acknowledged", effects.all.iter().filter(|effect| effect.acknowledged).count() as u64);
    numbers.count("lost", lost);
    numbers.count("proxied requests", availability.requests);
    numbers.count("proxied requests failed", availability.failed);
    numbers.count("proxied requests failed and excused", availability.excused);
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    let effective = || faults.windows.iter().filter(|window| window.effect.is_some());
    effective().for_each(|window| *by_name.entry(window.name).or_default() += 1);
    numbers.count("faults", by_name.values().sum());
    numbers.count("power cuts", effective().filter(|window| window.name.contains("power")).count() as u64);
    for (name, count) in by_name {
        numbers.count(&format!("fault {name}"), count);
        if let Some(p99) = percentile_99(latencies(operations, faults, name)) {
            numbers.0.push((format!("proxied p99 during {name} s"), p99));
        }
    }
    numbers.spread("recovery", &recovery.times);
    numbers.spread("write gap", &recovery.write_gaps);
    numbers.0.extend(recovery.rolling_gap.map(|gap| ("write gap rolling max s".to_owned(), gap)));
    numbers.0
}

/// How long each proxied request took that was answered in a window of a fault of this name.
fn latencies(operations: &[Operation<'_>], faults: &Faults<'_>, name: &str) -> Vec<f64> {
    let windows = || faults.windows.iter().filter(|window| window.effect.is_some() && window.name == name);
    let mut latencies = Vec::new();
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        let (Op::Request { .. }, Some(end)) = (operation.op(), operation.end) else { continue };
        let (begin, end) = (operation.invoke.time, end.time);
        if windows().any(|window| window.overlaps(begin, end)) {
            latencies.push(Duration::from_nanos(end.saturating_sub(begin)).as_secs_f64());
        }
    }
    latencies
}

/// What 99 of 100 do not exceed; none of none.
fn percentile_99(mut of: Vec<f64>) -> Option<f64> {
    of.sort_unstable_by(f64::total_cmp);
    of.get((of.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

struct Numbers(Vec<(String, f64)>);

impl Numbers {
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^53")]
    fn count(&mut self, name: &str, count: u64) {
        self.0.push((name.to_owned(), count as f64));
    }

    /// The median and the greatest of sorted times; nothing of none.
    fn spread(&mut self, name: &str, sorted: &[f64]) {
        if let (Some(median), Some(greatest)) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.last()) {
            self.0.push((format!("{name} p50 s"), *median));
            self.0.push((format!("{name} max s"), *greatest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::story::{Story, register, request};

    #[test]
    fn the_latency_of_a_window_is_of_its_requests_alone() {
        let mut story = Story::new();
        let slow = |story: &mut Story, millis: u64| {
            story.begin(1, 1, &request(1, 0, 10)).wait(millis).end(1, 1, Kind::Ok, request(1, 0, 10));
        };
        slow(&mut story, 5_000);
        story.fault("huge-change", &[]);
        (0..99).for_each(|_| slow(&mut story, 9));
        slow(&mut story, 899);
        story.heal("huge-change", &[]);
        let results = crate::check::judge(&register(), &story.events);
        let p99 = results.numbers.iter().find(|(name, _)| name == "proxied p99 during huge-change s").map(|(_, p99)| *p99);
        assert_eq!(p99, Some(0.01));
        assert_eq!((percentile_99(Vec::new()), percentile_99(vec![2.0, 1.0])), (None, Some(2.0)));
    }
}
