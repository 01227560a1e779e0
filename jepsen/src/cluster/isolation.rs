//! How nodes are kept apart, chosen by what the machine allows; and the namespaces that the suite puts itself into.
//!
//! As root the suite runs itself again in network, mount and process namespaces of its own. Interfaces, mounts and processes are gone
//! with it, even where it is killed, and nothing of the machine is in reach of its faults.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::shell::{exists, run};

/// How nodes are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Network namespaces, and a disk image for each node.
    Namespaces,
    /// Loopback addresses and a proxy a link.
    Loopback,
}

/// Programs without which there are no namespaces.
const TOOLS: [&str; 10] =
    ["setpriv", "unshare", "nsenter", "ip", "nft", "mount", "mkfs.ext4", "fsfreeze", "fallocate", "findmnt"];

impl Isolation {
    /// What the machine allows, and why not more.
    pub(crate) fn choose() -> (Isolation, String) {
        match refusal() {
            None => (Isolation::Namespaces, "network namespaces with nftables, an ext4 image for each node".to_owned()),
            Some(reason) => (Isolation::Loopback, format!("loopback addresses with a TCP proxy for each link ({reason})")),
        }
    }

    /// In words, for the test's description.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isolation::Namespaces => "namespaces",
            Isolation::Loopback => "loopback",
        }
    }
}

fn refusal() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("namespaces need root".to_owned());
    }
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !exists(tool)).collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    let trial = "mount -t tmpfs none /mnt && ip link add trial type bridge && nft add table inet trial && ls /dev/loop-control";
    let tried = unshare().args(["sh", "-c", trial]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("a trial failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("a trial failed: {error}")),
    }
}

/// Runs what follows in namespaces of its own; when it ends, or the process that started it dies, all that it started ends.
fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command
}

/// The command that runs this suite again, inside.
pub(crate) fn inside(executable: &Path) -> Command {
    let mut command = unshare();
    command.arg(executable);
    command
}

/// What has to be done first inside: names of network namespaces of our own, and loopback addresses.
pub(crate) async fn prepare_inside() -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"]).await?;
    std::fs::create_dir_all("/run/netns").context("make /run/netns")?;
    run("mount", &["-t", "tmpfs", "none", "/run/netns"]).await.map(drop)
}
