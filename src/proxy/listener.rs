//! Listeners: what one is set to, its sockets, and accepting from them.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::admission::Addresses;
use super::connection;
use super::load::{Load, Loads};
use super::place::Place;
use super::proxy_protocol;
use super::tls::{self, Tls};
use super::worker::Worker;
use crate::model::hostname;
use crate::model::path::EscapedSlashes;
use crate::table::Live;

/// Connections that wait to be accepted, for each socket.
const BACKLOG: i32 = 1024;
/// How long to wait after a failed accept (no more file descriptors, above all).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Its name, which routes bind to.
    pub name: String,
    /// The hosts that it takes, as in Gateway API's `Listener`; `None`: all.
    pub hostname: Option<String>,
    /// How TLS is spoken; `None`: clear text is.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether answers carry `Raftgate-Revision`.
    pub debug_headers: bool,
    /// Whether `Raftgate-Min-Revision` is heeded.
    pub min_revision: bool,
    /// Networks (address and prefix length in bits) whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// How long a drain lets exchanges go on.
    pub drain_timeout: Duration,
    /// What becomes of `%2f` and `%5c` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// Bytes of a request's head at most; at least 8 KiB are allowed.
    pub header_bytes_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_read_timeout: Duration,
    /// Bytes of a request's body at most.
    pub body_bytes_max: Option<u64>,
    /// Bytes a second that a client has to send of a request's body and to take of an answer, while it alone is waited for.
    pub body_rate_min: Option<u64>,
    /// How far behind that a client may be.
    pub body_rate_window: Duration,
    /// Connections open at once at most; each worker takes its part. More wait in the backlog.
    pub connections_max: usize,
    /// Connections from one IPv4 address or one /64 of IPv6 at most, over all workers. More are closed.
    pub connections_per_address_max: Option<usize>,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long an exchange may stand still, without a byte either way.
    pub stream_idle_timeout: Duration,
}

impl Default for ListenerOptions {
    fn default() -> ListenerOptions {
        ListenerOptions {
            name: "default".into(),
            hostname: None,
            tls: None,
            http2: true,
            proxy_protocol: false,
            debug_headers: false,
            min_revision: false,
            trusted_proxies: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            escaped_slashes: EscapedSlashes::Refuse,
            header_bytes_max: 64 * 1024,
            header_read_timeout: Duration::from_secs(10),
            body_bytes_max: None,
            body_rate_min: None,
            body_rate_window: Duration::from_secs(10),
            connections_max: 16_384,
            connections_per_address_max: None,
            idle_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(300),
        }
    }
}

impl ListenerOptions {
    /// The same, with the certificates of the live table to show.
    pub(super) fn with_certificates_of(&self, live: &Arc<Live>) -> ListenerOptions {
        let tls = self.tls.clone().map(|tls| tls.with_certificates_of(live));
        ListenerOptions { tls, ..self.clone() }
    }

    /// Whether `peer` is one of the trusted proxies.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|&(network, prefix)| match (network.to_canonical(), peer) {
            (IpAddr::V4(network), IpAddr::V4(peer)) => has_prefix(network.to_bits().into(), peer.to_bits().into(), 32, prefix),
            (IpAddr::V6(network), IpAddr::V6(peer)) => has_prefix(network.to_bits(), peer.to_bits(), 128, prefix),
            _ => false,
        })
    }
}

fn has_prefix(network: u128, peer: u128, bits: u32, prefix: u8) -> bool {
    let rest = bits.saturating_sub(u32::from(prefix));
    network.checked_shr(rest).unwrap_or(0) == peer.checked_shr(rest).unwrap_or(0)
}

/// A listener whose port is taken: one socket for each worker. Others may share it.
#[derive(Debug)]
pub struct BoundListener {
    pub(super) options: ListenerOptions,
    pub(super) sharing: Vec<ListenerOptions>,
    pub(super) address: SocketAddr,
    addresses: Addresses,
    pub(super) loads: Loads,
    pub(super) sockets: Vec<std::net::TcpListener>,
}

impl BoundListener {
    /// Where it listens, the port resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a listener with another hostname to the address. What holds for a connection as a whole (limits of the head and of
    /// connections, timeouts, trusted proxies, whether TLS is spoken) stays that of the first; how TLS is spoken is each one's own.
    pub fn share(&mut self, options: ListenerOptions) {
        self.sharing.push(options);
    }

    /// What a worker gets of it: each once.
    pub(super) fn part(&mut self, worker: usize, live: &Arc<Live>) -> Option<(Listener, std::net::TcpListener)> {
        let socket = self.sockets.pop()?;
        Some((Listener::new(self, worker, live), socket))
    }
}

/// Why a listener cannot be bound.
#[derive(Debug, Error)]
#[error("listener {name:?}: cannot listen on {address}")]
pub struct BindError {
    /// The listener.
    pub name: String,
    /// Where it should listen.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Takes `address` for `workers` workers; port 0 takes any free one.
///
/// The first bind is exclusive: `SO_REUSEPORT` alone would let a second node of the same user take half the connections in silence.
pub fn bind(options: ListenerOptions, address: SocketAddr, workers: usize) -> Result<BoundListener, BindError> {
    let sockets = take(address, workers);
    match sockets {
        Ok((address, sockets)) => {
            let (addresses, loads) = (Addresses::default(), Loads::new(workers));
            Ok(BoundListener { options, sharing: Vec::new(), address, addresses, loads, sockets })
        }
        Err(source) => Err(BindError { name: options.name, address, source }),
    }
}

fn take(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let exclusive = std::net::TcpListener::bind(address)?;
    let address = exclusive.local_addr()?;
    drop(exclusive);
    let shared = |_| -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let sockets = (0..workers.max(1)).map(shared).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

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
    loop {
        let accepted = tokio::select! {
            biased;
            // A sender that is gone means the handle is gone: the same as a drain.
            _ = draining.wait_for(|draining| *draining) => {
                worker.begin_drain();
                break;
            }
            () = place.is_to_close() => break,
            accepted = async { place.has_room().await; socket.accept().await } => accepted,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_by_prefix() {
        let networks = [("10.0.0.0", 8), ("2001:db8::", 32), ("192.0.2.7", 32)];
        let trusted_proxies = networks.iter().map(|(address, bits)| (address.parse().unwrap(), *bits)).collect();
        let options = ListenerOptions { trusted_proxies, ..ListenerOptions::default() };
        for (peer, expected) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
        ] {
            assert_eq!(options.trusts(peer.parse().unwrap()), expected, "{peer}");
        }
        let everyone = ListenerOptions { trusted_proxies: vec![("0.0.0.0".parse().unwrap(), 0)], ..ListenerOptions::default() };
        assert!(everyone.trusts("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn a_port_in_use_is_an_error_even_where_it_is_shared() {
        let first = bind(ListenerOptions::default(), "127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let second = bind(ListenerOptions { name: "public".into(), ..ListenerOptions::default() }, first.address(), 1);
        let text = second.unwrap_err().to_string();
        assert!(text.starts_with("listener \"public\": cannot listen on 127.0.0.1:"), "{text}");
    }
}
