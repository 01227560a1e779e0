//! Nodes of this version and of the next one in one cluster.

use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Cluster, eventually, route};

/// The program of the next version, which `.ci/run` builds beside this one; `None`, said aloud, where it is not there.
fn next_version() -> Option<PathBuf> {
    let next = PathBuf::from(env!("CARGO_BIN_EXE_raftgate")).with_file_name("raftgate-next");
    if next.exists() {
        return Some(next);
    }
    eprintln!("not run: {} is missing; cargo build --features next-format makes a raftgate to be copied there", next.display());
    None
}

/// Stops a node and starts it again as another version.
async fn upgrade(cluster: &mut Cluster, index: usize, program: &Path) {
    assert_eq!(cluster.nodes[index].stop(), Some(0));
    start_as(cluster, index, program);
    cluster.wait_ready(index).await;
}

/// Starts a node, which does not run, as another version.
fn start_as(cluster: &mut Cluster, index: usize, program: &Path) {
    cluster.nodes[index].program = program.to_owned();
    cluster.nodes[index].start();
}

/// All nodes have one State digest at one revision.
async fn one_state(cluster: &Cluster) {
    eventually("one State digest", || async {
        let mut digests = Vec::new();
        for index in 0..3 {
            let status = cluster.get(index, "/v1/cluster").await?;
            assert_eq!(status["diverged"], serde_json::Value::Null, "{status}");
            digests.push((status["appliedIndex"].as_u64()?, status["stateDigest"].as_str()?.to_owned()));
        }
        digests.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_agree_until_all_know_the_next_level() {
    let Some(next) = next_version() else { return };
    let mut cluster = Cluster::start().await;
    for number in 0..30 {
        cluster.put(number % 3, &format!("/v1/routes/r{number}"), &route(&format!("/r/{number}"), "none")).await;
    }
    let new = cluster.leader(0).await;
    let old = (new + 1) % 3;
    upgrade(&mut cluster, new, &next).await;
    for number in 0..30 {
        cluster.put(number % 3, &format!("/v1/routes/s{number}"), &route(&format!("/s/{number}"), "none")).await;
    }
    one_state(&cluster).await;

    // The new command is refused at a node that knows it, until the cluster is raised; and it cannot be while some do not know it.
    let note = json!({"text": "hello"});
    let (status, problem) = cluster.call(new, Method::PUT, "/v1/note", &note).await.unwrap();
    assert_eq!((status, &problem["outcome"]), (StatusCode::CONFLICT, &json!("notApplied")), "{problem}");
    assert!(problem["detail"].to_string().contains("raise-feature-level 3"), "{problem}");
    let (code, text) = cluster.command(new, "cluster raise-feature-level 3").await;
    assert!(code == Some(1) && text.contains("upgrade it first"), "{text}");
    let (code, text) = cluster.command(old, "cluster raise-feature-level 3").await;
    assert!(code == Some(1) && text.contains("knows feature levels up to 2"), "{text}");
    one_state(&cluster).await;

    for index in (0..3).filter(|&index| index != new) {
        upgrade(&mut cluster, index, &next).await;
    }
    let (code, text) = cluster.command(old, "cluster raise-feature-level 3").await;
    assert!(code == Some(0) && text.contains("feature level 3"), "{text}");
    let (status, answer) = cluster.call(old, Method::PUT, "/v1/note", &note).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    one_state(&cluster).await;
    let status = cluster.get(new, "/v1/cluster").await.unwrap();
    assert_eq!((&status["note"], &status["featureLevel"]), (&json!("hello"), &json!(3)));

    // There is no way back to a version that does not know the level: it says so, serves what it has, and votes no more.
    assert_eq!(cluster.nodes[old].stop(), Some(0));
    start_as(&mut cluster, old, Path::new(env!("CARGO_BIN_EXE_raftgate")));
    eventually("the old version says why it cannot follow", || async {
        let control = cluster.client.get(cluster.nodes[old].admin("/readyz/control")).send().await.ok();
        let told = match control {
            Some(answer) => answer.text().await.ok()?,
            None => cluster.nodes[old].log(),
        };
        told.contains("the cluster is at feature level 3, this version knows up to 2: run a later version").then_some(())
    })
    .await;
    cluster.nodes[old].kill();
    start_as(&mut cluster, old, &next);
    cluster.wait_ready(old).await;
    one_state(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_serves_the_kinds_of_the_level_that_all_its_members_know() {
    let cluster = Cluster::start().await;
    let calls = json!({"rules": [{"matches": [{"method": {"service": "shop.Orders"}}], "backendRefs": [{"name": "none"}]}]});
    eventually("the second feature level", || async {
        (cluster.get(2, "/v1/cluster").await?["featureLevel"] == json!(2)).then_some(())
    })
    .await;
    let revision = cluster.put(1, "/v1/grpcroutes/calls", &calls).await;
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    let (code, text) = cluster.command(2, "get grpcroutes").await;
    assert!(code == Some(0) && text.contains("calls"), "{text}");
    let answer = cluster.client.post(cluster.nodes[0].proxy("/shop.Orders/Get")).header("content-type", "application/grpc");
    let answer = answer.send().await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["grpc-status"]), (StatusCode::OK, &"14".parse().unwrap()));
    one_state(&cluster).await;
}
