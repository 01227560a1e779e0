//! `demo`: three nodes and an echo backend on this machine, ready to try.
//!
//! The nodes are real processes of this program ([`nodes`]), with their data in a [`directory`] that is removed at the end, or by the
//! next demo where this one is killed; the backend ([`backend`]) runs in here. First [`proof`] shows that a change sent to each node is
//! served by all three. Then the demo stays until Ctrl-C, and a node that somebody kills is started again after five seconds, so that one
//! can watch it catch up.

mod backend;
mod directory;
mod nodes;
mod proof;
mod signals;

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use self::backend::Backend;
use self::nodes::Nodes;
use self::signals::Signals;
use super::arguments::DemoArguments;
use super::print::{BAD, DIM, GOOD, STRONG, WARN, out, styled};

/// How long the nodes may take to form their cluster.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a killed node stays down.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// Runs the demo. True when the proof held.
pub(super) async fn run(arguments: &DemoArguments) -> anyhow::Result<bool> {
    let mut signals = Signals::install().context("signals")?;
    let backend = Backend::start().await.context("the echo backend")?;
    let mut nodes = Nodes::prepare().await.context("three nodes")?;
    let outcome = tokio::select! {
        outcome = show(arguments, &mut nodes, &backend) => outcome,
        () = signals.wait() => {
            out("\nstopping");
            Ok(true)
        }
    };
    nodes.stop().await;
    outcome
}

async fn show(arguments: &DemoArguments, nodes: &mut Nodes, backend: &Backend) -> anyhow::Result<bool> {
    let started = Instant::now();
    nodes.start_all().await?;
    nodes.wait_for_leader(started + START_DEADLINE).await?;
    out(format!("{} three nodes formed a cluster in {} ms", styled(GOOD, "ready:"), started.elapsed().as_millis()));
    print_nodes(nodes, backend);
    let holds = proof::run(nodes, backend).await?;
    if arguments.once {
        return Ok(holds);
    }
    print_hints(nodes);
    watch(nodes).await?;
    Ok(holds)
}

fn print_nodes(nodes: &Nodes, backend: &Backend) {
    for node in nodes.iter() {
        let place = format!("proxy http://{}  admin http://{}", node.proxy, node.admin);
        out(format!(
            "  {}  {place}  {}",
            styled(STRONG, format!("node {}", node.id)),
            styled(DIM, format!("pid {}", node.pid()))
        ));
    }
    out(format!("  {}  http://{}", styled(STRONG, "backend"), backend.address));
}

fn print_hints(nodes: &Nodes) {
    // As it was called: nobody has to put it on the path first.
    let program = std::env::args().next().unwrap_or_else(|| "raftgate".to_owned());
    let [first, second, third] = [nodes.node(0), nodes.node(1), nodes.node(2)];
    out(format!("\n{}", styled(STRONG, "Try, in another terminal:")));
    let hints = [
        (
            "one change, sent to node 2 ...",
            format!("{program} route set hello --server {} --path /hello --to echo --wait", second.admin),
        ),
        ("... is served by all", format!("curl -i http://{}/hello", third.proxy)),
        (
            "which rule answers, and why the others do not",
            format!("{program} explain http://any.host/hello --server {}", first.admin),
        ),
        (
            "who leads, who serves what",
            format!("{program} cluster status --server {},{},{}", first.admin, second.admin, third.admin),
        ),
        ("kill a node: the others go on, and it comes back after 5 s", format!("kill -9 {}", first.pid())),
    ];
    for (what, command) in hints {
        out(format!("  {}\n    {command}", styled(DIM, format!("# {what}"))));
    }
    out(format!(
        "\n  data and logs: {}\n  {} stops everything and removes them",
        nodes.dir().display(),
        styled(STRONG, "Ctrl-C")
    ));
}

/// Starts nodes again that ended, for ever.
async fn watch(nodes: &mut Nodes) -> anyhow::Result<()> {
    loop {
        let (index, status) = nodes.wait_for_death().await?;
        let id = nodes.node(index).id;
        out(format!("\n{} node {id} ended ({status}); the others go on. It starts again in 5 s", styled(WARN, "down:")));
        sleep(RESTART_AFTER).await;
        let started = Instant::now();
        nodes.start(index).await?;
        match nodes.wait_until_caught_up(index, started + START_DEADLINE).await {
            Ok(revision) => {
                let (took, pid) = (started.elapsed().as_millis(), nodes.node(index).pid());
                let up = styled(GOOD, "up:");
                out(format!("{up} node {id} serves revision {revision} again, {took} ms after its start (pid {pid})"));
            }
            Err(error) => out(format!("{} node {id} did not catch up: {error:#}", styled(BAD, "failed:"))),
        }
    }
}
