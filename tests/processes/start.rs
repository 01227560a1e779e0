//! What refuses to start, and what it says: the message names the thing and the fix.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Cluster, Node, eventually, route};

fn rewrite(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// The node exits with 1 and its message has all of `words`.
fn check_refusal(cluster: &Cluster, index: usize, words: &[&str]) {
    let (code, message) = Node::start_and_fail(&cluster.nodes[index].config_file());
    assert_eq!(code, Some(1), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in the message:\n{message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let cluster = Cluster::prepare();
    let address = format!("{}:8081", cluster.nodes[0].host);
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    check_refusal(&cluster, 0, &["listener", &address]);
}

#[tokio::test]
async fn configuration_errors_name_the_key() {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("node_id = 1", "node_id = \"one\"", &["node_id"]),
        ("node_id = 1", "node_id = 7", &["node_id", "initial_members"]),
        ("node_id = 1", "node_idd = 1", &["node_idd"]),
        ("debug_headers = true", "debug_haeders = true", &["debug_haeders"]),
        ("debug_headers = true", "tls = { client_auth = \"require\" }", &["listener[0].tls.client_auth", "client_ca"]),
        (":9081\"", ":99999\"", &["admin", "address"]),
        ("[cluster]", "[cluster", &["node.toml"]),
        ("[admin]\n", "[admin]\n#", &["admin.address"]),
    ];
    for (from, to, words) in cases {
        let cluster = Cluster::prepare();
        rewrite(&cluster.nodes[0].config_file(), from, to);
        check_refusal(&cluster, 0, words);
    }
    let cluster = Cluster::prepare();
    fs::write(cluster.nodes[0].data_dir(), "no directory").unwrap();
    check_refusal(&cluster, 0, &["data", "it is a file"]);
    fs::remove_file(cluster.nodes[0].config_file()).unwrap();
    check_refusal(&cluster, 0, &["node.toml"]);
}

#[tokio::test]
async fn an_open_address_is_refused_without_protection() {
    for (from, key) in [(":9081\"", "admin"), (":7081\"\ninitial", "peer_address")] {
        let cluster = Cluster::prepare();
        let host = &cluster.nodes[0].host;
        let to = from.to_owned();
        rewrite(&cluster.nodes[0].config_file(), &format!("{host}{from}"), &format!("0.0.0.0{to}"));
        check_refusal(&cluster, 0, &[key, "insecure"]);
    }
}

/// A cluster with some content whose nodes are all stopped.
async fn stopped_cluster() -> Cluster {
    let mut cluster = Cluster::start().await;
    for number in 0..20 {
        cluster.put(number % 3, &format!("/v1/routes/r{number}"), &route("/r", "none")).await;
    }
    for node in &mut cluster.nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.log());
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_data_directory_is_refused() {
    let cluster = stopped_cluster().await;
    let (one, two) = (cluster.nodes[0].data_dir(), cluster.nodes[1].data_dir());
    rewrite(&cluster.nodes[0].config_file(), &format!("{one:?}"), &format!("{two:?}"));
    check_refusal(&cluster, 0, &["node 2", two.to_str().unwrap()]);
    rewrite(&cluster.nodes[1].config_file(), "name = \"test\"", "name = \"another\"");
    check_refusal(&cluster, 1, &["another", "test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_data_directory_is_refused() {
    let cluster = Cluster::start().await;
    // Other addresses, so that it is the directory that stops it.
    let host = cluster.nodes[0].host.clone();
    let second = cluster.path().join("second.toml");
    let text = fs::read_to_string(cluster.nodes[0].config_file()).unwrap();
    let text = text.replace(&format!("{host}:8081"), &format!("{host}:8082")).replace(":9081", ":9082");
    let peer = format!("peer_address = \"{host}:708");
    fs::write(&second, text.replace(&format!("{peer}1"), &format!("{peer}2"))).unwrap();
    let (code, message) = Node::start_and_fail(&second);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("another process"), "{message}");
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_and_says_how_to_replace_the_member() {
    let cluster = stopped_cluster().await;
    // The log's file becomes empty: the damage that sled opens without a word.
    let data = cluster.nodes[0].data_dir();
    let logs: Vec<PathBuf> = files_under(&data).into_iter().filter(|path| path.ends_with("db")).collect();
    assert_eq!(logs.len(), 1, "{:?}", files_under(&data));
    fs::File::options().write(true).open(&logs[0]).unwrap().set_len(0).unwrap();
    check_refusal(&cluster, 0, &["log", "remove"]);

    // Noise all over another node's.
    let data = cluster.nodes[1].data_dir();
    let log = files_under(&data).into_iter().find(|path| path.ends_with("db")).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&log, bytes).unwrap();
    check_refusal(&cluster, 1, &["log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_refused_and_says_how_to_replace_the_member() {
    let mut cluster = Cluster::start().await;
    // Large documents, until the log has grown enough for a snapshot.
    let endpoints: Vec<_> = (0..9_000).map(|n| json!({"address": format!("backend-{n}.example.internal:8080")})).collect();
    for number in 0..14 {
        let service = json!({"endpoints": endpoints, "connectTimeout": format!("{}ms", number + 1)});
        cluster.put(number % 3, &format!("/v1/services/large-{number}"), &service).await;
    }
    eventually("a snapshot", || async { cluster.get(0, "/v1/cluster").await?["snapshotIndex"].as_u64() }).await;
    cluster.nodes[0].kill();
    let snapshots = files_under(&cluster.nodes[0].data_dir().join("snapshots"));
    assert!(!snapshots.is_empty());
    for snapshot in snapshots {
        let mut bytes = fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&snapshot, bytes).unwrap();
    }
    check_refusal(&cluster, 0, &["snapshot", "remove"]);
}
