//! HTTP/2 on a client's connection (RFC 9113).
//!
//! Each stream is served by a task of its own (`stream`), with a [`ClientConnection`] of its own for its deadlines. What all of them write goes
//! out together: see [`Outbox`]. Where a stream becomes a tunnel, `passage` carries its bytes.
//! What h2 keeps to itself is read beside it from the frames that pass: the streams that it resets (`resets`), and what it lets through of
//! malformed header blocks (`blocks`, by way of `hpack`).
//!
//! By h2, and not by hyper's server above it: that one sends no 1xx, so that no client would be asked for its body, and ends the whole
//! connection for one CONNECT with `Content-Length`.

mod blocks;
mod hpack;
mod passage;
mod resets;
mod stream;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, Handshake, SendResponse};
use h2::{Reason, RecvStream, server};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use self::blocks::{Blocks, Malformed};
use self::resets::Resets;
use super::super::framing;
use super::io::{PREFACE, Watched};
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
/// What small frames of requests may cost that wait for their backends, each 256 bytes less its own: some 17,000 frames, more than the window
/// of one stream holds. h2 ends the connection above.
const SMALL_FRAMES_MAX: usize = 4 * 1024 * 1024;
/// Streams that the client reset before they were looked at (CVE-2023-44487); above, the connection ends.
const RESET_BEFORE_ACCEPT_MAX: usize = 20;
/// Streams that had to be reset for the client's own errors (CVE-2025-8671); above, the connection ends.
const RESET_FOR_ERRORS_MAX: usize = 128;

/// What is read of the frames as they pass.
#[derive(Debug)]
pub(super) struct Passing {
    /// Of those that come.
    pub(super) blocks: Blocks,
    /// Of those that go out.
    pub(super) resets: Resets,
}

/// Serves streams until the connection ends.
pub(super) async fn serve<I>(connection: &Rc<ClientConnection>, mut io: Watched<I>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connection.protocol.set(Protocol::Http2);
    connection.enter(Phase::Idle);
    let header_bytes_max = connection.listener().options.header_bytes_max;
    // Twice the bound: what is over it is refused by us, with a reason, and only what is far over it by h2.
    let refused_bytes = header_bytes_max.saturating_mul(2);
    let malformed = Rc::new(Malformed::default());
    let blocks = Blocks::new(refused_bytes, header_bytes_max, Rc::clone(&malformed));
    io.follow_frames(Passing { blocks, resets: Resets::default() });
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(refused_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
    builder.initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_pending_accept_reset_streams(RESET_BEFORE_ACCEPT_MAX).max_local_error_reset_streams(Some(RESET_FOR_ERRORS_MAX));
    builder.data_frame_budget(SMALL_FRAMES_MAX).enable_connect_protocol();
    let outbox = Outbox::new(io, PREFACE.len());
    let mut accepting = pin!(accept(connection, builder.handshake(outbox.clone()), &malformed));
    let mut writes = Writes { outbox, is_put_off: false };
    let served = pin!(poll_fn(|cx| {
        writes.outbox.begin_turn();
        let served = accepting.as_mut().poll(cx);
        match (served, writes.poll(cx)) {
            (Poll::Ready(Err(error)), _) => {
                let lost = malformed.is_lost().then_some(reason_name(Reason::PROTOCOL_ERROR));
                if let Some(reason) = fault_of(&error).or(lost) {
                    connection.worker().metrics.connections_ended.with_label_values(&[reason]).inc();
                }
                Poll::Ready(Err(io::Error::other(error)))
            }
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

/// What the client did against the protocol or its limits, where that ends its connection.
fn fault_of(error: &h2::Error) -> Option<&'static str> {
    error.reason().filter(|reason| error.is_library() && *reason != Reason::NO_ERROR).map(reason_name)
}

/// What a reason is counted under (RFC 9113 7).
pub(super) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::CANCEL => "cancel",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::INTERNAL_ERROR => "internal_error",
        Reason::NO_ERROR => "no_error",
        Reason::PROTOCOL_ERROR => "protocol_error",
        Reason::REFUSED_STREAM => "refused_stream",
        Reason::STREAM_CLOSED => "stream_closed",
        _ => "other",
    }
}

/// Begins a stream for each request that comes, and takes no more once the connection is to be left.
async fn accept<I>(
    connection: &Rc<ClientConnection>,
    handshake: Handshake<Outbox<I>, Bytes>,
    malformed: &Rc<Malformed>,
) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut requests: server::Connection<_, _> = handshake.await?;
    let mut is_leaving = false;
    let mut next = poll_fn(|cx| {
        if connection.is_leaving.get() && !std::mem::replace(&mut is_leaving, true) {
            requests.graceful_shutdown();
        }
        requests.poll_accept(cx)
    });
    while let Some(accepted) = (&mut next).await {
        let (mut request, reply) = accepted?;
        if malformed.take_head(reply.stream_id().as_u32()) {
            request.extensions_mut().insert(framing::PSEUDO_FIELDS);
        }
        begin(connection, request, reply, malformed);
    }
    Ok(())
}

/// Begins the task of one stream.
fn begin(connection: &Rc<ClientConnection>, request: Request<RecvStream>, reply: SendResponse<Bytes>, malformed: &Rc<Malformed>) {
    let open = OpenStream::new(connection, Rc::clone(malformed), reply.stream_id().as_u32());
    // Boxed where it begins, for it is large, and passed on by value twice before its task holds it.
    let mut exchange = Box::pin(stream::serve(Rc::clone(&open.connection), request, reply, Rc::clone(malformed)));
    tokio::task::spawn_local(async move {
        let stream = &open.connection;
        let passage = stream.unless_closed(exchange.as_mut()).await.flatten();
        // Given up, it resets the stream.
        drop(exchange);
        let tunnel = stream.tunnel.take();
        if let (Some(passage), Some(tunnel)) = (passage, tunnel) {
            stream.unless_closed(Box::pin(tunnel.run(stream, passage)).as_mut()).await;
        }
    });
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

/// A stream under the worker's clock. Its drop tells the connection.
#[derive(Debug)]
struct OpenStream {
    connection: Rc<ClientConnection>,
    parent: Rc<ClientConnection>,
    malformed: Rc<Malformed>,
    id: u32,
    _registration: Registration,
}

impl OpenStream {
    fn new(parent: &Rc<ClientConnection>, malformed: Rc<Malformed>, id: u32) -> OpenStream {
        let stream = ClientConnection::new(Rc::clone(&parent.peer), Protocol::Http2, Some(Rc::clone(parent)));
        let connection = Rc::new(stream);
        parent.streams.set(parent.streams.get() + 1);
        parent.enter(Phase::Exchange);
        OpenStream { _registration: Registration::new(&connection), connection, parent: Rc::clone(parent), malformed, id }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.malformed.forget(self.id);
        self.parent.streams.set(self.parent.streams.get() - 1);
        if self.parent.streams.get() == 0 {
            self.parent.enter(Phase::Idle);
        }
    }
}
