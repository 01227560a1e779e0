//! Slow and failing syncs, by a library put before the C library's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Backend, Cluster, Node, Traffic, eventually, expect_body, route, wait_for_answers};
use crate::writer::{Writer, check_nothing_lost};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int asked(const char *what) {
    char path[4096];
    const char *directory = getenv("SYNC_SHIM");
    if (!directory) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, what);
    return access(path, F_OK) == 0;
}

static int act(void) {
    if (asked("slow")) usleep(200000);
    if (asked("fail")) { errno = EIO; return -1; }
    return 0;
}

int fsync(int fd) { return act() ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return act() ? -1 : (int)syscall(SYS_fdatasync, fd); }
"#;

/// Builds the library; `None`, said aloud, where there is no C compiler.
fn shim(directory: &Path) -> Option<PathBuf> {
    let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
    fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    if built.is_ok_and(|status| status.success()) {
        return Some(library);
    }
    eprintln!("not run: there is no C compiler (cc) for the library that delays and fails syncs");
    None
}

/// Three nodes behind the library.
async fn with_shim() -> Option<(Cluster, Backend)> {
    let mut cluster = Cluster::prepare();
    let library = shim(cluster.path())?;
    for node in &mut cluster.nodes {
        node.environment = vec![("LD_PRELOAD", library.clone()), ("SYNC_SHIM", node.dir.clone())];
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    for index in 0..3 {
        cluster.wait_ready(index).await;
    }
    let backend = Backend::start("backend").await;
    cluster.put(0, "/v1/services/backend", &backend.service()).await;
    let revision = cluster.put(1, "/v1/routes/steady", &route("/steady", "backend")).await;
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    Some((cluster, backend))
}

async fn terms(cluster: &Cluster) -> Vec<Option<u64>> {
    let mut terms = Vec::new();
    for index in 0..3 {
        terms.push(cluster.get(index, "/v1/cluster").await.and_then(|status| status["term"].as_u64()));
    }
    terms
}

/// A transaction of nearly as many bytes as one may have: 66 routes of 60 long paths each.
fn largest_transaction() -> Value {
    let path = |route: usize, n: usize| format!("/{route}/{n}/{}", "x".repeat(1000));
    let rule = |route: usize, first: usize| {
        let matches = (first..first + 5).map(|n| json!({"path": {"type": "Exact", "value": path(route, n)}}));
        json!({"matches": matches.collect::<Vec<_>>(), "backendRefs": [{"name": "backend"}]})
    };
    let operations = (0..66).map(|route| {
        let rules: Vec<Value> = (0..60).step_by(5).map(|first| rule(route, first)).collect();
        json!({"op": "put", "kind": "Route", "name": format!("r{route}"), "spec": {"rules": rules}})
    });
    json!({"operations": operations.collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_transaction_commits_without_an_election_while_every_sync_takes_200_ms() {
    let Some((cluster, _backend)) = with_shim().await else { return };
    let before = terms(&cluster).await;
    for node in &cluster.nodes {
        fs::write(node.dir.join("slow"), "").unwrap();
    }
    let transaction = largest_transaction();
    let bytes = transaction.to_string().len();
    assert!(bytes > 4_000_000, "{bytes}");
    let url = cluster.nodes[(cluster.leader(0).await + 1) % 3].admin("/v1/transactions");
    let started = std::time::Instant::now();
    let answer = cluster.client.post(url).header("raftgate-timeout", "20s").json(&transaction).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
    eprintln!("a transaction of {bytes} bytes with syncs of 200 ms: {:?}", started.elapsed());
    cluster.wait_agreement(&[0, 1, 2], body["revision"].as_u64().unwrap()).await;
    assert_eq!(terms(&cluster).await, before, "an election");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_a_leaders_part_in_raft_for_good() {
    let Some((mut cluster, _backend)) = with_shim().await else { return };
    let failing = cluster.leader(0).await;
    let rest: Vec<usize> = (0..3).filter(|&index| index != failing).collect();
    let traffic: Vec<Traffic> =
        (0..3).map(|index| Traffic::start(cluster.nodes[index].proxy("/steady"), expect_body("backend"))).collect();
    let writer = Writer::start((0..3).map(|index| cluster.nodes[index].admin("")).collect());
    writer.wait_for(50).await;
    fs::write(cluster.nodes[failing].dir.join("fail"), "").unwrap();
    eventually("the others have a leader", || async {
        let leader = cluster.get(rest[0], "/v1/cluster").await?["leader"].as_u64()?;
        (leader != failing as u64 + 1).then_some(())
    })
    .await;
    // The disk is well again; what the process lost sight of stays lost to it.
    fs::remove_file(cluster.nodes[failing].dir.join("fail")).unwrap();
    wait_for_answers(&traffic, 100).await;
    writer.wait_for(200).await;
    let control = cluster.client.get(cluster.nodes[failing].admin("/readyz/control")).send().await.unwrap();
    let control = control.text().await.unwrap();
    assert!(control.contains("storage failed"), "{control}");
    let (status, refused) = cluster.call(failing, Method::PUT, "/v1/routes/late", &route("/late", "backend")).await.unwrap();
    assert_eq!((status, &refused["outcome"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("notApplied")), "{refused}");
    let acknowledged = writer.finish().await;
    for traffic in traffic {
        let (good, failures) = traffic.finish().await;
        assert!(failures.is_empty(), "{} of {good} failed: {:?}", failures.len(), failures.first());
    }
    cluster.nodes[failing].kill();
    cluster.nodes[failing].start();
    cluster.wait_ready(failing).await;
    let last = *acknowledged.revisions.iter().max().unwrap();
    cluster.wait_agreement(&[0, 1, 2], last).await;
    check_nothing_lost(&cluster, &[0, 1, 2], &acknowledged).await;
}
