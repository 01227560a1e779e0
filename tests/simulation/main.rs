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
#![expect(clippy::print_stdout, reason = "a test harness of its own")]

mod client;
mod disk;
mod judge;
mod node;
mod plan;
mod record;
mod work;
mod world;

use std::ops::Range;

use self::disk::Honesty;
use self::work::{Work, run_all};

const SEEDS: Range<u64> = 0..200;
const SEEDS_VARIABLE: &str = "RAFTGATE_SIMULATION_SEEDS";

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS_VARIABLE) else { return SEEDS };
    let (start, end) =
        text.split_once("..").unwrap_or_else(|| panic!("{SEEDS_VARIABLE} is a range such as 0..5000, found {text:?}"));
    start.parse().unwrap()..end.parse().unwrap()
}

/// What is checked, by name.
const CHECKS: [(&str, fn()); 3] = [
    ("every_seed_keeps_what_was_promised", every_seed_keeps_what_was_promised),
    ("a_seed_gives_the_same_trace_again", a_seed_gives_the_same_trace_again),
    ("a_disk_that_forgets_what_it_synced_is_found", a_disk_that_forgets_what_it_synced_is_found),
];

/// Runs the checks whose names contain one of the arguments, or all. libtest is of no use here: it waits by a clock, and this process has
/// none but the simulation's.
fn main() {
    if work::serve() {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, check) in CHECKS {
        if arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str())) {
            check();
            println!("test {name} ... ok");
        }
    }
}

fn every_seed_keeps_what_was_promised() {
    let seeds = seeds();
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
