//! Kill -9 of a leader, a follower, all nodes, and a cold start without a quorum: nothing acknowledged is lost, traffic goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Backend, Cluster, Traffic, eventually, expect_body, route, wait_for_answers};

/// 100 changes a second, each to a random node: what was acknowledged, and when.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<Acknowledged>,
}

#[derive(Default)]
struct Acknowledged {
    /// Route name -> the path that its acknowledged change gave it.
    routes: BTreeMap<String, String>,
    revisions: Vec<u64>,
    times: Vec<Instant>,
    refused: u64,
    unknown: u64,
}

impl Acknowledged {
    /// The longest time without an acknowledgement that ends in the two seconds after `moment`.
    fn longest_gap_after(&self, moment: Instant) -> Duration {
        let ends = |time: &Instant| *time > moment && *time < moment + Duration::from_secs(2);
        let gaps = self.times.windows(2).filter(|pair| ends(&pair[1])).map(|pair| pair[1].duration_since(pair[0].max(moment)));
        gaps.max().expect("writes go on within two seconds")
    }
}

impl Writer {
    /// Writes to the admin API at `bases` until it is stopped.
    fn start(bases: Vec<String>) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let task = tokio::spawn(async move {
            // A client of its own for each node, and short deadlines: a dead node must not hold up the others' writes.
            let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            let mut number = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                number += 1;
                let name = format!("r{number}");
                let path = format!("/written/{number}");
                let base = bases[fastrand::usize(..bases.len())].clone();
                let (client, counted) = (client.clone(), Arc::clone(&counted));
                tasks.spawn(async move {
                    let answer = client.put(format!("{base}/v1/routes/{name}")).json(&route(&path, "backend")).send().await;
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

    async fn wait_for(&self, acknowledged: u64) {
        let enough = || async { (self.acknowledged.load(Ordering::Relaxed) > acknowledged).then_some(()) };
        eventually("enough acknowledged writes", enough).await;
    }

    async fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Every acknowledged change is there, at every node of `indexes`, and every acknowledged revision was given once.
async fn check_nothing_lost(cluster: &Cluster, indexes: &[usize], acknowledged: &Acknowledged) {
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

async fn with_backend() -> (Cluster, Backend) {
    let backend = Backend::start("backend").await;
    let cluster = Cluster::start().await;
    cluster.put(0, "/v1/services/backend", &backend.service()).await;
    let revision = cluster.put(1, "/v1/routes/steady", &route("/steady", "backend")).await;
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    (cluster, backend)
}

fn admin_bases(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.admin("")).collect()
}

/// Good answers at each node before a phase of a test may end.
const PHASE_ANSWERS: u64 = 150;

async fn wait_for_traffic(traffic: &[Traffic], length: Duration) {
    tokio::join!(wait_for_answers(traffic, PHASE_ANSWERS), tokio::time::sleep(length));
}

/// Kills the node that `pick` names of (leader, others), under traffic and writes.
async fn kill_one(pick: impl Fn(usize) -> usize) -> Duration {
    let (mut cluster, _backend) = with_backend().await;
    let leader = cluster.leader(0).await;
    let victim = pick(leader);
    let survivors: Vec<usize> = (0..3).filter(|&index| index != victim).collect();
    let traffic: Vec<Traffic> =
        survivors.iter().map(|&index| Traffic::start(cluster.nodes[index].proxy("/steady"), expect_body("backend"))).collect();
    let writer = Writer::start(admin_bases(&cluster));
    // Enough traffic and time before the kill, while the node is gone, and after it came back.
    let phase = |length: Duration| wait_for_traffic(&traffic, length);
    phase(Duration::from_secs(2)).await;
    let killed_at = Instant::now();
    cluster.nodes[victim].kill();
    phase(Duration::from_secs(3)).await;
    cluster.nodes[victim].start();
    cluster.wait_ready(victim).await;
    phase(Duration::from_secs(1)).await;
    writer.wait_for(300).await;
    let acknowledged = writer.finish().await;
    let gap = acknowledged.longest_gap_after(killed_at);
    let last = *acknowledged.revisions.iter().max().unwrap();
    let (revision, digest) = cluster.wait_agreement(&[0, 1, 2], last).await;
    check_nothing_lost(&cluster, &[0, 1, 2], &acknowledged).await;
    for (index, traffic) in survivors.iter().zip(traffic) {
        let (good, failures) = traffic.finish().await;
        assert!(
            failures.is_empty(),
            "node {}: {} of {good} failed: {:?}",
            index + 1,
            failures.len(),
            &failures[..failures.len().min(5)]
        );
    }
    eprintln!(
        "killed node {} (leader was {}): {} writes acknowledged, {} not applied, {} unknown; gap {gap:?}; revision {revision} digest {digest}",
        victim + 1,
        leader + 1,
        acknowledged.routes.len(),
        acknowledged.refused,
        acknowledged.unknown,
    );
    gap
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_nothing_and_writes_go_on() {
    let gap = kill_one(|leader| leader).await;
    assert!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_is_not_missed_and_catches_up() {
    let gap = kill_one(|leader| (leader + 1) % 3).await;
    assert!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_killed_come_back_with_everything_acknowledged() {
    let (mut cluster, _backend) = with_backend().await;
    let writer = Writer::start(admin_bases(&cluster));
    // In the middle of the writes.
    writer.wait_for(200).await;
    cluster.nodes.iter_mut().for_each(crate::harness::Node::kill);
    let acknowledged = writer.finish().await;
    cluster.nodes.iter_mut().for_each(crate::harness::Node::start);
    for index in 0..3 {
        cluster.wait_ready(index).await;
    }
    let last = *acknowledged.revisions.iter().max().unwrap();
    cluster.wait_agreement(&[0, 1, 2], last).await;
    check_nothing_lost(&cluster, &[0, 1, 2], &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_restarted_alone_proxies_its_committed_table() {
    let (mut cluster, _backend) = with_backend().await;
    for number in 0..50 {
        cluster.put(number % 3, &format!("/v1/routes/r{number}"), &route(&format!("/r/{number}"), "backend")).await;
    }
    let (revision, digest) = cluster.wait_agreement(&[0, 1, 2], 52).await;
    // A second of quiet: by then every node has written down what is committed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.nodes.iter_mut().for_each(crate::harness::Node::kill);
    let started = Instant::now();
    cluster.nodes[1].start();
    let url = cluster.nodes[1].proxy("/r/49");
    eventually("the lone node proxies", || async {
        let answer = cluster.client.get(&url).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert_eq!(cluster.table(1).await, Some((revision, digest)));

    let ready = cluster.get(1, "/readyz").await.expect("/readyz answers 200");
    assert!(!ready["warnings"].as_array().unwrap().is_empty(), "{ready}");
    let control = cluster.client.get(cluster.nodes[1].admin("/readyz/control")).send().await.unwrap();
    assert_eq!(control.status(), StatusCode::SERVICE_UNAVAILABLE);
    let control: Value = control.json().await.unwrap();
    assert!(control["reasons"].to_string().contains("quorum") || control["reasons"].to_string().contains("leader"), "{control}");
    let metrics = cluster.client.get(cluster.nodes[1].admin("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("raftgate_raft_has_quorum 0"), "{metrics}");

    let asked = Instant::now();
    let url = cluster.nodes[1].admin("/v1/routes/late");
    let answer = cluster.client.put(url).header("raftgate-timeout", "1s").json(&route("/late", "backend")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["outcome"], "notApplied", "{body}");
    let (status, _) = cluster.call(1, Method::GET, "/v1/routes/late?consistency=local", &Value::Null).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
}
