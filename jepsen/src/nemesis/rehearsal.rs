//! A stage for the tests of faults: one member that never runs, at an address where a test may answer in its place.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::kind::Fault;
use super::plan::Planned;
use super::stage::Stage;
use crate::cluster::isolation::Isolation;
use crate::cluster::{Cluster, Disk, Node, Place, Settings};
use crate::record::Recorder;
use crate::test::Workload;
use crate::workload::Scene;

/// The cluster of one member, with its files in `directory`. The member's disk is `/proc`, which refuses to be cut off.
pub(super) async fn cluster(directory: &Path, admin: SocketAddr) -> Cluster {
    let settings = Settings {
        binary: "/bin/true".into(),
        other_binary: None,
        isolation: Isolation::Loopback,
        nodes: 0,
        spares: 0,
        scratch: directory.to_path_buf(),
        logs: directory.to_path_buf(),
        environment: Vec::new(),
        faketime: None,
    };
    let mut cluster = Cluster::create(settings).await.unwrap();
    let node = Node::new(Place {
        id: 1,
        host: "127.0.0.1".to_owned(),
        disk: Disk::plain(PathBuf::from("/proc")).unwrap(),
        directory: directory.to_path_buf(),
        log: directory.join("log"),
        wrapper: Vec::new(),
        environment: Vec::new(),
    });
    let mut node = node.unwrap();
    node.admin = admin;
    cluster.nodes.push(node);
    cluster.set_member(1, true);
    cluster
}

/// A stage with this cluster; its time is over from the beginning where that is asked for.
pub(super) fn stage(cluster: Cluster, is_over: bool) -> Stage {
    // A receiver keeps the last value when its sender is gone.
    let (_, stop) = watch::channel(is_over);
    Stage::new(Scene {
        cluster: Arc::new(cluster),
        recorder: Arc::new(Recorder::new()),
        workload: Workload::Register,
        seed: 1,
        nodes: 1,
        spares: 0,
        backends: Arc::default(),
        added: Arc::default(),
        stop,
    })
}

/// A fault that is due.
pub(super) fn planned(fault: Fault, seed: u64) -> Planned {
    Planned { fault, at: Duration::ZERO, length: Duration::ZERO, seed }
}
