//! Three nodes in one process, on loopback, on real disks.

mod bootstrap;
mod divergence;
mod failures;
mod leadership;
mod members;
mod secured;
mod snapshots;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::model::{
    Command, CommandBody, IdempotencyKey, Kind, Name, NodeId, Operation, Outcome, Published, ResourceKey, Revision, State,
    Timestamp, Transaction,
};
use crate::observe::{Metrics, SchedulingGap};
use crate::pb::peer as pb;
use crate::pb::peer::peer_client::PeerClient;
use crate::store::{self, StoreOptions};
use crate::tls::PeerTls;

const SOON: Duration = Duration::from_secs(20);

/// One running node and what a test needs to stop and start it again.
struct Running {
    node: Node,
    metrics: Metrics,
    published: watch::Sender<Published>,
    log: store::LogCloser,
    failure: store::Failure,
    tamper: store::Tamper,
    brake: watch::Sender<bool>,
}

struct Cluster {
    directory: tempfile::TempDir,
    name: &'static str,
    members: BTreeMap<NodeId, String>,
    running: BTreeMap<NodeId, Running>,
    /// Who speaks TLS; the others speak in clear text.
    identities: BTreeMap<NodeId, Arc<PeerTls>>,
}

impl Cluster {
    /// `size` nodes on ports of their own, all started.
    async fn start(size: u64) -> Cluster {
        let mut cluster = Cluster::prepare(size).await;
        for id in 1..=size {
            cluster.start_node(id).await;
        }
        cluster.leader().await;
        cluster
    }

    async fn prepare(size: u64) -> Cluster {
        let mut listeners = Vec::new();
        let mut members = BTreeMap::new();
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            members.insert(id, listener.local_addr().unwrap().to_string());
            listeners.push(listener);
        }
        Cluster {
            directory: tempfile::tempdir().unwrap(),
            name: "test",
            members,
            running: BTreeMap::new(),
            identities: BTreeMap::new(),
        }
    }

    fn data_dir(&self, id: NodeId) -> PathBuf {
        self.directory.path().join(format!("node{id}"))
    }

    async fn start_node(&mut self, id: NodeId) {
        let listener = bind(&self.members[&id]).await;
        self.start_as(id, Some(id), self.members.clone(), None, listener).await;
    }

    /// Starts a node that the test calls `label`; its id may be another, or come later.
    async fn start_as(
        &mut self,
        label: u64,
        node_id: Option<NodeId>,
        initial_members: BTreeMap<NodeId, String>,
        join: Option<String>,
        peer_listener: TcpListener,
    ) {
        let metrics = Metrics::new();
        let options = StoreOptions {
            dir: self.data_dir(label),
            node_id,
            cluster_name: self.name.to_owned(),
            feature_level_max: FEATURE_LEVEL_MAX,
            metrics: metrics.clone(),
        };
        let opened = tokio::task::spawn_blocking(move || store::open(options)).await.unwrap().unwrap();
        let (log, failure, tamper) = (opened.closer.clone(), opened.failure.clone(), opened.tamper.clone());
        let brake = opened.brake.clone();
        let peer_address = peer_listener.local_addr().unwrap().to_string();
        let transport = match self.identities.get(&label) {
            None => Transport::Tcp(peer_listener),
            Some(identity) => Transport::Tls { listener: peer_listener, identity: Arc::clone(identity) },
        };
        let (published, published_receiver) = watch::channel(Published::default());
        let node = Node::start(NodeOptions {
            node_id,
            join,
            peer_address,
            cluster_name: self.name.to_owned(),
            initial_members,
            settings: RaftSettings::default(),
            opened,
            admin_address: format!("127.0.0.1:{label}"),
            published: published_receiver,
            scheduling_gap: SchedulingGap::default(),
            transport,
            metrics: metrics.clone(),
        })
        .await
        .unwrap();
        self.running.insert(label, Running { node, metrics, published, log, failure, tamper, brake });
    }

    async fn stop_node(&mut self, id: NodeId) {
        let running = self.running.remove(&id).unwrap();
        running.node.shutdown().await;
    }

    fn node(&self, id: NodeId) -> Node {
        self.running[&id].node.clone()
    }

    /// The leader that a running node has, once it has a quorum.
    async fn leader(&self) -> NodeId {
        let found = || {
            let leads = |running: &&Running| {
                let status = running.node.status();
                status.leader == Some(status.node_id) && status.quorum
            };
            self.running.values().find(leads).map(|running| running.node.node_id())
        };
        eventually("a leader", || found().is_some()).await;
        found().unwrap()
    }

    async fn all_at(&self, revision: Revision) {
        let indexes = || self.running.values().map(|running| running.node.status().applied_index).collect::<BTreeSet<_>>();
        let mut digests = Vec::new();
        // Not every entry makes a revision (a feature level does not): State is one at one index.
        eventually("all nodes caught up", || {
            let before = indexes();
            let states: Vec<_> = self.running.values().map(|running| running.node.state()).collect();
            digests = states.iter().map(State::state_digest).collect();
            before.len() == 1 && indexes() == before && states.iter().all(|state| state.revision() >= revision)
        })
        .await;
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "one digest at one index: {digests:?}");
    }

    async fn stop(mut self) {
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop_node(id).await;
        }
    }
}

/// Binds an address that a node has just left.
async fn bind(address: &str) -> TcpListener {
    let deadline = Instant::now() + SOON;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::new(Kind::Route, Name::new(name).unwrap())
}

fn put(operations: &[(&str, Bytes)], idempotency: Option<&str>) -> Command {
    let operations = operations.iter().map(|(name, spec)| Operation::Put { key: key(name), spec: spec.clone() }).collect();
    let idempotency = idempotency.map(|text| IdempotencyKey { scoped_key: format!("test\0{text}"), request_sha256: [1; 32] });
    Command {
        proposed_at: Timestamp(1_000),
        actor: "test".to_owned(),
        body: CommandBody::Transaction(Transaction { preconditions: Vec::new(), operations, idempotency }),
    }
}

fn spec(text: &str) -> Bytes {
    Bytes::from(format!("{{\"text\":\"{text}\"}}"))
}

async fn put_at(node: &Node, name: &str, text: &str) -> Revision {
    let outcome = node.propose(put(&[(name, spec(text))], None), Instant::now() + SOON).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied { changed: true, .. }), "{outcome:?}");
    outcome.revision()
}

/// The same across a change of leader: with a key, what broke off is asked again.
async fn put_once_at(node: &Node, name: &str, text: &str) {
    node.propose(put(&[(name, spec(text))], Some(text)), Instant::now() + SOON).await.unwrap();
}

fn text_of(state: &crate::model::State, name: &str) -> Option<Bytes> {
    state.get(&key(name)).map(|resource| resource.spec.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_and_write_and_read_anywhere() {
    let cluster = Cluster::start(3).await;
    let ids: Vec<_> = cluster.running.values().map(|running| running.node.cluster_id()).collect();
    assert!(ids[0].is_some() && ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    for writer in 1..=3 {
        let text = format!("from {writer}");
        let revision = put_at(&cluster.node(writer), "orders", &text).await;
        assert_eq!(revision, Revision(writer));
        for reader in 1..=3 {
            let state = cluster.node(reader).read(Instant::now() + SOON).await.unwrap();
            assert_eq!(text_of(&state, "orders"), Some(spec(&text)), "written at {writer}, read at {reader}");
        }
    }
    cluster.all_at(Revision(3)).await;
    eventually("every node sees every member", || {
        cluster.running.values().all(|running| {
            let status = running.node.status();
            let member_fine =
                |member: &MemberStatus| member.reachable && member.revision == Some(Revision(3)) && member.version == "0.1.0";
            status.quorum && status.members.len() == 3 && status.members.iter().all(member_fine) && status.diverged.is_none()
        })
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_works_and_resumes() {
    let mut cluster = Cluster::start(1).await;
    put_at(&cluster.node(1), "orders", "kept").await;
    let id = cluster.node(1).cluster_id();
    cluster.stop_node(1).await;
    cluster.start_node(1).await;
    let state = cluster.node(1).read(Instant::now() + SOON).await.unwrap();
    assert_eq!(text_of(&state, "orders"), Some(spec("kept")));
    assert_eq!(cluster.node(1).cluster_id(), id);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_transaction_commits_from_a_follower() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|&id| id != leader).unwrap();
    let names: Vec<String> = (0..4).map(|n| format!("r{n}")).collect();
    let megabyte = spec(&"x".repeat(1024 * 1024 - 100));
    let operations: Vec<_> = names.iter().map(|name| (name.as_str(), megabyte.clone())).collect();
    let outcome = cluster.node(follower).propose(put(&operations, None), Instant::now() + SOON).await.unwrap();
    assert_eq!(outcome.revision(), Revision(1));
    assert!(matches!(outcome, Outcome::Applied { results, .. } if results.len() == 4));
    let operations: Vec<_> = names.iter().cycle().take(8).map(|name| (name.as_str(), megabyte.clone())).collect();
    let error = cluster.node(follower).propose(put(&operations, None), Instant::now() + SOON).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error:?}");
    cluster.all_at(Revision(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_past_the_purge_gets_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = (1..=3).find(|&id| id != leader).unwrap();
    let first = put_at(&cluster.node(leader), "orders", "first").await;
    cluster.all_at(first).await;
    cluster.stop_node(away).await;
    let node = cluster.node(leader);
    let purged_before = node.status().purged_index;
    let large = "x".repeat(900_000);
    let deadline = Instant::now() + SOON * 3;
    let mut revision = first;
    while node.status().purged_index <= purged_before + 2 {
        assert!(Instant::now() < deadline, "the log is never purged: {:?}", node.status());
        revision = put_at(&node, "large", &format!("{}{large}", revision.0)).await;
    }
    cluster.start_node(away).await;
    cluster.all_at(revision).await;
    let installed = cluster.running[&away].metrics.raft_snapshots_installed.get();
    assert!(installed >= 1, "caught up by a snapshot");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_live_names_who_is_late_and_who_is_silent() {
    let mut cluster = Cluster::start(3).await;
    let revision = put_at(&cluster.node(1), "orders", "live").await;
    let publish = |cluster: &Cluster, id: NodeId| {
        let _ = cluster.running[&id].published.send(Published { revision, ..Published::default() });
    };
    publish(&cluster, 1);
    publish(&cluster, 2);
    let live = cluster.node(1).wait_live(revision, Instant::now() + Duration::from_millis(1500)).await;
    let shown: Vec<_> = live.iter().map(|member| (member.id, member.live)).collect();
    assert_eq!(shown, [(1, true), (2, true), (3, false)]);
    assert_eq!(live[2].reason.as_deref(), Some("not published in time"));

    let waiting = tokio::spawn({
        let node = cluster.node(1);
        async move { node.wait_live(revision, Instant::now() + SOON).await }
    });
    publish(&cluster, 3);
    assert!(waiting.await.unwrap().iter().all(|member| member.live));

    cluster.stop_node(3).await;
    let started = Instant::now();
    let live = cluster.node(1).wait_live(revision.next(), Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(live[2].reason.as_deref(), Some("no answer for 1 s"));
    assert_eq!(live[2].revision, Some(revision), "the last that was heard of it");
    assert!(started.elapsed() < Duration::from_secs(5));

    cluster.stop_node(2).await;
    let node = cluster.node(1);
    eventually("node 2 is known to be silent", || !node.status().members[1].reachable).await;
    cluster.running[&1].published.send_modify(|published| published.revision = revision.next());
    let started = Instant::now();
    let live = node.wait_live(revision.next(), Instant::now() + SOON).await;
    assert!(started.elapsed() < Duration::from_millis(700), "the second of silence is over: {:?}", started.elapsed());
    for member in &live[1..] {
        assert!(member.reason.as_deref().is_some_and(|reason| reason.starts_with("no answer for ")), "{member:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_every_node_make_revisions_without_gaps() {
    const WRITERS: u64 = 64;
    const WRITES: u64 = 20;
    let cluster = Cluster::start(3).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (node, reader) = (cluster.node(writer % 3 + 1), cluster.node((writer + 1) % 3 + 1));
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for write in 0..WRITES {
                let revision = put_at(&node, &format!("r{writer}"), &write.to_string()).await;
                let seen = reader.read(Instant::now() + SOON).await.unwrap().revision();
                assert!(seen >= revision, "read {seen} after {revision} was acknowledged");
                revisions.push(revision.0);
            }
            revisions
        });
    }
    let mut revisions: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=WRITERS * WRITES).collect::<Vec<_>>());
    cluster.stop().await;
}
