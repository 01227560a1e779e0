//! `-- soak MINUTES`: requests at 70 % of what the node takes while routes change, for so many minutes.
//!
//! Placed as `-- changes` is: the first node on core 0, everything else on core 1. First come as many changes as fill what is kept of them
//! up to a bound, history and the end of the log, so that memory tells what grows beyond. Then it is measured how many requests come through when
//! each of the connections asks again as soon as it is answered, with the changes going on. Then requests come open loop at 70 % of that;
//! each minute tells of what was asked and failed, how long answers took, and the node's memory and processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::changes::{CONNECTIONS, MEASURED, Pace, backend, change, memory, pin, put_configuration, requests};
use super::nodes::Raftgate;

/// Routes in the table.
const ROUTES: usize = 10_000;
const CHANGES_A_SECOND: u64 = 20;
/// Requests a second meanwhile.
const FILLING_RATE: f64 = 2_000.0;
const SHARE_OF_SATURATION: f64 = 0.7;
/// 48,000 changes: history holds 10,000 revisions, the log 16 MiB.
const CHANGES_A_SECOND_AT_FIRST: u64 = 800;
const TO_FILL: Duration = Duration::from_secs(60);
const TO_SATURATE: Duration = Duration::from_secs(10);
/// How much the node's memory may grow after its first minute, in percent.
const GROWTH_MAX: f64 = 5.0;

/// What one stretch of time gave.
struct Stretch {
    times: Vec<Duration>,
    failed: u64,
}

pub(crate) async fn measure(minutes: u64) {
    let backend = backend().await;
    let raftgate = Arc::new(Raftgate::start(&[]).await);
    put_configuration(&raftgate, ROUTES, [1, 1], backend).await;
    pin(std::process::id(), 1);
    (0..3).for_each(|index| pin(raftgate.processes.id(index), usize::from(index != MEASURED)));
    let stop = Arc::new(AtomicBool::new(false));
    let filling = tokio::spawn(change(Arc::clone(&raftgate), ROUTES, CHANGES_A_SECOND_AT_FIRST, Arc::clone(&stop)));
    let before = memory(&raftgate);
    let filled = stretch(&raftgate, Some(FILLING_RATE), TO_FILL).await;
    stop.store(true, Ordering::Relaxed);
    let changes = filling.await.unwrap();
    let (before, after) = (before as f64 / 1024.0, memory(&raftgate) as f64 / 1024.0);
    println!("{changes} changes at first, {} requests failed: {before:.1} MiB before, {after:.1} after", filled.failed);
    stop.store(false, Ordering::Relaxed);
    let changing = tokio::spawn(change(Arc::clone(&raftgate), ROUTES, CHANGES_A_SECOND, Arc::clone(&stop)));
    let saturated = stretch(&raftgate, None, TO_SATURATE).await;
    let most = saturated.times.len() as f64 / TO_SATURATE.as_secs_f64();
    let rate = most * SHARE_OF_SATURATION;
    println!("saturation: {most:.0} requests a second, {} failed; from now on {rate:.0}", saturated.failed);
    println!("{:>6} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}", "minute", "requests", "failed", "p50 us", "p99 us", "MiB", "CPU %");
    let mut failed = filled.failed + saturated.failed;
    let mut first = None;
    let mut last = 0;
    for minute in 1..=minutes {
        let (begun, cpu) = (Instant::now(), raftgate.processes.cpu_time_of(MEASURED));
        let stretch = stretch(&raftgate, Some(rate), Duration::from_secs(60)).await;
        let cpu = (raftgate.processes.cpu_time_of(MEASURED) - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
        last = memory(&raftgate);
        first.get_or_insert(last);
        failed += stretch.failed;
        let at = |share: f64| stretch.times[(stretch.times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        println!(
            "{minute:>6} {:>9} {:>7} {:>9.0} {:>9.0} {:>9.1} {:>9.0}",
            stretch.times.len(),
            stretch.failed,
            at(0.5),
            at(0.99),
            last as f64 / 1024.0,
            cpu * 100.0
        );
    }
    stop.store(true, Ordering::Relaxed);
    let changes = changing.await.unwrap();
    let growth = (last as f64 / first.unwrap_or(last) as f64 - 1.0) * 100.0;
    let verdict = if failed == 0 && growth <= GROWTH_MAX { "holds" } else { "MISSED" };
    println!("{changes} changes, {failed} requests failed, memory {growth:+.1} % since the first minute: {verdict}");
}

/// Requests over all connections; without a rate each asks as soon as it is answered.
async fn stretch(raftgate: &Arc<Raftgate>, rate: Option<f64>, length: Duration) -> Stretch {
    let failed = Arc::new(AtomicU64::new(0));
    let period = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(CONNECTIONS as f64 / rate));
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        let first = Instant::now() + period * client as u32 / CONNECTIONS as u32;
        let pace = Pace { first, period, length };
        clients.spawn(requests(raftgate.proxy(MEASURED), ROUTES, pace, Arc::clone(&failed)));
    }
    let mut times: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    times.sort();
    Stretch { times, failed: failed.load(Ordering::Relaxed) }
}
