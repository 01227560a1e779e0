//! Kill -9 of a leader, a follower, all nodes, and a cold start without a quorum: nothing acknowledged is lost, traffic goes on.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Traffic, eventually, expect_body, route};
use crate::writer::{Writer, admin_bases, check_nothing_lost, wait_for_traffic, with_backend};

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
