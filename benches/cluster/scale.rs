//! `-- scale ROUTES...`: what a configuration of that size takes.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::changes::{HOST, MEASURED, backend, put_configuration};
use super::nodes::Raftgate;

/// Between two requests that look whether a node serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) async fn measure(sizes: &[usize]) {
    for &size in sizes {
        measure_size(size, backend().await).await;
    }
}

async fn measure_size(size: usize, backend: SocketAddr) {
    let mut raftgate = Raftgate::start(&[]).await;
    let before = high_water(&raftgate);
    for (what, weights) in [
        ("sent in one call, live on all three nodes", [1, 1]),
        ("sent again, nothing to do", [1, 1]),
        ("sent again, one change", [2, 1]),
        ("sent again, every route changed", [3, 3]),
    ] {
        print(size, what, timed(put_configuration(&raftgate, size, weights, backend)).await);
    }
    let started = Instant::now();
    let mut answer = raftgate.client.get(raftgate.admin(1, "/v1/config")).send().await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        bytes += chunk.len();
    }
    print(size, &format!("read in one call, {} MiB", bytes >> 20), started.elapsed());
    println!("{size:>9} memory of a node at its highest, MiB: {} before, {} after", before >> 10, high_water(&raftgate) >> 10);
    let snapshot = snapshot_bytes(&raftgate).await;
    raftgate.processes.kill(MEASURED);
    let started = Instant::now();
    raftgate.processes.restart(MEASURED);
    serves(&raftgate.proxy(MEASURED), size).await;
    print(
        size,
        &format!("start to the first routed request, snapshot of {} MiB and the log after it", snapshot >> 20),
        started.elapsed(),
    );
    raftgate.wait_ready(MEASURED).await;
    let (stop, failed, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let traffic =
        tokio::spawn(traffic(raftgate.proxy(MEASURED), size, Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&failed)));
    let started = Instant::now();
    let learner = raftgate.join();
    serves(&raftgate.proxy(learner), size).await;
    print(size, "a learner's start to its first routed request", started.elapsed());
    stop.store(true, Ordering::Relaxed);
    traffic.await.unwrap();
    println!(
        "{size:>9} requests through another node meanwhile: {}, failed {}",
        sent.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed)
    );
}

fn print(size: usize, what: &str, time: Duration) {
    println!("{size:>9} {what:<70} {:>8.2} s", time.as_secs_f64());
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let started = Instant::now();
    work.await;
    started.elapsed()
}

/// KiB that the measured node held at most so far.
fn high_water(raftgate: &Raftgate) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", raftgate.processes.id(MEASURED))).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The size of the newest snapshot; the log after it may be as long.
async fn snapshot_bytes(raftgate: &Raftgate) -> u64 {
    let text = raftgate.client.get(raftgate.admin(MEASURED, "/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("raftgate_raft_snapshot_size_bytes "));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

/// Waits until the node at `address` routes.
async fn serves(address: &str, size: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !request(address, size).await {
        assert!(Instant::now() < deadline, "it does not serve");
        sleep(LOOK_INTERVAL).await;
    }
}

async fn request(address: &str, size: usize) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else { return false };
    let Ok((mut sender, connection)) = http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream)).await else {
        return false;
    };
    tokio::spawn(connection);
    let path = format!("/svc-{}/v1/items", fastrand::usize(..size));
    let request = Request::builder().method(Method::GET).uri(path).header("host", HOST).body(Empty::new()).unwrap();
    match sender.send_request(request).await {
        Ok(answer) => answer.status().is_success() && answer.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

async fn traffic(address: String, size: usize, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, failed: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let is_good = request(&address, size).await;
        sent.fetch_add(1, Ordering::Relaxed);
        failed.fetch_add(u64::from(!is_good), Ordering::Relaxed);
    }
}
