//! Commands of the system that the suite leans on: `ip`, `nft`, `mount` and their like.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// None of these commands takes long; one that hangs is a failure of the suite, not of the gateway.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a command; gives what it said. Its failure is an error that carries its words.
pub(crate) async fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> anyhow::Result<String> {
    run_with(program, arguments, "").await
}

/// The same, with something on its standard input.
pub(crate) async fn run_with<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let line = || {
        let words: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        format!("{program} {}", words.join(" "))
    };
    let mut child = command.spawn().with_context(line)?;
    let mut stdin = child.stdin.take().context("a piped standard input")?;
    // A command that does not read its input ends the pipe; its status tells whether that was right.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(COMMAND_TIMEOUT, child.wait_with_output()).await.with_context(line)?.with_context(line)?;
    if !output.status.success() {
        bail!("{}: {}: {}", line(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of this name can be run.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
