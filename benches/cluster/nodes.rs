//! Three nodes of raftgate and three members of etcd, as processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use raftgate::tls::{ClientFiles, client_config};
use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::document;

/// Processes that end with the benchmark, and their directory.
pub(crate) struct Processes {
    /// What started them, to start them again.
    commands: Mutex<Vec<Command>>,
    children: Mutex<Vec<Child>>,
    pub(crate) directory: PathBuf,
}

impl Processes {
    fn start(mut commands: Vec<Command>, directory: PathBuf) -> Processes {
        let children = commands.iter_mut().map(|command| command.spawn().unwrap()).collect();
        Processes { commands: Mutex::new(commands), children: Mutex::new(children), directory }
    }

    /// kill -9.
    pub(crate) fn kill(&self, index: usize) {
        let mut children = self.children.lock().unwrap();
        children[index].kill().unwrap();
        children[index].wait().unwrap();
    }

    /// Starts one that was killed.
    pub(crate) fn restart(&self, index: usize) {
        self.children.lock().unwrap()[index] = self.commands.lock().unwrap()[index].spawn().unwrap();
    }

    /// The process's id.
    pub(crate) fn id(&self, index: usize) -> u32 {
        self.children.lock().unwrap()[index].id()
    }

    /// CPU time that the processes have used.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.children.lock().unwrap().iter().map(|child| cpu_time_of(child.id())).sum()
    }

    /// CPU time that one process has used.
    pub(crate) fn cpu_time_of(&self, index: usize) -> Duration {
        cpu_time_of(self.children.lock().unwrap()[index].id())
    }
}

/// CPU time that a process has used.
pub(crate) fn cpu_time_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which stands in brackets: user and system time are the 12th and 13th field, in hundredths of a second.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10) * ticks as u32
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.get_mut().unwrap() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

pub(crate) fn log_file(directory: &Path, name: &str) -> fs::File {
    fs::File::create(directory.join(format!("{name}.log"))).unwrap()
}

/// What starts a node.
fn command(directory: &Path, index: usize, host: &str, node: &str, cluster: &str) -> Command {
    let config = directory.join(format!("node{}.toml", index + 1));
    let data = directory.join(format!("node{}", index + 1));
    let text = format!(
        "{node}\ndata_dir = {data:?}\n[cluster]\nname = \"bench\"\npeer_address = \"{host}:7081\"\n{cluster}\n\
         [admin]\naddress = \"{host}:9081\"\n[[listener]]\naddress = \"{host}:8081\"\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftgate"));
    command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(log_file(directory, &format!("node{index}")));
    command
}

/// Three raftgate nodes.
pub(crate) struct Raftgate {
    subnet: String,
    hosts: Vec<String>,
    pub(crate) client: Client,
    /// For what is measured: HTTP/2, one connection a node.
    connections: Vec<SendRequest<Full<Bytes>>>,
    pub(crate) processes: Processes,
}

impl Raftgate {
    /// Nodes with these settings in their environment beside the defaults.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Raftgate {
        let directory = directory("raftgate");
        let subnet = format!("127.200.{}", std::process::id() % 256);
        let hosts: Vec<String> = (1..=3).map(|n| format!("{subnet}.{n}")).collect();
        let members: Vec<String> = hosts.iter().enumerate().map(|(i, host)| format!("{} = \"{host}:7081\"", i + 1)).collect();
        let mut commands = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let cluster = format!("initial_members = {{ {} }}", members.join(", "));
            let mut command = command(&directory, index, host, &format!("node_id = {}", index + 1), &cluster);
            command.envs(settings.iter().copied());
            commands.push(command);
        }
        let mut raftgate = Raftgate {
            subnet,
            hosts,
            client: client_config(&ClientFiles::default())
                .map(|tls| Client::builder().tls_backend_preconfigured(tls).build().unwrap())
                .unwrap(),
            connections: Vec::new(),
            processes: Processes::start(commands, directory),
        };
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

    /// Starts one more node, which joins as a learner. Gives its index.
    pub(crate) fn join(&mut self) -> usize {
        let index = self.hosts.len();
        let host = format!("{}.{}", self.subnet, index + 1);
        let cluster = format!("join = \"{}:7081\"", self.hosts[0]);
        let mut command = command(&self.processes.directory, index, &host, "", &cluster);
        self.processes.children.get_mut().unwrap().push(command.spawn().unwrap());
        self.processes.commands.get_mut().unwrap().push(command);
        self.hosts.push(host);
        index
    }

    /// One call; its answer must be good.
    pub(crate) async fn call(&self, index: usize, method: Method, path: &str, body: String) -> Bytes {
        let request = Request::builder().method(method).uri(self.admin(index, path)).header("content-type", "application/json");
        let request = request.body(Full::from(body)).unwrap();
        let answer = self.connections[index].clone().send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status} {body:?}");
        body
    }

    pub(crate) async fn wait_ready(&self, index: usize) {
        let url = self.admin(index, "/readyz/control");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < deadline, "node {index} is not ready, see {:?}", self.processes.directory);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn admin(&self, index: usize, path: &str) -> String {
        format!("http://{}:9081{path}", self.hosts[index])
    }

    /// Where the node's proxy listens.
    pub(crate) fn proxy(&self, index: usize) -> String {
        format!("{}:8081", self.hosts[index])
    }

    /// Writes a route; the answer as it came.
    pub(crate) async fn write(&self, index: usize, name: &str, path: &str) -> Bytes {
        self.call(index, Method::PUT, &format!("/v1/routes/{name}"), document(path).to_string()).await
    }

    pub(crate) async fn put(&self, index: usize, name: &str, path: &str) -> u64 {
        let body: Value = serde_json::from_slice(&self.write(index, name, path).await).unwrap();
        body["revision"].as_u64().unwrap()
    }

    /// When each node published `revision` or a later one first, by the machine's monotonic clock.
    pub(crate) async fn live_at(&self, revision: u64) -> u128 {
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

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdStatus {
    #[prost(message, optional, tag = "1")]
    header: Option<EtcdHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Three etcd members.
pub(crate) struct Etcd {
    channels: Vec<Channel>,
    pub(crate) processes: Processes,
}

impl Etcd {
    /// `None` where etcd is not installed.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Etcd> {
        Command::new("etcd").arg("--version").output().ok()?;
        let directory = directory("etcd");
        let subnet = format!("127.201.{}", std::process::id() % 256);
        let cluster: Vec<String> = (1..=3).map(|n| format!("m{n}=http://{subnet}.{n}:2380")).collect();
        let mut commands = Vec::new();
        for n in 1..=3 {
            let (client, peer) = (format!("http://{subnet}.{n}:2379"), format!("http://{subnet}.{n}:2380"));
            let mut command = Command::new("etcd");
            command.arg("--name").arg(format!("m{n}")).arg("--data-dir").arg(directory.join(format!("m{n}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster.join(","), "--log-level", "error"]);
            command.args(arguments).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(log_file(&directory, &format!("m{n}")));
            commands.push(command);
        }
        let processes = Processes::start(commands, directory);
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

    pub(crate) async fn put(&self, member: usize, key: &str) -> Result<(), tonic::Status> {
        let value = document(&format!("/{key}")).to_string().into_bytes();
        self.unary(member, "/etcdserverpb.KV/Put", EtcdPut { key: key.as_bytes().to_vec(), value }).await
    }

    pub(crate) async fn read(&self, member: usize, key: &str) -> Result<(), tonic::Status> {
        self.unary(member, "/etcdserverpb.KV/Range", EtcdRange { key: key.as_bytes().to_vec() }).await
    }

    /// The index of the member that leads.
    pub(crate) async fn leader(&self) -> Option<usize> {
        for member in 0..3 {
            let Ok(status) = self.call::<_, EtcdStatus>(member, "/etcdserverpb.Maintenance/Status", EtcdAnswer {}).await else {
                continue;
            };
            if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
                return Some(member);
            }
        }
        None
    }

    async fn unary<M: prost::Message + Default + 'static>(
        &self,
        member: usize,
        method: &'static str,
        message: M,
    ) -> Result<(), tonic::Status> {
        self.call::<M, EtcdAnswer>(member, method, message).await.map(|_| ())
    }

    async fn call<M: prost::Message + Default + 'static, A: prost::Message + Default + 'static>(
        &self,
        member: usize,
        method: &'static str,
        message: M,
    ) -> Result<A, tonic::Status> {
        let mut grpc = Grpc::new(self.channels[member].clone());
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<M, A> = ProstCodec::default();
        grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(method), codec).await.map(tonic::Response::into_inner)
    }
}
