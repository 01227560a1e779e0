//! Seeds run in processes of their own, as many at once as there are processors.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::disk::Honesty;
use crate::world::{self, Report};

const WORK_VARIABLE: &str = "RAFTGATE_SIMULATION_WORK";

/// What to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) seeds: Range<u64>,
    pub(crate) honesty: Honesty,
    /// Where the trace of the last seed is written.
    pub(crate) trace: Option<PathBuf>,
}

/// What a seed gave.
#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    seed: u64,
    ended: Result<Report, String>,
}

/// Runs all; the seeds that failed and why, and what the others did together.
pub(crate) fn run_all(work: &Work) -> (BTreeMap<u64, String>, Report) {
    let count = thread::available_parallelism().map_or(1, usize::from) as u64;
    let all = work.seeds.end - work.seeds.start;
    let part = |number: u64| work.seeds.start + all * number / count;
    let parts = (0..count).map(|number| part(number)..part(number + 1)).filter(|seeds| !seeds.is_empty());
    let children: Vec<_> = parts.map(|seeds| (seeds.clone(), start(&Work { seeds, ..work.clone() }))).collect();
    let (mut failed, mut report) = (BTreeMap::new(), Report::default());
    for (seeds, mut child) in children {
        let mut next = seeds.start;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let finished: Finished = serde_json::from_str(&line).unwrap();
            next = finished.seed + 1;
            match finished.ended {
                Ok(done) => report.add(&done),
                Err(reason) => drop(failed.insert(finished.seed, reason)),
            }
        }
        let status = child.wait().unwrap();
        if next < seeds.end {
            failed.insert(next, format!("its process ended: {status}"));
        }
    }
    (failed, report)
}

fn start(work: &Work) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(WORK_VARIABLE, serde_json::to_string(work).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs what this process was started for; false where it was started for something else.
pub(crate) fn serve() -> bool {
    let Ok(work) = std::env::var(WORK_VARIABLE) else { return false };
    let work: Work = serde_json::from_str(&work).unwrap();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(0));
    for seed in work.seeds {
        *mad_turmoil::rand::get_rng() = StdRng::seed_from_u64(seed);
        // A new thread has no keys for its hash maps yet.
        let ended = thread::spawn(move || world::run(seed, work.honesty)).join();
        let ended = ended.unwrap_or_else(|_| Err("it panicked".to_owned()));
        let ended = ended.map(|ended| {
            if let Some(path) = &work.trace {
                std::fs::write(path, ended.trace.join("\n")).unwrap();
            }
            ended.report
        });
        println!("{}", serde_json::to_string(&Finished { seed, ended }).unwrap());
    }
    true
}
