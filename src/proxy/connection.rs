//! A client's connection: what is spoken on it, and the deadlines that hyper lacks.
//!
//! [`serve`] finds out whether HTTP/1.1 or HTTP/2 is spoken, and hands the connection to `http1` or `http2`.
//!
//! Deadlines live with the connection and not with the request: over HTTP/1.1 there is one exchange at a time, and any byte read or
//! written is a sign of life for all of it. Over HTTP/2 each stream is a [`ClientConnection`] of its own beside that of the socket, for
//! one stream may stand still while others go on; there a frame of a body is the sign of life. The worker's tick calls
//! [`ClientConnection::check_deadlines`]; no timer is armed for a request. A handshake of TLS, which comes
//! before either, is an [`Arrival`]. Where a listener asks for a least rate, `pace` judges it.
//!
//! A connection of HTTP/1.1 that is idle for a second is at rest: what hyper holds for it is let go of until its next byte (`http1`).

mod arrival;
mod deadlines;
mod ending;
mod framed;
mod http1;
mod http2;
mod io;
mod pace;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

pub(super) use self::arrival::Arrival;
use self::io::Watched;
use self::pace::Pace;
use super::listener::Listener;
use super::tls::Secured;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::upstream::BodyProgress;

/// How long a connection of HTTP/1.1 is idle before it lets go of its buffers: most of what it would cost until its next request.
const REST_AFTER: Duration = Duration::from_secs(1);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, RFC 9112.
    Http1,
    /// HTTP/2, RFC 9113.
    Http2,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// Bytes of a head came, the end of it not yet.
    Head,
    /// A request is being answered.
    Exchange,
}

/// What all exchanges of one connection know of their client.
#[derive(Debug)]
struct Peer {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    address: IpAddr,
    is_trusted: bool,
    forwarded_for: HeaderValue,
    /// `None`: in clear text.
    secured: Option<Secured>,
}

impl Peer {
    fn new(worker: &Rc<Worker>, listener: &Rc<Listener>, address: IpAddr, secured: Option<Secured>) -> Option<Rc<Peer>> {
        let forwarded_for = HeaderValue::try_from(address.to_string()).ok()?;
        let is_trusted = listener.options.trusts(address);
        let (worker, listener) = (Rc::clone(worker), Rc::clone(listener));
        Some(Rc::new(Peer { worker, listener, address, is_trusted, forwarded_for, secured }))
    }
}

/// What exchanges share with the connection that they run on (over HTTP/2: with their stream), and the worker's clock with both.
#[derive(Debug)]
pub(super) struct ClientConnection {
    peer: Rc<Peer>,
    /// The connection that this is a stream of.
    parent: Option<Rc<ClientConnection>>,
    protocol: Cell<Protocol>,
    phase: Cell<Phase>,
    /// Streams that are open, where this is a connection of HTTP/2.
    streams: Cell<usize>,
    /// Streams that were reset before their answer began, where this is a connection of HTTP/2.
    abandoned: Cell<u32>,
    /// When the phase began or, in an exchange and while idle, when the last byte passed.
    since: Cell<Instant>,
    is_stalled: Cell<bool>,
    /// Whether it has been idle for so long that it should let go of its buffers; of HTTP/1.1 alone.
    is_to_rest: Cell<bool>,
    /// Whether every request that came is answered, to the last byte, and no part of another came; of HTTP/1.1 alone.
    is_flushed: Cell<bool>,
    /// The message, by its number, of which a part of the body is still to come; of HTTP/1.1 alone.
    unfinished: Cell<Option<u64>>,
    /// The messages over HTTP/1.1 of which anything came.
    messages_begun: Cell<u64>,
    /// Since when the client sends a header block of HTTP/2.
    block_since: Cell<Option<Instant>>,
    /// Whether a part of the present answer's body was handed over.
    is_answered: Cell<bool>,
    /// Whether no further request is taken; of HTTP/2 alone.
    is_leaving: Cell<bool>,
    is_closed: Cell<bool>,
    exchanges_ended: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    /// Where the listener asks for a least rate.
    pace: Option<Box<Pace>>,
    /// The body that the client of a stream sends, or whose rate is judged.
    progress: RefCell<Option<Rc<BodyProgress>>>,
    /// What follows the present exchange, once both sides agreed to speak something else.
    tunnel: RefCell<Option<Box<Tunnel>>>,
}

impl ClientConnection {
    fn new(peer: Rc<Peer>, protocol: Protocol, parent: Option<Rc<ClientConnection>>) -> ClientConnection {
        let (options, now) = (&peer.listener.options, peer.worker.now());
        let pace = options.body_rate_min.map(|rate| Box::new(Pace::new(rate, options.body_rate_window, now)));
        ClientConnection {
            since: Cell::new(now),
            pace,
            peer,
            parent,
            protocol: Cell::new(protocol),
            phase: Cell::new(Phase::Idle),
            streams: Cell::new(0),
            abandoned: Cell::new(0),
            is_stalled: Cell::new(false),
            is_to_rest: Cell::new(false),
            is_flushed: Cell::new(true),
            unfinished: Cell::new(None),
            messages_begun: Cell::new(0),
            block_since: Cell::new(None),
            is_answered: Cell::new(false),
            is_leaving: Cell::new(false),
            is_closed: Cell::new(false),
            exchanges_ended: Cell::new(0),
            waker: RefCell::new(None),
            progress: RefCell::new(None),
            tunnel: RefCell::new(None),
        }
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.peer.worker
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.peer.listener
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.peer.address
    }

    /// Whether the peer is one of the listener's trusted proxies.
    pub(super) fn is_trusted(&self) -> bool {
        self.peer.is_trusted
    }

    /// Whether the next answer is to be the last.
    pub(super) fn is_ending(&self) -> bool {
        self.worker().is_draining() || self.listener().is_ending()
    }

    /// What the handshake agreed on, where the connection is not in clear text.
    pub(super) fn secured(&self) -> Option<&Secured> {
        self.peer.secured.as_ref()
    }

    /// The peer's address, as it stands in `X-Forwarded-For`.
    pub(super) fn forwarded_for(&self) -> &HeaderValue {
        &self.peer.forwarded_for
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Whether this is a connection and no stream of one.
    pub(super) fn is_socket(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether nothing would be lost by closing it: no request, and no byte for two ticks (an answer may still be on its way out).
    pub(super) fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle && self.worker().now().duration_since(self.since.get()) >= 2 * super::worker::TICK
    }

    /// Whether the present exchange stood still for so long that it is to be answered with 504, or 408. Only the connection's own task asks,
    /// and it is woken.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.get()
    }

    pub(super) fn begin_exchange(&self) {
        self.enter(Phase::Exchange);
        self.is_answered.set(false);
        if let Some(pace) = &self.pace {
            pace.begin();
        }
    }

    pub(super) fn end_exchange(&self) {
        self.exchanges_ended.set(self.exchanges_ended.get() + 1);
        self.enter(Phase::Idle);
        self.progress.replace(None);
    }

    /// Whether the connection has nothing to do, and has had nothing to do for a while.
    fn is_at_rest(&self) -> bool {
        self.is_to_rest.get() && self.is_flushed.get() && self.phase.get() == Phase::Idle
    }

    /// Whether a part of the present request is still to come; of HTTP/1.1 alone.
    pub(super) fn is_request_unfinished(&self) -> bool {
        self.unfinished.get() == Some(self.exchanges_ended() + 1)
    }

    /// Whether something came behind the present request; of HTTP/1.1 alone.
    pub(super) fn has_early_bytes(&self) -> bool {
        self.messages_begun.get() > self.exchanges_ended() + 1
    }

    /// How many exchanges came to their end.
    fn exchanges_ended(&self) -> u64 {
        self.exchanges_ended.get()
    }

    /// Something of the exchange's bodies passed. Over HTTP/1.1 the bytes tell.
    pub(super) fn note_progress(&self) {
        if !self.is_socket() {
            self.since.set(self.worker().now());
        }
    }

    /// A piece of an answer is on its way to the client.
    pub(super) fn note_answered(&self, bytes: usize) {
        self.note_progress();
        self.is_answered.set(true);
        if let Some(pace) = &self.pace {
            pace.note_answer(bytes);
        }
    }

    /// There is no more of an answer than the client has.
    pub(super) fn note_answer_awaited(&self) {
        if let Some(pace) = &self.pace {
            pace.note_answer_awaited();
        }
    }

    /// Takes what comes of this body for signs of life, and judges its rate. Calls of gRPC may be silent.
    pub(super) fn follow(&self, progress: Option<Rc<BodyProgress>>, is_grpc: impl FnOnce() -> bool) {
        if let Some(pace) = self.pace.as_ref().filter(|_| is_grpc()) {
            pace.exempt();
        }
        self.progress.replace(progress);
    }

    /// Whether the present exchange began to ask for its request's body since this was asked last.
    fn is_body_just_asked(&self) -> bool {
        self.progress.borrow().as_ref().is_some_and(|progress| progress.is_just_asked())
    }

    /// What the connection becomes once the head of the present answer is out.
    pub(super) fn set_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(Box::new(tunnel)));
    }

    /// Ends the connection at once.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }

    /// Takes no further request and ends the connection once those under way are answered, where the protocol can say so (GOAWAY).
    pub(super) fn leave(&self) {
        if self.is_socket() && self.protocol.get() == Protocol::Http2 && !self.is_leaving.replace(true) {
            self.since.set(self.worker().now());
            self.wake();
        }
    }

    /// `future`'s output, or `None` once the connection is closed.
    async fn unless_closed<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            if self.is_closed.get() {
                return Poll::Ready(None);
            }
            self.keep_waker(cx.waker());
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// `future`'s output, or `None` once the exchange stood still for too long.
    pub(super) async fn unless_stalled<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.is_stalled() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn keep_waker(&self, waker: &Waker) {
        if !self.waker.borrow().as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.waker.replace(Some(waker.clone()));
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.worker().now());
        self.is_stalled.set(false);
        self.is_to_rest.set(false);
    }

    fn note_read(&self) {
        match (self.protocol.get(), self.phase.get()) {
            // What is read may be of any stream, or of none.
            (Protocol::Http2, _) => {}
            (Protocol::Http1, Phase::Idle) => self.enter(Phase::Head),
            // A head that comes byte by byte wins no time.
            (Protocol::Http1, Phase::Head) => {}
            (Protocol::Http1, Phase::Exchange) => self.since.set(self.worker().now()),
        }
    }

    fn note_write(&self) {
        if self.protocol.get() == Protocol::Http1 && self.phase.get() != Phase::Head {
            self.since.set(self.worker().now());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// Serves one connection until either side is done with it. `secured` is what both sides agreed on already, if they did.
pub(super) async fn serve<I>(worker: Rc<Worker>, listener: Rc<Listener>, io: I, address: IpAddr, secured: Option<Secured>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let protocol = secured.as_ref().map(|secured| secured.protocol);
    let Some(peer) = Peer::new(&worker, &listener, address, secured) else { return };
    // Until it is known otherwise: the first bytes are a head then.
    let connection = Rc::new(ClientConnection::new(peer, Protocol::Http1, None));
    let _registration = Registration::new(&connection);
    let mut io = Watched::new(io, &connection);
    let protocol = match protocol {
        Some(protocol) => protocol,
        None if !connection.listener().options.http2 => Protocol::Http1,
        None => match connection.unless_closed(pin!(io.find_protocol())).await {
            Some(Ok(protocol)) => protocol,
            Some(Err(_)) | None => return,
        },
    };
    match protocol {
        Protocol::Http1 => http1::serve(&connection, io).await,
        // Boxed: it is large, and no part of what a connection of HTTP/1.1 costs.
        Protocol::Http2 => Box::pin(http2::serve(&connection, io)).await,
    }
}

/// Takes a connection or a stream from the worker's clock however its task ends.
#[derive(Debug)]
pub(super) struct Registration {
    connection: Rc<ClientConnection>,
    id: u64,
}

impl Registration {
    pub(super) fn new(connection: &Rc<ClientConnection>) -> Registration {
        Registration { id: connection.worker().add(Rc::clone(connection)), connection: Rc::clone(connection) }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connection.worker().remove(self.id, &self.connection);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::net::TcpStream;

    use super::super::exchange;
    use super::*;
    use crate::upstream::ClientBody;

    /// The size of what a function gives.
    fn size<A, B, C, D, E, R>(_function: impl FnOnce(A, B, C, D, E) -> R) -> usize {
        size_of::<R>()
    }

    fn size_of_exchange<R>(_function: impl FnOnce(Rc<ClientConnection>, Request<ClientBody>) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_connection_at_rest_is_small() {
        let (task, exchange, own) = (size(serve::<TcpStream>), size_of_exchange(exchange::serve), size_of::<ClientConnection>());
        assert!(task + own <= 1536, "{task} bytes of a task, {own} beside");
        // It is kept between the requests of a connection that is not at rest.
        assert!(exchange <= 5 * 1024, "{exchange} bytes of an exchange");
    }
}
