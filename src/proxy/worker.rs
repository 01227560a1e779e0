//! A worker: a thread that serves, and the orders that it takes.
//!
//! It runs one coarse clock for all of its deadlines: a tick every [`TICK`] looks at each connection, instead of a timer for each
//! request. What needs precision (a rule's timeouts) has timers of its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::connection::ClientConnection;
use super::counters::Counters;
use super::listener::{Handed, Listener, ListenerOptions, accept_all, take_over};
use super::mirror::Mirrors;
use super::park::Parking;
use super::place::Place;
use crate::observe::{Metrics, RequestSinks};
use crate::table::Live;
use crate::upstream::balance::Points;
use crate::upstream::{TlsClients, Upstreams};

/// The step of a worker's clock.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks between two sweeps of the pools.
const SWEEP_TICKS: u64 = 10;
/// How long idle connections stay open after a drain began, so that a request that is on its way is still answered.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How much the worker threads yield to Raft and the rest: the kernel's nice value is raised by this.
const NICENESS: i32 = 5;

/// What a worker is started with.
pub(super) struct Setup {
    pub(super) index: usize,
    pub(super) sockets: Vec<(Listener, std::net::TcpListener)>,
    pub(super) clients: Arc<TlsClients>,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Metrics,
    pub(super) sinks: RequestSinks,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// Where each worker takes its orders.
    pub(super) workers: Arc<[mpsc::UnboundedSender<Order>]>,
}

/// What a worker is asked to do while it runs.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept here too.
    Listen(Box<(Listener, std::net::TcpListener)>),
    /// Serve new connections of the address by these options: the first's hold for connections.
    Set(SocketAddr, Box<(ListenerOptions, Vec<ListenerOptions>)>),
    /// Accept no more at the address, and drain its connections. The sender is dropped once the socket is closed.
    Close(SocketAddr, oneshot::Sender<()>),
    /// Serve what another worker accepted.
    Serve(Handed),
}

/// Starts the thread. What is given is done once the worker ended.
pub(super) fn start_worker(setup: Setup) -> io::Result<oneshot::Receiver<()>> {
    let index = setup.index;
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
    pub(super) sinks: RequestSinks,
    pub(super) parking: Parking,
    pub(super) mirrors: Mirrors,
    points: RefCell<Points>,
    random: RefCell<fastrand::Rng>,
    now: Cell<Instant>,
    draining_since: Cell<Option<Instant>>,
    connections: RefCell<HashMap<u64, Rc<ClientConnection>, foldhash::fast::RandomState>>,
    next_id: Cell<u64>,
    workers: Arc<[mpsc::UnboundedSender<Order>]>,
}

impl Worker {
    fn new(
        live: Arc<Live>,
        clients: Arc<TlsClients>,
        metrics: Metrics,
        sinks: RequestSinks,
        workers: Arc<[mpsc::UnboundedSender<Order>]>,
    ) -> Worker {
        Worker {
            counters: Counters::new(&metrics),
            parking: Parking::new(&live),
            mirrors: Mirrors::default(),
            live,
            upstreams: Upstreams::new(clients),
            metrics,
            sinks,
            points: RefCell::new(Points::new(fastrand::u64(..))),
            random: RefCell::new(fastrand::Rng::new()),
            now: Cell::new(Instant::now()),
            draining_since: Cell::new(None),
            connections: RefCell::default(),
            next_id: Cell::new(0),
            workers,
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

    /// Lets another worker serve a connection; gives it back where that one has ended.
    pub(super) fn hand_over(&self, other: usize, handed: Handed) -> Result<(), Handed> {
        let Some(other) = self.workers.get(other) else { return Err(handed) };
        match other.send(Order::Serve(handed)) {
            Err(mpsc::error::SendError(Order::Serve(handed))) => Err(handed),
            Err(_) | Ok(()) => Ok(()),
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
        let draining_since = self.draining_since.get();
        for connection in self.connections.borrow().values() {
            connection.check_deadlines(now);
            let listener = connection.listener();
            if draining_since.is_none() && !listener.is_ending() {
                continue;
            }
            connection.leave();
            // Where only the options changed, what is under way takes its time.
            let Some(since) = listener.drained_since().or(draining_since) else { continue };
            let drained_for = now.saturating_duration_since(since);
            let is_over = drained_for >= listener.options.drain_timeout;
            if is_over || (drained_for >= DRAIN_GRACE && connection.is_idle()) {
                connection.close();
            }
        }
    }
}

async fn run_worker(setup: Setup) {
    let Setup { index, draining, mut orders, .. } = setup;
    let worker = Rc::new(Worker::new(setup.live, setup.clients, setup.metrics, setup.sinks, setup.workers));
    let mut places = Places { worker: Rc::clone(&worker), draining, all: HashMap::new(), accepting: JoinSet::new() };
    setup.sockets.into_iter().for_each(|(listener, socket)| places.listen(listener, socket));
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks = 0_u64;
    loop {
        tokio::select! {
            biased;
            Some(order) = orders.recv() => {
                places.follow(order);
                continue;
            }
            _ = interval.tick() => ticks += 1,
        }
        // A drain keeps its sender until the workers ended; without it the handle was dropped, and nobody waits.
        if places.draining.has_changed().is_err() {
            return;
        }
        if *places.draining.borrow() {
            worker.begin_drain();
        }
        worker.tick();
        if ticks.is_multiple_of(SWEEP_TICKS) {
            worker.upstreams.sweep(&worker.live.load(), worker.now());
            places.all.retain(|_, place| !place.is_over(index));
        }
        while places.accepting.try_join_next().is_some() {}
        if worker.is_draining() && places.accepting.is_empty() && orders.is_empty() && worker.connections.borrow().is_empty() {
            return;
        }
    }
}

/// Where one worker accepts.
struct Places {
    worker: Rc<Worker>,
    draining: watch::Receiver<bool>,
    all: HashMap<SocketAddr, Rc<Place>>,
    accepting: JoinSet<()>,
}

impl Places {
    fn listen(&mut self, listener: Listener, socket: std::net::TcpListener) {
        let (address, place) = (listener.address, Place::new(listener));
        self.accepting.spawn_local(accept_all(Rc::clone(&self.worker), Rc::clone(&place), socket, self.draining.clone()));
        self.all.insert(address, place);
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Listen(new) => self.listen(new.0, new.1),
            Order::Set(address, new) => {
                if let Some(place) = self.all.get(&address) {
                    place.set(new.0, new.1);
                }
            }
            Order::Close(address, closed) => {
                if let Some(place) = self.all.get(&address) {
                    place.close(closed);
                }
            }
            Order::Serve(handed) => {
                // It counts for the place, which therefore is still there.
                if let Some(place) = self.all.get(&handed.place) {
                    take_over(&self.worker, &place.listener(), handed);
                }
            }
        }
    }
}
