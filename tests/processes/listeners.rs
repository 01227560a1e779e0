//! SIGHUP: listeners come, change and go while requests are under way.

use std::fs;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::frames::{self, Wire};
use crate::harness::{Backend, Cluster, Traffic, eventually, expect_body, route, wait_for_answers};

/// The node under test.
const NODE: usize = 0;

/// Writes the node's configuration with these listeners, and asks it to read that.
pub(crate) fn configure(cluster: &Cluster, rest: &str, listeners: &[(&str, u16, &str)]) {
    let node = &cluster.nodes[NODE];
    let text = fs::read_to_string(node.config_file()).unwrap();
    let (before, _) = text.split_once("[[listener]]").unwrap();
    let before = before.replace("[cluster]\n", &format!("[cluster]\n{rest}"));
    let listener = |(name, port, options): &(&str, u16, &str)| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"{}:{port}\"\n{options}\n", node.host)
    };
    let listeners: String = listeners.iter().map(listener).collect();
    // Whole or not at all: the node may be reading.
    let file = node.dir.join("node.toml.new");
    fs::write(&file, format!("{before}{listeners}")).unwrap();
    fs::rename(file, node.config_file()).unwrap();
    node.signal(Signal::HUP);
}

/// Waits until the node has taken, or refused, so many configurations.
pub(crate) async fn wait_for_reloads(cluster: &Cluster, result: &str, count: u32) {
    let line = format!("raftgate_config_reloads_total{{result=\"{result}\"}} {count}");
    eventually(&format!("{line}; the log:\n{}", cluster.nodes[NODE].log()), || async {
        let metrics = cluster.client.get(cluster.nodes[NODE].admin("/metrics")).send().await.ok()?.text().await.ok()?;
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await;
}

/// A GET on the client's one connection: status, and whether the answer names the revision and ends the connection.
async fn ask(client: &Client, url: &str) -> Option<(StatusCode, bool, bool)> {
    let answer = client.get(url).send().await.ok()?;
    let has = |name| answer.headers().contains_key(name);
    let found = (answer.status(), has("raftgate-revision"), has("connection"));
    answer.bytes().await.ok()?;
    Some(found)
}

fn one_connection() -> Client {
    Client::builder().pool_max_idle_per_host(1).build().unwrap()
}

#[tokio::test]
async fn listeners_come_change_and_go_without_a_lost_request() {
    let cluster = Cluster::start().await;
    let backend = Backend::start("one").await;
    cluster.put(NODE, "/v1/services/one", &backend.service()).await;
    cluster.put(NODE, "/v1/routes/one?wait=live", &route("/", "one")).await;
    let host = cluster.nodes[NODE].host.clone();
    let (first, second) = (cluster.nodes[NODE].proxy("/"), format!("http://{host}:8082/"));
    let traffic = [Traffic::start(first.clone(), expect_body("one"))];
    let (open, fresh) = (one_connection(), one_connection());
    assert_eq!(ask(&open, &first).await, Some((StatusCode::OK, true, false)));

    // One comes, and another changes: an open connection is answered as it was, and ends; new ones are answered by the new options.
    let both = [("public", 8081, "debug_headers = false"), ("second", 8082, "debug_headers = true")];
    configure(&cluster, "heartbeat = \"60ms\"\n", &both);
    wait_for_reloads(&cluster, "applied", 1).await;
    assert_eq!(ask(&open, &first).await, Some((StatusCode::OK, true, true)));
    assert_eq!(ask(&open, &first).await, Some((StatusCode::OK, false, false)));
    assert_eq!(ask(&fresh, &second).await, Some((StatusCode::OK, true, false)));
    wait_for_answers(&traffic, 20).await;
    let addresses: Value =
        serde_json::from_str(&fs::read_to_string(cluster.nodes[NODE].data_dir().join("addresses.json")).unwrap()).unwrap();
    assert_eq!(addresses["listeners"], json!({"public": format!("{host}:8081"), "second": format!("{host}:8082")}));
    let question = json!({"method": "GET", "url": "http://a.example/", "listener": "second"});
    let (status, answer) = cluster.call(NODE, reqwest::Method::POST, "/v1/explain", &question).await.unwrap();
    assert_eq!((status, &answer["request"]["listener"]), (StatusCode::OK, &json!("second")), "{answer}");
    // What only a restart changes is named.
    assert!(cluster.nodes[NODE].log().contains("cluster.heartbeat"), "{}", cluster.nodes[NODE].log());

    // The same again changes nothing: the connection goes on.
    configure(&cluster, "", &both);
    wait_for_reloads(&cluster, "applied", 2).await;
    assert_eq!(ask(&fresh, &second).await, Some((StatusCode::OK, true, false)));

    // One goes.
    let (good, failures) = traffic.into_iter().next().unwrap().finish().await;
    assert!(good > 0 && failures.is_empty(), "{failures:?}");
    configure(&cluster, "", &both[1..]);
    wait_for_reloads(&cluster, "applied", 3).await;
    assert!(tokio::net::TcpStream::connect(format!("{host}:8081")).await.is_err(), "the port is still open");
    assert_eq!(ask(&fresh, &second).await, Some((StatusCode::OK, true, false)));
    // And comes back on the same port.
    configure(&cluster, "", &both);
    wait_for_reloads(&cluster, "applied", 4).await;
    assert_eq!(ask(&one_connection(), &first).await, Some((StatusCode::OK, false, false)));
}

/// A backend that answers once it may, with a route for everything to it.
struct Slow {
    /// Told when a request came.
    came: Arc<Notify>,
    /// A permit lets a request be answered.
    go: Arc<Semaphore>,
    serving: JoinHandle<()>,
}

impl Slow {
    async fn behind(cluster: &Cluster) -> Slow {
        let (came, go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, wait) = (Arc::clone(&came), Arc::clone(&go));
        let slow = move || async move {
            told.notify_one();
            let _ = wait.acquire().await;
            "slow"
        };
        let serving = tokio::spawn(async move { axum::serve(listener, Router::new().route("/", get(slow))).await.unwrap() });
        cluster.put(NODE, "/v1/services/slow", &json!({"endpoints": [{"address": address}]})).await;
        cluster.put(NODE, "/v1/routes/slow?wait=live", &route("/", "slow")).await;
        Slow { came, go, serving }
    }
}

#[tokio::test]
async fn a_listener_that_goes_finishes_what_is_under_way() {
    let cluster = Cluster::start().await;
    let Slow { came, go, serving } = Slow::behind(&cluster).await;
    let url = cluster.nodes[NODE].proxy("/");
    let asking = tokio::spawn(async move {
        let answer = one_connection().get(url).send().await.unwrap();
        let is_last = answer.headers().get("connection").is_some_and(|value| value == "close");
        (is_last, answer.text().await.unwrap())
    });
    came.notified().await;
    configure(&cluster, "", &[("second", 8082, "")]);
    wait_for_reloads(&cluster, "applied", 1).await;
    assert!(tokio::net::TcpStream::connect(format!("{}:8081", cluster.nodes[NODE].host)).await.is_err());
    go.add_permits(1);
    assert_eq!(asking.await.unwrap(), (true, "slow".to_owned()));
    serving.abort();
}

#[tokio::test]
async fn a_configuration_with_a_fault_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let backend = Backend::start("one").await;
    cluster.put(NODE, "/v1/services/one", &backend.service()).await;
    cluster.put(NODE, "/v1/routes/one?wait=live", &route("/", "one")).await;
    let (open, url) = (one_connection(), cluster.nodes[NODE].proxy("/"));
    let _taken = std::net::TcpListener::bind(format!("{}:8083", cluster.nodes[NODE].host)).unwrap();
    for (count, (options, port, words)) in [
        ("debug_haeders = true", 8082, "debug_haeders"),
        ("idle_timeout = \"1 hour\"", 8082, "listener[0].idle_timeout"),
        // The first can be bound, and the second not.
        ("[[listener]]\nname = \"third\"\naddress = \"HOST:8083\"", 8082, "listener[1].address"),
    ]
    .into_iter()
    .enumerate()
    {
        let options = options.replace("HOST", &cluster.nodes[NODE].host);
        configure(&cluster, "", &[("second", port, &options)]);
        wait_for_reloads(&cluster, "refused", count as u32 + 1).await;
        assert!(cluster.nodes[NODE].log().contains(words), "{words:?} is not in the log:\n{}", cluster.nodes[NODE].log());
        assert_eq!(ask(&open, &url).await, Some((StatusCode::OK, true, false)), "{options}");
        assert!(tokio::net::TcpStream::connect(format!("{}:{port}", cluster.nodes[NODE].host)).await.is_err());
    }
    // The process has not become another one meanwhile, and stops in order.
    assert_eq!(cluster.nodes[NODE].stop(), Some(0));
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_says_so_on_connections_of_http2_and_answers_what_is_under_way() {
    let mut cluster = Cluster::start().await;
    let Slow { came, go, serving } = Slow::behind(&cluster).await;
    let proxy = format!("{}:8081", cluster.nodes[NODE].host).parse().unwrap();
    let asking = tokio::task::spawn_blocking(move || {
        let mut wire = Wire::open(proxy);
        wire.send(&frames::get(1, "/"));
        let goaway = std::iter::from_fn(|| wire.frame()).find(|frame| frame.kind == frames::GOAWAY);
        // The answer comes after it is told.
        go.add_permits(1);
        let outcome = wire.outcome(1);
        // The connection ends, and not by this side's patience.
        while wire.frame().is_some() {}
        (goaway.map(|frame| frame.number(4)), outcome, matches!(wire.stream.read(&mut [0]), Ok(0)))
    });
    came.notified().await;
    cluster.nodes[NODE].signal(Signal::TERM);
    let (code, outcome, is_at_end) = asking.await.unwrap();
    assert_eq!((code, outcome, is_at_end), (Some(0), frames::Outcome::Status(200), true));
    assert_eq!(cluster.nodes[NODE].exit_code(), Some(0));
    serving.abort();
}
