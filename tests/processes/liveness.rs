//! `wait=live`, minimal revisions, and what a paused follower does to them.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;

use crate::harness::{Backend, Cluster, route};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_is_served_everywhere_when_it_is_answered() {
    let backend = Backend::start("backend").await;
    let cluster = Cluster::start().await;
    cluster.put(0, "/v1/services/backend", &backend.service()).await;
    for number in 0..30 {
        let path = format!("/live/{number}");
        let write = format!("/v1/routes/r{number}?wait=live");
        let (status, body) = cluster.call(number % 3, Method::PUT, &write, &route(&path, "backend")).await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body}");
        assert_eq!(body["live"], true, "{body}");
        assert_eq!(body["members"].as_array().map(Vec::len), Some(3), "{body}");
        for node in &cluster.nodes {
            let answer = cluster.client.get(node.proxy(&path)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "node {} right after the answer", node.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_follower_is_listed_as_not_live_after_a_second() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(0).await;
    let paused = (leader + 1) % 3;
    cluster.nodes[paused].signal(Signal::STOP);
    let asked = Instant::now();
    let answer = cluster.call(leader, Method::PUT, "/v1/routes/r?wait=live", &route("/r", "none")).await;
    let took = asked.elapsed();
    cluster.nodes[paused].signal(Signal::CONT);
    let (status, body) = answer.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["live"], false, "{body}");
    // Its silence counts from its last answer, which may be one poll (100 ms) older than the pause.
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "it took {took:?}");
    for member in body["members"].as_array().unwrap() {
        let is_paused = member["id"] == cluster.nodes[paused].id;
        assert_eq!(member["live"], !is_paused, "{body}");
        assert_eq!(member["reason"].is_string(), is_paused, "{body}");
    }
    // It was only slow: it catches up, and then a write is live everywhere.
    cluster.wait_agreement(&[0, 1, 2], body["revision"].as_u64().unwrap()).await;
    let (_, body) = cluster.call(paused, Method::PUT, "/v1/routes/r2?wait=live", &route("/r2", "none")).await.unwrap();
    assert_eq!(body["live"], true, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_revision_is_waited_for_at_any_node() {
    let cluster = Cluster::start().await;
    for number in 0..20 {
        let revision = cluster.put(number % 3, &format!("/v1/routes/r{number}"), &route("/r", "none")).await;
        let reader = (number + 1) % 3;
        let url = cluster.nodes[reader].admin("/v1/table?consistency=local");
        let answer = cluster.client.get(url).header("raftgate-min-revision", revision.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let served: u64 = answer.headers()["raftgate-revision"].to_str().unwrap().parse().unwrap();
        assert!(served >= revision, "{served} is older than {revision}");
    }
    let url = cluster.nodes[0].admin("/v1/table?consistency=local");
    let future = cluster.client.get(&url).header("raftgate-min-revision", "1000000").header("raftgate-timeout", "200ms");
    assert_eq!(future.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let foreign = cluster.client.get(&url).header("raftgate-min-revision", "1").header("raftgate-cluster", "another");
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_hands_over_and_exits_with_zero() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader(0).await;
    cluster.put(leader, "/v1/routes/r", &route("/r", "none")).await;
    assert_eq!(cluster.nodes[leader].stop(), Some(0), "{}", cluster.nodes[leader].log());
    let other = (leader + 1) % 3;
    let asked = Instant::now();
    cluster.put(other, "/v1/routes/r2", &route("/r2", "none")).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}
