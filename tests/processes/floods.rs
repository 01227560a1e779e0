//! Floods of calls at the leader's admin API: they cost neither its leadership nor unbounded memory. And the flood of lines that a dead
//! peer would make in the log.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use raftgate::tls::ClientFiles;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::certificates::builder;
use crate::harness::{Cluster, eventually};

/// Services that lists and transactions are about.
const SERVICES: usize = 3000;

fn put(name: usize, note_bytes: usize) -> Value {
    let hosts: Vec<Value> =
        (0..1 + note_bytes / 32).map(|host| json!({"address": format!("10.1.{}.{}:8080", host / 250, host % 250)})).collect();
    json!({"op": "put", "kind": "Service", "name": format!("s{name}"), "spec": {"endpoints": hosts}})
}

async fn fill(cluster: &Cluster, index: usize) {
    for first in (0..SERVICES).step_by(500) {
        let operations: Vec<Value> = (first..first + 500).map(|name| put(name, 0)).collect();
        let (status, body) =
            cluster.call(index, Method::POST, "/v1/transactions", &json!({"operations": operations})).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
    }
}

/// Elections that the machine is not to blame for, as all nodes count them.
async fn elections(cluster: &Cluster) -> u64 {
    let mut count = 0;
    for node in &cluster.nodes {
        let text = cluster.client.get(node.admin("/metrics")).send().await.unwrap().text().await.unwrap();
        let counted = text.lines().find_map(|line| line.strip_prefix("raftgate_raft_elections_total{starved=\"false\"} "));
        count += counted.map_or(0, |counted| counted.parse::<u64>().unwrap());
    }
    count
}

/// What came of a flood, by status; nothing for a call without an answer.
#[derive(Debug, Default)]
struct Answers {
    statuses: Vec<StatusCode>,
    without_retry_after: usize,
}

impl Answers {
    fn count(&self, wanted: StatusCode) -> usize {
        self.statuses.iter().filter(|status| **status == wanted).count()
    }
}

/// Makes `total` calls, `at_once` of them at any time.
async fn flood(url: &str, method: Method, body: &str, at_once: usize, total: usize) -> Answers {
    let client: Client = builder(&ClientFiles::default()).timeout(std::time::Duration::from_secs(60)).build().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    let mut callers = JoinSet::new();
    for _ in 0..at_once {
        let (client, made, url, method, body) = (client.clone(), Arc::clone(&made), url.to_owned(), method.clone(), body.clone());
        callers.spawn(async move {
            let mut answers = Answers::default();
            while made.fetch_add(1, Ordering::Relaxed) < total {
                let request = client.request(method.clone(), &url).header("content-type", "application/json").body(body.clone());
                let Ok(answer) = request.send().await else { continue };
                let is_refused = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
                answers.without_retry_after += usize::from(is_refused && !answer.headers().contains_key("retry-after"));
                answers.statuses.push(answer.status());
                // The whole answer, or the node has not written it.
                let _ = answer.bytes().await;
            }
            answers
        });
    }
    let mut all = Answers::default();
    while let Some(answers) = callers.join_next().await {
        let answers = answers.unwrap();
        all.statuses.extend(answers.statuses);
        all.without_retry_after += answers.without_retry_after;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_calls_at_the_leader_cost_it_no_leadership() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(0).await;
    fill(&cluster, leader).await;
    let leader = cluster.leader(leader).await;
    let before = elections(&cluster).await;
    let node = &cluster.nodes[leader];
    let lists = flood(&node.admin("/v1/services?limit=200"), Method::GET, "", 200, 2000).await;
    assert!(lists.count(StatusCode::OK) > 0, "{lists:?}");
    // Each has faults all over.
    let wrong: Vec<Value> =
        (0..1000).map(|name| json!({"op": "put", "kind": "Service", "name": format!("s{name}"), "spec": {"x": 1}})).collect();
    let wrong = json!({"operations": wrong}).to_string();
    let refused = flood(&node.admin("/v1/transactions"), Method::POST, &wrong, 200, 1000).await;
    assert!(refused.count(StatusCode::UNPROCESSABLE_ENTITY) > 0, "{refused:?}");
    // What the canary calls the machine's fault is counted apart.
    assert_eq!(elections(&cluster).await, before, "elections; the leader's log:\n{}", node.log());
}

/// The most memory that a process has held, in MiB.
fn memory_peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// More bodies at once than a node takes: 59 MB.
#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_in_great_number_are_served_or_refused_early_in_bounded_memory() {
    const PEAK_MIB_MAX: u64 = 500;
    let cluster = Cluster::start().await;
    let leader = cluster.leader(0).await;
    fill(&cluster, leader).await;
    let operations: Vec<Value> = (0..60).map(|name| put(name, 1450)).collect();
    let body = json!({"operations": operations}).to_string();
    assert!((80_000..120_000).contains(&body.len()), "{} bytes", body.len());
    let node = &cluster.nodes[leader];
    let answers = flood(&node.admin("/v1/transactions"), Method::POST, &body, 600, 1200).await;
    let (served, refused) = (answers.count(StatusCode::OK), answers.count(StatusCode::SERVICE_UNAVAILABLE));
    let peak = memory_peak_mib(node.pid());
    eprintln!("{served} served, {refused} refused, {} in all; peak {peak} MiB", answers.statuses.len());
    assert!(served > 0, "{:?}", answers.statuses);
    assert_eq!(answers.without_retry_after, 0);
    assert!(peak < PEAK_MIB_MAX, "the node held {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_told_once_and_once_more_when_it_is_back() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader(0).await;
    let dead = (leader + 1) % 3;
    cluster.nodes[dead].kill();
    let lines = |cluster: &Cluster, part: &str| cluster.nodes[leader].log().lines().filter(|line| line.contains(part)).count();
    let warned = lines(&cluster, " WARN ");
    eventually("it is told", || async { (lines(&cluster, "peer unreachable") > 0).then_some(()) }).await;
    // Appends to it fail as often as heartbeats do.
    for number in 0..100 {
        cluster.put(leader, &format!("/v1/services/s{number}"), &json!({"endpoints": [{"address": "10.0.0.1:80"}]})).await;
    }
    assert_eq!(lines(&cluster, "peer unreachable"), 1, "{}", cluster.nodes[leader].log());
    let more = lines(&cluster, " WARN ") - warned;
    assert!(more <= 10, "{more} warnings:\n{}", cluster.nodes[leader].log());
    cluster.nodes[dead].start();
    eventually("it is back", || async { (lines(&cluster, "peer reachable again") == 1).then_some(()) }).await;
}
