//! The handle to a running node, and its life: start, hand-over, shutdown.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batches::Lanes;
use super::bootstrap::{find_cluster, form, members_hash};
use super::error::{MemberError, ProposeError, ReadError, StartError};
use super::identity::Identity;
use super::join::{self, Invitation};
use super::members::{self, MemberChange};
use super::network::NetworkFactory;
use super::options::{NodeOptions, RaftSettings};
use super::peers::Peers;
use super::proposals::Admission;
use super::reads::{self, Rounds};
use super::shared::{Raft, Shared};
use super::status::{ClusterStatus, MemberLive};
use super::{board, compaction, divergence, server};
use crate::model::{Command, NodeId, Outcome, Revision, State};
use crate::observe::KnownBug;
use crate::store::{self, AppliedState, ClusterId, Incarnation, LogCloser, LogStore, SnapshotAdvisor, StateMachine};

/// Entries of one append, before bytes cut it further.
const APPEND_ENTRIES_MAX: u64 = 1024;
/// How long a stop waits for tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running node. Clones are cheap and share it. It runs on the runtime that started it; calls may come from any other.
#[derive(Debug, Clone)]
pub struct Node {
    shared: Arc<Shared>,
    closer: LogCloser,
}

/// What the Raft core takes over when it starts.
struct Core {
    config: Arc<Config>,
    log: LogStore,
    state_machine: StateMachine,
    advisor: SnapshotAdvisor,
}

impl Node {
    /// Starts the node: serves its peers at once, forms its cluster in the background where the data directory is empty.
    ///
    /// # Errors
    ///
    /// The options do not fit each other or the data directory, or the Raft core finds its storage unusable.
    pub async fn start(options: NodeOptions) -> Result<Node, StartError> {
        let config = raft_config(&options.cluster_name, options.settings)?;
        let opened = options.opened;
        let (known, failure) = (opened.identity.get().cloned(), opened.failure);
        if known.is_none() {
            check_empty(options.node_id, opened.is_empty, &options.initial_members)?;
        }
        let node_id = known.as_ref().map(|known| known.node_id).or(options.node_id);
        let invitation = options.join.map(|address| Invitation { address, node_id: None });
        let incarnation = known.as_ref().map_or_else(Incarnation::random, |known| known.incarnation);
        let identity = Arc::new(Identity::new(node_id, incarnation, opened.applied.clone(), options.metrics.clone()));
        let (leader_rounds, leader_waiting) = Rounds::new();
        let (follower_rounds, follower_waiting) = Rounds::new();
        let shared = Arc::new(Shared {
            identity,
            peers: Arc::new(Peers::new(options.transport.dialer(&options.metrics))),
            members_hash: members_hash(&options.cluster_name, &options.initial_members),
            cluster_name: Arc::from(options.cluster_name),
            initial_members: options.initial_members,
            peer_address: options.peer_address,
            admin_address: options.admin_address,
            raft: watch::Sender::new(None),
            applied: opened.applied,
            states: opened.states,
            published: options.published,
            snapshots: opened.snapshots,
            receiving: Arc::new(Semaphore::new(1)),
            admission: Admission::new(),
            lanes: Lanes::default(),
            leader_rounds,
            follower_rounds,
            board: board::Board::default(),
            divergence: divergence::Divergence::default(),
            samples: opened.samples,
            storage_failed: opened.failed,
            failure,
            blocking: opened.blocking,
            bootstrap_failed: watch::Sender::new(None),
            removed: watch::Sender::new(None),
            handing_over: watch::Sender::new(0),
            invitation: watch::Sender::new(invitation),
            member_turn: Arc::default(),
            metrics: options.metrics,
            scheduling_gap: options.scheduling_gap,
            settings: options.settings,
            stopping: CancellationToken::new(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        });
        let core = Core { config, log: opened.log, state_machine: opened.state_machine, advisor: opened.advisor };
        if let Some(known) = &known {
            // Before the first peer asks, or it would be refused.
            shared.identity.join(known.cluster_id, known.node_id);
        }
        shared.tasks.spawn(server::run(options.transport, Arc::clone(&shared)));
        match known {
            Some(known) => {
                let raft = start_raft(&shared, core).await?;
                spawn_form(&shared, raft, known.cluster_id);
            }
            None => {
                shared.tasks.spawn(bootstrap(Arc::clone(&shared), core, opened.identity));
            }
        }
        shared.tasks.spawn(board::run(Arc::clone(&shared)));
        shared.tasks.spawn(divergence::stand_aside(Arc::clone(&shared)));
        shared.tasks.spawn(members::run(Arc::clone(&shared)));
        shared.tasks.spawn(stop_raft_on_storage_failure(Arc::clone(&shared)));
        shared.tasks.spawn(stop_raft_on_removal(Arc::clone(&shared)));
        spawn_rounds(&shared, leader_waiting, follower_waiting);
        Ok(Node { shared, closer: opened.closer })
    }

    /// Proposes a command at the leader, from here or over one hop, and waits for its outcome until `deadline`.
    ///
    /// # Errors
    ///
    /// [`ProposeError`] tells whether it may have happened. What certainly did not is tried again until the deadline first.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        self.shared.propose(command, deadline).await
    }

    /// A State that holds everything that was acknowledged before this call (ReadIndex, Raft 6.4), at any node.
    ///
    /// # Errors
    ///
    /// No leader with a quorum confirmed it before `deadline`.
    pub async fn read(&self, deadline: Instant) -> Result<State, ReadError> {
        let shared = &self.shared;
        let mut reason = "no leader".to_owned();
        loop {
            if let Some(failure) = shared.storage_failure() {
                return Err(ReadError::StorageFailed(failure));
            }
            if shared.stopping.is_cancelled() {
                return Err(ReadError::Stopping);
            }
            if let Some(why) = shared.divergence.aside() {
                return Err(ReadError::Diverged(why));
            }
            if let Some(reason) = shared.removed.borrow().clone() {
                return Err(ReadError::Unavailable(reason));
            }
            if KnownBug::StaleRead.is_on() {
                return Ok(self.state());
            }
            match tokio::time::timeout_at(deadline, self.read_once()).await {
                Err(_) => return Err(ReadError::Unavailable(reason)),
                Ok(Ok(state)) => return Ok(state),
                Ok(Err(why)) => reason = why,
            }
            if !shared.pause(deadline).await {
                return Err(ReadError::Unavailable(reason));
            }
        }
    }

    async fn read_once(&self) -> Result<State, String> {
        let shared = &self.shared;
        let read = match shared.leader() {
            None => return Err("no leader".to_owned()),
            Some(id) if id == shared.node_id() => shared.leader_rounds.join().await?,
            Some(_) => shared.follower_rounds.join().await?,
        };
        let mut applied = shared.applied.clone();
        let applied = applied.wait_for(|applied| applied.log_id.is_some_and(|id| id.index >= read.index)).await;
        if shared.divergence.aside().is_some() {
            return Err("this node stands aside".to_owned());
        }
        applied.map(|applied| applied.state.clone()).map_err(|_| "this node is stopping".to_owned())
    }

    /// This node's State as it stands; it may be behind.
    pub fn state(&self) -> State {
        self.shared.states.borrow().clone()
    }

    /// Follows this node's State, after every applied batch.
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.states.clone()
    }

    /// Follows this node's State with its log id and membership.
    pub fn applied(&self) -> watch::Receiver<AppliedState> {
        self.shared.applied.clone()
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.shared.node_id()
    }

    /// The cluster's id as a UUID; `None` until this node belongs to one.
    pub fn cluster_id(&self) -> Option<Arc<str>> {
        self.shared.identity.cluster_text()
    }

    /// What this node knows of the cluster.
    pub fn status(&self) -> ClusterStatus {
        self.shared.status()
    }

    /// The reason of a storage error, after which this process takes no part in Raft any more.
    pub fn storage_failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.storage_failed.clone()
    }

    /// Why this node can neither form nor join its cluster, once that is certain.
    pub fn bootstrap_failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.bootstrap_failed.subscribe()
    }

    /// Waits until every member has published `revision`, has not answered for a second, or `deadline` has passed.
    pub async fn wait_live(&self, revision: Revision, deadline: Instant) -> Vec<MemberLive> {
        self.shared.wait_live(revision, deadline).await
    }

    /// Hands leadership to a voter that is caught up and has just answered, and waits for a new leader until `deadline`.
    /// True when another node leads then; a follower does nothing.
    pub async fn hand_over(&self, deadline: Instant) -> bool {
        self.shared.hand_over(None, deadline).await
    }

    /// Asks the node at `peer_address`, which belongs to no cluster, to join this one; gives its id once it is a learner.
    ///
    /// # Errors
    ///
    /// [`MemberError`] tells whether it may have happened.
    pub async fn add_member(
        &self,
        peer_address: &str,
        node_id: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, MemberError> {
        self.shared.add_member(peer_address, node_id, deadline).await
    }

    /// Changes one member, here or at the leader over one hop, and waits until this node shows it.
    ///
    /// # Errors
    ///
    /// [`MemberError`] tells whether it may have happened.
    pub async fn change_member(&self, change: MemberChange, deadline: Instant) -> Result<(), MemberError> {
        self.shared.change_member(change, deadline).await
    }

    /// Raises the level of features that commands may use, where every member knows it.
    ///
    /// # Errors
    ///
    /// [`MemberError`] tells whether it may have happened.
    pub async fn raise_feature_level(&self, level: u32, deadline: Instant) -> Result<(), MemberError> {
        self.shared.raise_feature_level(level, deadline).await
    }

    /// The Raft core.
    #[cfg(test)]
    pub(super) fn core(&self) -> Raft {
        self.shared.raft().unwrap()
    }

    /// Ends the Raft core behind the node's back.
    #[cfg(test)]
    pub(super) async fn end_core(&self) {
        stop_core(&self.core()).await;
    }

    /// Stops the Raft side and the peer server, and closes the store. Calls under way end with an error.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.stopping.cancel();
        if let Some(raft) = shared.raft() {
            stop_core(&raft).await;
        }
        shared.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, shared.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the node still run");
        }
        shared.raft.send_replace(None);
        if tokio::time::timeout(STOP_TIMEOUT, self.closer.close()).await.is_err() {
            tracing::warn!("the log is not closed yet");
        }
    }
}

fn check_empty(
    node_id: Option<NodeId>,
    is_empty: bool,
    initial_members: &std::collections::BTreeMap<NodeId, String>,
) -> Result<(), StartError> {
    if !is_empty {
        return Err(StartError::Identity(format!("it holds Raft data but no identity: {}", store::replace(node_id))));
    }
    let is_listed = node_id.is_some_and(|id| initial_members.contains_key(&id));
    if !initial_members.is_empty() && !is_listed {
        let id = node_id.map_or_else(|| "this node".to_owned(), |id| format!("node {id}"));
        return Err(StartError::Members(format!("{id} is not in the list, and its data directory is empty")));
    }
    Ok(())
}

fn raft_config(name: &str, settings: RaftSettings) -> Result<Arc<Config>, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_timeout_min),
        election_timeout_max: millis(settings.election_timeout_max),
        max_payload_entries: APPEND_ENTRIES_MAX,
        // Snapshots and purges follow `compaction` alone.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        enable_pre_vote: Some(true),
        // A leader that restarts within its lease must not lead on: its followers may have committed what it never flushed.
        enable_leader_restore: Some(KnownBug::LeaderRestore.is_on()),
        // A leader that hears no quorum falls silent for this long, so that the others can elect one that does.
        quorum_loss_probe_interval: Some(millis(settings.election_timeout_max).saturating_mul(2)),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Timing(error.to_string()))
}

async fn start_raft(shared: &Arc<Shared>, core: Core) -> Result<Raft, StartError> {
    let (identity, peers) = (Arc::clone(&shared.identity), Arc::clone(&shared.peers));
    let network = NetworkFactory { identity, peers, blocking: shared.blocking };
    let raft = Raft::new(shared.node_id(), core.config, network, core.log, core.state_machine)
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
    shared.raft.send_replace(Some(raft.clone()));
    shared.tasks.spawn(compaction::run(Arc::clone(shared), raft.clone(), core.advisor));
    shared.tasks.spawn(watch_core(Arc::clone(shared), raft.clone()));
    Ok(raft)
}

/// The lowest initial member writes the first membership, also when it was stopped before it could.
fn spawn_form(shared: &Arc<Shared>, raft: Raft, cluster: ClusterId) {
    if shared.initial_members.keys().next() != Some(&shared.node_id()) {
        return;
    }
    let shared = Arc::clone(shared);
    shared.tasks.clone().spawn(async move {
        shared.stopping.run_until_cancelled(form(&shared, &raft, cluster)).await;
    });
}

async fn bootstrap(shared: Arc<Shared>, core: Core, mut file: store::IdentityFile) {
    let stopping = shared.stopping.clone();
    let joined = async {
        let (cluster_id, node_id) = if shared.initial_members.is_empty() {
            join::join(&shared).await?
        } else {
            (find_cluster(&shared).await?, shared.node_id())
        };
        let identity = store::Identity {
            cluster_id,
            cluster_name: shared.cluster_name.to_string(),
            node_id,
            incarnation: shared.identity.incarnation(),
        };
        let written = shared.blocking.run(move || file.write(identity)).await;
        written.map_err(|error| format!("identity not written: {error}"))?;
        shared.identity.join(cluster_id, node_id);
        let raft = start_raft(&shared, core).await.map_err(|error| error.to_string())?;
        spawn_form(&shared, raft, cluster_id);
        Ok::<(), String>(())
    };
    if let Some(Err(reason)) = stopping.run_until_cancelled(joined).await {
        tracing::error!(reason, "this node cannot form or join its cluster");
        shared.bootstrap_failed.send_replace(Some(reason));
    }
}

fn spawn_rounds(shared: &Arc<Shared>, leader_waiting: reads::Waiting, follower_waiting: reads::Waiting) {
    let own = Arc::clone(shared);
    shared.tasks.spawn(async move {
        reads::run(leader_waiting, own.stopping.clone(), || own.leader_round()).await;
    });
    let own = Arc::clone(shared);
    shared.tasks.spawn(async move {
        reads::run(follower_waiting, own.stopping.clone(), || own.follower_round()).await;
    });
}

/// A Raft core that ends by itself, by a panic for instance, leaves a node that looks alive and never learns anything again. That is
/// the same to its users as a storage that failed, and is reported and answered as such.
async fn watch_core(shared: Arc<Shared>, raft: Raft) {
    let mut metrics = raft.metrics();
    let ended = async {
        loop {
            if let Err(error) = &metrics.borrow_and_update().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "its metrics have ended".to_owned();
            }
        }
    };
    if let Some(reason) = shared.stopping.run_until_cancelled(ended).await
        && !shared.stopping.is_cancelled()
        && shared.removed.borrow().is_none()
    {
        shared.failure.set(&format!("raft core ended: {reason}"));
    }
}

/// Stops the core; a disk that is stuck can keep it from ending.
async fn stop_core(raft: &Raft) {
    match tokio::time::timeout(STOP_TIMEOUT, raft.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "raft core did not end in order"),
        Err(_) => tracing::warn!("raft core still runs"),
    }
}

async fn stop_raft_on_removal(shared: Arc<Shared>) {
    let mut removed = shared.removed.subscribe();
    let Some(Ok(_)) = shared.stopping.run_until_cancelled(removed.wait_for(Option::is_some)).await else { return };
    shared.metrics.raft_is_leader.set(0);
    if let Some(raft) = shared.raft() {
        stop_core(&raft).await;
    }
}

async fn stop_raft_on_storage_failure(shared: Arc<Shared>) {
    let mut failed = shared.storage_failed.clone();
    let failure = async {
        let reason = failed.wait_for(Option::is_some).await.ok()?;
        reason.clone()
    };
    let Some(Some(reason)) = shared.stopping.run_until_cancelled(failure).await else { return };
    tracing::error!(reason, "storage failed: the Raft side of this process stops for good");
    shared.metrics.storage_failed.set(1);
    shared.metrics.raft_is_leader.set(0);
    if let Some(raft) = shared.raft() {
        stop_core(&raft).await;
    }
}
