//! Machines come and go: joining, replacing a lost disk, a rolling restart, all under writes and traffic.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Node, Traffic, eventually, expect_body};
use crate::writer::{Writer, admin_bases, check_nothing_lost, wait_for_traffic, with_backend};

/// Runs a command that must succeed.
async fn done(cluster: &Cluster, index: usize, arguments: &str) -> String {
    let (code, text) = cluster.command(index, arguments).await;
    assert_eq!(code, Some(0), "{arguments}: {text}");
    text
}

async fn no_failures(traffic: Vec<Traffic>) {
    for traffic in traffic {
        let (good, failures) = traffic.finish().await;
        let first = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} of {good} failed: {first:?}", failures.len());
    }
}

fn start_traffic(cluster: &Cluster, indexes: &[usize]) -> Vec<Traffic> {
    indexes.iter().map(|&index| Traffic::start(cluster.nodes[index].proxy("/steady"), expect_body("backend"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_replaced_by_a_new_node_while_writes_go_on() {
    let (mut cluster, _backend) = with_backend().await;
    let lost = cluster.leader(0).await;
    let rest: Vec<usize> = (0..3).filter(|&index| index != lost).collect();
    let traffic = start_traffic(&cluster, &rest);
    let writer = Writer::start(rest.iter().map(|&index| cluster.nodes[index].admin("")).collect());
    wait_for_traffic(&traffic, Duration::from_secs(1)).await;
    cluster.nodes[lost].kill();
    fs::remove_dir_all(cluster.nodes[lost].data_dir()).unwrap();
    writer.wait_for(100).await;

    // Under its old id it must not come back, and its message has the steps.
    let (code, text) = Node::start_and_fail(&cluster.nodes[lost].config_file());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("remove it first") && text.contains("--join"), "{text}");
    let removed = done(&cluster, rest[0], &format!("cluster remove {}", lost + 1)).await;
    assert!(removed.contains("never used again"), "{removed}");
    let new = cluster.join(rest[1]);
    cluster.wait_ready(new).await;
    done(&cluster, new, "cluster promote 4").await;
    let (revision, _) = cluster.table(rest[0]).await.unwrap();
    eventually("the new node serves what the others do", || async {
        cluster.table(new).await.filter(|(served, _)| *served >= revision).map(|_| ())
    })
    .await;
    let status = done(&cluster, rest[0], "cluster status").await;
    let voters = status.lines().skip(1).filter(|line| line.contains(" voter ") || line.contains(" leader ")).count();
    assert_eq!(voters, 3, "{status}");

    // The new one counts: the other two are not needed both any more.
    wait_for_traffic(&traffic, Duration::from_secs(1)).await;
    let more = start_traffic(&cluster, &[new]);
    wait_for_traffic(&more, Duration::from_secs(1)).await;
    let acknowledged = writer.finish().await;
    no_failures(traffic).await;
    no_failures(more).await;
    cluster.nodes[rest[0]].kill();
    let members = [rest[1], new];
    let revision = cluster.put(new, "/v1/routes/after", &crate::harness::route("/after", "backend")).await;
    cluster.wait_agreement(&members, revision).await;
    check_nothing_lost(&cluster, &members, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_and_loses_no_write() {
    let (mut cluster, _backend) = with_backend().await;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        // Leadership is handed over each time.
        let index = cluster.leader(0).await;
        let rest: Vec<usize> = (0..3).filter(|&other| other != index).collect();
        let traffic = start_traffic(&cluster, &rest);
        let writer = Writer::start_idempotent(rest.iter().map(|&index| cluster.nodes[index].admin("")).collect());
        wait_for_traffic(&traffic, Duration::from_secs(1)).await;
        let stopped_at = Instant::now();
        assert_eq!(cluster.nodes[index].stop(), Some(0));
        wait_for_traffic(&traffic, Duration::from_secs(2)).await;
        cluster.nodes[index].start();
        cluster.wait_ready(index).await;
        writer.wait_for(200).await;
        let acknowledged = writer.finish().await;
        no_failures(traffic).await;
        gaps.push(acknowledged.longest_gap_after(stopped_at));
        assert_eq!((acknowledged.refused, acknowledged.unknown), (0, 0), "of {} writes", acknowledged.routes.len());
        let last = *acknowledged.revisions.iter().max().unwrap();
        cluster.wait_agreement(&[0, 1, 2], last).await;
        check_nothing_lost(&cluster, &[0, 1, 2], &acknowledged).await;
    }
    eprintln!("rolling restart of the leader, three times: longest time without an acknowledged write {gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request_and_a_removed_node_says_so() {
    let (mut cluster, _backend) = with_backend().await;
    let writer = Writer::start_idempotent(admin_bases(&cluster));
    writer.wait_for(50).await;
    let mut moves = Vec::new();
    for _ in 0..6 {
        let leader = cluster.leader(0).await;
        let next = (leader + 1) % 3;
        let started = Instant::now();
        let moved = done(&cluster, leader, &format!("cluster transfer {}", next + 1)).await;
        assert!(moved.contains("leads"), "{moved}");
        eventually("the new leader is seen", || async { (cluster.leader(leader).await == next).then_some(()) }).await;
        moves.push(started);
    }
    let acknowledged = writer.finish().await;
    assert_eq!((acknowledged.refused, acknowledged.unknown), (0, 0), "of {} writes", acknowledged.routes.len());
    let gap = moves.iter().map(|moved| acknowledged.longest_gap_after(*moved)).max();
    eprintln!("{} leader transfers: longest time without an acknowledged write {gap:?}", moves.len());

    let new = cluster.join(0);
    cluster.wait_ready(new).await;
    cluster.wait_agreement(&[0, 1, 2, new], *acknowledged.revisions.iter().max().unwrap()).await;
    done(&cluster, 0, "cluster remove 4").await;
    eventually("the removed node says so", || async {
        let answer = cluster.client.get(cluster.nodes[new].admin("/readyz/control")).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains("node 4 was removed from the cluster").then_some(())
    })
    .await;
    // It goes on serving what it had.
    let traffic = start_traffic(&cluster, &[new]);
    wait_for_traffic(&traffic, Duration::from_millis(200)).await;
    no_failures(traffic).await;
    assert_eq!(cluster.nodes[new].stop(), Some(0));
}
