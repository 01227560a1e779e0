//! A configuration larger than one transaction: live as a whole or not at all, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Backend, Cluster, Traffic, route, wait_for_answers};

/// More than one transaction takes.
const ROUTES: usize = 12_000;

/// All routes to one service.
fn configuration(services: &[Value], service: &str) -> Value {
    let routes =
        (0..ROUTES).map(|n| json!({"kind": "Route", "name": format!("r{n}"), "spec": route(&format!("/r{n}"), service)}));
    json!({"items": services.iter().cloned().chain(routes).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_configuration_is_live_as_a_whole_though_the_leader_dies() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut cluster = Cluster::start().await;
    let services =
        [("a", &a), ("b", &b)].map(|(name, backend)| json!({"kind": "Service", "name": name, "spec": backend.service()}));
    let configurations = ["a", "b"].map(|service| (service, configuration(&services, service)));
    let (status, made) = cluster.call(0, Method::PUT, "/v1/config?wait=live", &configurations[0].1).await.unwrap();
    assert_eq!((status, &made["operations"]["put"]), (StatusCode::OK, &json!(ROUTES + 2)), "{made}");
    assert_eq!(made["revision"], json!(1));

    // What the first and the last route answered, by revision.
    let seen: Arc<Mutex<BTreeMap<u64, Vec<String>>>> = Arc::default();
    let leader = cluster.leader(0).await;
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    let traffic: Vec<Traffic> = [(first, 0), (first, ROUTES - 1), (second, 0), (second, ROUTES - 1)]
        .into_iter()
        .map(|(node, route)| {
            let seen = Arc::clone(&seen);
            Traffic::start(cluster.nodes[node].proxy(&format!("/r{route}")), move |status, revision, body| {
                let revision = revision.filter(|_| status == StatusCode::OK).ok_or(format!("{status} {body:?}"))?;
                seen.lock().unwrap().entry(revision).or_default().push(body.to_owned());
                Ok(())
            })
        })
        .collect();
    wait_for_answers(&traffic, 1).await;

    // The leader dies while the next one is on its way; sent again, it becomes live.
    let url = cluster.nodes[first].admin("/v1/config?prune=true");
    let request = cluster.client.put(url).header("raftgate-timeout", "15s").json(&configurations[1].1);
    let sent = tokio::spawn(request.send());
    tokio::time::sleep(Duration::from_millis(400)).await;
    cluster.nodes[leader].kill();
    let answer = sent.await.unwrap().unwrap();
    let status = answer.status();
    let told: Value = answer.json().await.unwrap();
    let is_known = status == StatusCode::OK || ["notApplied", "unknown"].iter().any(|outcome| told["outcome"] == *outcome);
    assert!(is_known, "{status} {told}");
    let (status, again) = cluster.call(second, Method::PUT, "/v1/config?prune=true", &configurations[1].1).await.unwrap();
    assert_eq!((status, &again["revision"]), (StatusCode::OK, &json!(2)), "{told} and then {again}");
    cluster.wait_agreement(&[first, second], 2).await;
    wait_for_answers(&traffic, 3).await;
    cluster.nodes[leader].start();
    cluster.wait_agreement(&[0, 1, 2], 2).await;
    for traffic in traffic {
        let (good, failures) = traffic.finish().await;
        assert!(failures.is_empty(), "{} beside {good} good ones: {failures:?}", failures.len());
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&1, &2]);
    for (revision, service) in [(1, "a"), (2, "b")] {
        assert!(seen[&revision].iter().all(|answer| answer == service), "{revision}: {:?}", seen[&revision]);
    }
}
