//! The cluster under test: real processes, each with its own configuration, data directory and log.

mod claims;
mod disk;
pub(crate) mod isolation;
mod links;
mod namespaces;
pub(crate) mod network;
mod node;
mod power;
mod pump;
pub(crate) mod shell;
mod throttle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

pub(crate) use claims::{Claim, Claims};
pub(crate) use disk::Disk;
use isolation::Isolation;
use links::{Links, Owners};
use namespaces::Namespaces;
pub(crate) use network::Direction;
use network::{Means, Network};
pub(crate) use node::{Node, Place};
pub(crate) use power::Switch;
pub(crate) use throttle::Throttle;

use crate::http;

/// How long a question to a node's admin API about itself may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// The deadline of another call of a node's admin API, and what its answer may take beyond.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_MARGIN: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) binary: PathBuf,
    /// Another build of it, for upgrades.
    pub(crate) other_binary: Option<PathBuf>,
    pub(crate) isolation: Isolation,
    /// Members from the start.
    pub(crate) nodes: u32,
    /// Nodes that may join later.
    pub(crate) spares: u32,
    /// Data and configurations; removed by the caller.
    pub(crate) scratch: PathBuf,
    /// Where the logs go.
    pub(crate) logs: PathBuf,
    /// Further variables of the nodes' environment.
    pub(crate) environment: Vec<(String, String)>,
    /// The library that lies about the time, where clocks shall jump.
    pub(crate) faketime: Option<PathBuf>,
}

/// All nodes, and what is between them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) settings: Settings,
    /// The address at which nodes reach what the suite itself serves.
    pub(crate) suite_host: String,
    /// Who stops and starts which nodes.
    pub(crate) claims: Claims,
    members: Mutex<BTreeSet<u32>>,
    owners: Owners,
    http: reqwest::Client,
}

impl Cluster {
    /// Prepares all nodes and starts none.
    pub(crate) async fn create(settings: Settings) -> anyhow::Result<Cluster> {
        let ids: Vec<u32> = (1..=settings.nodes + settings.spares).collect();
        let owners = Owners::default();
        let subnet = format!("127.{}.{}", 128 + std::process::id() / 256 % 64, std::process::id() % 256);
        let namespaces = settings.isolation == Isolation::Namespaces;
        let mut nodes = Vec::new();
        for &id in &ids {
            let directory = settings.scratch.join(format!("node{id}"));
            std::fs::create_dir_all(&directory)?;
            let disk = match settings.isolation {
                Isolation::Namespaces => Disk::format(directory.join("image"), directory.join("mount")).await?,
                Isolation::Loopback => Disk::plain(directory.join("disk"))?,
            };
            nodes.push(Node::new(Place {
                id,
                host: if namespaces { namespaces::host(id) } else { format!("{subnet}.{id}") },
                disk,
                environment: [clock_environment(settings.faketime.as_deref(), &directory)?, settings.environment.clone()]
                    .concat(),
                directory,
                log: settings.logs.join(format!("node{id}.log")),
                wrapper: if namespaces { namespaces::wrapper(id) } else { Vec::new() },
            })?);
        }
        let (means, peers) = if namespaces {
            let peers: BTreeMap<u32, String> = nodes.iter().map(|node| (node.id, node.peer.to_string())).collect();
            (Means::Namespaces(Namespaces::create(&ids).await?), peers)
        } else {
            let outside = |node: &Node| format!("{subnet}.{}:{}", 100 + node.id, node::PEER_PORT);
            let mut addresses = Vec::new();
            for node in &nodes {
                addresses.push((node.id, outside(node).parse()?, node.peer));
            }
            let peers = nodes.iter().map(|node| (node.id, outside(node))).collect();
            (Means::Links(Links::create(&addresses, Arc::clone(&owners)).await?), peers)
        };
        for node in &nodes {
            let founders = (node.id <= settings.nodes).then(|| peers.iter().filter(|(id, _)| **id <= settings.nodes));
            let founders = founders.map(|founders| founders.collect::<BTreeMap<_, _>>());
            std::fs::write(node.config(), configuration(node, founders.as_ref())?)?;
        }
        let suite_host = if namespaces { namespaces::SUITE_HOST.to_owned() } else { "127.0.0.1".to_owned() };
        let members = Mutex::new((1..=settings.nodes).collect());
        let http = http::builder(STATUS_TIMEOUT, STATUS_TIMEOUT).build()?;
        Ok(Cluster {
            nodes,
            network: Network::new(means),
            settings,
            suite_host,
            claims: Claims::default(),
            members,
            owners,
            http,
        })
    }

    /// A node by its id.
    pub(crate) fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize - 1]
    }

    /// The ids of the nodes that are members now.
    pub(crate) fn members(&self) -> Vec<u32> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Says that a node has become a member, or is none any more.
    pub(crate) fn set_member(&self, id: u32, is_member: bool) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if is_member {
            members.insert(id);
        } else {
            members.remove(&id);
        }
    }

    /// Starts a node.
    pub(crate) async fn start(&self, id: u32) -> anyhow::Result<()> {
        self.start_with(id, &[]).await
    }

    /// Starts a node with further arguments of `serve`.
    pub(crate) async fn start_with(&self, id: u32, arguments: &[String]) -> anyhow::Result<()> {
        self.start_program(id, &self.settings.binary, arguments).await
    }

    /// Starts a node with a program of its own.
    pub(crate) async fn start_program(&self, id: u32, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        self.spawn(id, program, arguments, &[]).await
    }

    /// Starts a node with crash points armed.
    pub(crate) async fn start_armed(&self, id: u32, points: &str) -> anyhow::Result<()> {
        self.spawn(id, &self.settings.binary, &[], &[("FAILPOINTS", points)]).await
    }

    async fn spawn(&self, id: u32, program: &Path, arguments: &[String], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let node = self.node(id);
        node.start(program, arguments, variables).await?;
        if let Some(pid) = node.pid().await {
            self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(id, pid);
        }
        Ok(())
    }

    /// Ends all processes and gives the disks back.
    pub(crate) async fn destroy(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            if node.runs().await {
                node.kill().await?;
            }
        }
        for node in &self.nodes {
            node.disk.unmount().await?;
        }
        Ok(())
    }

    /// What a node answers to a GET of its admin API.
    pub(crate) async fn get(&self, id: u32, path: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.node(id).admin);
        let answer = self.http.get(url).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    /// One of a node's metrics that have no labels.
    pub(crate) async fn metric(&self, id: u32, name: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.node(id).admin);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// How many seconds a node's clock of the day is before ours, by when it published its table. Not by the date of an answer, which
    /// stands still after a jump back.
    pub(crate) async fn clock_offset(&self, id: u32) -> Option<i64> {
        let table = self.get(id, "/v1/table").await?;
        let published = humantime::parse_rfc3339_weak(table["publishedAt"].as_str()?).ok()?;
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        Some(seconds(published)?.cast_signed() - seconds(SystemTime::now())?.cast_signed())
    }

    /// A call of the admin API that is no operation of a client: status and body.
    pub(crate) async fn call(&self, id: u32, method: reqwest::Method, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.call_within(id, method, path, body, CALL_TIMEOUT).await
    }

    /// The same with a deadline of its own, for the gateway too.
    pub(crate) async fn call_within(
        &self,
        id: u32,
        method: reqwest::Method,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> anyhow::Result<(u16, Value)> {
        let url = format!("http://{}{path}", self.node(id).admin);
        let request = self.http.request(method, url).timeout(patience + CALL_MARGIN).json(body);
        let request = request.header("raftgate-timeout", format!("{}s", patience.as_secs()));
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
    }

    /// The node that leads: the one that itself says so, with the highest term.
    pub(crate) async fn leader(&self) -> Option<u32> {
        let mut best = None;
        for id in self.members() {
            let Some(status) = self.get(id, "/v1/cluster").await else { continue };
            let term = status["term"].as_u64().unwrap_or(0);
            if status["leader"].as_u64() == Some(u64::from(id)) && best.is_none_or(|(known, _)| term > known) {
                best = Some((term, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Waits until the members agree on one leader, are ready, and serve one table. The error says what is missing.
    pub(crate) async fn wait_recovered(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.unrecovered().await {
                None => return Ok(()),
                Some(missing) if Instant::now() > deadline => return Err(missing),
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn unrecovered(&self) -> Option<String> {
        let (mut leaders, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for id in self.members() {
            let (status, ready) = tokio::join!(self.get(id, "/v1/cluster"), self.get(id, "/readyz/control"));
            let Some(status) = status else { return Some(format!("node {id} does not answer")) };
            if ready.is_none() {
                return Some(format!("the control plane of node {id} is not ready"));
            }
            leaders.insert(id, status["leader"].as_u64());
            let table = self.get(id, "/v1/table").await.unwrap_or_default();
            tables.insert(id, (table["revision"].as_u64(), table["digest"].as_str().map(str::to_owned)));
        }
        if !all_equal(leaders.values()) || leaders.values().any(Option::is_none) {
            return Some(format!("nodes name different leaders: {leaders:?}"));
        }
        (!all_equal(tables.values())).then(|| format!("nodes serve different tables: {tables:?}"))
    }
}

/// Looks until there is something, or patience ends.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(patience: Duration, mut look: impl FnMut() -> F) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look().await;
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn all_equal<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let Some(first) = values.next() else { return true };
    values.all(|value| value == first)
}

fn configuration(node: &Node, founders: Option<&BTreeMap<&u32, &String>>) -> anyhow::Result<String> {
    let mut text = format!("node_id = {}\ndata_dir = {:?}\ninsecure = true\nworkers = 1\n", node.id, node.data());
    writeln!(text, "[cluster]\nname = \"jepsen\"\npeer_address = \"{}\"", node.peer)?;
    if let Some(founders) = founders {
        let members: Vec<String> = founders.iter().map(|(id, address)| format!("{id} = \"{address}\"")).collect();
        writeln!(text, "initial_members = {{ {} }}", members.join(", "))?;
    }
    writeln!(text, "[admin]\naddress = \"{}\"", node.admin)?;
    writeln!(text, "[[listener]]\nname = \"public\"\naddress = \"{}\"\ndebug_headers = true\nmin_revision = true", node.proxy)?;
    Ok(text)
}

/// The node reads its clock's offset from a file, again at every look; other clocks than that of the day stay true.
fn clock_environment(library: Option<&Path>, directory: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let Some(library) = library else { return Ok(Vec::new()) };
    let file = directory.join("clock");
    std::fs::write(&file, "+0\n")?;
    let pairs = [
        ("LD_PRELOAD", library.to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
