//! A client's connection: hyper's HTTP/1.1 server over a socket, and the deadlines that it lacks.
//!
//! Deadlines live with the connection and not with the request: over HTTP/1.1 there is one exchange at a time, and any byte read or
//! written is a sign of life for all of it. The worker's tick calls [`ClientConnection::check_deadlines`]; no timer is armed for a request.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::exchange;
use super::listener::Listener;
use super::worker::Worker;

/// Fields of a request's head at most.
const HEADERS_MAX: usize = 100;
/// The least that hyper's buffer may be.
const BUFFER_BYTES_MIN: usize = 8192;

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

/// What the exchanges of one connection share with it, and the worker's clock with both.
#[derive(Debug)]
pub(super) struct ClientConnection {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    peer: IpAddr,
    is_trusted: bool,
    forwarded_for: HeaderValue,
    phase: Cell<Phase>,
    /// When the phase began or, in an exchange and while idle, when the last byte passed.
    since: Cell<Instant>,
    is_stalled: Cell<bool>,
    is_closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ClientConnection {
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whether the peer is one of the listener's trusted proxies.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// The peer's address, as it stands in `X-Forwarded-For`.
    pub(super) fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// Whether nothing would be lost by closing it: no request, and no byte for two ticks (an answer may still be on its way out).
    pub(super) fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle && self.worker.now().duration_since(self.since.get()) >= 2 * super::worker::TICK
    }

    /// Whether the present exchange stood still for so long that it is to be answered with 504. Only the connection's own task asks,
    /// and it is woken.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.get()
    }

    pub(super) fn begin_exchange(&self) {
        self.enter(Phase::Exchange);
    }

    pub(super) fn end_exchange(&self) {
        self.enter(Phase::Idle);
    }

    /// Ends the connection at once.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }

    /// Closes what is over its time. An exchange that stands still is told first, so that it can still answer, and closed after that.
    pub(super) fn check_deadlines(&self, now: Instant) {
        let options = &self.listener.options;
        let limit = match self.phase.get() {
            Phase::Idle => options.idle_timeout,
            Phase::Head => options.header_read_timeout,
            Phase::Exchange => options.stream_idle_timeout,
        };
        if now.saturating_duration_since(self.since.get()) < limit {
            return;
        }
        if self.phase.get() == Phase::Exchange && !self.is_stalled.replace(true) {
            self.since.set(now);
            self.wake();
        } else {
            self.close();
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.worker.now());
        self.is_stalled.set(false);
    }

    fn note_read(&self) {
        match self.phase.get() {
            Phase::Idle => self.enter(Phase::Head),
            // A head that comes byte by byte wins no time.
            Phase::Head => {}
            Phase::Exchange => self.since.set(self.worker.now()),
        }
    }

    fn note_write(&self) {
        if self.phase.get() != Phase::Head {
            self.since.set(self.worker.now());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// Serves one connection until either side is done with it.
pub(super) async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, stream: TcpStream, peer: IpAddr) {
    let Ok(forwarded_for) = HeaderValue::try_from(peer.to_string()) else { return };
    let connection = Rc::new(ClientConnection {
        is_trusted: listener.options.trusts(peer),
        phase: Cell::new(Phase::Idle),
        since: Cell::new(worker.now()),
        is_stalled: Cell::new(false),
        is_closed: Cell::new(false),
        waker: RefCell::new(None),
        worker,
        listener,
        peer,
        forwarded_for,
    });
    let _registration = Registration { id: connection.worker.add(Rc::clone(&connection)), worker: Rc::clone(&connection.worker) };
    let header_bytes_max = connection.listener.options.header_bytes_max;
    let mut builder = http1::Builder::new();
    // The worker's clock bounds the head's arrival; hyper's own timer would cost an allocation a request.
    builder.header_read_timeout(None);
    builder.half_close(false).max_headers(HEADERS_MAX).max_header_size(header_bytes_max);
    builder.max_buf_size(header_bytes_max.max(BUFFER_BYTES_MIN));
    let io = TokioIo::new(Watched { stream, connection: Rc::clone(&connection) });
    let serving = builder.serve_connection(io, service_fn(|request| exchange::serve(Rc::clone(&connection), request)));
    let mut serving = pin!(serving);
    let ended = poll_fn(|cx| {
        if connection.is_closed.get() {
            return Poll::Ready(Ok(()));
        }
        if !connection.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            connection.waker.replace(Some(cx.waker().clone()));
        }
        serving.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(client = %connection.peer, %error, "client connection ended");
    }
}

/// Takes the connection from the worker's clock however its task ends.
struct Registration {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.remove(self.id);
    }
}

/// A socket that reports its bytes to the connection's deadlines.
struct Watched {
    stream: TcpStream,
    connection: Rc<ClientConnection>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.note_read();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if polled.is_ready() {
            self.connection.note_write();
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if polled.is_ready() {
            self.connection.note_write();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
