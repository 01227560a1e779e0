//! Clusters whose nodes speak TLS, with certificates made by `raftgate certs`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use raftgate::tls::ClientFiles;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::certificates::{Authority, builder, replace, settings};
use crate::harness::{Cluster, Node, eventually, route};

impl Cluster {
    fn tls_dir(&self, index: usize) -> PathBuf {
        self.nodes[index].dir.join("tls")
    }

    /// Files of three nodes that speak TLS, and a client that they know.
    fn prepare_secured() -> (Cluster, Authority) {
        let mut cluster = Cluster::prepare();
        let authority = Authority::create(cluster.path().join("certs"));
        for index in 0..3 {
            let tls = cluster.tls_dir(index);
            fs::create_dir(&tls).unwrap();
            replace(&tls.join("ca.pem"), &authority.ca());
            let node = &mut cluster.nodes[index];
            authority.certify(node.id, &node.host, &tls);
            let (peer, admin) = settings(&tls);
            let text = fs::read_to_string(node.config_file()).unwrap();
            let text =
                text.replace("[cluster]\n", &format!("[cluster]\n{peer}")).replace("[admin]\n", &format!("[admin]\n{admin}"));
            fs::write(node.config_file(), text).unwrap();
            node.scheme = "https";
        }
        cluster.client = authority.client(true);
        cluster.environment = authority.environment().to_vec();
        (cluster, authority)
    }

    /// Does something with a node's files, and waits until it has taken them for its peers and its callers.
    async fn renew(&self, index: usize, change: impl FnOnce(PathBuf)) {
        let node = &self.nodes[index];
        let taken = |section: &str| {
            let log = node.log();
            let lines = log.lines().filter(|line| line.contains("changed certificates are used"));
            lines.filter(|line| line.contains(section)).count()
        };
        let before = ["cluster.tls", "admin.tls"].map(taken);
        change(self.tls_dir(index));
        eventually("changed certificates are taken", || async {
            let now = ["cluster.tls", "admin.tls"].map(taken);
            (now[0] > before[0] && now[1] > before[1]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls_takes_a_new_ca_while_it_runs() {
    let (mut cluster, authority) = Cluster::prepare_secured();
    cluster.nodes.iter_mut().for_each(Node::start);
    for index in 0..3 {
        cluster.wait_ready(index).await;
    }
    let mut revision = 0;
    for index in 0..3 {
        revision = cluster.put(index, "/v1/routes/a", &route(&format!("/{index}"), "none")).await;
    }
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    let (code, status) = cluster.command(1, "cluster status -o json").await;
    assert_eq!(code, Some(0), "{status}");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["members"][0]["adminAddress"], json!(format!("https://{}:9081", cluster.nodes[0].host)));

    // Whoever shows nothing is asked for something, and clear text gets no answer.
    let table = cluster.nodes[0].admin("/v1/table");
    assert_eq!(authority.client(false).get(&table).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let clear = builder(&ClientFiles::default()).timeout(Duration::from_secs(10)).build().unwrap();
    assert!(clear.get(table.replace("https:", "http:")).send().await.is_err());
    assert!(clear.get(&table).send().await.is_err(), "a CA that this client does not know");

    // The new CA beside the old, new certificates, the new CA alone: each on one node after the other.
    let next = Authority::create(cluster.path().join("next"));
    for index in 0..3 {
        cluster.renew(index, |tls| replace(&tls.join("ca.pem"), &(authority.ca() + &next.ca()))).await;
    }
    for index in 0..3 {
        let Node { id, host, .. } = &cluster.nodes[index];
        cluster.renew(index, |tls| next.certify(*id, host, &tls)).await;
    }
    cluster.client = next.client(true);
    cluster.environment = next.environment().to_vec();
    for index in 0..3 {
        cluster.renew(index, |tls| replace(&tls.join("ca.pem"), &next.ca())).await;
        revision = cluster.put(index, "/v1/routes/a", &route(&format!("/next-{index}"), "none")).await;
    }
    assert!(authority.client(true).get(&table).send().await.is_err(), "the old CA counts no more");

    // Connections that stood go on, so what is new shows where nodes meet again.
    for index in 0..3 {
        assert_eq!(cluster.nodes[index].stop(), Some(0));
        cluster.nodes[index].start();
        cluster.wait_ready(index).await;
        revision = cluster.put(index, "/v1/routes/a", &route(&format!("/again-{index}"), "none")).await;
    }
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    let warned = cluster.nodes.iter().flat_map(|node| node.log().lines().map(str::to_owned).collect::<Vec<_>>());
    let refused: Vec<_> = warned.filter(|line| line.contains("connection of a peer refused")).collect();
    assert!(refused.is_empty(), "no peer was refused at any time: {refused:?}");
}

#[tokio::test]
async fn files_that_do_not_fit_are_refused_with_key_and_file() {
    let (cluster, authority) = Cluster::prepare_secured();
    let tls = cluster.tls_dir(0);
    let good = |name: &str| fs::read_to_string(tls.join(name)).unwrap();
    let (cert, key) = (good("node.pem"), good("node-key.pem"));
    let other = |name: &str| fs::read_to_string(authority.path(name)).unwrap();
    let script = [
        (Some(other("node2.pem")), Some(other("node2-key.pem")), &["`node_id`", "is 1", "is for node 2"][..]),
        (Some(cert.clone()), Some(other("node2-key.pem")), &["`cluster.tls.key`", "node-key.pem", "is not the key"]),
        (Some(cert.clone()), None, &["`cluster.tls.key`", "node-key.pem", "cannot be read"]),
        (Some("hello".to_owned()), Some(key), &["`cluster.tls.cert`", "node.pem", "no certificate in PEM"]),
        (
            Some(other("client-tester.pem")),
            Some(other("client-tester-key.pem")),
            &["`cluster.tls.cert`", "names no node", "raftgate certs node"],
        ),
    ];
    for (cert, key, words) in script {
        for (name, text) in [("node.pem", cert), ("node-key.pem", key)] {
            match text {
                Some(text) => replace(&tls.join(name), &text),
                None => fs::remove_file(tls.join(name)).unwrap(),
            }
        }
        let (code, message) = Node::start_and_fail(&cluster.nodes[0].config_file());
        assert_eq!(code, Some(1), "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in the message:\n{message}");
        }
        assert!(!message.contains("panicked"), "{message}");
    }
}
