//! Changes that go on while something happens to the cluster, and what was acknowledged of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftgate::tls::ClientFiles;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::certificates::builder;
use crate::harness::{Backend, Cluster, Traffic, eventually, route, wait_for_answers};

/// No two changes of one process are the same.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// 100 changes a second, each to a random node: what was acknowledged, and when.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<Acknowledged>,
}

#[derive(Default)]
pub(crate) struct Acknowledged {
    /// Route name -> the path that its acknowledged change gave it.
    pub(crate) routes: BTreeMap<String, String>,
    pub(crate) revisions: Vec<u64>,
    pub(crate) times: Vec<Instant>,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl Acknowledged {
    /// The longest time without an acknowledgement that ends in the two seconds after `moment`.
    pub(crate) fn longest_gap_after(&self, moment: Instant) -> Duration {
        let ends = |time: &Instant| *time > moment && *time < moment + Duration::from_secs(2);
        let gaps = self.times.windows(2).filter(|pair| ends(&pair[1])).map(|pair| pair[1].duration_since(pair[0].max(moment)));
        gaps.max().expect("writes go on within two seconds")
    }
}

impl Writer {
    /// Writes to the admin API at `bases` until it is stopped.
    pub(crate) fn start(bases: Vec<String>) -> Writer {
        Writer::start_with(bases, false)
    }

    /// The same with an idempotency key for each write, so that a node may send one again whose outcome it does not know.
    pub(crate) fn start_idempotent(bases: Vec<String>) -> Writer {
        Writer::start_with(bases, true)
    }

    fn start_with(bases: Vec<String>, is_idempotent: bool) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let task = tokio::spawn(async move {
            // A client of its own for each node, and short deadlines: a dead node must not hold up the others' writes.
            let client = builder(&ClientFiles::default()).timeout(Duration::from_secs(10)).build().unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                let name = format!("r{number}");
                let path = format!("/written/{number}");
                let base = bases[fastrand::usize(..bases.len())].clone();
                let (client, counted) = (client.clone(), Arc::clone(&counted));
                tasks.spawn(async move {
                    let mut request = client.put(format!("{base}/v1/routes/{name}")).json(&route(&path, "backend"));
                    if is_idempotent {
                        request = request.header("idempotency-key", &name);
                    }
                    let answer = request.send().await;
                    let outcome = match answer {
                        Ok(answer) => {
                            let status = answer.status();
                            counted.fetch_add(u64::from(status.is_success()), Ordering::Relaxed);
                            (Some(status), answer.json::<Value>().await.unwrap_or(Value::Null))
                        }
                        // Refused by the kernel: nobody listens there, nothing was sent.
                        Err(error) if error.is_connect() => {
                            (Some(StatusCode::SERVICE_UNAVAILABLE), json!({"outcome": "notApplied"}))
                        }
                        Err(_) => (None, Value::Null),
                    };
                    (name, path, outcome, Instant::now())
                });
            }
            let mut acknowledged = Acknowledged::default();
            while let Some(done) = tasks.join_next().await {
                let (name, path, (status, body), time) = done.unwrap();
                match status {
                    Some(status) if status.is_success() => {
                        acknowledged.revisions.push(body["revision"].as_u64().unwrap());
                        acknowledged.times.push(time);
                        acknowledged.routes.insert(name, path);
                    }
                    Some(_) if body["outcome"] == "notApplied" => acknowledged.refused += 1,
                    Some(_) if body["outcome"] == "unknown" => acknowledged.unknown += 1,
                    None => acknowledged.unknown += 1,
                    Some(status) => panic!("a failed write must say what became of it: {status} {body}"),
                }
            }
            acknowledged.times.sort();
            acknowledged
        });
        Writer { stop, acknowledged: count, task }
    }

    pub(crate) async fn wait_for(&self, acknowledged: u64) {
        let enough = || async { (self.acknowledged.load(Ordering::Relaxed) > acknowledged).then_some(()) };
        eventually("enough acknowledged writes", enough).await;
    }

    pub(crate) async fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Every acknowledged change is there, at every node of `indexes`, and every acknowledged revision was given once.
pub(crate) async fn check_nothing_lost(cluster: &Cluster, indexes: &[usize], acknowledged: &Acknowledged) {
    let mut revisions = acknowledged.revisions.clone();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), acknowledged.revisions.len(), "a revision was acknowledged twice");
    for &index in indexes {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let page = cluster.get(index, &format!("/v1/routes?limit=500{next}")).await.expect("a page of routes");
            for item in page["items"].as_array().unwrap() {
                let value = item["spec"]["rules"][0]["matches"][0]["path"]["value"].as_str().unwrap_or_default();
                found.insert(item["name"].as_str().unwrap().to_owned(), value.to_owned());
            }
            match page["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                _ => break,
            }
        }
        for (name, path) in &acknowledged.routes {
            assert_eq!(found.get(name), Some(path), "node {}: {name} was acknowledged", index + 1);
        }
    }
}

pub(crate) async fn with_backend() -> (Cluster, Backend) {
    let backend = Backend::start("backend").await;
    let cluster = Cluster::start().await;
    cluster.put(0, "/v1/services/backend", &backend.service()).await;
    let revision = cluster.put(1, "/v1/routes/steady", &route("/steady", "backend")).await;
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    (cluster, backend)
}

pub(crate) fn admin_bases(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.admin("")).collect()
}

/// Good answers at each node before a phase of a test may end.
const PHASE_ANSWERS: u64 = 150;

pub(crate) async fn wait_for_traffic(traffic: &[Traffic], length: Duration) {
    tokio::join!(wait_for_answers(traffic, PHASE_ANSWERS), tokio::time::sleep(length));
}
