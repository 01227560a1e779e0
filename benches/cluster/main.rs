//! Agreement, measured: `cargo bench --bench cluster`.
//!
//! Three nodes of the built program as processes on loopback, each with its data on the disk under the target directory and real
//! syncs. Measured: committed writes a second and their latency with 1, 16 and 64 clients; linearizable reads with 64 clients; the
//! time from a write's answer to the change being live on all three nodes, idle and at 500 changes a second, from the nodes' own
//! monotonic stamps of publication. If etcd is installed (Debian package `etcd-server`), three members of it are measured in the same
//! run, in rounds that alternate with ours: its puts carry a value as long as our document, its reads are linearizable. Both clients
//! speak HTTP/2 over one connection a node. The CPU time is that of the three nodes together an operation, without the client's.
//!
//! `-- failover` measures instead how long no write is acknowledged after kill -9 of the leader, and how long leadership takes to move on
//! request. `-- changes 10000 1000000` measures what proxied requests see of 500 changes a second with that many routes, and the memory of
//! the node before and after ten minutes of them. `-- scale 1000000` measures what a configuration of that size takes: to be sent in one call and be live
//! everywhere, to be sent again with one change, to be read; the start of a node from its disk; and a learner that gets it as a snapshot.
//! `-- soak 10` runs for ten minutes at 70 % of saturation while routes change.
//!
//! Environment: `ROUNDS` (default 3), `SECONDS_PER_ROUND` (default 5), `TRIALS` of the failover (default 20), `SECONDS_OF_CHANGES` after the rounds, while memory
//! is looked at (default 600), `CHANGES_A_SECOND` (default 500).

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

mod changes;
mod failover;
mod nodes;
mod scale;
mod soak;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use nodes::{Etcd, Processes, Raftgate};

const CLIENTS: [usize; 3] = [1, 16, 64];

fn monotonic_nanos() -> u128 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u128 * 1_000_000_000 + now.tv_nsec as u128
}

fn document(path: &str) -> Value {
    json!({"hostnames": ["bench.example.com"], "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "backend"}]}]})
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
    // What clients speak TLS with; none is asked to.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (rounds, length) = (setting("ROUNDS", 3), Duration::from_secs(setting("SECONDS_PER_ROUND", 5)));
    if std::env::args().any(|argument| argument == "failover") {
        return failover::measure(setting("TRIALS", 20)).await;
    }
    let given: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![10_000] } else { given.clone() };
    if std::env::args().any(|argument| argument == "changes") {
        let changing = Duration::from_secs(setting("SECONDS_OF_CHANGES", 600));
        let changes_a_second = setting("CHANGES_A_SECOND", 500);
        return changes::measure(&sizes, changes::Plan { rounds, length, changing, changes_a_second }).await;
    }
    if std::env::args().any(|argument| argument == "soak") {
        let minutes = given.first().map_or(10, |minutes| *minutes as u64);
        return soak::measure(minutes).await;
    }
    if std::env::args().any(|argument| argument == "scale") {
        return scale::measure(&sizes).await;
    }
    let raftgate = Arc::new(Raftgate::start(&[]).await);
    let etcd = Etcd::start(&[]).await.map(Arc::new);
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
