//! The matrix: every fault with the workload that sees most of what it breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::process::{ExitCode, Termination as _};

use anyhow::Context as _;
use clap::Args;

use crate::check;
use crate::history::{Event, Kind, Op};
use crate::nemesis::Fault;
use crate::request::{Request, TIME_MAX};
use crate::runner::{self, Ground};
use crate::terminal::say;
use crate::test::Outcome;
use crate::verdict;

/// All tests, one after the other.
#[derive(Debug, Args)]
pub(crate) struct Matrix {
    /// Members of the clusters.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// Seconds of each test.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=TIME_MAX))]
    time: u64,
    /// The first test's seed; each next test has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only tests whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// What all tests gave together.
#[derive(Debug, Default)]
struct Totals {
    sums: BTreeMap<String, f64>,
    greatest: BTreeMap<String, f64>,
    recoveries: Vec<f64>,
}

/// Numbers of one test that make one number of all.
const SUMMED: [&str; 8] = [
    "operations",
    "acknowledged",
    "lost",
    "proxied requests",
    "proxied requests failed",
    "proxied requests failed and excused",
    "faults",
    "power cuts",
];
const GREATEST: [&str; 2] = ["recovery max s", "write gap max s"];

impl Totals {
    fn add(&mut self, numbers: &[(String, f64)]) {
        for (name, number) in numbers {
            if SUMMED.contains(&name.as_str()) {
                *self.sums.entry(name.clone()).or_default() += number;
            }
            if GREATEST.contains(&name.as_str()) {
                let greatest = self.greatest.entry(name.clone()).or_default();
                *greatest = greatest.max(*number);
            }
            if name == "recovery p50 s" {
                self.recoveries.push(*number);
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = SUMMED.iter().filter_map(|name| Some(format!("{name} {}", self.sums.get(*name)?)));
        let greatest = GREATEST.iter().filter_map(|name| Some(format!("{name} {:.2}", self.greatest.get(*name)?)));
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_by(f64::total_cmp);
        let median =
            recoveries.get(recoveries.len() / 2).map(|median| format!("median of the tests' recovery p50 s {median:.2}"));
        f.write_str(&sums.chain(median).chain(greatest).collect::<Vec<_>>().join("; "))
    }
}

/// Workloads whose every fault is an own test, and `none` and `mix` besides.
const WORKLOADS: [&str; 6] = ["register", "txn", "set", "watch", "traffic", "membership"];

/// Faults without a nemesis, and why.
const ELSEWHERE: [(&str, &str); 3] = [
    ("reorder, cut in mid-frame, half-open and slow link", "this kernel has no netem, and the proxies of connections do neither"),
    ("a sync that fails once and then succeeds", "needs a library before the C library's own: tests/processes/disk.rs"),
    ("a node of another cluster", "its first message is refused before it could do anything: src/raft/tests.rs"),
];

impl Matrix {
    /// Runs all; the table stands in the store too.
    pub(crate) async fn run(&self, ground: &Ground) -> anyhow::Result<ExitCode> {
        let (mut worst, mut table) = (Outcome::Pass, String::new());
        let mut broken = 0;
        let mut totals = Totals::default();
        writeln!(
            table,
            "| test | seed | verdict | ok | failed | unknown | faults | recovery s |\n|---|---|---|---|---|---|---|---|"
        )?;
        for request in self.requests()? {
            let line = match runner::run(&request, ground).await {
                Ok(finished) => {
                    verdict::tell(&finished.results);
                    let only_refused = !finished.not_injectable.is_empty() && faults(&finished.history) == 0;
                    let outcome = if only_refused { Outcome::NotTested } else { check::overall(&finished.results) };
                    worst = worse(worst, outcome);
                    totals.add(&finished.results.numbers);
                    row(&request, outcome, &finished)
                }
                Err(error) => {
                    broken += 1;
                    say!("the suite failed: {error:#}");
                    let reason = format!("{error:#}").replace(['\n', '|'], " ");
                    format!("| {} | {} | the suite failed: {reason} | | | | | |", request.name(), request.seed)
                }
            };
            writeln!(table, "{line}")?;
        }
        writeln!(table, "\nFaults of the plan that no test here injects:\n")?;
        for (fault, reason) in ELSEWHERE {
            writeln!(table, "- {fault}: {reason}")?;
        }
        writeln!(table, "\n{totals}")?;
        std::fs::create_dir_all(&ground.store)?;
        std::fs::write(ground.store.join("matrix.md"), &table).context("write matrix.md")?;
        say!("{table}");
        anyhow::ensure!(broken == 0, "{broken} tests could not be run");
        Ok(worst.report())
    }

    fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        for workload in WORKLOADS {
            pairs.extend(["none", "mix"].map(|nemesis| (workload, nemesis.to_owned())));
        }
        pairs.extend(Fault::ALL.iter().map(|&fault| (workload_for(fault), fault.name().to_owned())));
        let requests = pairs.into_iter().enumerate().map(|(index, (workload, nemesis))| Request {
            workload: workload.to_owned(),
            nemesis: vec![nemesis],
            nodes: self.nodes,
            time: self.time,
            seed: self.seed + index as u64,
        });
        let requests: Vec<Request> = requests.collect();
        let all: Vec<String> = requests.iter().map(Request::name).collect();
        let chosen = requests.into_iter().filter(|request| self.only.as_ref().is_none_or(|only| request.name().contains(only)));
        let chosen: Vec<Request> = chosen.collect();
        let only = self.only.as_deref().unwrap_or_default();
        anyhow::ensure!(!chosen.is_empty(), "no test has {only:?} in its name; there are {}", all.join(", "));
        Ok(chosen)
    }
}

/// What sees most of a fault.
fn workload_for(fault: Fault) -> &'static str {
    match fault {
        Fault::LeaderTransfer | Fault::RollingRestart | Fault::SwapStorm | Fault::SnapshotBehind => "traffic",
        Fault::FlappingBackends | Fault::RollingUpgrade | Fault::HugeChange | Fault::DiskError => "traffic",
        Fault::PowerCutOne | Fault::TornFile | Fault::WipedDisk => "set",
        Fault::PowerCutMajority | Fault::PartitionBridge | Fault::KillMajority => "txn",
        Fault::StuckDisk | Fault::DiskFull => "watch",
        _ => "register",
    }
}

fn row(request: &Request, outcome: Outcome, finished: &runner::Finished) -> String {
    let count = |kind| {
        let of_clients = finished.history.iter().filter(|event| !matches!(event.op, Op::Fault { .. }));
        of_clients.filter(|event| event.kind == kind).count()
    };
    let recovery = finished.results.numbers.iter().find(|(name, _)| name == "final-recovery-seconds");
    let failed = finished.results.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail);
    let failed: Vec<&str> = failed.map(|verdict| verdict.name.as_str()).collect();
    let refused: Vec<&str> = finished.not_injectable.iter().map(|(_, reason)| reason.as_str()).collect();
    let word = match outcome {
        Outcome::NotTested => format!("not injectable: {}", refused.join("; ")),
        _ => format!("{} {}", verdict::word(outcome), failed.join(" ")),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        request.name(),
        request.seed,
        word.trim(),
        count(Kind::Ok),
        count(Kind::Fail),
        count(Kind::Info),
        faults(&finished.history),
        recovery.map(|(_, seconds)| format!("{seconds:.2}")).unwrap_or_default(),
    )
}

/// Faults that took effect.
fn faults(history: &[Event]) -> usize {
    let took_effect = |event: &&Event| event.kind == Kind::Ok && matches!(event.op, Op::Fault { heals: false, .. });
    history.iter().filter(took_effect).count()
}

fn worse(one: Outcome, other: Outcome) -> Outcome {
    let rank = |outcome| match outcome {
        Outcome::Fail => 0,
        Outcome::Unknown => 1,
        // A fault that cannot be injected here is named, and fails nothing.
        Outcome::Pass | Outcome::NotTested => 2,
    };
    if rank(other) < rank(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_nothing_is_an_error_that_names_all() {
        let matrix = |only: &str| Matrix { nodes: 3, time: 1, seed: 1, only: Some(only.to_owned()) };
        assert_eq!(matrix("kill-leader").requests().unwrap().len(), 1);
        let error = matrix("nosuch").requests().unwrap_err().to_string();
        assert!(error.contains("nosuch") && error.contains("register-kill-leader-3"), "{error}");
    }

    #[test]
    fn the_tests_numbers_are_summed_or_the_worst_stands() {
        let mut totals = Totals::default();
        for (acknowledged, recovery) in [(10.0, 0.5), (5.0, 0.25)] {
            totals.add(&[("acknowledged".to_owned(), acknowledged), ("recovery max s".to_owned(), recovery)]);
        }
        assert_eq!(totals.to_string(), "acknowledged 15; recovery max s 0.50");
    }

    #[test]
    fn every_fault_and_every_workload_is_there_once() {
        let matrix = Matrix { nodes: 3, time: 20, seed: 5, only: None };
        let requests = matrix.requests().unwrap();
        let names: std::collections::BTreeSet<String> = requests.iter().map(Request::name).collect();
        assert_eq!((names.len(), requests.len()), (12 + Fault::ALL.len(), 12 + Fault::ALL.len()));
        assert!(requests.iter().all(|request| crate::request::workload(&request.workload).is_ok()));
        assert_eq!(requests.iter().map(|request| request.seed).collect::<std::collections::BTreeSet<_>>().len(), requests.len());
        let some = Matrix { only: Some("power-cut".to_owned()), ..matrix };
        assert_eq!(some.requests().unwrap().len(), 3);
    }
}
