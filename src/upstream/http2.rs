//! The connections of one endpoint that speaks HTTP/2: few, each shared by many exchanges.
//!
//! A request takes a *slot*, which is one stream of a connection. h2 itself queues streams past the peer's limit without a bound; so
//! they are counted here, and where all connections are full another one is opened. Of all who find no slot one opens a connection, and
//! the others wait for it, or for a slot that comes free.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Notify, oneshot};

use super::body::RequestBody;
use super::error::SendFailure;
use super::fields::keep_out_of_tables;
use super::outbox::Outbox;

/// Exchanges that share one connection, where the endpoint allows more.
const STREAMS_MAX: usize = 256;
/// Connections to one endpoint.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of one answer that may be under way.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all answers of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one request's body that wait to be sent.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How long a connection with exchanges may be silent before it is asked for a sign of life, and how long that may take.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Http2Pool {
    connections: RefCell<Vec<Rc<Http2>>>,
    opening: Mutex<()>,
    freed: Notify,
}

/// One connection.
#[derive(Debug)]
struct Http2 {
    sender: SendRequest<RequestBody>,
    streams: Cell<usize>,
    /// What the endpoint allows, as far as it said so.
    streams_max: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
}

/// One stream of a connection, from before its request to the end of its answer.
#[derive(Debug)]
pub(super) struct Slot {
    connection: Rc<Http2>,
    pool: Rc<Http2Pool>,
}

impl Http2Pool {
    /// A free slot, and whether its connection served before. `open` makes another connection.
    pub(super) async fn slot<F>(self: &Rc<Self>, is_fresh: bool, open: impl Fn() -> F) -> Result<(Slot, bool), SendFailure>
    where
        F: Future<Output = Result<(SendRequest<RequestBody>, Rc<Cell<usize>>), SendFailure>>,
    {
        loop {
            if !is_fresh && let Some(slot) = self.take() {
                return Ok((slot, true));
            }
            let is_full = self.connections.borrow().len() >= CONNECTIONS_MAX;
            if is_full {
                match self.take() {
                    Some(slot) => return Ok((slot, true)),
                    None => self.freed.notified().await,
                }
                continue;
            }
            let _turn = tokio::select! {
                turn = self.opening.lock() => turn,
                () = self.freed.notified(), if !is_fresh => continue,
            };
            // Who was here first may have opened one meanwhile.
            if !is_fresh && let Some(slot) = self.take() {
                return Ok((slot, true));
            }
            let (sender, streams_max) = open().await?;
            let (streams, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
            let connection = Rc::new(Http2 { sender, streams, streams_max, idle_since });
            self.connections.borrow_mut().push(Rc::clone(&connection));
            return Ok((Slot::new(connection, self), false));
        }
    }

    /// Closes what is idle for too long, and lets go of what was closed.
    pub(super) fn sweep(&self, now: Instant, idle_max: Duration) {
        let is_kept = |connection: &Rc<Http2>| {
            let is_idle = connection.streams.get() == 0 && now.saturating_duration_since(connection.idle_since.get()) >= idle_max;
            !is_idle && !connection.sender.is_closed()
        };
        self.connections.borrow_mut().retain(is_kept);
        self.freed.notify_waiters();
    }

    /// Keeps no connection any more; exchanges end over theirs.
    pub(super) fn let_go(&self) {
        self.connections.borrow_mut().clear();
        self.freed.notify_waiters();
    }

    fn take(self: &Rc<Self>) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed());
        let has_room = |connection: &&Rc<Http2>| connection.streams.get() < connection.streams_max.get().min(STREAMS_MAX);
        let free = connections.iter().filter(has_room).min_by_key(|connection| connection.streams.get());
        free.map(|connection| Slot::new(Rc::clone(connection), self))
    }
}

impl Slot {
    fn new(connection: Rc<Http2>, pool: &Rc<Http2Pool>) -> Slot {
        connection.streams.set(connection.streams.get() + 1);
        Slot { connection, pool: Rc::clone(pool) }
    }

    /// Sends `request` and waits for the head of the answer.
    pub(super) fn send(
        &self,
        request: Request<RequestBody>,
        scheme: Scheme,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.connection.sender.clone().try_send_request(in_terms_of_http2(request, scheme))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.connection.streams.get() - 1;
        self.connection.streams.set(left);
        if left == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        self.pool.freed.notify_one();
    }
}

/// Says who is meant in the target and not in `Host` (RFC 9113 8.3.1). A request that comes back unsent can be taken again.
fn in_terms_of_http2(mut request: Request<RequestBody>, scheme: Scheme) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    keep_out_of_tables(request.headers_mut());
    let authority = request.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(authority) = authority {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
        // A target that cannot be said so stays without its parts, and is refused by the sender.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}

/// A connection that takes requests, and how many streams the endpoint allows, as far as it said so.
pub(super) type Begun = (SendRequest<RequestBody>, Rc<Cell<usize>>);

/// Why HTTP/2 did not begin on a connection.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The connection failed.
    Failed {
        /// What h2 made of it.
        source: hyper::Error,
        /// What its reader met, if it did.
        read: Option<io::Error>,
    },
    /// It ended before the other side said anything.
    Ended,
}

/// Begins HTTP/2 on a connection, and waits for the endpoint's settings: before, nobody knows how many streams it takes, and h2 would let
/// those that are too many wait for each other. The tasks end by themselves once the sender and all exchanges are gone.
pub(super) async fn handshake<I>(io: I) -> Result<Begun, HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let outbox = Outbox::new(io, 0);
    let failed = |source| HandshakeError::Failed { source, read: outbox.take_read_error() };
    let settings = Rc::new(Settings { streams_max: Rc::new(Cell::new(UNKNOWN)), reader: RefCell::default() });
    let tasks = Tasks { outbox: outbox.clone(), settings: Rc::clone(&settings), has_begun: Rc::new(Cell::new(false)) };
    let mut builder = Builder::new(tasks);
    builder.initial_stream_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_send_buf_size(SEND_BUFFER_BYTES_MAX).max_header_list_size(HEADER_BYTES_MAX).initial_max_send_streams(UNKNOWN);
    builder.timer(TokioTimer::new()).keep_alive_interval(SILENCE_MAX).keep_alive_timeout(SILENCE_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(outbox.clone())).await.map_err(failed)?;
    let streams_max = Rc::clone(&settings.streams_max);
    let (known, is_known) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let mut known = Some(known);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            settings.streams_max.set(connection.current_max_send_streams());
            settings.reader.replace(Some(cx.waker().clone()));
            if settings.are_known()
                && let Some(known) = known.take()
            {
                // Nobody waits any more where the time is over.
                let _ = known.send(Ok(()));
            }
            polled
        })
        .await;
        match (ended, known) {
            (Err(error), Some(known)) => drop(known.send(Err(error))),
            (Err(error), None) => tracing::debug!(%error, "connection to an endpoint ended"),
            (Ok(()), _) => {}
        }
    });
    match is_known.await {
        Ok(Ok(())) => Ok((sender, streams_max)),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(HandshakeError::Ended),
    }
}

/// What stands for a limit of streams that the endpoint has not said yet. No limit is that number.
const UNKNOWN: usize = (1 << 31) - 3;

/// What the endpoint said of itself.
#[derive(Debug)]
struct Settings {
    streams_max: Rc<Cell<usize>>,
    /// The task that can look: it is not woken by settings, so that whoever reads from the connection wakes it until they are known.
    reader: RefCell<Option<Waker>>,
}

impl Settings {
    fn are_known(&self) -> bool {
        self.streams_max.get() != UNKNOWN
    }

    fn look(&self) {
        if !self.are_known()
            && let Some(reader) = self.reader.borrow().as_ref()
        {
            reader.wake_by_ref();
        }
    }
}

/// Runs the tasks of one connection. The first that hyper asks for is the one that reads and writes, and that empties the outbox.
struct Tasks<I> {
    outbox: Outbox<I>,
    settings: Rc<Settings>,
    has_begun: Rc<Cell<bool>>,
}

impl<I> Clone for Tasks<I> {
    fn clone(&self) -> Tasks<I> {
        let (settings, has_begun) = (Rc::clone(&self.settings), Rc::clone(&self.has_begun));
        Tasks { outbox: self.outbox.clone(), settings, has_begun }
    }
}

impl<I, F> Executor<F> for Tasks<I>
where
    I: AsyncWrite + Unpin + 'static,
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        if self.has_begun.replace(true) {
            tokio::task::spawn_local(future);
            return;
        }
        let (outbox, settings) = (self.outbox.clone(), Rc::clone(&self.settings));
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                outbox.begin_turn();
                let polled = future.as_mut().poll(cx);
                settings.look();
                match outbox.poll_send(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(()),
                    Poll::Ready(Ok(())) | Poll::Pending => polled,
                }
            })
            .await;
            settings.look();
        });
    }
}
