//! Three nodes under a simulated network, clock and disk: agreement, store, state machine, forwarding and publisher as they run in
//! production, with nothing left to chance but a seed.
//!
//! What is real: [`raftgate::raft::Node`] with openraft and gRPC over HTTP/2, the log store and its writer, snapshots, State, the
//! publisher and its table. What is simulated: TCP and time (turmoil; one thread, each node a runtime of its own), and the log's file,
//! which stands in for sled and forgets at a crash what was not synced ([`disk`]). The small files and the snapshots stand in a
//! temporary directory: they are written and synced in one step of the simulation.
//!
//! A seed gives faults (crashes of one to all nodes, partitions, slow disks, slow links: [`plan`]) and clients at every node
//! ([`client`]); [`judge`] replays the history of State against everything that they saw. Two runs of one seed give one trace, which a
//! test holds: openraft's random numbers come from fastrand's generator of the thread, and the system's own (tokio's order of waking,
//! the keys of hash maps) from a generator that mad-turmoil puts in the place of `getrandom`. That one belongs to the whole process, so
//! that seeds run side by side in processes of their own ([`work`]).
//!
//! ```sh
//! cargo test --test simulation                                        # 200 seeds
//! RAFTGATE_SIMULATION_SEEDS=0..5000 cargo test --test simulation      # more
//! RAFTGATE_SIMULATION_SEEDS=17..18 cargo test --test simulation       # one again
//! ```

#![expect(clippy::unwrap_used, reason = "in a test an unexpected answer is a failure")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test harness of its own")]

mod client;
mod disk;
mod judge;
mod node;
mod plan;
mod record;
mod work;
mod world;

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;

use self::disk::Honesty;
use self::work::{Work, run_all};

const SEEDS: Range<u64> = 0..200;
const SEEDS_VARIABLE: &str = "RAFTGATE_SIMULATION_SEEDS";
/// Exit statuses: what libtest gives where a test failed, and clap where nobody understands the arguments.
const FAILED: u8 = 101;
const ASKED_WRONGLY: u8 = 2;

/// What was asked for; an error where it is no range, or an empty one.
fn seeds() -> Result<Range<u64>, String> {
    let Some(text) = std::env::var_os(SEEDS_VARIABLE) else { return Ok(SEEDS) };
    let range = text.to_str().and_then(|text| text.split_once(".."));
    let range = range.and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    range
        .filter(|range: &Range<u64>| !range.is_empty())
        .ok_or_else(|| format!("{SEEDS_VARIABLE} is a range such as 0..5000 with a seed in it, found {text:?}"))
}

/// What a test binary is asked by people and by cargo.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only checks whose name contains one of these.
    filters: Vec<String>,
    /// Name the checks and run none.
    #[arg(long)]
    list: bool,
    /// A filter is a whole name.
    #[arg(long)]
    exact: bool,
    /// No check whose name contains this.
    #[arg(long, value_name = "FILTER")]
    skip: Vec<String>,
    /// Only checks that are ignored: there are none.
    #[arg(long)]
    ignored: bool,
    /// Changes nothing: no check is ignored.
    #[arg(long)]
    include_ignored: bool,
    /// Changes nothing: output is never captured.
    #[arg(long, visible_alias = "no-capture")]
    nocapture: bool,
    /// A list without its count.
    #[arg(long, value_parser = ["pretty", "terse"], default_value = "pretty")]
    format: String,
    /// Changes nothing: checks run one after the other, each on all processors.
    #[arg(long, value_name = "COUNT")]
    test_threads: Option<usize>,
}

impl Arguments {
    fn choose(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// What is checked, by name.
const CHECKS: [(&str, fn()); 3] = [
    ("every_seed_keeps_what_was_promised", every_seed_keeps_what_was_promised),
    ("a_seed_gives_the_same_trace_again", a_seed_gives_the_same_trace_again),
    ("a_disk_that_forgets_what_it_synced_is_found", a_disk_that_forgets_what_it_synced_is_found),
];

/// Answers as a test binary does: status 0 where all chosen checks passed, 101 where one failed, 2 where it was asked wrongly. libtest is of
/// no use here: it waits by a clock, and this process has none but the simulation's.
fn main() -> ExitCode {
    if work::serve() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let chosen: Vec<_> = CHECKS.into_iter().filter(|(name, _)| arguments.choose(name)).collect();
    if arguments.list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        if arguments.format == "pretty" {
            println!("\n{} tests, 0 benchmarks", chosen.len());
        }
        return ExitCode::SUCCESS;
    }
    if let Err(wrong) = seeds() {
        eprintln!("error: {wrong}");
        return ExitCode::from(ASKED_WRONGLY);
    }
    println!("running {} tests", chosen.len());
    let mut failed = 0;
    for (name, check) in &chosen {
        let passed = std::panic::catch_unwind(check).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let (word, passed, left_out) =
        (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed, CHECKS.len() - chosen.len());
    println!("test result: {word}. {passed} passed; {failed} failed; {left_out} filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn every_seed_keeps_what_was_promised() {
    let seeds = seeds().unwrap();
    let count = seeds.end - seeds.start;
    let (failed, report) = run_all(&Work { seeds, honesty: Honesty::Honest, trace: None });
    println!("{count} seeds: {report:?}");
    for (seed, reason) in &failed {
        println!("seed {seed}: {reason}\n  again: {SEEDS_VARIABLE}={seed}..{} cargo test --test simulation", seed + 1);
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    // A simulation in which little happens shows little.
    assert!(report.acknowledged > 50 * count && report.reads > 20 * count, "{report:?}");
    if count >= 50 {
        let seen = [report.crashes, report.partitions, report.slow_disks, report.lost_batches, report.snapshots, report.unknown];
        assert!(seen.iter().all(|&seen| seen > 0), "{report:?}");
    }
}

fn a_seed_gives_the_same_trace_again() {
    let directory = tempfile::tempdir().unwrap();
    for seed in [1, 2, 3] {
        let [first, second] = ["first", "second"].map(|name| {
            let path = directory.path().join(name);
            let (failed, _) = run_all(&Work { seeds: seed..seed + 1, honesty: Honesty::Honest, trace: Some(path.clone()) });
            assert!(failed.is_empty(), "{failed:?}");
            std::fs::read_to_string(path).unwrap()
        });
        let differs = first.lines().zip(second.lines()).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let around = |trace: &str| trace.lines().skip(at.saturating_sub(3)).take(5).collect::<Vec<_>>().join("\n");
            panic!("seed {seed}, line {at}:\n{}\n--- and\n{}", around(&first), around(&second));
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.lines().count() > 1000, "seed {seed}: {}", first.lines().count());
    }
}

fn a_disk_that_forgets_what_it_synced_is_found() {
    let (failed, _) = run_all(&Work { seeds: 0..20, honesty: Honesty::Forgetful, trace: None });
    assert!(!failed.is_empty(), "no seed has found it");
}
