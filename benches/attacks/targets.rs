//! What is attacked: one node of raftgate, and HAProxy where it is installed, before the same backend.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of `/large`.
const LARGE: usize = 8 << 20;

/// A proxy that runs, on core 0.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    process: Mutex<Child>,
    directory: PathBuf,
}

impl Target {
    /// KiB that the process has for itself, shared pages by their share.
    pub(super) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.lock().unwrap().id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
        pss.unwrap_or(0)
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.process.lock().unwrap().try_wait(), Ok(None))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap();
        let _ = process.kill();
        let _ = process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Puts all threads of a process on one core.
pub(super) fn pin(process: u32, core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    for entry in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let thread = entry.unwrap().file_name().to_string_lossy().parse().unwrap();
        // A thread may have ended meanwhile.
        let _ = sched_setaffinity(Pid::from_raw(thread), &cores);
    }
}

/// The backend and all targets, ready.
pub(super) async fn start() -> (JoinHandle<()>, Vec<Arc<Target>>) {
    let (address, backend) = backend().await;
    let mut targets = vec![Arc::new(raftgate(address).await)];
    match haproxy(address).await {
        Some(target) => targets.push(Arc::new(target)),
        None => println!("HAProxy is not installed (Debian package haproxy): only raftgate is attacked"),
    }
    for target in &targets {
        pin(target.process.lock().unwrap().id(), 0);
    }
    (backend, targets)
}

/// Answers `/large` with many bytes and everything else with 1 KiB.
async fn backend() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (small, large) = (Bytes::from(vec![b'x'; 1024]), Bytes::from(vec![b'x'; LARGE]));
    let accepting = tokio::spawn(async move {
        loop {
            // A flood may take all of this process's files.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (small, large) = (small.clone(), large.clone());
            let serve = service_fn(move |request: Request<Incoming>| {
                let body = if request.uri().path() == "/large" { large.clone() } else { small.clone() };
                async move {
                    // What comes is read, as slowly as it comes.
                    let mut incoming = request.into_body();
                    while let Some(Ok(_)) = incoming.frame().await {}
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    (address, accepting)
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("attacks-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn spawn(command: &mut Command, directory: &Path) -> std::io::Result<Child> {
    let log = fs::File::create(directory.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn raftgate(backend: SocketAddr) -> Target {
    let directory = directory("raftgate");
    let (config, data) = (directory.join("node.toml"), directory.join("data"));
    let text = format!(
        "node_id = 1\ndata_dir = {data:?}\nworkers = 1\nlog = \"warn\"\n[cluster]\nname = \"attacks\"\npeer_address = \"127.0.0.1:0\"\n\
         initial_members = {{ 1 = \"127.0.0.1:0\" }}\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftgate"));
    let process = spawn(command.args(["serve", "--config"]).arg(&config), &directory).unwrap();
    let addresses = eventually("the node's addresses", || async {
        serde_json::from_slice::<Value>(&fs::read(data.join("addresses.json")).ok()?).ok()
    })
    .await;
    let address = |value: &Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
    let admin = address(&addresses["admin"]);
    let service = json!({"endpoints": [{"address": backend.to_string()}]});
    let route = json!({"rules": [{"backendRefs": [{"name": "backend"}]}]});
    for (path, spec) in [("/v1/services/backend", service), ("/v1/routes/all?wait=live", route)] {
        eventually(&format!("PUT {path}"), || put(admin, path, &spec)).await;
    }
    Target { name: "raftgate", address: address(&addresses["listeners"]["default"]), process: Mutex::new(process), directory }
}

async fn put(admin: SocketAddr, path: &str, spec: &Value) -> Option<()> {
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request =
        Request::builder().method(Method::PUT).uri(path).header("host", "admin").header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(spec.to_string()))).ok()?;
    sender.send_request(request).await.ok().filter(|answer| answer.status().is_success()).map(|_| ())
}

/// With the bounds that a listener has by default.
async fn haproxy(backend: SocketAddr) -> Option<Target> {
    let program = ["haproxy", "/usr/sbin/haproxy"].into_iter();
    let program = program.into_iter().find(|program| Command::new(program).arg("-v").stdout(Stdio::null()).status().is_ok())?;
    let directory = directory("haproxy");
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  timeout connect 1s\n\
         \x20 timeout http-request 10s\n  timeout http-keep-alive 60s\n  timeout client 300s\n  timeout server 300s\n\
         frontend gateway\n  bind {address} backlog 1024\n  http-request set-header X-Forwarded-For %[src]\n  default_backend backend\n\
         backend backend\n  server one {backend}\n"
    );
    let config = directory.join("haproxy.cfg");
    fs::write(&config, text).unwrap();
    let process = spawn(Command::new(program).arg("-db").arg("-f").arg(&config), &directory).ok()?;
    eventually("HAProxy's port", || async { TcpStream::connect(address).await.ok() }).await;
    Some(Target { name: "haproxy", address, process: Mutex::new(process), directory })
}
