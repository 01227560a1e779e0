//! HTTP/2 on a client's connection (RFC 9113).
//!
//! Each stream is served by a task of its own, with a [`ClientConnection`] of its own for its deadlines. What all of them write goes out
//! together: see [`Outbox`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::body::ResponseBody;
use super::super::exchange;
use super::io::Watched;
use super::{ClientConnection, Phase, Protocol, Registration};
use crate::upstream::Outbox;

/// Exchanges of one connection at a time.
const STREAMS_MAX: u32 = 128;
/// Bytes of one request that may be under way to a backend.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one answer that wait for the client.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that the client reset before they were looked at (CVE-2023-44487); above, the connection ends.
const RESET_BEFORE_ACCEPT_MAX: usize = 20;
/// Streams that had to be reset for the client's own errors (CVE-2025-8671); above, the connection ends.
const RESET_FOR_ERRORS_MAX: usize = 128;
/// From so many streams of a connection on that were reset before their answer began, the next are not begun before it is known that they
/// stand.
const ABANDONED_MIN: u32 = 4;

/// Serves streams until the connection ends.
pub(super) async fn serve<I>(connection: &Rc<ClientConnection>, io: Watched<I>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connection.protocol.set(Protocol::Http2);
    connection.enter(Phase::Idle);
    let header_bytes_max = u32::try_from(connection.listener().options.header_bytes_max).unwrap_or(u32::MAX);
    let streams = Streams { connection: Rc::clone(connection), opened: Rc::default() };
    let mut builder = http2::Builder::new(streams.clone());
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(header_bytes_max).max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    builder.initial_stream_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_pending_accept_reset_streams(RESET_BEFORE_ACCEPT_MAX).max_local_error_reset_streams(RESET_FOR_ERRORS_MAX);
    builder.enable_connect_protocol();
    let outbox = Outbox::new(io);
    // Boxed where it begins, for it is large, and passed on by value twice before its task holds it.
    let service = service_fn(|request| Box::pin(answer(streams.open(), request)));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(outbox.clone()), service));
    let mut is_leaving = false;
    let mut writes = Writes { outbox, is_put_off: false };
    let served = pin!(poll_fn(|cx| {
        if connection.is_leaving.get() && !std::mem::replace(&mut is_leaving, true) {
            serving.as_mut().graceful_shutdown();
        }
        writes.outbox.begin_turn();
        let served = serving.as_mut().poll(cx);
        match (served, writes.poll(cx)) {
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(io::Error::other(error))),
            (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (served, _) => served.map(|_| Ok(())),
        }
    }));
    if let Some(Err(error)) = connection.unless_closed(served).await {
        tracing::debug!(client = %connection.peer(), %error, "client connection ended");
    }
    // What the last poll left, above all why the connection ends.
    connection.unless_closed(pin!(poll_fn(|cx| writes.outbox.poll_send(cx)))).await;
}

/// Answers one request. What a client asks and resets at once, or makes the gateway reset, arrives as one: to look at it and to connect to a
/// backend for it would cost the others dearly. hyper sees a reset once the answer is waited for.
async fn answer(stream: Rc<ClientConnection>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let mut outcome = Outcome { connection: stream.parent.clone(), is_answered: false };
    if outcome.connection.as_ref().is_some_and(|connection| connection.abandoned.get() >= ABANDONED_MIN) {
        tokio::task::yield_now().await;
    }
    let answered = exchange::serve(stream, request).await;
    outcome.is_answered = true;
    answered
}

/// Counts a stream that is given up before its answer begins.
struct Outcome {
    connection: Option<Rc<ClientConnection>>,
    is_answered: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.as_ref().filter(|_| !self.is_answered) {
            connection.abandoned.set(connection.abandoned.get().saturating_add(1));
        }
    }
}

/// When what the streams wrote goes out: one turn of the scheduler later than it might, so that answers that are ready at the same time
/// share one call of the system's.
struct Writes<I> {
    outbox: Outbox<I>,
    is_put_off: bool,
}

impl<I: AsyncWrite + Unpin> Writes<I> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.is_put_off, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.outbox.poll_send(cx))?;
        self.is_put_off = false;
        Poll::Ready(Ok(()))
    }
}

/// Opens streams and runs their tasks. hyper calls the service, and right after it asks for the task that answers it.
#[derive(Debug, Clone)]
struct Streams {
    connection: Rc<ClientConnection>,
    opened: Rc<RefCell<Option<OpenStream>>>,
}

impl Streams {
    fn open(&self) -> Rc<ClientConnection> {
        let stream = OpenStream::new(&self.connection);
        let connection = Rc::clone(&stream.connection);
        self.opened.replace(Some(stream));
        connection
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        // Without a stream it is one of the tasks that carry a tunnel's bytes.
        let Some(stream) = self.opened.take() else {
            tokio::task::spawn_local(future);
            return;
        };
        let mut future = Box::pin(future);
        tokio::task::spawn_local(async move {
            let connection = &stream.connection;
            // Given up, it resets the stream.
            connection.unless_closed(future.as_mut()).await;
            drop(future);
            let tunnel = connection.tunnel.take();
            if let Some(tunnel) = tunnel {
                connection.unless_closed(Box::pin(tunnel.run_over_stream(connection)).as_mut()).await;
            }
        });
    }
}

/// A stream under the worker's clock. Its drop tells the connection.
#[derive(Debug)]
struct OpenStream {
    connection: Rc<ClientConnection>,
    parent: Rc<ClientConnection>,
    _registration: Registration,
}

impl OpenStream {
    fn new(parent: &Rc<ClientConnection>) -> OpenStream {
        let stream = ClientConnection::new(Rc::clone(&parent.peer), Protocol::Http2, Some(Rc::clone(parent)));
        let connection = Rc::new(stream);
        parent.streams.set(parent.streams.get() + 1);
        parent.enter(Phase::Exchange);
        OpenStream { _registration: Registration::new(&connection), connection, parent: Rc::clone(parent) }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.parent.streams.set(self.parent.streams.get() - 1);
        if self.parent.streams.get() == 0 {
            self.parent.enter(Phase::Idle);
        }
    }
}
