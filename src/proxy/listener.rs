//! Listeners: what one is set to ([`options`]), its sockets ([`mod@bind`]), and accepting from them.

mod bind;
mod options;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
    pub(super) loads: Loads,
    worker: usize,
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
        let (is_replaced, drained) = Default::default();
        Listener { options, sharing, address, addresses, loads, worker, is_replaced, drained }
    }

    /// The same place with other options; what is counted goes on.
    pub(super) fn replaced_by(&self, options: ListenerOptions, sharing: Vec<ListenerOptions>) -> Listener {
        self.is_replaced.set(true);
        let (address, addresses, loads) = (self.address, self.addresses.clone(), self.loads.clone());
        let (worker, is_replaced, drained) = (self.worker, Cell::new(false), Arc::clone(&self.drained));
        Listener { options, sharing, address, addresses, loads, worker, is_replaced, drained }
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

    /// Counts another connection for the worker that is to serve it: this one, or one that has fewer, for the kernel spreads few connections
    /// unevenly, and each of HTTP/2 may carry the work of many. `None`: there are as many as there may be.
    pub(super) fn add(&self) -> Option<Load> {
        let worker = self.loads.less_loaded_than(self.worker).unwrap_or(self.worker);
        self.loads.add_below(worker, self.options.connections_max)
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
    let mut accepted = None;
    loop {
        let room = async {
            if accepted.is_none() {
                accepted = Some(socket.accept().await?);
            }
            io::Result::Ok(place.room(held_back).await)
        };
        let room = tokio::select! {
            biased;
            // A sender that is gone means the handle is gone: the same as a drain.
            _ = draining.wait_for(|draining| *draining) => {
                worker.begin_drain();
                break;
            }
            () = place.is_to_close() => break,
            room = room => room,
        };
        match room {
            Ok(load) => {
                if let Some((stream, peer)) = accepted.take() {
                    begin_where_counted(&worker, &place.listener(), stream, peer, load);
                }
            }
            Err(error) => {
                tracing::warn!(listener = place.listener().options.name, %error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let listener = place.listener();
    listener.drained.get_or_init(Instant::now);
    let waiting = std::iter::from_fn(|| socket.accept().now_or_never()?.ok());
    for (stream, peer) in accepted.into_iter().chain(waiting) {
        let load = listener.loads.add(listener.worker);
        begin(&worker, &listener, stream, peer, load);
    }
    drop(socket);
    place.note_closed();
}

/// Serves a new connection here, or hands it to the worker that it counts for.
fn begin_where_counted(worker: &Rc<Worker>, listener: &Rc<Listener>, stream: TcpStream, peer: SocketAddr, load: Load) {
    let other = load.worker();
    if other == listener.worker {
        return begin(worker, listener, stream, peer, load);
    }
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
    let serving = serve(Rc::clone(worker), Rc::clone(listener), stream, peer.ip().to_canonical());
    tokio::task::spawn_local(async move {
        serving.await;
        drop(load);
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
