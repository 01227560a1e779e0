//! One node: it starts from its disk, serves its peers, publishes its table, and has two clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream;
use raftgate::model::limits::FEATURE_LEVEL_MAX;
use raftgate::model::{NodeId, Revision};
use raftgate::observe::{Metrics, SchedulingGap};
use raftgate::proxy::Publisher;
use raftgate::raft::{Connection, Node, NodeOptions, RaftSettings, Transport};
use raftgate::store::{self, Simulated, StoreOptions};
use raftgate::table::Live;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use turmoil::net::{TcpListener, TcpStream};

use crate::client;
use crate::disk::Disk;
use crate::record::Record;

const PEER_PORT: u16 = 7081;
/// Snapshots come often.
const SNAPSHOT_LOG_BYTES: u64 = 24 * 1024;
const CLIENTS: u64 = 2;
/// How long a start waits for a proof that its table is up to date.
const COLD_START_WAIT: Duration = Duration::from_secs(1);

/// What stays when the node goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: NodeId,
    pub(crate) members: BTreeMap<NodeId, String>,
    pub(crate) directory: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) record: Record,
    pub(crate) seed: u64,
    pub(crate) starts: AtomicU64,
    /// The node that runs there.
    pub(crate) running: std::sync::Mutex<Option<(Node, Arc<Live>)>>,
    /// No more operations.
    pub(crate) quiet: Arc<std::sync::atomic::AtomicBool>,
}

pub(crate) fn host(id: NodeId) -> String {
    format!("n{id}")
}

pub(crate) fn address(id: NodeId) -> String {
    format!("{}:{PEER_PORT}", host(id))
}

/// Runs until the host crashes.
pub(crate) async fn run(place: Arc<Place>) -> turmoil::Result {
    let start = place.starts.fetch_add(1, Ordering::Relaxed);
    place.record.note(place.id, format_args!("start {start}"));
    let listener = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Connection::new(stream));
        Some((accepted, listener))
    });
    let transport =
        Transport::custom(
            incoming,
            |host, port| async move { Ok(Connection::new(TcpStream::connect((host.as_str(), port)).await?)) },
        );
    let metrics = Metrics::new();
    let options = StoreOptions {
        dir: place.directory.clone(),
        node_id: Some(place.id),
        cluster_name: "simulation".to_owned(),
        feature_level_max: FEATURE_LEVEL_MAX,
        metrics: metrics.clone(),
    };
    let simulated = Simulated { file: Arc::new(place.disk.clone()), snapshot_log_bytes: SNAPSHOT_LOG_BYTES };
    let opened = store::open_simulated(options, simulated)?;
    let live = Arc::new(Live::new());
    let node = Node::start(NodeOptions {
        node_id: Some(place.id),
        cluster_name: "simulation".to_owned(),
        initial_members: place.members.clone(),
        join: None,
        peer_address: address(place.id),
        settings: RaftSettings::default(),
        opened,
        admin_address: format!("{}:9081", host(place.id)),
        published: live.published(),
        transport,
        scheduling_gap: SchedulingGap::default(),
        metrics: metrics.clone(),
    })
    .await?;
    *place.running.lock().unwrap() = Some((node.clone(), Arc::clone(&live)));

    let (begin, may_begin) = oneshot::channel();
    tokio::spawn(Publisher::follow(node.states(), may_begin, Arc::clone(&live), metrics.clone()));
    tokio::spawn(follow_applied(Arc::clone(&place), node.clone(), metrics));
    tokio::spawn(follow_published(Arc::clone(&place), Arc::clone(&live)));
    for number in 0..CLIENTS {
        tokio::spawn(client::run(Arc::clone(&place), node.clone(), start, number));
    }
    up_to_date(&node).await;
    // The publisher ends only with this host.
    begin.send(()).ok();
    std::future::pending().await
}

/// Done once a linearizable read has shown everything that was acknowledged, or without a quorum after a while.
async fn up_to_date(node: &Node) {
    let deadline = Instant::now() + COLD_START_WAIT;
    while Instant::now() < deadline && node.read(deadline).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// State never goes back within a process, and never differs at one revision.
async fn follow_applied(place: Arc<Place>, node: Node, metrics: Metrics) {
    let mut applied = node.applied();
    let mut last = Revision::ZERO;
    let mut snapshots = 0;
    loop {
        let (revision, log_id, digest) = {
            let applied = applied.borrow_and_update();
            (applied.state.revision(), applied.log_id, applied.state.digest())
        };
        place.record.note(place.id, format_args!("applied {log_id:?}: revision {revision}"));
        place.record.digest(place.id, revision, digest);
        if revision < last {
            place.record.broken(format!("I3: node {} went from revision {last} back to {revision}", place.id));
        }
        last = revision;
        let installed = metrics.raft_snapshots_installed.get();
        if installed > snapshots {
            snapshots = installed;
            place.record.snapshot();
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// So does the table.
async fn follow_published(place: Arc<Place>, live: Arc<Live>) {
    let mut published = live.published();
    let mut last = Revision::ZERO;
    while published.changed().await.is_ok() {
        let published = *published.borrow_and_update();
        place.record.note(place.id, format_args!("published {}", published.revision));
        place.record.digest(place.id, published.revision, published.digest);
        if published.revision < last {
            place.record.broken(format!("I3: node {} published {last}, then {}", place.id, published.revision));
        }
        last = published.revision;
    }
}
