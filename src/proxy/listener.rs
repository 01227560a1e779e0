//! Listeners: what one is set to ([`options`]), its sockets ([`mod@bind`]), and accepting from them.

mod bind;
mod options;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

pub use self::bind::{BindError, BoundListener, bind};
pub use self::options::ListenerOptions;
use super::admission::Addresses;
use super::connection;
use super::load::{Load, Loads};
use super::place::Place;
use super::proxy_protocol;
use super::tls;
use super::worker::Worker;
use crate::model::hostname;
use crate::table::Live;

/// How long to wait after a failed accept (no more file descriptors, above all).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener, with those that share its address, as one worker has it.
#[derive(Debug)]
pub(super) struct Listener {
    /// What holds for connections.
    pub(super) options: ListenerOptions,
    sharing: Vec<ListenerOptions>,
    pub(super) address: SocketAddr,
    addresses: Addresses,
    connections_max: usize,
    pub(super) loads: Loads,
    worker: usize,
    room: Arc<Notify>,
    /// Whether other options took its place. Its connections end with their next answer, so that clients come back to those.
    is_replaced: Cell<bool>,
    /// When the place was closed; of all listeners that stood there. Connections end with their next answer, and after `drain_timeout` in
    /// any case.
    drained: Arc<OnceLock<Instant>>,
}

impl Listener {
    fn new(bound: &BoundListener, worker: usize, live: &Arc<Live>) -> Listener {
        let options = bound.options.with_certificates_of(live);
        let sharing = bound.sharing.iter().map(|options| options.with_certificates_of(live)).collect();
        let (address, addresses, loads) = (bound.address, bound.addresses.clone(), bound.loads.clone());
        let connections_max = loads.share(options.connections_max);
        let (room, is_replaced, drained) = Default::default();
        Listener { options, sharing, address, addresses, connections_max, loads, worker, room, is_replaced, drained }
    }

    /// The same place with other options; what is counted goes on.
    pub(super) fn replaced_by(&self, options: ListenerOptions, sharing: Vec<ListenerOptions>) -> Listener {
        self.is_replaced.set(true);
        // Whoever waits for room looks again.
        self.room.notify_one();
        let (address, addresses, loads) = (self.address, self.addresses.clone(), self.loads.clone());
        let connections_max = loads.share(options.connections_max);
        let (room, drained) = (Arc::clone(&self.room), Arc::clone(&self.drained));
        let (worker, is_replaced) = (self.worker, Cell::new(false));
        Listener { options, sharing, address, addresses, connections_max, loads, worker, room, is_replaced, drained }
    }

    /// When the drain of its connections began, if it did.
    pub(super) fn drained_since(&self) -> Option<Instant> {
        self.drained.get().copied()
    }

    /// Whether answers end their connections.
    pub(super) fn is_ending(&self) -> bool {
        self.is_replaced.get() || self.drained.get().is_some()
    }

    /// The listener that takes requests for `host`: the one with the most specific hostname. `None`: none takes it. No host at all (a client
    /// without SNI) is taken by the one without a hostname.
    pub(super) fn of_host(&self, host: &str) -> Option<&ListenerOptions> {
        hostname::taking(std::iter::once(&self.options).chain(&self.sharing), |options| options.hostname.as_deref(), host)
    }

    /// Whether another connection may be accepted.
    pub(super) fn has_room(&self) -> bool {
        self.loads.of(self.worker) < self.connections_max
    }

    /// Done when it is time to look for room again.
    pub(super) async fn room_made(&self) {
        self.room.notified().await;
    }
}

/// One open connection of a listener.
struct OpenConnection {
    listener: Rc<Listener>,
    _load: Load,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        // The load falls before who waits for it can look.
        self.listener.room.notify_one();
    }
}

/// A connection that one worker accepted and another is to serve.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) place: SocketAddr,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    load: Load,
}

/// Accepts until the drain begins or the place is closed, then whatever already waits, and closes the socket.
pub(super) async fn accept_all(
    worker: Rc<Worker>,
    place: Rc<Place>,
    socket: std::net::TcpListener,
    mut draining: watch::Receiver<bool>,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(listener = place.listener().options.name, %error, "listener not served"),
    };
    let held_back = &worker.metrics.connections_held_back;
    loop {
        let accepted = tokio::select! {
            biased;
            // A sender that is gone means the handle is gone: the same as a drain.
            _ = draining.wait_for(|draining| *draining) => {
                worker.begin_drain();
                break;
            }
            () = place.is_to_close() => break,
            accepted = async { place.has_room(held_back).await; socket.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => spread(&worker, &place.listener(), stream, peer),
            Err(error) => {
                tracing::warn!(listener = place.listener().options.name, %error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let listener = place.listener();
    listener.drained.get_or_init(Instant::now);
    while let Some(Ok((stream, peer))) = socket.accept().now_or_never() {
        let load = listener.loads.add(listener.worker);
        begin(&worker, &listener, stream, peer, load);
    }
    drop(socket);
    place.note_closed();
}

/// Serves a new connection here, or hands it to a worker that has fewer: the kernel spreads few connections unevenly, and each of
/// HTTP/2 may carry the work of many.
fn spread(worker: &Rc<Worker>, listener: &Rc<Listener>, stream: TcpStream, peer: SocketAddr) {
    let Some(other) = listener.loads.less_loaded_than(listener.worker) else {
        let load = listener.loads.add(listener.worker);
        return begin(worker, listener, stream, peer, load);
    };
    let load = listener.loads.add(other);
    let Ok(stream) = stream.into_std() else { return };
    if let Err(Handed { stream, load, .. }) = worker.hand_over(other, Handed { place: listener.address, stream, peer, load }) {
        take_over(worker, listener, Handed { place: listener.address, stream, peer, load });
    }
}

/// Serves what another worker accepted.
pub(super) fn take_over(worker: &Rc<Worker>, listener: &Rc<Listener>, handed: Handed) {
    match TcpStream::from_std(handed.stream) {
        Ok(stream) => begin(worker, listener, stream, handed.peer, handed.load),
        Err(error) => tracing::warn!(listener = listener.options.name, %error, "connection not served"),
    }
}

fn begin(worker: &Rc<Worker>, listener: &Rc<Listener>, stream: TcpStream, peer: SocketAddr, load: Load) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "connection already gone");
    }
    let open = OpenConnection { listener: Rc::clone(listener), _load: load };
    let serving = serve(Rc::clone(worker), Rc::clone(listener), stream, peer.ip().to_canonical());
    tokio::task::spawn_local(async move {
        serving.await;
        drop(open);
    });
}

/// Serves one connection, once it is known whose it is.
async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, mut stream: TcpStream, mut address: IpAddr) {
    if listener.options.proxy_protocol {
        let reading = proxy_protocol::read_client(&mut stream, address);
        address = match tokio::time::timeout(listener.options.header_read_timeout, reading).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                worker.metrics.connections_refused.with_label_values(&["proxy_protocol"]).inc();
                return tracing::debug!(listener = listener.options.name, peer = %address, error = &error as &dyn std::error::Error, "connection closed");
            }
            Err(_) => return worker.metrics.connections_refused.with_label_values(&["proxy_protocol"]).inc(),
        };
    }
    let admission = match listener.options.connections_per_address_max {
        None => None,
        Some(most) => match listener.addresses.admit(address, most) {
            None => return worker.metrics.connections_refused.with_label_values(&["per_address"]).inc(),
            admitted => admitted,
        },
    };
    match listener.options.tls {
        None => connection::serve(worker, listener, stream, address, None).await,
        // Apart, for connections in clear text would take its room too.
        Some(_) => Box::pin(tls::serve(worker, listener, stream, address)).await,
    }
    drop(admission);
}
