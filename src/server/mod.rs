//! One node: everything wired together, from the configuration to the graceful stop.
//!
//! ```text
//! bind all addresses -> open the store -> Raft node ------> watch<State> -> publisher -> Live -> proxy workers
//!                                           |                                             |
//!                                           +---- admin API (readiness: Phase) ----------+
//! ```
//!
//! Certificates are read ([`certificates`]) and every address is bound before anything is opened or sent, so that a port in use is told at once and nothing has happened yet. The
//! publisher's gate opens by [`cold_start`]; the proxy takes requests once the first table is published. Raft and the rest run on the
//! runtime that calls [`run`]; admin API ([`admin_threads`]), publisher and proxy have threads of their own, so that no flood of calls or
//! requests costs an election.
//!
//! SIGHUP reads the configuration again and changes the listeners ([`reload`]); everything else stays as it was at the start.
//!
//! A stop goes the other way (faults.md, "Leader transfer"): not ready and no more admin writes; leadership handed over; the proxy
//! drained while this node still votes; then Raft and the store. This is the only module that knows all others.

mod addresses;
mod admin_threads;
mod certificates;
mod cold_start;
mod recovery;
mod reload;
mod signals;
mod sinks;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::Signal;
use tokio::sync::{oneshot, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tracing::{error, info};

use self::addresses::{Bound, Site};
use self::admin_threads::AdminThreads;
use self::certificates::Certificates;
use self::sinks::Sinks;
use crate::admin::{self, AdminState, Callers, Phase, Secured};
use crate::config::{ConfigError, ListenerConfig, NodeConfig, OnStorageFailure};
use crate::model::NodeId;
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::observe::{Canary, Metrics, TracesError};
use crate::proxy::{self, BoundListener, Proxy, ProxyHandle, ProxyOptions, Publisher};
use crate::raft::{self, Node, NodeOptions, RaftSettings, Transport};
use crate::secrets::{KeyFileError, Keyring};
use crate::store::{self, OpenError, StoreOptions};
use crate::table::Live;
use crate::tls::FileError;

pub use recovery::{Recovery, recover};
pub use signals::{stdin_closed, terminated};

/// Threads of the control runtime. Raft is light; two keep one slow call of a peer from holding up heartbeats.
const CONTROL_THREADS: usize = 2;

/// How much the control threads' nice value is lowered.
const CONTROL_PRECEDENCE: i32 = 10;

/// How long a stop waits for a new leader.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(1);

/// Why a node did not start, or stopped by itself.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("configuration key `{key}`: cannot listen on {address}: {source}")]
    Bind {
        /// The address's key.
        key: String,
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A file of TLS cannot be used.
    #[error("configuration key `{section}.{}`: {source}", .source.key)]
    Certificates {
        /// The section that names it.
        section: &'static str,
        /// Which file, and why not.
        source: FileError,
    },
    /// The certificate is another node's.
    #[error(
        "configuration key `node_id`: is {configured}, and the certificate of `cluster.tls.cert` is for node {certified}: one of them is \
         wrong"
    )]
    OtherNode {
        /// What the configuration says.
        configured: NodeId,
        /// What the certificate says.
        certified: NodeId,
    },
    /// A listener cannot speak TLS as it is told.
    #[error("configuration key `{key}`: {source}")]
    Tls {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: proxy::TlsError,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The Raft node does not start.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
    /// The proxy does not start.
    #[error(transparent)]
    Proxy(#[from] proxy::StartError),
    /// A sealing key cannot be read.
    #[error("configuration section `secrets`: {0}")]
    Secrets(#[from] KeyFileError),
    /// The access log's file cannot be written.
    #[error("configuration key `access_log.path`: {0}")]
    AccessLog(#[source] io::Error),
    /// No exporter for traces.
    #[error("configuration key `tracing.otlp_endpoint`: {0}")]
    Traces(#[source] TracesError),
    /// The system refuses a thread, a signal handler or a small file.
    #[error("{what}: {source}")]
    System {
        /// What was to be made.
        what: &'static str,
        /// Why it was not.
        source: io::Error,
    },
    /// This node can neither form nor join its cluster.
    #[error("no cluster: {0}")]
    NoCluster(String),
    /// The disk failed, and `on_storage_failure` is `"exit"`.
    #[error("storage failed: {0}")]
    StorageFailed(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::System { what, source }
}

/// The runtime for [`run`].
///
/// # Errors
///
/// The system gives no threads.
pub fn runtime() -> Result<Runtime, ServerError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(CONTROL_THREADS).thread_name("control").on_thread_start(priorities()).enable_all();
    builder.build().map_err(system("the control runtime"))
}

/// Lets the control threads go before everything else on the machine, where the system allows it (CAP_SYS_NICE): a heartbeat that waits
/// behind a dozen busy threads at each of its hops costs an election. Threads for blocking work, which a control thread may start, run at
/// the process's own priority.
fn priorities() -> impl Fn() + Send + Sync + 'static {
    // On Linux these are the calling thread's.
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    let started = AtomicUsize::new(0);
    move || {
        // The runtime starts its workers before any other thread.
        let is_control = started.fetch_add(1, Ordering::Relaxed) < CONTROL_THREADS;
        let wanted = if is_control { own - CONTROL_PRECEDENCE } else { own };
        if let Err(error) = rustix::process::setpriority_process(None, wanted) {
            tracing::debug!(%error, "control threads run at the priority of everything else");
        }
    }
}

/// Reads the configuration again.
pub type Reread = Arc<dyn Fn() -> Result<NodeConfig, ConfigError> + Send + Sync>;

/// Runs a node until `shutdown` ends, then stops it in order. SIGHUP changes its listeners to what `reread` gives.
///
/// # Errors
///
/// The node cannot start, can never belong to its cluster, or its disk failed and the configuration says to exit then.
pub async fn run(config: NodeConfig, reread: Reread, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    let mut hangups = signals::hangups()?;
    let mut server = Server::start(config).await?;
    let outcome = tokio::select! {
        outcome = server.serve(&reread, &mut hangups) => outcome,
        () = shutdown => Ok(()),
    };
    server.stop().await;
    outcome
}

/// A node whose admin API answers and whose Raft side runs; its proxy serves once there is a table.
struct Server {
    config: NodeConfig,
    node: Node,
    live: Arc<Live>,
    metrics: Metrics,
    phase: watch::Sender<Phase>,
    admin: AdminThreads,
    publisher: Publisher,
    canary: Canary,
    gate: Option<oneshot::Sender<()>>,
    /// Bound, and not yet served.
    listeners: Vec<BoundListener>,
    sites: Vec<Site>,
    /// What the admin API knows of the listeners.
    explained: watch::Sender<Arc<[admin::Listener]>>,
    proxy: Option<ProxyHandle>,
    sinks: Sinks,
    addresses: addresses::Addresses,
    certificates: Certificates,
    /// Looks at the files of certificates, as long as the node runs.
    _renewal: JoinSet<()>,
}

impl Server {
    async fn start(config: NodeConfig) -> Result<Server, ServerError> {
        let metrics = Metrics::new();
        let certificates = Certificates::load(&config, &metrics).await?;
        let node_id = certificates.node_id(config.node_id)?;
        let bound = Bound::take(&config).await?;
        let addresses = bound.addresses()?;
        let keyring = keyring(&config)?;
        let canary = Canary::start(&metrics).map_err(system("the canary thread"))?;
        let opened = open_store(&config, node_id, &metrics).await?;
        addresses.write(&config.data_dir).map_err(system("addresses.json in the data directory"))?;
        let sinks = Sinks::open(&config, &metrics)?;
        let live = Arc::new(Live::with_keyring(keyring));
        // Before the node, which reads the log first: meanwhile the table is made of what the snapshot holds.
        let (gate, begin) = oneshot::channel();
        let publisher = Publisher::start(opened.states.clone(), begin, Arc::clone(&live), metrics.clone());
        let publisher = publisher.map_err(system("the publisher's thread"))?;
        let transport = match certificates.peer.clone() {
            None => Transport::Tcp(bound.peer),
            Some(identity) => Transport::Tls { listener: bound.peer, identity },
        };
        let node = Node::start(NodeOptions {
            node_id,
            cluster_name: config.cluster.name.clone(),
            initial_members: config.cluster.initial_members.clone(),
            join: config.cluster.join.clone(),
            peer_address: config.cluster.advertise.clone().unwrap_or_else(|| addresses.peer.to_string()),
            settings: raft_settings(&config),
            opened,
            admin_address: advertised_admin(&config, &addresses),
            published: live.published(),
            scheduling_gap: canary.gap(),
            transport,
            metrics: metrics.clone(),
        })
        .await?;
        let phase = watch::Sender::new(Phase::Starting);
        let explained = watch::Sender::new(config.listeners.iter().map(explain).collect());
        let state = AdminState {
            cluster: Arc::new(node.clone()),
            live: Arc::clone(&live),
            metrics: metrics.clone(),
            callers: callers(&config),
            listeners: explained.subscribe(),
            phase: phase.subscribe(),
        };
        let secured = certificates.admin.clone().map(|tls| Secured { tls, failures: metrics.node_tls_failures.clone() });
        let admin = AdminThreads::start(bound.admin, secured, state).map_err(system("the admin API's threads"))?;
        let mut renewal = JoinSet::new();
        renewal.spawn(certificates.clone().watch());
        let (gate, listeners, sites, proxy) = (Some(gate), bound.listeners, bound.sites, None);
        Ok(Server {
            config,
            node,
            live,
            metrics,
            phase,
            admin,
            publisher,
            canary,
            gate,
            listeners,
            sites,
            explained,
            proxy,
            sinks,
            addresses,
            certificates,
            _renewal: renewal,
        })
    }

    /// Publishes the first table, lets the proxy take requests, and goes on until the node must end by itself.
    async fn serve(&mut self, reread: &Reread, hangups: &mut Signal) -> Result<(), ServerError> {
        let mut no_cluster = self.node.bootstrap_failed();
        let mut storage_failed = self.node.storage_failed();
        tokio::select! {
            () = cold_start::wait(&self.node, self.config.cold_start_wait) => {}
            reason = reason_of(&mut no_cluster) => return Err(ServerError::NoCluster(reason)),
            reason = reason_of(&mut storage_failed) => return Err(ServerError::StorageFailed(reason)),
        }
        self.publish_first().await;
        self.start_proxy()?;
        let mut has_storage = true;
        loop {
            tokio::select! {
                reason = reason_of(&mut no_cluster) => return Err(ServerError::NoCluster(reason)),
                reason = reason_of(&mut storage_failed), if has_storage => {
                    has_storage = false;
                    self.storage_failed(reason)?;
                }
                Some(()) = hangups.recv() => self.reload(reread).await,
            }
        }
    }

    async fn publish_first(&mut self) {
        let mut published = self.live.published();
        if let Some(gate) = self.gate.take() {
            // A publisher that is gone has logged why; the node then stays not ready.
            let _ = gate.send(());
        }
        if published.changed().await.is_err() {
            error!("nothing publishes the table any more");
        }
    }

    fn start_proxy(&mut self) -> Result<(), ServerError> {
        let sinks = self.sinks.start(&self.config, self.node.node_id(), &self.metrics)?;
        let options = ProxyOptions {
            listeners: std::mem::take(&mut self.listeners),
            live: Arc::clone(&self.live),
            metrics: self.metrics.clone(),
            sinks,
            workers: self.config.workers,
        };
        self.proxy = Some(Proxy::start(options)?);
        self.phase.send_replace(Phase::Serving);
        let revision = self.live.load().revision;
        let addresses = &self.addresses;
        let proxy = addresses.listeners.values().map(ToString::to_string).collect::<Vec<_>>().join(",");
        info!(node = self.node.node_id(), %proxy, admin = %addresses.admin, peer = %addresses.peer, %revision, "ready");
        Ok(())
    }

    fn storage_failed(&self, reason: String) -> Result<(), ServerError> {
        error!(reason, "storage failed: this node takes no part in Raft until it is started again");
        match self.config.on_storage_failure {
            OnStorageFailure::Exit => Err(ServerError::StorageFailed(reason)),
            OnStorageFailure::Serve => Ok(()),
        }
    }

    /// faults.md, "Leader transfer".
    async fn stop(self) {
        info!(node = self.node.node_id(), "stopping");
        self.phase.send_replace(Phase::Draining);
        self.node.hand_over(Instant::now() + HAND_OVER_DEADLINE).await;
        if let Some(proxy) = self.proxy {
            proxy.drain().await;
        }
        self.admin.stop().await;
        let node = self.node.node_id();
        self.node.shutdown().await;
        // Both join a thread.
        let (publisher, canary) = (self.publisher, self.canary);
        let joined = task::spawn_blocking(move || drop((publisher, canary)));
        if let Err(error) = joined.await {
            error!(%error, "a thread did not end in order");
        }
        self.sinks.end().await;
        info!(node, "stopped");
    }
}

/// Waits until there is a reason.
async fn reason_of(reasons: &mut watch::Receiver<Option<String>>) -> String {
    match reasons.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // Nobody is left to give one.
        Err(_) => std::future::pending().await,
    }
}

async fn open_store(config: &NodeConfig, node_id: Option<NodeId>, metrics: &Metrics) -> Result<store::Opened, ServerError> {
    let options = StoreOptions {
        dir: config.data_dir.clone(),
        node_id,
        cluster_name: config.cluster.name.clone(),
        feature_level_max: FEATURE_LEVEL_MAX,
        metrics: metrics.clone(),
    };
    let opened = task::spawn_blocking(move || store::open(options)).await;
    let opened = opened.map_err(|panic| system("opening the store")(io::Error::other(panic)))?;
    Ok(opened?)
}

/// Small files, read before anything else is opened: a key that is missing is told at once.
fn keyring(config: &NodeConfig) -> Result<Arc<Keyring>, ServerError> {
    let keyring = Keyring::load(config.secrets.key_file.as_deref(), &config.secrets.previous_key_files)?;
    if let [sealing, opening @ ..] = keyring.key_ids().collect::<Vec<_>>().as_slice() {
        info!(sealing, ?opening, "sealing keys loaded");
    }
    Ok(Arc::new(keyring))
}

/// Where callers reach the admin API, and how.
fn advertised_admin(config: &NodeConfig, addresses: &addresses::Addresses) -> String {
    let address = config.admin.advertise.clone().unwrap_or_else(|| addresses.admin.to_string());
    if config.admin.tls.is_some() { format!("https://{address}") } else { address }
}

fn callers(config: &NodeConfig) -> Callers {
    let tokens = config.admin.tokens.iter().map(|caller| (caller.name.clone(), caller.token.clone()));
    Callers::new(tokens, config.admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()))
}

fn raft_settings(config: &NodeConfig) -> RaftSettings {
    let cluster = &config.cluster;
    RaftSettings {
        heartbeat: cluster.heartbeat,
        election_timeout_min: cluster.election_timeout_min,
        election_timeout_max: cluster.election_timeout_max,
    }
}

fn explain(listener: &ListenerConfig) -> admin::Listener {
    admin::Listener {
        name: listener.name.clone(),
        address: listener.address,
        hostname: listener.hostname.clone(),
        tls: listener.tls.is_some(),
        trusted_proxies: addresses::trusted_proxies(listener),
        escaped_slashes: listener.escaped_slashes,
    }
}
