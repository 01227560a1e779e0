//! The matrix: every fault with the workload that sees most of what it breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{ExitCode, Termination as _};

use anyhow::Context as _;
use clap::Args;

use crate::check;
use crate::history::{Event, Kind, Op, Process};
use crate::nemesis::Fault;
use crate::request::{self, Request, TIME_MAX};
use crate::runner::{self, Ground};
use crate::terminal::say;
use crate::test::Outcome;
use crate::verdict;

/// All tests, one after the other.
#[derive(Debug, Args)]
pub(crate) struct Matrix {
    /// Members of the clusters.
    #[arg(long, default_value = "3", value_parser = request::nodes, value_name = "3|5")]
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
    outcomes: BTreeMap<String, u64>,
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
const GREATEST: [&str; 3] = ["recovery max s", "write gap max s", "write gap rolling max s"];

impl Totals {
    /// One more test ended like this.
    fn count(&mut self, outcome: &str) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

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
    /// The table of `RESULTS.md`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |name: &str| self.sums.get(name).copied().unwrap_or(0.0);
        let greatest = |name: &str| self.greatest.get(name).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_by(f64::total_cmp);
        let median = recoveries.get(recoveries.len() / 2).map_or_else(|| "-".to_owned(), |median| format!("{median:.2} s"));
        let (failed, excused) = (sum("proxied requests failed"), sum("proxied requests failed and excused"));
        let outcomes = self.outcomes.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
        writeln!(f, "| tests | {outcomes} |")?;
        writeln!(f, "| operations | {} |", sum("operations"))?;
        writeln!(f, "| acknowledged changes, lost | {}, **{}** |", sum("acknowledged"), sum("lost"))?;
        writeln!(f, "| faults that took effect; of them power cuts | {}; {} |", sum("faults"), sum("power cuts"))?;
        writeln!(
            f,
            "| proxied requests; failed; excused; not excused | {}; {failed}; {excused}; **{}** |",
            sum("proxied requests"),
            failed - excused
        )?;
        let longest = greatest("recovery max s");
        writeln!(
            f,
            "| recovery (healed until a write and a read at every node): median of the tests' medians, longest | {median}, {longest} |"
        )?;
        writeln!(f, "| longest time without a write | {} |", greatest("write gap max s"))?;
        write!(f, "| the same in a rolling restart or upgrade | {} |", greatest("write gap rolling max s"))
    }
}

/// Workloads whose every fault is an own test, and `none` and `mix` besides.
const WORKLOADS: [&str; 6] = ["register", "txn", "set", "watch", "traffic", "membership"];

/// Columns of the table of tests.
const COLUMNS: usize = 12;

/// Faults without a nemesis, and why.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "reorder",
        "packets are reordered below TCP, for which this kernel has no netem; a stream through a proxy has one order, and TCP restores it",
    ),
    ("a sync that fails once and then succeeds", "needs a library before the C library's own: tests/processes/disk.rs"),
    ("a node of another cluster", "its first message is refused before it could do anything: src/raft/tests/strangers.rs"),
];

impl Matrix {
    /// Runs all; after each test the table so far stands in the store too.
    pub(crate) async fn run(&self, ground: &Ground) -> anyhow::Result<ExitCode> {
        let requests = self.requests()?;
        let (mut worst, mut broken) = (Outcome::Pass, 0);
        let (mut totals, mut rows) = (Totals::default(), Vec::new());
        std::fs::create_dir_all(&ground.store)?;
        for request in &requests {
            match runner::run(request, ground).await {
                Ok(finished) => {
                    verdict::tell(&finished.results);
                    let only_refused = !finished.not_injectable.is_empty() && faults(&finished.history) == 0;
                    let outcome = if only_refused { Outcome::NotTested } else { check::overall(&finished.results) };
                    worst = worse(worst, outcome);
                    totals.add(&finished.results.numbers);
                    totals.count(if only_refused { "not injectable" } else { verdict::word(outcome) });
                    rows.push(row(request, outcome, &finished));
                }
                Err(error) => {
                    broken += 1;
                    say!("the suite failed: {error:#}");
                    totals.count("not run: the suite failed");
                    let reason = format!("{error:#}").replace(['\n', '|'], " ");
                    let rest = "| ".repeat(COLUMNS - 3);
                    rows.push(format!("| {} | {} | the suite failed: {reason} {rest}|", request.name(), request.seed));
                }
            }
            // What an interruption leaves is what was done.
            let text = self.text(&rows, requests.len(), &totals);
            std::fs::write(ground.store.join("matrix.md"), text).context("write matrix.md")?;
        }
        say!("{}", self.text(&rows, requests.len(), &totals));
        anyhow::ensure!(broken == 0, "{broken} tests could not be run");
        Ok(worst.report())
    }

    /// The summary, all rows, and what no row tests.
    fn text(&self, rows: &[String], of: usize, totals: &Totals) -> String {
        let Matrix { nodes, time, seed, only } = self;
        let only = only.as_ref().map(|only| format!(" --only {only}")).unwrap_or_default();
        let so_far = if rows.len() < of { format!(" (so far {} tests of {of})", rows.len()) } else { String::new() };
        let mut lines = vec![
            format!(
                "| `matrix --nodes {nodes} --time {time} --seed {seed}{only}`{so_far} | {nodes} nodes |\n|---|---|\n{totals}\n"
            ),
            "| test | seed | verdict | ok | failed | unknown | faults | proxied | failed | excused | recovery s | write gap s |"
                .to_owned(),
            "|---".repeat(COLUMNS) + "|",
        ];
        lines.extend_from_slice(rows);
        lines.push("\nFaults of the plan that no test here injects:\n".to_owned());
        lines.extend(ELSEWHERE.map(|(fault, reason)| format!("- {fault}: {reason}")));
        lines.join("\n") + "\n"
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
        let of_clients = finished.history.iter().filter(|event| matches!(event.process, Process::Client(_)));
        of_clients.filter(|event| event.kind == kind).count()
    };
    let number = |wanted: &str| finished.results.numbers.iter().find(|(name, _)| name == wanted).map(|(_, number)| *number);
    let seconds = |wanted: &str| number(wanted).map(|seconds| format!("{seconds:.2}")).unwrap_or_default();
    let failed = finished.results.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail);
    let failed: Vec<&str> = failed.map(|verdict| verdict.name.as_str()).collect();
    let refused: Vec<&str> = finished.not_injectable.iter().map(|(_, reason)| reason.as_str()).collect();
    let word = match outcome {
        Outcome::NotTested => format!("not injectable: {}", refused.join("; ")),
        _ => format!("{} {}", verdict::word(outcome), failed.join(" ")),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        request.name(),
        request.seed,
        word.trim(),
        count(Kind::Ok),
        count(Kind::Fail),
        count(Kind::Info),
        faults(&finished.history),
        number("proxied requests").unwrap_or(0.0),
        number("proxied requests failed").unwrap_or(0.0),
        number("proxied requests failed and excused").unwrap_or(0.0),
        seconds("final-recovery-seconds"),
        seconds("write gap max s"),
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
        totals.count("pass");
        let text = totals.to_string();
        assert!(
            text.starts_with("| tests | 1 pass |\n") && text.contains("| 15, **0** |") && text.contains("| -, 0.50 s |"),
            "{text}"
        );
    }

    #[test]
    fn a_table_that_is_not_complete_says_so() {
        let matrix = Matrix { nodes: 3, time: 9, seed: 4, only: None };
        let row = "| a ".repeat(COLUMNS) + "|";
        let text = |rows: &[String]| matrix.text(rows, 2, &Totals::default());
        let one = text(std::slice::from_ref(&row));
        assert!(one.contains("`matrix --nodes 3 --time 9 --seed 4` (so far 1 tests of 2)") && one.contains(&row), "{one}");
        assert!(!text(&[row.clone(), row.clone()]).contains("so far"));
        let widths: Vec<usize> =
            one.lines().filter(|line| line.contains("| test |") || *line == row).map(|line| line.matches('|').count()).collect();
        assert_eq!(widths, [COLUMNS + 1; 2]);
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
