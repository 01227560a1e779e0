//! One node under attack, and beside it HAProxy: `cargo bench --bench attacks`.
//!
//! Slow clients by slowhttptest (heads, bodies, ranges, reading) and floods of HTTP/2 frames, each for a while against one target at a time.
//! Meanwhile a well-behaved client asks 100 times a second over connections that stay open and 20 times a second over new ones, open loop:
//! its time counts from the moment at which a request was due. Told are its median, its 99th percentile and what failed, and the target's
//! memory (PSS) before, at most, and ten seconds after. The target has core 0 and one worker, everything else core 1.
//!
//! `-- NAME ...` runs these attacks alone. `-- idle [COUNT]` measures what a connection costs that stands idle after one request, over that
//! many (default 10,000; `ulimit -n` must allow twice as many files as that).
//!
//! Environment: `SECONDS_PER_ATTACK` (default 60). Needs slowhttptest, and HAProxy for its side (Debian: slowhttptest, haproxy).

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

mod client;
mod floods;
#[expect(dead_code, reason = "the tests of the proxy use more of it")]
#[path = "../../src/proxy/tests/frames.rs"]
mod frames;
mod idle;
mod slow;
mod targets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use client::{Report, Rhythm};
use floods::FLOODS;
use slow::SLOW;
use targets::Target;

/// How long a target is left alone before its memory is read again.
const RECOVERY: Duration = Duration::from_secs(10);

/// What an attack is run with.
#[derive(Clone)]
struct Attack {
    address: std::net::SocketAddr,
    length: Duration,
    stop: Arc<AtomicBool>,
    /// Connections that the attack opened.
    connections: Arc<AtomicU64>,
}

fn print_head() {
    println!(
        "{:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>13} {:>22} {:>8}",
        "attack", "target", "kept p50", "p99 us", "new p50", "p99 us", "failed", "MiB before, most, then", "opened"
    );
}

fn print_row(name: &str, target: &Target, [kept, new]: [Report; 2], memory: [u64; 3], opened: u64) {
    let [before, most, then] = memory.map(|kib| kib as f64 / 1024.0);
    println!(
        "{name:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>13} {:>22} {opened:>8}{}",
        target.name,
        kept.micros(0.5),
        kept.micros(0.99),
        new.micros(0.5),
        new.micros(0.99),
        format!("{} of {}", kept.failed + new.failed, kept.asked() + new.asked()),
        format!("{before:.1} {most:.1} {then:.1}"),
        if target.is_alive() { "" } else { "  DEAD" }
    );
}

/// The most memory that the target had until it is told to stop.
async fn watch_memory(target: Arc<Target>, stop: Arc<AtomicBool>) -> u64 {
    let mut most = target.memory();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(target.memory());
    }
    most
}

async fn attack(name: &str, target: &Arc<Target>, length: Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    let attack = Attack { address: target.address, length, stop: Arc::clone(&stop), connections: Arc::default() };
    let before = target.memory();
    let memory = tokio::spawn(watch_memory(Arc::clone(target), Arc::clone(&stop)));
    let attacking = match (SLOW.iter().find(|slow| slow.name == name), FLOODS.iter().find(|flood| flood.name == name)) {
        (Some(slow), _) => Some(slow.start(&attack)),
        (_, Some(flood)) => Some(flood.start(&attack)),
        (None, None) => None,
    };
    let reports = client::ask([Rhythm::kept(target.address, length), Rhythm::new(target.address, length)]).await;
    stop.store(true, Ordering::Relaxed);
    if let Some(attacking) = attacking {
        tokio::task::spawn_blocking(move || attacking.join().unwrap()).await.unwrap();
    }
    let most = memory.await.unwrap();
    tokio::time::sleep(RECOVERY).await;
    print_row(name, target, reports, [before, most, target.memory()], attack.connections.load(Ordering::Relaxed));
}

#[tokio::main]
async fn main() {
    targets::pin(std::process::id(), 1);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (backend, targets) = targets::start().await;
    if arguments.first().is_some_and(|argument| argument == "idle") {
        let count = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(10_000);
        idle::measure(&targets, count).await;
        return drop(backend);
    }
    let seconds = std::env::var("SECONDS_PER_ATTACK").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let known = ["none"].into_iter().chain(SLOW.iter().map(|slow| slow.name)).chain(FLOODS.iter().map(|flood| flood.name));
    let known: Vec<&str> = known.collect();
    if let Some(unknown) = arguments.iter().find(|name| !known.contains(&name.as_str())) {
        println!("no attack is named {unknown}; there are {}", known.join(", "));
        return;
    }
    print_head();
    for name in known.into_iter().filter(|name| arguments.is_empty() || arguments.iter().any(|given| given == name)) {
        for target in &targets {
            attack(name, target, Duration::from_secs(seconds)).await;
        }
    }
    drop(backend);
}
