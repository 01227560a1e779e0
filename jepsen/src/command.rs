//! The command line: what to run, where, and with which exit status.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio, Termination as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::bugs;
use crate::cluster::Settings;
use crate::cluster::isolation::{self, Isolation};
use crate::matrix;
use crate::request::{Places, Request};
use crate::runner::{self, Finished, Ground};
use crate::terminal::say;
use crate::test::Outcome;
use crate::{check, report, verdict};

/// Set for the suite that runs inside its own namespaces: where its scratch files are. Not `RAFTGATE_...`, which the nodes would read.
const SCRATCH: &str = "JEPSEN_SCRATCH";
/// Scratch directories are named by the process of the suite.
const SCRATCH_PREFIX: &str = "raftgate-jepsen-";
/// Where Debian has the library that lies about the time.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Exit status where the gateway failed, and where the suite did.
const GATEWAY_FAILED: u8 = 1;
const SUITE_FAILED: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How long the suite inside may take to end after ctrl-c.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(10);

/// Runs a raftgate cluster, breaks it, and judges what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "raftgate-jepsen", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one test.
    Test(Request),
    /// Runs every fault with the workload that sees most of it, and prints a table.
    Matrix(matrix::Matrix),
    /// Runs programs with known bugs until each is caught, and the sound one with the same seeds.
    Bugs(bugs::Bugs),
    /// Runs a test again: the same seed, the same faults.
    Replay {
        /// A test's directory in the store.
        directory: PathBuf,
    },
    /// Judges a history again, and writes its reports anew. One that was cut short does not pass.
    Check {
        /// A `history.edn`, with the `test.edn` that the run wrote beside it.
        history: PathBuf,
    },
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.what {
        What::Check { history } => check_again(history),
        _ => as_before(arguments).and_then(|arguments| prepare_and_run(&arguments)),
    };
    done.unwrap_or_else(|error| {
        say!("the suite failed (this says nothing about the gateway): {error:#}");
        ExitCode::from(SUITE_FAILED)
    })
}

/// Takes what a replay does not say itself from the run that it repeats.
fn as_before(mut arguments: Arguments) -> anyhow::Result<Arguments> {
    if let What::Replay { directory } = &arguments.what {
        let (_, earlier) = Request::load(directory)?;
        arguments.places.take_over(earlier);
        for (name, value) in &arguments.places.environment {
            say!("as before: {name}={value}");
        }
    }
    Ok(arguments)
}

fn check_again(history: &Path) -> anyhow::Result<ExitCode> {
    let (test, events) = report::read(history)?;
    let results = check::judge_again(&test, &events);
    let directory = history.parent().context("a file in a directory")?;
    report::write(directory, &test, &events, &results)?;
    Ok(verdict::tell(&results))
}

/// Outside: builds, chooses, makes the scratch directory, and runs inside. Inside: runs.
fn prepare_and_run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(scratch) = std::env::var_os(SCRATCH) {
        return runtime.block_on(async {
            isolation::prepare_inside().await?;
            run(arguments, Isolation::Namespaces, Path::new(&scratch)).await
        });
    }
    let binary = binary(arguments)?;
    arguments.places.other_binary.as_deref().into_iter().chain([binary.as_path()]).try_for_each(check_program)?;
    let (isolation, words) = isolation(&arguments.places);
    say!("testing {}; nodes are kept apart by {words}", binary.display());
    let parent = std::env::temp_dir();
    remove_abandoned(&parent)?;
    let scratch = parent.join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let done = runtime.block_on(async {
        match isolation {
            Isolation::Loopback => run(arguments, isolation, &scratch).await,
            Isolation::Namespaces => run_inside(&scratch, &binary).await,
        }
    });
    std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    done
}

/// Removes the scratch directories of suites that were killed: nothing else of them is left.
fn remove_abandoned(parent: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(parent)?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn isolation(places: &Places) -> (Isolation, String) {
    match places.isolation {
        None => Isolation::choose(),
        Some(kept) => (Isolation::from(kept), format!("{} (as asked)", Isolation::from(kept).name())),
    }
}

/// Runs this program again, with the same arguments, in namespaces of its own.
async fn run_inside(scratch: &Path, binary: &Path) -> anyhow::Result<ExitCode> {
    let mut command = isolation::inside(&std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--binary").arg(binary).env(SCRATCH, scratch);
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("run in namespaces")?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        status = child.wait() => return Ok(exit_code(status?)),
        // A terminal has sent it to the suite inside too, which cleans up and ends; a `kill` has not.
        _ = tokio::signal::ctrl_c() => {
            if let Ok(status) = tokio::time::timeout(INTERRUPT_PATIENCE, child.wait()).await {
                return Ok(exit_code(status?));
            }
        }
        // Nobody has sent this to the suite inside.
        _ = terminate.recv() => {}
    }
    // All that it started ends with it.
    child.kill().await?;
    Ok(ExitCode::from(INTERRUPTED))
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(SUITE_FAILED))
}

async fn run(arguments: &Arguments, isolation: Isolation, scratch: &Path) -> anyhow::Result<ExitCode> {
    let ground = Ground {
        settings: Settings {
            binary: binary(arguments)?,
            other_binary: arguments.places.other_binary.as_deref().map(std::path::absolute).transpose()?,
            isolation,
            nodes: 0,
            spares: 0,
            scratch: scratch.to_path_buf(),
            logs: PathBuf::new(),
            environment: arguments.places.environment.clone(),
            faketime: FAKETIME.iter().map(PathBuf::from).find(|path| path.is_file()),
        },
        store: std::path::absolute(&arguments.places.store)?,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    // Dropping the run ends its processes and thaws its disks.
    tokio::select! {
        done = run_on(arguments, &ground) => done,
        _ = tokio::signal::ctrl_c() => { say!("interrupted"); Ok(ExitCode::from(INTERRUPTED)) }
        _ = terminate.recv() => { say!("terminated"); Ok(ExitCode::from(INTERRUPTED)) }
    }
}

async fn run_on(arguments: &Arguments, ground: &Ground) -> anyhow::Result<ExitCode> {
    let request = match &arguments.what {
        What::Test(request) => request.clone(),
        What::Replay { directory } => Request::load(directory)?.0,
        What::Matrix(matrix) => return matrix.run(ground).await,
        What::Bugs(bugs) => return bugs.run(ground).await,
        What::Check { history } => return check_again(history),
    };
    let Finished { results, directory, history, not_injectable } = runner::run(&request, ground).await?;
    for (fault, reason) in &not_injectable {
        say!("not injectable: {}: {reason}", fault.name());
    }
    if history.is_empty() {
        say!("not injectable: the test was not run, which is no pass");
        return Ok(Outcome::NotTested.report());
    }
    let code = verdict::tell(&results);
    say!("results in {}", directory.display());
    if check::overall(&results) != Outcome::Pass {
        say!("run it again: raftgate-jepsen replay {}", directory.display());
    }
    Ok(code)
}

/// A program that is none fails the suite, not the gateway.
fn check_program(program: &Path) -> anyhow::Result<()> {
    let told = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let told = told.with_context(|| format!("{} cannot be run", program.display()))?;
    let words = String::from_utf8_lossy(&told.stdout);
    anyhow::ensure!(
        told.status.success() && words.starts_with("raftgate "),
        "{} is not raftgate: to --version it says {:?}",
        program.display(),
        words.trim()
    );
    Ok(())
}

/// The program under test. The one with known bugs has a target directory of its own, so that it never takes the place of the sound one.
fn binary(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(binary) = &arguments.places.binary {
        return std::path::absolute(binary).context("the path of --binary");
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().context("a program in a directory")?;
    let release = beside.ends_with("release");
    let mut build = Command::new("cargo");
    build.args(["build", "-p", "raftgate", "--bin", "raftgate"]).args(release.then_some("--release"));
    let program = if matches!(arguments.what, What::Bugs(_)) {
        let target = beside.parent().context("a target directory")?.join("known-bugs");
        build.args(["--features", "known-bugs", "--target-dir"]).arg(&target);
        target.join(if release { "release" } else { "debug" }).join("raftgate")
    } else {
        beside.join("raftgate")
    };
    if program.is_file() {
        return Ok(program);
    }
    say!("there is no {}; building it", program.display());
    if !build.status().context("cargo build")?.success() {
        bail!("cargo build failed; give the program with --binary");
    }
    Ok(program)
}

impl std::process::Termination for Outcome {
    fn report(self) -> ExitCode {
        match self {
            Outcome::Pass => ExitCode::SUCCESS,
            Outcome::Fail | Outcome::Unknown | Outcome::NotTested => ExitCode::from(GATEWAY_FAILED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_raftgate_is_named() {
        for (program, words) in
            [("/nonexistent", "cannot be run"), ("/bin/true", "is not raftgate"), ("/bin/false", "is not raftgate")]
        {
            let error = format!("{:#}", check_program(Path::new(program)).unwrap_err());
            assert!(error.contains(program) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn only_what_dead_suites_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = format!("{SCRATCH_PREFIX}{}", std::process::id());
        // Above every number that the kernel gives.
        let dead = format!("{SCRATCH_PREFIX}{}", u32::MAX);
        for name in [&own, &dead, "raftgate-jepsen-notes"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_abandoned(parent.path()).unwrap();
        assert!(!parent.path().join(&dead).exists());
        assert!(parent.path().join(&own).exists() && parent.path().join("raftgate-jepsen-notes").exists());
    }
}
