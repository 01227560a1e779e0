//! The numbers of a run, for summaries and tables. Times are in seconds.

use std::collections::BTreeMap;

use super::availability::Availability;
use super::effect::Effects;
use super::fault::Faults;
use super::operation::Operation;
use super::recovery::Recovery;
use crate::history::{Kind, Process};

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
    }
    numbers.spread("recovery", &recovery.times);
    numbers.spread("write gap", &recovery.write_gaps);
    numbers.0
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
