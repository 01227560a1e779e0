//! The majority is gone: a survivor begins a new cluster with everything that it had.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{Node, Traffic, bare, eventually, expect_body, route};
use crate::writer::{Writer, admin_bases, check_nothing_lost, wait_for_traffic, with_backend};

/// Runs `raftgate recover` on a node's files; `typed` is what a person answers.
fn recover(node: &Node, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
    let mut command = bare(env!("CARGO_BIN_EXE_raftgate"));
    command.args(["recover", "--config"]).arg(node.config_file()).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn member_ids(status: &Value) -> Vec<u64> {
    status["members"].as_array().unwrap().iter().map(|member| member["id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_survivor_goes_on_as_a_new_cluster_with_everything_acknowledged() {
    let (mut cluster, _backend) = with_backend().await;
    let writer = Writer::start(admin_bases(&cluster));
    writer.wait_for(200).await;
    let acknowledged = writer.finish().await;
    let last = *acknowledged.revisions.iter().max().unwrap();
    let (revision, _) = cluster.wait_agreement(&[0, 1, 2], last).await;
    let survivor = (cluster.leader(0).await + 1) % 3;
    let (returning, lost) = ((survivor + 1) % 3, (survivor + 2) % 3);
    let old_id = cluster.get(survivor, "/v1/cluster").await.unwrap()["clusterId"].as_str().unwrap().to_owned();

    let (code, text) = recover(&cluster.nodes[survivor], &["--yes"], "");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process uses it"), "a node that runs is no survivor: {text}");

    // One member's disk turns up again later; the other's is gone for good.
    for index in [survivor, returning, lost] {
        cluster.nodes[index].kill();
    }
    let (data, aside) = (cluster.nodes[returning].data_dir(), cluster.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    fs::remove_dir_all(cluster.nodes[lost].data_dir()).unwrap();

    for typed in ["", "no\n", "y\n"] {
        let (code, text) = recover(&cluster.nodes[survivor], &[], typed);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("nothing was changed") && text.contains("Lost is"), "{text}");
        assert!(text.contains(&format!("revision:        {revision} with")), "{text}");
    }
    let (code, text) = recover(&cluster.nodes[survivor], &[], "yes\n");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("recovered as cluster") && text.contains("kept as"), "{text}");
    let kept = cluster.nodes[survivor].dir.join(format!("data.before-recovery-{old_id}"));
    assert!(kept.join("log").is_dir(), "{text}");
    let (code, text) = recover(&cluster.nodes[survivor], &["--yes"], "");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is the only voter"), "{text}");

    cluster.nodes[survivor].start();
    cluster.wait_ready(survivor).await;
    let status = cluster.get(survivor, "/v1/cluster").await.unwrap();
    assert_ne!(status["clusterId"].as_str(), Some(old_id.as_str()));
    assert_eq!((member_ids(&status), &status["members"][0]["role"]), (vec![survivor as u64 + 1], &Value::from("voter")));
    check_nothing_lost(&cluster, &[survivor], &acknowledged).await;
    let after = cluster.put(survivor, "/v1/routes/after", &route("/after", "backend")).await;
    assert_eq!(after, revision + 1);
    // It is acknowledged before it is published.
    cluster.wait_agreement(&[survivor], after).await;
    let traffic = [Traffic::start(cluster.nodes[survivor].proxy("/after"), expect_body("backend"))];
    wait_for_traffic(&traffic, std::time::Duration::ZERO).await;

    // An old member comes back, and neither takes part nor disturbs.
    fs::rename(&aside, &data).unwrap();
    cluster.nodes[returning].start();
    eventually("the old member is refused", || async {
        let metrics = cluster.client.get(cluster.nodes[survivor].admin("/metrics")).send().await.ok()?.text().await.ok()?;
        let refused = metrics.lines().find(|line| line.starts_with("raftgate_raft_peer_refusals_total{reason=\"cluster\"}"))?;
        refused.rsplit_once(' ')?.1.parse::<u64>().ok().filter(|&count| count > 3)
    })
    .await;
    let control = cluster.client.get(cluster.nodes[returning].admin("/readyz/control")).send().await.unwrap();
    assert_eq!(control.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(cluster.nodes[returning].stop(), Some(0));

    // Other nodes join anew.
    let new = cluster.join(survivor);
    cluster.wait_ready(new).await;
    let id = cluster.get(new, "/v1/cluster").await.unwrap()["nodeId"].as_u64().unwrap();
    let (code, text) = cluster.command(new, &format!("cluster promote {id}")).await;
    assert_eq!(code, Some(0), "{text}");
    let last = cluster.put(new, "/v1/routes/joined", &route("/joined", "backend")).await;
    cluster.wait_agreement(&[survivor, new], last).await;
    check_nothing_lost(&cluster, &[survivor, new], &acknowledged).await;
    for traffic in traffic {
        let (good, failures) = traffic.finish().await;
        assert!(failures.is_empty(), "{} of {good} failed: {:?}", failures.len(), failures.first());
    }
}
