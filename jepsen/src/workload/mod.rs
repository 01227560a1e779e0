//! Workloads: what the clients do while things break.
//!
//! Each client has a generator of its own, made of the test's seed and its place: the same seed chooses the same operations. What a
//! conditional write expects is what the client saw last, and so depends on the run.

mod choice;
mod drive;
pub(crate) mod membership;
mod register;
mod set;
mod traffic;
mod txn;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::{Key, Value};
use crate::record::Recorder;
use crate::test::Workload;

pub(crate) use choice::Choice;
pub(crate) use drive::{initial_writes, looks_at_each_node, proves_each_key};

/// How often each node is asked what it serves.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The same where the workload is about just that.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// Routes of every workload but `set`.
const KEYS: u32 = 12;
/// Clients that write, per node.
const CLIENTS_A_NODE: u32 = 2;
/// The values of one client: far more than it can write in a test.
const VALUES_A_CLIENT: Value = 1_000_000;

/// All that clients need. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) workload: Workload,
    pub(crate) seed: u64,
    /// Members from the start; spares are asked only once they have joined.
    pub(crate) nodes: u32,
    /// Nodes that can join; none where the program cannot change its membership.
    pub(crate) spares: u32,
    /// What stands behind the proxies.
    pub(crate) backends: Arc<Vec<Backend>>,
    /// Keys of `set` whose route exists.
    pub(crate) added: Arc<Mutex<Vec<Key>>>,
    /// True once the clients shall stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Scene {
    /// The keys that the workload writes; those of `set` come one by one.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self.workload {
            Workload::Set => Vec::new(),
            _ => (0..KEYS).collect(),
        }
    }

    /// A route of `set` exists from now on.
    fn add(&self, key: Key) {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// Any key whose route exists, if there is one yet.
    fn existing_key(&self, choice: &mut Choice) -> Option<Key> {
        match self.workload {
            Workload::Set => choice.one_of(&self.added.lock().unwrap_or_else(PoisonError::into_inner)),
            _ => Some(choice.key(KEYS)),
        }
    }

    /// A client of its own.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.cluster, &self.recorder)
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sleeps, but not past the end of the test.
    async fn pause(&self, length: Duration) {
        let mut stop = self.stop.clone();
        let _ = tokio::time::timeout(length, stop.wait_for(|stop| *stop)).await;
    }
}

/// Starts all clients of the workload. They end when they are told to stop.
pub(crate) fn start(scene: &Scene) -> anyhow::Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    let polls = if scene.workload == Workload::Watch { WATCH_INTERVAL } else { POLL_INTERVAL };
    for node in 1..=scene.nodes {
        clients.spawn(drive::poll(scene.clone(), scene.client()?, node, polls));
    }
    for index in 0..scene.nodes * CLIENTS_A_NODE {
        let (scene, client, choice) = (scene.clone(), scene.client()?, Choice::new(scene.seed, index));
        match scene.workload {
            Workload::Register | Workload::Membership => clients.spawn(register::run(scene, client, choice)),
            Workload::Txn => clients.spawn(txn::run(scene, client, choice)),
            Workload::Set => clients.spawn(set::run(scene, client, choice)),
            Workload::Watch => clients.spawn(register::run(scene, client, choice)),
            Workload::Traffic => clients.spawn(traffic::write(scene, client, choice)),
        };
    }
    if scene.workload == Workload::Membership && scene.spares > 0 {
        clients.spawn(membership::run(scene.clone()));
    }
    for node in 1..=scene.nodes + scene.spares {
        clients.spawn(traffic::run(scene.clone(), node));
    }
    Ok(clients)
}
