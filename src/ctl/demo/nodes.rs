//! Three nodes as processes of this program.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::directory::Directory;
use crate::ctl::arguments::Connection;
use crate::ctl::client::Client;

/// How many.
const COUNT: usize = 3;

/// How long a node may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at a node.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
    peer: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Its process's id; 0 while it is down.
    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap_or(0)
    }

    /// A client of this node alone.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let server = vec![self.admin.to_string()];
        let (token, ca, cert, key) = (None, None, None, None);
        let connection = Connection { server, token, ca, cert, key, timeout: Duration::from_secs(10) };
        Client::new(&connection)
    }
}

/// The nodes and their directory, which is removed with them.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    dir: Directory,
}

impl Nodes {
    /// Chooses addresses and writes the configuration files.
    pub(super) async fn prepare() -> anyhow::Result<Nodes> {
        let dir = Directory::make(&env::temp_dir()).context("a directory for their data")?;
        let [peers, admins, proxies] = addresses().context("free ports on loopback")?;
        let mut nodes = Vec::new();
        for index in 0..COUNT {
            let id = index as u64 + 1;
            let config = dir.path().join(format!("node{id}.toml"));
            let log = dir.path().join(format!("node{id}.log"));
            nodes.push(Node { id, proxy: proxies[index], admin: admins[index], peer: peers[index], config, log, child: None });
        }
        let members = nodes.iter().map(|node| format!("{} = \"{}\"", node.id, node.peer)).collect::<Vec<_>>().join(", ");
        for node in &nodes {
            fs::write(&node.config, configuration(node, dir.path(), &members)).context("a configuration file")?;
        }
        Ok(Nodes { nodes, dir })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts all of them.
    pub(super) async fn start_all(&mut self) -> anyhow::Result<()> {
        for index in 0..COUNT {
            self.start(index).await?;
        }
        Ok(())
    }

    /// Starts one. Its log goes to a file beside its data.
    pub(super) async fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        let log = fs::OpenOptions::new().create(true).append(true).open(&node.log).context("a log file")?;
        let mut command = Command::new(env::current_exe().context("the path of this program")?);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAFTGATE_")) {
            command.env_remove(name);
        }
        // In a process group of its own, so that Ctrl-C reaches the demo alone, which then stops the nodes in order. The pipe at its
        // standard input closes with this process, however that ends, and the node stops with it.
        command.arg("serve").arg("--stop-with-stdin").arg("--config").arg(&node.config);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        node.child = Some(command.spawn().with_context(|| format!("starting node {}", node.id))?);
        Ok(())
    }

    /// Waits until every node is ready and knows one leader with a quorum.
    pub(super) async fn wait_for_leader(&mut self, deadline: Instant) -> anyhow::Result<()> {
        for index in 0..COUNT {
            let client = self.nodes[index].client()?;
            loop {
                self.check_running(index)?;
                let is_ready = client.get("/readyz").await.is_ok() && client.get("/readyz/control").await.is_ok();
                if is_ready {
                    break;
                }
                if Instant::now() >= deadline {
                    bail!("node {} is not ready in time{}", self.nodes[index].id, self.log_tail(index));
                }
                sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Waits until a node serves the revision that the others stood at when this began. Gives what it serves.
    pub(super) async fn wait_until_caught_up(&mut self, index: usize, deadline: Instant) -> anyhow::Result<u64> {
        let mut wanted = 0;
        for other in (0..COUNT).filter(|other| *other != index) {
            // One that is down as well knows nothing to wait for.
            let table = self.nodes[other].client()?.get("/v1/table").await.unwrap_or(Value::Null);
            wanted = wanted.max(revision_of(&table));
        }
        let client = self.nodes[index].client()?;
        loop {
            self.check_running(index)?;
            if client.get("/readyz/control").await.is_ok()
                && let Ok(table) = client.get("/v1/table").await
                && revision_of(&table) >= wanted
            {
                return Ok(revision_of(&table));
            }
            if Instant::now() >= deadline {
                bail!("not at revision {wanted} in time{}", self.log_tail(index));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits for the first node to end. Gives its place and how it ended.
    pub(super) async fn wait_for_death(&mut self) -> io::Result<(usize, ExitStatus)> {
        loop {
            for (index, node) in self.nodes.iter_mut().enumerate() {
                let Some(child) = &mut node.child else { continue };
                if let Some(status) = child.try_wait()? {
                    node.child = None;
                    return Ok((index, status));
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Asks every node to stop, all at once, and kills what does not.
    pub(super) async fn stop(&mut self) {
        for node in &self.nodes {
            let pid = i32::try_from(node.pid()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended in this moment.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        for mut child in self.nodes.iter_mut().filter_map(|node| node.child.take()) {
            if timeout(deadline.saturating_duration_since(Instant::now()), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    fn check_running(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        let ended = node.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        match ended {
            None => Ok(()),
            Some(status) => {
                node.child = None;
                bail!("node {} ended at its start ({status}){}", self.nodes[index].id, self.log_tail(index))
            }
        }
    }

    fn log_tail(&self, index: usize) -> String {
        let text = fs::read_to_string(&self.nodes[index].log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(8)..];
        if tail.is_empty() { String::new() } else { format!("; the end of its log:\n{}", tail.join("\n")) }
    }
}

fn revision_of(table: &Value) -> u64 {
    table.get("revision").and_then(Value::as_u64).unwrap_or(0)
}

fn configuration(node: &Node, dir: &Path, members: &str) -> String {
    let Node { id, proxy, admin, peer, .. } = node;
    // A JSON string is a TOML string too.
    let data = json!(dir.join(format!("node{id}")).to_string_lossy());
    format!(
        "node_id = {id}\ndata_dir = {data}\n\n[cluster]\nname = \"demo\"\npeer_address = \"{peer}\"\ninitial_members = {{ {members} }}\n\n\
         [admin]\naddress = \"{admin}\"\n\n[[listener]]\naddress = \"{proxy}\"\ndebug_headers = true\ndrain_timeout = \"2s\"\n"
    )
}

/// Addresses for peers, admin and proxies: the well-known ports where they are all free, others where not.
fn addresses() -> io::Result<[Vec<SocketAddr>; 3]> {
    let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wished: Vec<SocketAddr> = [7081, 9081, 8081].into_iter().flat_map(|first| (first..first + 3).map(loopback)).collect();
    let held: io::Result<Vec<TcpListener>> = wished.iter().map(TcpListener::bind).collect();
    let found: Vec<SocketAddr> = match held {
        Ok(_) => wished,
        Err(_) => {
            // All are held until the last is found, so that none is found twice.
            let held: Vec<TcpListener> = wished.iter().map(|_| TcpListener::bind(loopback(0))).collect::<io::Result<_>>()?;
            held.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?
        }
    };
    let group = |index: usize| found[index * COUNT..(index + 1) * COUNT].to_vec();
    Ok([group(0), group(1), group(2)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NodeConfig, Overrides};

    #[tokio::test]
    async fn the_files_are_good_configurations_with_distinct_addresses_and_go_away() {
        let nodes = Nodes::prepare().await.unwrap();
        let mut addresses: Vec<_> = nodes.iter().flat_map(|node| [node.proxy, node.admin, node.peer]).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 9);
        for node in nodes.iter() {
            let config = NodeConfig::load(Some(&node.config), Overrides::default()).unwrap();
            assert_eq!((config.node_id, config.admin.address), (Some(node.id), node.admin));
            assert_eq!(config.cluster.initial_members.len(), 3);
        }
        let dir = nodes.dir().to_owned();
        drop(nodes);
        assert!(!dir.exists());
    }
}
