//! Workers: threads that serve, and the handle that drains them.
//!
//! A worker runs one coarse clock for all of its deadlines: a tick every [`TICK`] looks at each connection, instead of a timer for each
//! request. What needs precision (a rule's timeouts) has timers of its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::connection::ClientConnection;
use super::counters::Counters;
use super::listener::{BoundListener, Listener, accept_all};
use super::mirror::Mirrors;
use super::park::Parking;
use crate::observe::{AccessLog, Metrics};
use crate::table::Live;
use crate::upstream::balance::Points;
use crate::upstream::{TlsClients, Upstreams};

/// The step of a worker's clock.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks between two sweeps of the pools.
const SWEEP_TICKS: u64 = 10;
/// How long idle connections stay open after a drain began, so that a request that is on its way is still answered.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How much the worker threads yield to Raft and the rest: the kernel's nice value is raised by this.
const NICENESS: i32 = 5;

/// What a proxy is started with.
#[derive(Debug)]
pub struct ProxyOptions {
    /// Bound for `workers` workers each.
    pub listeners: Vec<BoundListener>,
    /// The table that requests load.
    pub live: Arc<Live>,
    /// Where it counts.
    pub metrics: Metrics,
    /// `None` writes no access log.
    pub access_log: Option<AccessLog>,
    /// How many threads; the same as at [`bind`](super::bind).
    pub workers: usize,
}

/// Why a proxy does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A worker's runtime or thread could not be made.
    #[error("proxy worker {0} not started")]
    Worker(usize, #[source] io::Error),
}

/// The data plane.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Starts the workers. They serve until [`ProxyHandle::drain`], or until the handle is dropped.
    pub fn start(options: ProxyOptions) -> Result<ProxyHandle, StartError> {
        let (draining, _) = watch::channel(false);
        let named = |listener: &BoundListener| {
            let address = listener.address;
            listener.names().map(|name| (name.to_owned(), address)).collect::<Vec<_>>()
        };
        let addresses = options.listeners.iter().flat_map(named).collect();
        let drain_timeout = options.listeners.iter().map(|l| l.options.drain_timeout).max().unwrap_or_default();
        let clients = Arc::new(TlsClients::new());
        let mut listeners = options.listeners;
        let mut ended = Vec::new();
        let workers = options.workers.max(1);
        for index in 0..workers {
            let sockets = listeners
                .iter_mut()
                .filter_map(|bound| bound.sockets.pop().map(|socket| (Listener::new(bound, workers, &options.live), socket)));
            let setup = Setup {
                clients: Arc::clone(&clients),
                sockets: sockets.collect(),
                live: Arc::clone(&options.live),
                metrics: options.metrics.clone(),
                access_log: options.access_log.clone(),
                draining: draining.subscribe(),
            };
            ended.push(start_worker(index, setup).map_err(|error| StartError::Worker(index, error))?);
        }
        Ok(ProxyHandle { draining, addresses, ended, drain_timeout })
    }
}

/// The running proxy. Dropping it stops it without a drain.
#[derive(Debug)]
pub struct ProxyHandle {
    draining: watch::Sender<bool>,
    addresses: Vec<(String, SocketAddr)>,
    ended: Vec<oneshot::Receiver<()>>,
    drain_timeout: Duration,
}

impl ProxyHandle {
    /// Names and addresses of the listeners.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Stops accepting, answers with `Connection: close`, finishes what is under way, closes idle connections after a second, and gives
    /// up after each listener's `drain_timeout`. Done once all workers ended.
    pub async fn drain(self) {
        self.draining.send_replace(true);
        let all = async {
            for ended in self.ended {
                // A worker that is gone has ended too.
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(self.drain_timeout + DRAIN_GRACE + 10 * TICK, all).await.is_err() {
            tracing::warn!("a proxy worker did not end in time");
        }
    }
}

struct Setup {
    clients: Arc<TlsClients>,
    sockets: Vec<(Listener, std::net::TcpListener)>,
    live: Arc<Live>,
    metrics: Metrics,
    access_log: Option<AccessLog>,
    draining: watch::Receiver<bool>,
}

fn start_worker(index: usize, setup: Setup) -> io::Result<oneshot::Receiver<()>> {
    let (end, ended) = oneshot::channel();
    let (started, starting) = std::sync::mpsc::channel();
    let run = move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let built =
            builder.enable_io().enable_time().max_blocking_threads(4).build_local(tokio::runtime::LocalOptions::default());
        let runtime = match built {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        // The calling thread's priority only, on Linux. Where it is not allowed, the worker runs as it is.
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "priority of a proxy worker not lowered");
        }
        drop(started.send(Ok(())));
        runtime.block_on(run_worker(setup));
        drop(end);
    };
    std::thread::Builder::new().name(format!("proxy-{index}")).spawn(run)?;
    starting.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
    Ok(ended)
}

/// What all connections of one worker share. Never leaves its thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) live: Arc<Live>,
    pub(super) upstreams: Upstreams,
    pub(super) metrics: Metrics,
    pub(super) counters: Counters,
    pub(super) access_log: Option<AccessLog>,
    pub(super) parking: Parking,
    pub(super) mirrors: Mirrors,
    points: RefCell<Points>,
    random: RefCell<fastrand::Rng>,
    now: Cell<Instant>,
    draining_since: Cell<Option<Instant>>,
    connections: RefCell<HashMap<u64, Rc<ClientConnection>, foldhash::fast::RandomState>>,
    next_id: Cell<u64>,
}

impl Worker {
    fn new(live: Arc<Live>, clients: Arc<TlsClients>, metrics: Metrics, access_log: Option<AccessLog>) -> Worker {
        Worker {
            counters: Counters::new(&metrics),
            parking: Parking::new(&live),
            mirrors: Mirrors::default(),
            live,
            upstreams: Upstreams::new(clients),
            metrics,
            access_log,
            points: RefCell::new(Points::new(fastrand::u64(..))),
            random: RefCell::new(fastrand::Rng::new()),
            now: Cell::new(Instant::now()),
            draining_since: Cell::new(None),
            connections: RefCell::default(),
            next_id: Cell::new(0),
        }
    }

    /// The time, up to one tick old.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Whether answers should end their connections.
    pub(super) fn is_draining(&self) -> bool {
        self.draining_since.get().is_some()
    }

    /// From now on answers end their connections. Called before the first listener closes.
    pub(super) fn begin_drain(&self) {
        if !self.is_draining() {
            self.draining_since.set(Some(Instant::now()));
        }
    }

    /// A point for a weighted choice.
    pub(super) fn point(&self) -> u64 {
        self.points.borrow_mut().next_point()
    }

    /// 128 random bits, for an identifier.
    pub(super) fn random_id(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// 64 random bits, for a wait.
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Puts a connection or a stream under the worker's clock; gives what [`Worker::remove`] takes.
    pub(super) fn add(&self, connection: Rc<ClientConnection>) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        if connection.is_socket() {
            self.metrics.downstream_connections.inc();
        }
        self.connections.borrow_mut().insert(id, connection);
        id
    }

    pub(super) fn remove(&self, id: u64, connection: &ClientConnection) {
        self.connections.borrow_mut().remove(&id);
        if connection.is_socket() {
            self.metrics.downstream_connections.dec();
        }
    }

    fn tick(&self) {
        let now = Instant::now();
        self.now.set(now);
        let drained_for = self.draining_since.get().map(|since| now.duration_since(since));
        for connection in self.connections.borrow().values() {
            connection.check_deadlines(now);
            if let Some(drained_for) = drained_for {
                connection.leave();
                let is_over = drained_for >= connection.listener().options.drain_timeout;
                if is_over || (drained_for >= DRAIN_GRACE && connection.is_idle()) {
                    connection.close();
                }
            }
        }
    }
}

async fn run_worker(setup: Setup) {
    let draining = setup.draining;
    let worker = Rc::new(Worker::new(setup.live, setup.clients, setup.metrics, setup.access_log));
    let mut accepting = JoinSet::new();
    for (listener, socket) in setup.sockets {
        accepting.spawn_local(accept_all(Rc::clone(&worker), Rc::new(listener), socket, draining.clone()));
    }
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 1_u64.. {
        interval.tick().await;
        // A drain keeps its sender until the workers ended; without it the handle was dropped, and nobody waits.
        if draining.has_changed().is_err() {
            return;
        }
        if *draining.borrow() {
            worker.begin_drain();
        }
        worker.tick();
        if count.is_multiple_of(SWEEP_TICKS) {
            worker.upstreams.sweep(&worker.live.load(), worker.now());
        }
        while accepting.try_join_next().is_some() {}
        if worker.is_draining() && accepting.is_empty() && worker.connections.borrow().is_empty() {
            return;
        }
    }
}
