//! The time without an acknowledged write after the leader was killed. Writes come open loop, one every 5 ms, at the two others in turn; a
//! trial's gap is the longest time between two acknowledgements, or from the kill to the first, in the three seconds after it.
//!
//! raftgate is measured with its default timing, and with heartbeats of 20 ms and elections of 60 to 100 ms.
//! etcd is measured with its default timing and with heartbeats of 50 ms and elections of 300 ms, near to what raftgate has by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::nodes::{Etcd, Raftgate};
use crate::{document, print_times};

const WRITE_INTERVAL: Duration = Duration::from_millis(5);
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(3);

/// Less than a busy machine holds.
const TIGHTER: [(&str, &str); 3] = [
    ("RAFTGATE_CLUSTER__HEARTBEAT", "20ms"),
    ("RAFTGATE_CLUSTER__ELECTION_TIMEOUT_MIN", "60ms"),
    ("RAFTGATE_CLUSTER__ELECTION_TIMEOUT_MAX", "100ms"),
];

/// What can be written to and killed.
trait Target: Send + Sync + 'static {
    /// The node that leads.
    fn leader(&self) -> impl Future<Output = Option<usize>> + Send;
    /// Whether a write at a node was acknowledged.
    fn write(&self, node: usize, key: u64) -> impl Future<Output = bool> + Send;
    fn kill(&self, node: usize);
    fn restart(&self, node: usize);
}

impl Target for Raftgate {
    async fn leader(&self) -> Option<usize> {
        for index in 0..3 {
            let Ok(answer) = self.client.get(self.admin(index, "/v1/cluster")).send().await else { continue };
            let status: Value = answer.json().await.ok()?;
            if let Some(leader) = status["leader"].as_u64() {
                return Some(leader as usize - 1);
            }
        }
        None
    }

    async fn write(&self, node: usize, key: u64) -> bool {
        let url = self.admin(node, &format!("/v1/routes/k{}", key % 1000));
        let answer = self.client.put(url).json(&document(&format!("/{key}"))).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn kill(&self, node: usize) {
        self.processes.kill(node);
    }

    fn restart(&self, node: usize) {
        self.processes.restart(node);
    }
}

impl Target for Etcd {
    async fn leader(&self) -> Option<usize> {
        Etcd::leader(self).await
    }

    async fn write(&self, node: usize, key: u64) -> bool {
        let key = format!("k{}", key % 1000);
        let put = self.put(node, &key);
        tokio::time::timeout(Duration::from_secs(5), put).await.is_ok_and(|result| result.is_ok())
    }

    fn kill(&self, node: usize) {
        self.processes.kill(node);
    }

    fn restart(&self, node: usize) {
        self.processes.restart(node);
    }
}

/// Writes at `nodes` until it is stopped; the times of the acknowledgements.
struct Writes {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Instant>>,
}

impl Writes {
    fn start<T: Target>(target: &Arc<T>, nodes: Vec<usize>) -> Writes {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, target) = (Arc::clone(&stop), Arc::clone(target));
        let task = tokio::spawn(async move {
            let mut writes = JoinSet::new();
            let mut ticks = tokio::time::interval(WRITE_INTERVAL);
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let target = Arc::clone(&target);
                let key = fastrand::u64(..);
                let node = nodes[key as usize % nodes.len()];
                writes.spawn(async move { target.write(node, key).await.then(Instant::now) });
            }
            let mut times: Vec<Instant> = writes.join_all().await.into_iter().flatten().collect();
            times.sort();
            times
        });
        Writes { stop, task }
    }

    async fn finish(self) -> Vec<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// The longest time without an acknowledgement from `moment` on.
fn gap(times: &[Instant], moment: Instant) -> Duration {
    let before = times.iter().rev().find(|time| **time <= moment).copied().into_iter().map(|time| time.max(moment));
    let after: Vec<Instant> = before.chain(times.iter().copied().filter(|time| *time > moment)).collect();
    assert!(after.len() > 10, "no write was acknowledged after it");
    after.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

async fn leader<T: Target>(target: &T) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(leader) = target.leader().await {
            return leader;
        }
        assert!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a node takes writes again.
async fn back<T: Target>(target: &T, node: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !target.write(node, fastrand::u64(..)).await {
        assert!(Instant::now() < deadline, "node {node} does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn kill_leaders<T: Target>(what: &str, target: Arc<T>, trials: u64) {
    let mut gaps = Vec::new();
    for _ in 0..trials {
        let leader = leader(&*target).await;
        let writes = Writes::start(&target, (0..3).filter(|node| *node != leader).collect());
        tokio::time::sleep(BEFORE).await;
        let killed = Instant::now();
        target.kill(leader);
        tokio::time::sleep(AFTER).await;
        gaps.push(gap(&writes.finish().await, killed));
        target.restart(leader);
        back(&*target, leader).await;
    }
    print_times(what, gaps);
}

/// Leadership that moves on request: how long the call takes, and the gap in writes at all nodes.
async fn transfer(target: Arc<Raftgate>, trials: u64) {
    let (mut calls, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        let leader = leader(&*target).await;
        let writes = Writes::start(&target, vec![0, 1, 2]);
        tokio::time::sleep(BEFORE).await;
        let started = Instant::now();
        let body = json!({"id": (leader + 1) % 3 + 1});
        let answer = target.client.post(target.admin(leader, "/v1/cluster/leader")).json(&body).send().await.unwrap();
        calls.push(started.elapsed());
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        tokio::time::sleep(BEFORE).await;
        gaps.push(gap(&writes.finish().await, started));
    }
    print_times("raftgate leader transfer, call", calls);
    print_times("raftgate leader transfer, write gap", gaps);
}

/// All of it.
pub(crate) async fn measure(trials: u64) {
    let raftgate = Arc::new(Raftgate::start(&[]).await);
    transfer(Arc::clone(&raftgate), trials).await;
    kill_leaders("raftgate leader killed, write gap", raftgate, trials).await;
    let tighter = Arc::new(Raftgate::start(&TIGHTER).await);
    kill_leaders("raftgate, 20 and 60-100 ms, write gap", tighter, trials).await;
    for (what, arguments) in [
        ("etcd, default timing", &[][..]),
        ("etcd, 50 and 300 ms", &["--heartbeat-interval", "50", "--election-timeout", "300"][..]),
    ] {
        match Etcd::start(arguments).await {
            Some(etcd) => kill_leaders(&format!("{what}, write gap"), Arc::new(etcd), trials).await,
            None => println!("etcd is not installed (Debian package etcd-server): only raftgate is measured"),
        }
    }
}
