//! Private keys: in plain text on the way to a node, and nowhere after that.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Cluster, Node, eventually};

/// Certificates that make a configuration larger than one transaction.
const PADS: usize = 75;

/// A certificate for one host, its key, and what would give the key away.
struct Made {
    spec: Value,
    chain_line: String,
    /// Pieces of the key, in base64 and as bytes.
    traces: Vec<Vec<u8>>,
}

fn made(host: &str) -> Made {
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let pem = key.serialize_pem();
    let lines = pem.lines().filter(|line| line.len() > 30 && !line.starts_with('-')).map(|line| line.as_bytes().to_vec());
    // The private scalar, which the certificate does not hold.
    let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let traces = lines.take(1).chain([der[36..68].to_vec()]).collect();
    let chain_line = chain.lines().nth(3).unwrap().to_owned();
    Made { spec: json!({"certificate": chain, "privateKey": pem}), chain_line, traces }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn holds(path: &Path, what: &[u8]) -> bool {
    // A file may be gone by now: the node goes on.
    fs::read(path).is_ok_and(|bytes| bytes.windows(what.len()).any(|window| window == what))
}

/// A certificate with so much text before its chain that some seventy of them are more than one transaction.
fn padded(number: usize, made: &Made, letter: &str) -> (String, Value) {
    let mut spec = made.spec.clone();
    spec["certificate"] = json!(format!("{}\n{}", letter.repeat(62_000), spec["certificate"].as_str().unwrap()));
    (format!("pad-{number}"), spec)
}

/// Makes a sealing key, as an operator would; a second time the file is left alone.
pub(crate) async fn new_key(path: &Path) {
    let run = || tokio::process::Command::new(env!("CARGO_BIN_EXE_raftgate")).args(["secrets", "new-key"]).arg(path).output();
    let output = run().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let again = run().await.unwrap();
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && text.contains("exists"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_private_key_stays_on_any_disk() {
    let mut cluster = Cluster::prepare();
    let (shared, other) = (cluster.path().join("key"), cluster.path().join("other-key"));
    new_key(&shared).await;
    new_key(&other).await;
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        let key = if index == 2 { &other } else { &shared };
        node.environment = vec![("RAFTGATE_SECRETS__KEY_FILE", key.clone()), ("RAFTGATE_LOG", PathBuf::from("debug"))];
        node.start();
    }
    for index in 0..3 {
        cluster.wait_ready(index).await;
    }
    eventually("the second feature level", || async {
        (cluster.get(2, "/v1/cluster").await?["featureLevel"] == json!(2)).then_some(())
    })
    .await;

    // By each way in, at any node that has the key; the last one is staged.
    let certificates = ["one.example", "two.example", "three.example"].map(made);
    cluster.put(0, "/v1/certificates/one", &certificates[0].spec).await;
    let operation = json!({"op": "put", "kind": "Certificate", "name": "two", "spec": certificates[1].spec});
    let (status, answer) = cluster.call(1, Method::POST, "/v1/transactions", &json!({"operations": [operation]})).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    let three = json!({"kind": "Certificate", "name": "three", "spec": certificates[2].spec});
    let pads = (0..PADS).map(|number| padded(number, &certificates[2], "a"));
    let pads = pads.map(|(name, spec)| json!({"kind": "Certificate", "name": name, "spec": spec}));
    let items: Vec<Value> = std::iter::once(three).chain(pads).collect();
    let (status, answer) = cluster.call(0, Method::PUT, "/v1/config", &json!({"items": items})).await.unwrap();
    assert_eq!((status, &answer["operations"]["put"]), (StatusCode::OK, &json!(PADS + 1)), "{answer}");
    let revision = answer["revision"].as_u64().unwrap();
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    for number in 0.. {
        assert!(number < 2 * PADS, "no snapshot was made");
        let (name, spec) = padded(number % PADS, &certificates[2], if number < PADS { "b" } else { "c" });
        cluster.put(0, &format!("/v1/certificates/{name}"), &spec).await;
        if cluster.get(0, "/v1/cluster").await.unwrap()["snapshotIndex"].as_u64() > Some(0) {
            break;
        }
    }

    // The command line takes what it shows for what it is.
    for (name, certificate) in ["one", "two", "three"].iter().zip(&certificates) {
        let (code, yaml) = cluster.command(1, &format!("get certificate {name} -o yaml")).await;
        assert!(code == Some(0) && yaml.contains("secretDigest") && !yaml.contains("sealed"), "{yaml}");
        let file = cluster.path().join("certificate.yaml");
        fs::write(&file, &yaml).unwrap();
        let before = cluster.table(1).await.unwrap();
        let (code, text) = cluster.command(1, &format!("apply -f {}", file.display())).await;
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(cluster.table(1).await.unwrap().0, before.0, "{text}");
        let sent = certificate.spec["privateKey"].as_str().unwrap().lines().nth(1).unwrap();
        assert!(!yaml.contains(sent) && !text.contains(sent), "{yaml}");
    }
    let (code, text) = cluster.command(0, "get certificates").await;
    assert!(code == Some(0) && text.contains("three.example") && text.contains("4096-01-01"), "{text}");

    // The node with another key keeps all of it, and says why it serves none.
    let good = cluster.get(1, "/v1/table").await.unwrap();
    assert_eq!((&good["certificates"], &good["notCompiledCount"]), (&json!(PADS + 3), &json!(0)), "{good}");
    let blind = cluster.get(2, "/v1/table").await.unwrap();
    assert_eq!((&blind["certificates"], &blind["notCompiledCount"]), (&json!(0), &json!(PADS + 3)), "{blind}");
    assert!(blind["notCompiled"][0]["reason"].as_str().unwrap().contains("which this node does not have"), "{blind}");
    assert_eq!(blind["digest"], good["digest"]);
    let metrics = cluster.client.get(cluster.nodes[0].admin("/metrics")).send().await.unwrap().text().await.unwrap();
    let expiry = metrics.lines().filter(|line| line.starts_with("raftgate_certificate_expiry_seconds{")).count();
    assert_eq!(expiry, PADS + 3, "{metrics}");

    let stopped: Vec<_> = cluster.nodes.iter_mut().map(Node::stop).collect();
    assert_eq!(stopped, [Some(0); 3]);
    let mut found = Vec::new();
    cluster.nodes.iter().for_each(|node| files(&node.dir, &mut found));
    for (index, certificate) in certificates.iter().enumerate() {
        for trace in &certificate.traces {
            let leak = found.iter().find(|path| holds(path, trace));
            assert_eq!(leak, None, "certificate {index}: {:?}", String::from_utf8_lossy(trace));
        }
        // What is no secret is found: the files are read as they should be, snapshots too.
        let chain = certificate.chain_line.as_bytes();
        assert!(found.iter().any(|path| holds(path, chain)), "certificate {index}");
        let is_snapshot = |path: &&PathBuf| path.parent().is_some_and(|parent| parent.ends_with("snapshots"));
        assert!(found.iter().filter(is_snapshot).any(|path| holds(path, chain)), "certificate {index} is in no snapshot");
    }

    // From the disk they come alive again; a key file that is gone is told at once.
    cluster.nodes[0].start();
    eventually("the certificates after a restart", || async {
        (cluster.get(0, "/v1/table").await?["certificates"] == json!(PADS + 3)).then_some(())
    })
    .await;
    fs::remove_file(&shared).unwrap();
    let config = fs::read_to_string(cluster.nodes[1].config_file()).unwrap();
    let with_key = cluster.path().join("node2.toml");
    fs::write(&with_key, format!("{config}[secrets]\nkey_file = {shared:?}\n")).unwrap();
    let (code, text) = Node::start_and_fail(&with_key);
    assert!(code == Some(1) && text.contains("`secrets`: key file") && text.contains("No such file"), "{text}");
}
