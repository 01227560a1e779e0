//! The test of the suite itself: programs with a known bug must be caught, each within so many seeds, and the sound program must pass the
//! seeds that caught them.
//!
//! The program under test must be built with the feature `known-bugs`; without `RAFTGATE_KNOWN_BUG` it is sound.
//!
//! A bug is caught where a verdict fails that the bug can make fail. A run whose fault never took effect fails too, and catches nothing.

use std::fmt::Write as _;
use std::process::{ExitCode, Termination as _};

use anyhow::Context as _;
use clap::Args;

use crate::check;
use crate::request::Request;
use crate::runner::{self, Ground};
use crate::terminal::say;
use crate::test::{Outcome, Results};
use crate::verdict;

/// What the nodes read.
const BUG_VARIABLE: &str = "RAFTGATE_KNOWN_BUG";
const DELAY_VARIABLE: &str = "RAFTGATE_SYNC_DELAY_MS";

/// All bugs, one after the other.
#[derive(Debug, Args)]
pub(crate) struct Bugs {
    /// Only the bug of this name.
    #[arg(long)]
    only: Option<String>,
    /// Seeds that a bug gets at most. Which one catches it also depends on the run.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of each test.
    #[arg(long, default_value_t = 20)]
    time: u64,
}

/// A bug, and where it shows.
struct Case {
    bug: &'static str,
    breaks: &'static str,
    workload: &'static str,
    nemesis: &'static str,
    /// The verdicts that catch it.
    by: &'static [&'static str],
    /// Syncs are late by up to so many milliseconds, in the sound program too.
    delay_ms: u32,
}

const CASES: [Case; 9] = [
    case("flush-without-sync", "I1", "set", "power-cut-all", &["I1", "nodes"], 0),
    case("vote-not-synced", "vote never lower", "register", "power-cut-majority", &["I1", "I4", "nodes"], 0),
    case("stale-read", "I2", "register", "partition-leader-minority", &["I2"], 0),
    case("publish-on-append", "I4, I5", "txn", "partition-leader-minority", &["I1", "I3", "I4", "I5"], 0),
    case("snapshot-one-ahead", "I1, I4", "register", "snapshot-behind", &["I1", "I2", "I4"], 0),
    case("blind-retry", "I2, I9", "register", "kill-leader", &["I2", "I9"], 100),
    case("id-reuse", "I1", "set", "wiped-disk", &["I1", "final"], 0),
    case("stale-table", "I5", "txn", "kill-leader", &["I5"], 0),
    case("leader-restore", "I1, I4", "register", "restart-leader", &["I1", "I2", "I4"], 150),
];

const fn case(
    bug: &'static str,
    breaks: &'static str,
    workload: &'static str,
    nemesis: &'static str,
    by: &'static [&'static str],
    delay_ms: u32,
) -> Case {
    Case { bug, breaks, workload, nemesis, by, delay_ms }
}

impl Case {
    /// The verdicts that catch the bug.
    fn caught<'a>(&self, results: &'a Results) -> Vec<&'a str> {
        let failed = results.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail);
        failed.map(|verdict| verdict.name.as_str()).filter(|name| self.by.contains(name)).collect()
    }
}

impl Bugs {
    /// Runs all; the table stands in the store too.
    pub(crate) async fn run(&self, ground: &Ground) -> anyhow::Result<ExitCode> {
        let cases: Vec<&Case> = CASES.iter().filter(|case| self.only.as_ref().is_none_or(|only| only == case.bug)).collect();
        let names = || CASES.map(|case| case.bug).join(", ");
        anyhow::ensure!(!cases.is_empty(), "there is no such bug, only {}", names());
        let mut worst = Outcome::Pass;
        let mut table =
            "| bug | breaks | workload, fault | caught with seed | by | the sound program |\n|---|---|---|---|---|---|\n"
                .to_owned();
        for case in cases {
            let (line, outcome) = self.try_to_catch(case, ground).await?;
            writeln!(table, "{line}")?;
            if outcome != Outcome::Pass {
                worst = Outcome::Fail;
            }
        }
        std::fs::create_dir_all(&ground.store)?;
        std::fs::write(ground.store.join("bugs.md"), &table).context("write bugs.md")?;
        say!("{table}");
        Ok(worst.report())
    }

    async fn try_to_catch(&self, case: &Case, ground: &Ground) -> anyhow::Result<(String, Outcome)> {
        let begin = format!("| `{}` | {} | {}, {} |", case.bug, case.breaks, case.workload, case.nemesis);
        for seed in self.seed..self.seed + self.seeds {
            say!("known bug {}", case.bug);
            let results = self.run_one(case, seed, Some(case.bug), ground).await?;
            let caught = case.caught(&results);
            if caught.is_empty() {
                continue;
            }
            say!("the sound program");
            let sound = check::overall(&self.run_one(case, seed, None, ground).await?);
            let word = verdict::word(sound);
            return Ok((format!("{begin} {seed} | {} | {word} |", caught.join(", ")), sound));
        }
        Ok((format!("{begin} **not in {} seeds** | | |", self.seeds), Outcome::Fail))
    }

    async fn run_one(&self, case: &Case, seed: u64, bug: Option<&str>, ground: &Ground) -> anyhow::Result<Results> {
        let request = Request {
            workload: case.workload.to_owned(),
            nemesis: vec![case.nemesis.to_owned()],
            nodes: 3,
            time: self.time,
            seed,
        };
        let mut ground = ground.clone();
        ground.store = ground.store.join(bug.map_or_else(|| format!("sound-{}", case.bug), |bug| format!("bug-{bug}")));
        let variables =
            [(BUG_VARIABLE, bug.map(str::to_owned)), (DELAY_VARIABLE, (case.delay_ms > 0).then(|| case.delay_ms.to_string()))];
        let set = variables.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        ground.settings.environment = set.collect();
        let finished = runner::run(&request, &ground).await?;
        verdict::tell(&finished.results);
        if let Some(bug) = bug {
            let log = std::fs::read_to_string(finished.directory.join("node1.log")).unwrap_or_default();
            let is_built = log.contains("built with known bugs") && log.contains(bug);
            anyhow::ensure!(
                is_built,
                "the program does not have the bug {bug}: build it with --features known-bugs, and name it with --binary"
            );
        }
        Ok(finished.results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Fault;
    use crate::test::Verdict;

    #[test]
    fn only_a_verdict_of_its_own_catches_a_bug() {
        let failed = |names: &[&str]| {
            let verdict = |name: &&str| Verdict { name: (*name).to_owned(), outcome: Outcome::Fail, detail: String::new() };
            Results { verdicts: names.iter().map(verdict).collect(), numbers: Vec::new() }
        };
        for case in CASES {
            assert!(case.caught(&failed(&["coverage", "operations", "phases", "history"])).is_empty(), "{}", case.bug);
            assert_eq!(case.caught(&failed(&["coverage", case.by[0]])), [case.by[0]]);
        }
    }

    #[test]
    fn every_case_can_be_run() {
        for case in CASES {
            assert!(crate::request::workload(case.workload).is_ok() && Fault::by_name(case.nemesis).is_some(), "{}", case.bug);
        }
    }
}
