//! One revision a request: a transaction of two operations is never seen in part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Backend, Cluster, Traffic, route, wait_for_answers};

const MOVES: usize = 60;

/// Good answers at each node after a move, before the next one is sent: however fast the machine, every move is judged.
const ANSWERS_A_MOVE: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_path_moves_from_one_backend_to_another_as_a_whole() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let cluster = Cluster::start().await;
    cluster.put(0, "/v1/services/a", &a.service()).await;
    cluster.put(0, "/v1/services/b", &b.service()).await;
    let first = cluster.put(0, "/v1/routes/old", &route("/moved", "a")).await;
    cluster.wait_agreement(&[0, 1, 2], first).await;

    // Revision -> which backend answers there. Filled in as the moves are acknowledged, judged at the end.
    let truth = Mutex::new(BTreeMap::from([(first, "a")]));
    let seen: Arc<Mutex<BTreeMap<(u64, String), u64>>> = Arc::default();
    let traffic: Vec<Traffic> = (0..3)
        .map(|index| {
            let seen = Arc::clone(&seen);
            Traffic::start(cluster.nodes[index].proxy("/moved"), move |status, revision, body| {
                if status != StatusCode::OK {
                    return Err(format!("{status} {body:?} at {revision:?}"));
                }
                let revision = revision.ok_or("no Raftgate-Revision header")?;
                *seen.lock().unwrap().entry((revision, body.to_owned())).or_default() += 1;
                Ok(())
            })
        })
        .collect();
    let names = ["old", "new"];
    for turn in 0..MOVES {
        let (from, to) = (names[turn % 2], names[(turn + 1) % 2]);
        let service = if turn % 2 == 0 { "b" } else { "a" };
        let move_it = json!({"operations": [
            {"op": "delete", "kind": "Route", "name": from},
            {"op": "put", "kind": "Route", "name": to, "spec": route("/moved", service)},
        ]});
        let (status, body) = cluster.call(turn % 3, Method::POST, "/v1/transactions", &move_it).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        truth.lock().unwrap().insert(body["revision"].as_u64().unwrap(), service);
        wait_for_answers(&traffic, ANSWERS_A_MOVE).await;
    }
    for traffic in traffic {
        let (good, failures) = traffic.finish().await;
        assert!(failures.is_empty(), "{} beside {good} good ones: {failures:?}", failures.len());
    }
    let truth = truth.into_inner().unwrap();
    let seen = seen.lock().unwrap();
    for ((revision, backend), count) in seen.iter() {
        assert_eq!(truth.get(revision), Some(&backend.as_str()), "{count} answers from {backend} at revision {revision}");
    }
    assert!(seen.len() > MOVES / 2, "answers at only {} of {MOVES} revisions", seen.len());
}
