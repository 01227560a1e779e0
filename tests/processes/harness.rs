//! Starts nodes as processes and talks to them as a client would.
//!
//! Each cluster gets three loopback addresses of its own (127.x.y.1-3), so that its ports are fixed: a node that is restarted comes
//! back where it was, and clusters of parallel tests do not meet.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use raftgate::tls::ClientFiles;
use reqwest::{Client, Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::certificates::builder;

/// How long a condition may take to come true before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static CLUSTERS: AtomicUsize = AtomicUsize::new(0);

/// Waits until `condition` gives something, or fails with `what`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One node: its files, its addresses, and its process while it runs.
pub(crate) struct Node {
    pub(crate) id: usize,
    pub(crate) host: String,
    pub(crate) dir: PathBuf,
    /// The program that it runs.
    pub(crate) program: PathBuf,
    /// Set for the process.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// What the program runs behind; empty: nothing.
    pub(crate) wrapper: Vec<String>,
    /// What the admin API speaks.
    pub(crate) scheme: &'static str,
    process: Option<Child>,
}

impl Node {
    pub(crate) fn new(id: usize, host: String, dir: PathBuf, scheme: &'static str) -> Node {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_raftgate"));
        Node { id, host, dir, program, environment: Vec::new(), wrapper: Vec::new(), scheme, process: None }
    }

    pub(crate) fn admin(&self, path: &str) -> String {
        format!("{}://{}:9081{path}", self.scheme, self.host)
    }

    pub(crate) fn proxy(&self, path: &str) -> String {
        format!("http://{}:8081{path}", self.host)
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        let child = serve(&self.program, &self.wrapper, &self.config_file())
            .envs(environment)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
    }

    /// Runs a node that is expected to refuse to start; gives its exit code and what it said.
    pub(crate) fn start_and_fail(config: &Path) -> (Option<i32>, String) {
        let mut child = serve(Path::new(env!("CARGO_BIN_EXE_raftgate")), &[], config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the node started although it should have refused");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code(), text)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the node runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// kill -9, and waits for the process to be gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.take().unwrap().wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.exit_code()
    }

    /// Waits until the process, which was told to, has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.process.take().unwrap().wait().unwrap().code()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped process does not die of SIGKILL's milder kin; this one always works.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The program, without the settings of whoever runs the tests: variables of this prefix are keys of a node's configuration.
pub(crate) fn bare(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    let own = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("RAFTGATE_"));
    own.for_each(|name| {
        command.env_remove(name);
    });
    command
}

fn serve(program: &Path, wrapper: &[String], config: &Path) -> Command {
    let words: Vec<&Path> = wrapper.iter().map(Path::new).chain([program]).collect();
    let mut command = bare(words[0]);
    command.args(&words[1..]).args(["serve", "--config"]).arg(config).stdin(Stdio::null());
    command
}

/// Three nodes in a temporary directory.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: Client,
    /// Set for the command line.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    directory: TempDir,
    /// Keeps the hosts for this cluster.
    _claim: TcpListener,
}

/// A subnet of loopback that no other cluster has, in this process or in another that runs the same tests, for as long as the listener stands.
fn claim_subnet() -> (String, TcpListener) {
    for _ in 0..16_384 {
        // 127.(64-127).(0-255).n: by process and by cluster, so that there are few tries.
        let number = std::process::id() as usize * 16 + CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let subnet = format!("127.{}.{}", 64 + (number >> 8) % 64, number % 256);
        if let Ok(claim) = TcpListener::bind(format!("{subnet}.254:7080")) {
            return (subnet, claim);
        }
    }
    panic!("no subnet of loopback is free");
}

impl Cluster {
    /// Writes the files of three nodes and starts none.
    pub(crate) fn prepare() -> Cluster {
        // What clients in this process speak TLS with; another test may have said so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (subnet, claim) = claim_subnet();
        let directory = TempDir::with_prefix("raftgate-").unwrap();
        let hosts: Vec<String> = (1..=3).map(|n| format!("{subnet}.{n}")).collect();
        let members: Vec<String> = hosts.iter().enumerate().map(|(i, host)| format!("{} = \"{host}:7081\"", i + 1)).collect();
        let nodes = hosts.iter().enumerate().map(|(index, host)| {
            let dir = directory.path().join(format!("node{}", index + 1));
            fs::create_dir(&dir).unwrap();
            let node = Node::new(index + 1, host.clone(), dir, "http");
            let config = format!(
                "node_id = {}\ndata_dir = {:?}\n[cluster]\nname = \"test\"\npeer_address = \"{host}:7081\"\ninitial_members = {{ {} }}\n\
                 [admin]\naddress = \"{host}:9081\"\n[[listener]]\nname = \"public\"\naddress = \"{host}:8081\"\ndebug_headers = true\n",
                node.id,
                node.data_dir(),
                members.join(", "),
            );
            fs::write(node.config_file(), config).unwrap();
            node
        });
        let client = builder(&ClientFiles::default()).timeout(Duration::from_secs(20)).build().unwrap();
        Cluster { nodes: nodes.collect(), client, environment: Vec::new(), directory, _claim: claim }
    }

    /// Starts an empty node without an id that asks the node at `index` to be let in.
    pub(crate) fn join(&mut self, index: usize) -> usize {
        let number = self.nodes.len() + 1;
        let (subnet, _) = self.nodes[index].host.rsplit_once('.').unwrap();
        let host = format!("{subnet}.{number}");
        let dir = self.path().join(format!("node{number}"));
        fs::create_dir(&dir).unwrap();
        let mut node = Node::new(number, host, dir, "http");
        let config = format!(
            "data_dir = {:?}\n[cluster]\nname = \"test\"\npeer_address = \"{host}:7081\"\njoin = \"{member}:7081\"\n[admin]\naddress = \
             \"{host}:9081\"\n[[listener]]\nname = \"public\"\naddress = \"{host}:8081\"\ndebug_headers = true\n",
            node.data_dir(),
            host = node.host,
            member = self.nodes[index].host,
        );
        fs::write(node.config_file(), config).unwrap();
        node.start();
        self.nodes.push(node);
        number - 1
    }

    /// What the command line says to `arguments` at the node: exit code, standard output and error.
    pub(crate) async fn command(&self, index: usize, arguments: &str) -> (Option<i32>, String) {
        let server = self.nodes[index].admin("");
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_raftgate"));
        command
            .args(["--server", &server, "--timeout", "15s"])
            .args(arguments.split_whitespace())
            .envs(self.environment.clone())
            .stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Three nodes that have a leader.
    pub(crate) async fn start() -> Cluster {
        let mut cluster = Cluster::prepare();
        cluster.nodes.iter_mut().for_each(Node::start);
        for index in 0..3 {
            cluster.wait_ready(index).await;
        }
        cluster
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until the control plane of the node answers linearizable reads.
    pub(crate) async fn wait_ready(&self, index: usize) {
        let url = self.nodes[index].admin("/readyz/control");
        eventually(&format!("node {} is ready; its log:\n{}", index + 1, self.nodes[index].log()), || async {
            let answer = self.client.get(&url).send().await.ok()?;
            (answer.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// The index of the node that leads, as `asked` sees it.
    pub(crate) async fn leader(&self, asked: usize) -> usize {
        eventually("a leader", || async {
            let status = self.get(asked, "/v1/cluster?consistency=local").await?;
            status["leader"].as_u64().map(|id| id as usize - 1)
        })
        .await
    }

    /// A GET that gives the body of a 200.
    pub(crate) async fn get(&self, index: usize, path: &str) -> Option<Value> {
        let answer = self.client.get(self.nodes[index].admin(path)).send().await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        answer.json().await.ok()
    }

    /// A call to the admin API: status and body. `None` where no answer came.
    pub(crate) async fn call(&self, index: usize, method: Method, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let request = self.client.request(method, self.nodes[index].admin(path)).json(body);
        let answer = request.send().await.ok()?;
        let status = answer.status();
        Some((status, answer.json().await.unwrap_or(Value::Null)))
    }

    /// A PUT that must succeed; gives the revision.
    pub(crate) async fn put(&self, index: usize, path: &str, spec: &Value) -> u64 {
        let (status, body) = self.call(index, Method::PUT, path, spec).await.expect("an answer");
        assert!(status.is_success(), "PUT {path}: {status} {body}");
        body["revision"].as_u64().unwrap()
    }

    /// `/v1/table`'s revision and digest.
    pub(crate) async fn table(&self, index: usize) -> Option<(u64, String)> {
        let table = self.get(index, "/v1/table").await?;
        Some((table["revision"].as_u64()?, table["digest"].as_str()?.to_owned()))
    }

    /// Waits until all nodes in `indexes` serve the same revision, at least `revision`, with the same digest.
    pub(crate) async fn wait_agreement(&self, indexes: &[usize], revision: u64) -> (u64, String) {
        eventually("all nodes serve one revision with one digest", || async {
            let mut tables = Vec::new();
            for &index in indexes {
                tables.push(self.table(index).await?);
            }
            let first = tables.first()?.clone();
            (first.0 >= revision && tables.iter().all(|table| *table == first)).then_some(first)
        })
        .await
    }
}

/// A backend that answers every request with its name.
pub(crate) struct Backend {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

impl Backend {
    pub(crate) async fn start(name: &'static str) -> Backend {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = |State(name): State<&'static str>| async move { name };
        let router = Router::new().fallback(answer).with_state(name);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Backend { address, task }
    }

    pub(crate) fn service(&self) -> Value {
        json!({"endpoints": [{"address": self.address}]})
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The spec of a route for `path` to `service`.
pub(crate) fn route(path: &str, service: &str) -> Value {
    json!({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": service}]}]})
}

/// GETs in a loop, on connections that are kept alive, until it is stopped.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    pub(crate) good: Arc<AtomicU64>,
    task: JoinHandle<Vec<String>>,
}

impl Traffic {
    /// Sends to `url`; `judge` says what is wrong with an answer (status, revision header, body).
    pub(crate) fn start(
        url: String,
        judge: impl Fn(StatusCode, Option<u64>, &str) -> Result<(), String> + Send + 'static,
    ) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&good));
        let task = tokio::spawn(async move {
            let client = builder(&ClientFiles::default()).timeout(Duration::from_secs(10)).build().unwrap();
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match one_request(&client, &url).await.and_then(|(status, revision, body)| judge(status, revision, &body)) {
                    Ok(()) => _ = counted.fetch_add(1, Ordering::Relaxed),
                    Err(failure) => failures.push(failure),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            failures
        });
        Traffic { stop, good, task }
    }

    /// Good answers and failures.
    pub(crate) async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await.unwrap();
        (self.good.load(Ordering::Relaxed), failures)
    }
}

/// Waits until each of `traffic` has had more than `answers` further good answers.
pub(crate) async fn wait_for_answers(traffic: &[Traffic], answers: u64) {
    let counts = || traffic.iter().map(|traffic| traffic.good.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let before = counts();
    eventually("enough good answers at every node", || async {
        counts().iter().zip(&before).all(|(now, before)| now - before > answers).then_some(())
    })
    .await;
}

async fn one_request(client: &Client, url: &str) -> Result<(StatusCode, Option<u64>, String), String> {
    let answer = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let revision = answer.headers().get("raftgate-revision").and_then(|value| value.to_str().ok()?.parse().ok());
    let body = answer.text().await.map_err(|error| format!("body: {error:?}"))?;
    Ok((status, revision, body))
}

/// Only a 200 with this body is good.
pub(crate) fn expect_body(
    expected: &'static str,
) -> impl Fn(StatusCode, Option<u64>, &str) -> Result<(), String> + Send + 'static {
    move |status, _, body| {
        if status == StatusCode::OK && body == expected { Ok(()) } else { Err(format!("{status} {body:?}")) }
    }
}
