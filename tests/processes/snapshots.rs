//! A node that was away for so long that the log is gone: it gets a snapshot, and proxies with what it has meanwhile.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Traffic, eventually, expect_body};
use crate::writer::{wait_for_traffic, with_backend};

/// Snapshots that are arriving at a node.
fn arriving(cluster: &Cluster, index: usize) -> usize {
    let Ok(files) = fs::read_dir(cluster.nodes[index].data_dir().join("snapshots")) else { return 0 };
    files.flatten().filter(|file| file.path().extension().is_some_and(|suffix| suffix == "tmp")).count()
}

async fn index_of(cluster: &Cluster, node: usize, what: &str) -> u64 {
    cluster.get(node, "/v1/cluster").await.expect("the cluster's status")[what].as_u64().unwrap()
}

/// Changes of 400 kB, until the leader's log no longer has what the node lacks.
async fn write_past(cluster: &Cluster, leader: usize, index: u64) -> u64 {
    let endpoints: Vec<_> = (0..9_000).map(|n| json!({"address": format!("backend-{n}.example.internal:8080")})).collect();
    let mut number = 0;
    loop {
        number += 1;
        let service = json!({"endpoints": endpoints, "connectTimeout": format!("{number}ms")});
        let revision = cluster.put(leader, &format!("/v1/services/large-{}", number % 12), &service).await;
        if index_of(cluster, leader, "purgedIndex").await > index {
            return revision;
        }
        assert!(number < 400, "the log is never purged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_a_snapshot_arrives_gets_it_anew_and_proxies_all_the_while() {
    let (mut cluster, _backend) = with_backend().await;
    let leader = cluster.leader(0).await;
    let away = (leader + 1) % 3;
    let had = index_of(&cluster, away, "lastLogIndex").await;
    // What is committed is written down within moments; the node shall serve it before it hears of anything later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.nodes[away].kill();
    let revision = write_past(&cluster, leader, had).await;

    cluster.nodes[away].start();
    eventually("a snapshot arrives", || async { (arriving(&cluster, away) > 0).then_some(()) }).await;
    cluster.nodes[away].kill();
    assert!(index_of(&cluster, leader, "purgedIndex").await > had);

    cluster.nodes[away].start();
    let url = cluster.nodes[away].proxy("/steady");
    eventually("it proxies", || async { cluster.client.get(&url).send().await.ok()?.error_for_status().ok() }).await;
    let traffic = [Traffic::start(url, expect_body("backend"))];
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    wait_for_traffic(&traffic, Duration::ZERO).await;
    assert!(index_of(&cluster, away, "snapshotIndex").await > had, "it can only have come by a snapshot");
    eventually("nothing is left of the broken one", || async { (arriving(&cluster, away) == 0).then_some(()) }).await;
    // It counts again: with the leader gone, its vote is needed.
    let [traffic] = traffic;
    let (good, failures) = traffic.finish().await;
    assert!(failures.is_empty(), "{} of {good} failed: {:?}", failures.len(), failures.first());
    cluster.nodes[leader].kill();
    let revision = cluster.put(away, "/v1/routes/after", &crate::harness::route("/after", "backend")).await;
    let other = (0..3).find(|&index| index != leader && index != away).unwrap();
    cluster.wait_agreement(&[away, other], revision).await;
}
