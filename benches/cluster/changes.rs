//! `-- changes ROUTES...`: what proxied requests see of changes, with that many routes in the table.
//!
//! The first node runs alone on core 0; the other nodes, the backend and the load on core 1. Requests come open loop at a fixed rate over
//! connections that stay open, each to a random route; their time counts from the moment at which they were due. Rounds without changes
//! alternate with rounds of 500 changes a second (`CHANGES_A_SECOND`), sent to all nodes in turn, each of which replaces a random route. Then the changes go on for ten
//! minutes; the node's memory is told before the first round, before these minutes and after each. The share of its core that the node uses without
//! changes says how much of its capacity the traffic takes.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::nodes::{Raftgate, cpu_time_of};

pub(super) const HOST: &str = "bench.example.com";
const REQUESTS_A_SECOND: u64 = 2_000;
pub(super) const CONNECTIONS: u64 = 32;
/// Changes under way at once.
const CHANGES_MAX: usize = 256;
/// Routes in one piece of the body that fills the table.
const LOAD_ITEMS: usize = 1_000;
/// The node that is measured.
pub(super) const MEASURED: usize = 0;

/// What a round gave.
struct Round {
    times: Vec<Duration>,
    failed: u64,
    changes: u64,
    /// Of the measured node.
    cpu: Duration,
}

/// How long rounds are, and what they are of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: u64,
    pub(crate) length: Duration,
    /// How long changes go on after the rounds, while memory is looked at.
    pub(crate) changing: Duration,
    pub(crate) changes_a_second: u64,
}

pub(crate) async fn measure(sizes: &[usize], plan: Plan) {
    println!(
        "{:>9} {:<14} {:>9} {:>7} {:>9} {:>9} {:>9} {:>11} {:>7}",
        "routes", "round", "requests", "failed", "p50 us", "p99 us", "p99.9 us", "changes/s", "core %"
    );
    for &size in sizes {
        measure_size(size, plan).await;
    }
}

async fn measure_size(size: usize, plan: Plan) {
    let Plan { rounds, length, changing, changes_a_second } = plan;
    let backend = backend().await;
    let raftgate = Arc::new(Raftgate::start(&[]).await);
    fill(&raftgate, size, backend).await;
    pin(std::process::id(), 1);
    (0..3).for_each(|index| pin(raftgate.processes.id(index), usize::from(index != MEASURED)));
    let (mut still, mut busy) = (Vec::new(), Vec::new());
    let before = memory(&raftgate);
    for _ in 0..rounds {
        still.push(round(&raftgate, size, length, 0).await);
        busy.push(round(&raftgate, size, length, changes_a_second).await);
    }
    print(size, "no changes", still, length);
    print(size, "changes", busy, length);
    let mut told = vec![before, memory(&raftgate)];
    if changing.is_zero() {
        return;
    }
    let watched = async {
        let mut minutes = interval(Duration::from_secs(60));
        minutes.tick().await;
        loop {
            minutes.tick().await;
            told.push(memory(&raftgate));
        }
    };
    let long = tokio::select! {
        long = round(&raftgate, size, changing, changes_a_second) => long,
        () = watched => unreachable!("it goes on for ever"),
    };
    print(size, "changes, on", vec![long], changing);
    let (first, last) = (told[1], memory(&raftgate));
    let told: Vec<u64> = told.into_iter().map(|kibibytes| kibibytes >> 10).collect();
    println!(
        "{size:>9} memory of the node, MiB: {told:?} at first, after the rounds and then by the minute; {} after {} s, {:+.1} % since the rounds",
        last >> 10,
        changing.as_secs(),
        (last as f64 / first as f64 - 1.0) * 100.0
    );
}

/// Answers every request with 1 KiB.
pub(super) async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = Bytes::from(vec![b'x'; 1024]);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let body = body.clone();
            let serve = service_fn(move |_| {
                let answer = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    address
}

fn route(index: usize, weight: u64) -> Value {
    let path = json!({"type": "PathPrefix", "value": format!("/svc-{index}/v1")});
    json!({"hostnames": [HOST], "rules": [{"matches": [{"path": path}], "backendRefs": [{"name": "backend", "weight": weight}]}]})
}

async fn fill(raftgate: &Raftgate, size: usize, backend: SocketAddr) {
    put_configuration(raftgate, size, [1, 1], backend).await;
}

/// Sends the whole configuration in one call, and waits until it is live everywhere. `weights` are that of the first route and of the others.
pub(super) async fn put_configuration(raftgate: &Raftgate, size: usize, weights: [u64; 2], backend: SocketAddr) -> Value {
    let service = json!({"kind": "Service", "name": "backend", "spec": {"endpoints": [{"address": backend.to_string()}]}});
    let item =
        move |index| json!({"kind": "Route", "name": format!("r{index}"), "spec": route(index, weights[usize::from(index > 0)])});
    let chunk = move |first: usize| {
        let items: Vec<String> = (first..size.min(first + LOAD_ITEMS)).map(|index| format!(",\n{}", item(index))).collect();
        items.concat()
    };
    let head = format!("{{\"items\":[{service}");
    let chunks = std::iter::once(head).chain((0..size).step_by(LOAD_ITEMS).map(chunk)).chain(["]}".to_owned()]);
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks.map(Ok::<_, Infallible>)));
    let request =
        raftgate.client.put(raftgate.admin(MEASURED, "/v1/config?wait=live")).header("content-type", "application/json");
    let answer = request.header("raftgate-timeout", "30s").body(body).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success() && body["live"] == true, "{status} {body}");
    body
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

/// KiB that the node's process has for itself, shared pages by their share.
pub(super) fn memory(raftgate: &Raftgate) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", raftgate.processes.id(MEASURED));
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn round(raftgate: &Arc<Raftgate>, size: usize, length: Duration, changes_a_second: u64) -> Round {
    let stop = Arc::new(AtomicBool::new(false));
    let changing =
        (changes_a_second > 0).then(|| tokio::spawn(change(Arc::clone(raftgate), size, changes_a_second, Arc::clone(&stop))));
    let failed = Arc::new(AtomicU64::new(0));
    let cpu_before = cpu_time_of(raftgate.processes.id(MEASURED));
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        let period = Duration::from_secs(1) * CONNECTIONS as u32 / REQUESTS_A_SECOND as u32;
        let first = Instant::now() + period * client as u32 / CONNECTIONS as u32;
        clients.spawn(requests(raftgate.proxy(MEASURED), size, Pace { first, period, length }, Arc::clone(&failed)));
    }
    let mut times: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    let cpu = cpu_time_of(raftgate.processes.id(MEASURED)) - cpu_before;
    times.sort();
    stop.store(true, Ordering::Relaxed);
    let changes = match changing {
        Some(task) => task.await.unwrap(),
        None => 0,
    };
    Round { times, failed: failed.load(Ordering::Relaxed), changes, cpu }
}

/// When one connection asks.
pub(super) struct Pace {
    pub(super) first: Instant,
    /// Zero: as soon as the last is answered.
    pub(super) period: Duration,
    pub(super) length: Duration,
}

/// One connection's requests, and how long after they were due each was answered.
pub(super) async fn requests(address: String, size: usize, pace: Pace, failed: Arc<AtomicU64>) -> Vec<Duration> {
    let Pace { first, period, length } = pace;
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut times = Vec::new();
    let mut due = first;
    while due < first + length {
        sleep_until(due).await;
        let path = format!("/svc-{}/v1/items", fastrand::usize(..size));
        let request = Request::get(path).header("host", HOST).body(Empty::<Bytes>::new()).unwrap();
        let is_good = match sender.send_request(request).await {
            Ok(answer) => answer.status().is_success() && answer.into_body().collect().await.is_ok(),
            Err(_) => false,
        };
        times.push(due.elapsed());
        failed.fetch_add(u64::from(!is_good), Ordering::Relaxed);
        if !is_good && sender.is_closed() {
            return times;
        }
        due = if period.is_zero() { Instant::now() } else { due + period };
    }
    times
}

/// Changes routes until told to stop; answers how many were acknowledged.
pub(super) async fn change(raftgate: Arc<Raftgate>, size: usize, changes_a_second: u64, stop: Arc<AtomicBool>) -> u64 {
    let room = Arc::new(Semaphore::new(CHANGES_MAX));
    let mut tasks = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / changes_a_second as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let permit = Arc::clone(&room).acquire_owned().await.unwrap();
        let target = Arc::clone(&raftgate);
        number += 1;
        let index = fastrand::usize(..size);
        tasks.spawn(async move {
            let document = route(index, fastrand::u64(1..1_000_000)).to_string();
            target.call(number % 3, Method::PUT, &format!("/v1/routes/r{index}"), document).await;
            drop(permit);
        });
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    number as u64
}

fn print(size: usize, what: &str, rounds: Vec<Round>, length: Duration) {
    let seconds = length.as_secs_f64() * rounds.len() as f64;
    let (failed, changes) =
        rounds.iter().fold((0, 0), |(failed, changes), round| (failed + round.failed, changes + round.changes));
    let of = |share: f64| {
        let mut values: Vec<f64> =
            rounds.iter().map(|round| round.times[(round.times.len() as f64 * share) as usize].as_secs_f64() * 1e6).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let cpu: Duration = rounds.iter().map(|round| round.cpu).sum();
    let requests: usize = rounds.iter().map(|round| round.times.len()).sum();
    println!(
        "{size:>9} {what:<14} {requests:>9} {failed:>7} {:>9.0} {:>9.0} {:>9.0} {:>11.0} {:>7.1}",
        of(0.5),
        of(0.99),
        of(0.999),
        changes as f64 / seconds,
        cpu.as_secs_f64() / seconds * 100.0
    );
}
