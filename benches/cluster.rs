//! Agreement, measured: `cargo bench --bench cluster`.
//!
//! Three nodes of the built program as processes on loopback, each with its data on the disk under the target directory and real
//! syncs. Measured: committed writes a second and their latency with 1, 16 and 64 clients; linearizable reads with 64 clients; the
//! time from a write's answer to the change being live on all three nodes, idle and at 500 changes a second, from the nodes' own
//! monotonic stamps of publication. If etcd is installed (Debian package `etcd-server`), three members of it are measured in the same
//! run, in rounds that alternate with ours: its puts carry a value as long as our document, its reads are linearizable. Both clients
//! speak HTTP/2 over one connection a node. The CPU time is that of the three nodes together an operation, without the client's.
//!
//! Environment: `ROUNDS` (default 3), `SECONDS_PER_ROUND` (default 5).

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Client;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

const CLIENTS: [usize; 3] = [1, 16, 64];

/// Processes that end with the benchmark, and their directory.
struct Processes {
    children: Vec<Child>,
    directory: PathBuf,
}

impl Processes {
    /// CPU time that the processes have used.
    fn cpu_time(&self) -> Duration {
        let ticks = |child: &Child| -> u64 {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            // After the name, which stands in brackets: user and system time are the 12th and 13th field, in hundredths of a second.
            let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
        };
        Duration::from_millis(10) * self.children.iter().map(ticks).sum::<u64>() as u32
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn log_file(directory: &Path, name: &str) -> fs::File {
    fs::File::create(directory.join(format!("{name}.log"))).unwrap()
}

fn monotonic_nanos() -> u128 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u128 * 1_000_000_000 + now.tv_nsec as u128
}

/// Three raftgate nodes.
struct Raftgate {
    hosts: Vec<String>,
    client: Client,
    /// For what is measured: HTTP/2, one connection a node.
    connections: Vec<SendRequest<Full<Bytes>>>,
    processes: Processes,
}

impl Raftgate {
    async fn start() -> Raftgate {
        let directory = directory("raftgate");
        let subnet = format!("127.200.{}", std::process::id() % 256);
        let hosts: Vec<String> = (1..=3).map(|n| format!("{subnet}.{n}")).collect();
        let members: Vec<String> = hosts.iter().enumerate().map(|(i, host)| format!("{} = \"{host}:7081\"", i + 1)).collect();
        let mut children = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let config = directory.join(format!("node{}.toml", index + 1));
            let data = directory.join(format!("node{}", index + 1));
            let text = format!(
                "node_id = {}\ndata_dir = {data:?}\n[cluster]\nname = \"bench\"\npeer_address = \"{host}:7081\"\n\
                 initial_members = {{ {} }}\n[admin]\naddress = \"{host}:9081\"\n[[listener]]\naddress = \"{host}:8081\"\n",
                index + 1,
                members.join(", "),
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_raftgate"));
            command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null());
            children.push(command.stdout(Stdio::null()).stderr(log_file(&directory, &format!("node{index}"))).spawn().unwrap());
        }
        let mut raftgate =
            Raftgate { hosts, client: Client::new(), connections: Vec::new(), processes: Processes { children, directory } };
        for index in 0..3 {
            raftgate.wait_ready(index).await;
            let stream = TcpStream::connect(format!("{}:9081", raftgate.hosts[index])).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            raftgate.connections.push(sender);
        }
        raftgate
    }

    /// One call; its answer must be good.
    async fn call(&self, index: usize, method: Method, path: &str, body: String) -> Bytes {
        let request = Request::builder().method(method).uri(self.admin(index, path)).header("content-type", "application/json");
        let request = request.body(Full::from(body)).unwrap();
        let answer = self.connections[index].clone().send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status} {body:?}");
        body
    }

    async fn wait_ready(&self, index: usize) {
        let url = self.admin(index, "/readyz/control");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < deadline, "node {index} is not ready, see {:?}", self.processes.directory);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn admin(&self, index: usize, path: &str) -> String {
        format!("http://{}:9081{path}", self.hosts[index])
    }

    /// Writes a route; the answer as it came.
    async fn write(&self, index: usize, name: &str, path: &str) -> Bytes {
        self.call(index, Method::PUT, &format!("/v1/routes/{name}"), document(path).to_string()).await
    }

    async fn put(&self, index: usize, name: &str, path: &str) -> u64 {
        let body: Value = serde_json::from_slice(&self.write(index, name, path).await).unwrap();
        body["revision"].as_u64().unwrap()
    }

    /// When each node published `revision` or a later one first, by the machine's monotonic clock.
    async fn live_at(&self, revision: u64) -> u128 {
        let mut latest = 0;
        for index in 0..3 {
            let url = self.admin(index, &format!("/v1/table/publications?fromRevision={revision}"));
            let answer = self.client.get(url).header("raftgate-min-revision", revision.to_string()).send().await.unwrap();
            let body: Value = answer.json().await.unwrap();
            let stamp = body["publications"][0]["monotonicNanos"].as_u64();
            latest = latest.max(u128::from(stamp.unwrap_or_else(|| panic!("no stamp of {revision}: {body}"))));
        }
        latest
    }
}

fn document(path: &str) -> Value {
    json!({"hostnames": ["bench.example.com"], "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "backend"}]}]})
}

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdPut {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdRange {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdAnswer {}

/// Three etcd members.
struct Etcd {
    channels: Vec<Channel>,
    processes: Processes,
}

impl Etcd {
    /// `None` where etcd is not installed.
    async fn start() -> Option<Etcd> {
        Command::new("etcd").arg("--version").output().ok()?;
        let directory = directory("etcd");
        let subnet = format!("127.201.{}", std::process::id() % 256);
        let cluster: Vec<String> = (1..=3).map(|n| format!("m{n}=http://{subnet}.{n}:2380")).collect();
        let mut children = Vec::new();
        for n in 1..=3 {
            let (client, peer) = (format!("http://{subnet}.{n}:2379"), format!("http://{subnet}.{n}:2380"));
            let mut command = Command::new("etcd");
            command.arg("--name").arg(format!("m{n}")).arg("--data-dir").arg(directory.join(format!("m{n}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster.join(","), "--log-level", "error"]);
            children.push(command.stdout(Stdio::null()).stderr(log_file(&directory, &format!("m{n}"))).spawn().unwrap());
        }
        let processes = Processes { children, directory };
        let mut channels = Vec::new();
        for n in 1..=3 {
            channels.push(Channel::from_shared(format!("http://{subnet}.{n}:2379")).unwrap().connect_lazy());
        }
        let etcd = Etcd { channels, processes };
        let deadline = Instant::now() + Duration::from_secs(30);
        while etcd.put(0, "ready").await.is_err() {
            assert!(Instant::now() < deadline, "etcd does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(etcd)
    }

    async fn put(&self, member: usize, key: &str) -> Result<(), tonic::Status> {
        let value = document(&format!("/{key}")).to_string().into_bytes();
        self.unary(member, "/etcdserverpb.KV/Put", EtcdPut { key: key.as_bytes().to_vec(), value }).await
    }

    async fn read(&self, member: usize, key: &str) -> Result<(), tonic::Status> {
        self.unary(member, "/etcdserverpb.KV/Range", EtcdRange { key: key.as_bytes().to_vec() }).await
    }

    async fn unary<M: prost::Message + Default + 'static>(
        &self,
        member: usize,
        method: &'static str,
        message: M,
    ) -> Result<(), tonic::Status> {
        let mut grpc = Grpc::new(self.channels[member].clone());
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<M, EtcdAnswer> = ProstCodec::default();
        grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(method), codec).await.map(|_| ())
    }
}

/// What one round of a load gave.
#[derive(Clone)]
struct Round {
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// CPU time of all nodes together an operation.
    cpu: Duration,
}

/// `clients` tasks call `operation(client, sequence)` one after another for `length`.
async fn load<F, O>(processes: &Processes, clients: usize, length: Duration, operation: F) -> Round
where
    F: Fn(usize, u64) -> O + Send + Sync + 'static,
    O: Future<Output = ()> + Send,
{
    let operation = Arc::new(operation);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let (started, cpu_before) = (Instant::now(), processes.cpu_time());
    for client in 0..clients {
        let (operation, stop) = (Arc::clone(&operation), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                operation(client, times.len() as u64).await;
                times.push(begun.elapsed());
            }
            times
        });
    }
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    let cpu = (processes.cpu_time() - cpu_before) / times.len() as u32;
    times.sort();
    Round { cpu, rate, p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
}

fn print_rounds(what: &str, mut rounds: Vec<Round>) -> f64 {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let median = &rounds[rounds.len() / 2];
    let (low, high) = (rounds[0].rate, rounds[rounds.len() - 1].rate);
    let Round { rate, p50, p99, cpu } = median;
    println!("{what:<39} {rate:>6.0}/s ({low:.0}-{high:.0})   p50 {p50:>8.2?}   p99 {p99:>8.2?}   CPU {:>4} us", cpu.as_micros());
    median.rate
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what:<39} p50 {:>9.2?}   p99 {:>9.2?}   max {:>9.2?}   ({} writes)", at(50), at(99), at(100), times.len());
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

static KEYS: AtomicU64 = AtomicU64::new(0);

fn next_key() -> String {
    format!("k{}", KEYS.fetch_add(1, Ordering::Relaxed) % 20_000)
}

async fn measure_writes(raftgate: &Arc<Raftgate>, etcd: Option<&Arc<Etcd>>, rounds: u64, length: Duration) {
    for clients in CLIENTS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let target = Arc::clone(raftgate);
            let write = move |client: usize, _| {
                let target = Arc::clone(&target);
                async move {
                    // A path that was never written before, so that no write is a repetition that changes nothing.
                    let path = format!("/{}", fastrand::u64(..));
                    target.write(client % 3, &next_key(), &path).await;
                }
            };
            ours.push(load(&raftgate.processes, clients, length, write).await);
            let Some(etcd) = etcd else { continue };
            let target = Arc::clone(etcd);
            let write = move |client: usize, _| {
                let target = Arc::clone(&target);
                async move { target.put(client % 3, &next_key()).await.unwrap() }
            };
            theirs.push(load(&etcd.processes, clients, length, write).await);
        }
        report(&format!("writes, {clients} clients"), ours, theirs);
    }
}

async fn measure_reads(raftgate: &Arc<Raftgate>, etcd: Option<&Arc<Etcd>>, rounds: u64, length: Duration) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let target = Arc::clone(raftgate);
        let read = move |client: usize, _| {
            let target = Arc::clone(&target);
            async move {
                target.call(client % 3, Method::GET, "/v1/routes/k1", String::new()).await;
            }
        };
        ours.push(load(&raftgate.processes, 64, length, read).await);
        let Some(etcd) = etcd else { continue };
        let target = Arc::clone(etcd);
        let read = move |client: usize, _| {
            let target = Arc::clone(&target);
            async move { target.read(client % 3, "k1").await.unwrap() }
        };
        theirs.push(load(&etcd.processes, 64, length, read).await);
    }
    report("linearizable reads, 64 clients", ours, theirs);
}

fn report(what: &str, ours: Vec<Round>, theirs: Vec<Round>) {
    let our_rate = print_rounds(&format!("raftgate {what}"), ours);
    if !theirs.is_empty() {
        let their_rate = print_rounds(&format!("etcd     {what}"), theirs);
        println!("{:<39} {:>8.2}", "         ratio to etcd", our_rate / their_rate);
    }
}

/// From a write's answer to its being live on all three nodes: zero where it was live before the answer came.
async fn measure_live(raftgate: &Arc<Raftgate>) {
    let mut idle = Vec::new();
    for number in 0..300 {
        let revision = raftgate.put(number % 3, "live", &format!("/live/{}", fastrand::u64(..))).await;
        let answered = monotonic_nanos();
        idle.push((raftgate.live_at(revision).await, answered));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    print_times("answered to live, idle", idle.into_iter().map(difference).collect());

    let mut tasks = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    for number in 0..2_500usize {
        ticks.tick().await;
        let target = Arc::clone(raftgate);
        tasks.spawn(async move {
            let revision =
                target.put(number % 3, &format!("live{}", number % 100), &format!("/live/{}", fastrand::u64(..))).await;
            (revision, monotonic_nanos())
        });
        // The stamps are kept for the last few thousand publications; only a sample is asked for, after the load.
    }
    let mut busy = Vec::new();
    for (revision, answered) in tasks.join_all().await.into_iter().filter(|_| fastrand::u8(..) < 64) {
        busy.push((raftgate.live_at(revision).await, answered));
    }
    print_times("answered to live, 500 changes/s", busy.into_iter().map(difference).collect());
}

fn difference((live, answered): (u128, u128)) -> Duration {
    Duration::from_nanos(live.saturating_sub(answered) as u64)
}

#[tokio::main]
async fn main() {
    let (rounds, length) = (setting("ROUNDS", 3), Duration::from_secs(setting("SECONDS_PER_ROUND", 5)));
    let raftgate = Arc::new(Raftgate::start().await);
    let etcd = Etcd::start().await.map(Arc::new);
    if etcd.is_none() {
        println!("etcd is not installed (Debian package etcd-server): only raftgate is measured");
    }
    for key in 0..100 {
        raftgate.put(0, &format!("k{key}"), &format!("/warm/{key}")).await;
    }
    measure_writes(&raftgate, etcd.as_ref(), rounds, length).await;
    measure_reads(&raftgate, etcd.as_ref(), rounds, length).await;
    measure_live(&raftgate).await;
}
