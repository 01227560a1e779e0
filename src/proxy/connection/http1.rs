//! HTTP/1.1 on a client's connection (RFC 9112), and what may follow it there.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::exchange;
use super::framed::Framed;
use super::io::Watched;
use super::{ClientConnection, Protocol, ending};
use crate::upstream::ClientBody;

/// Bytes that are read at once at most, where many come: a body of 64 KiB with its head. A longer head that is allowed needs more.
const BUFFER_BYTES_MIN: usize = 80 * 1024;

/// Serves requests, one after another, until the connection ends or becomes a tunnel; then the tunnel.
pub(super) async fn serve<I>(connection: &Rc<ClientConnection>, io: Watched<I>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connection.protocol.set(Protocol::Http1);
    let mut framed = Framed::new(io, connection);
    // Boxed: it is large, and a connection at rest does without it.
    while let Some(resting) = Box::pin(serve_until_rest(connection, framed)).await {
        framed = resting;
        let waited = connection.unless_closed(pin!(framed.wait())).await;
        match waited {
            Some(Ok(())) => {}
            Some(Err(_)) => return,
            None => return Box::pin(ending::part(connection, framed)).await,
        }
    }
}

/// The same, until the connection is at rest: then hyper's buffers and what it keeps for an exchange are let go of, and the socket is given
/// back.
async fn serve_until_rest<I>(connection: &Rc<ClientConnection>, framed: Framed<I>) -> Option<Framed<I>>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let header_bytes_max = connection.listener().options.header_bytes_max;
    let mut builder = http1::Builder::new();
    // The worker's clock bounds the head's arrival; hyper's own timer would cost an allocation a request.
    builder.header_read_timeout(None);
    // Without `max_headers`: hyper's own bound is the follower's (FIELDS_MAX), and one that is set costs a walk over as many places.
    builder.half_close(false).max_header_size(header_bytes_max);
    builder.max_buf_size(header_bytes_max.max(BUFFER_BYTES_MIN));
    let service = service_fn(|request| exchange::serve(Rc::clone(connection), request.map(ClientBody::Http1)));
    let mut serving = builder.serve_connection(TokioIo::new(framed), service);
    let until_rest = pin!(poll_fn(|cx| {
        let mut served = Pin::new(&mut serving).poll(cx);
        if served.is_pending() && connection.is_body_just_asked() {
            // hyper hands a body over once it is asked for, and most often has it already. A turn later it would have left the processor's cache.
            served = Pin::new(&mut serving).poll(cx);
        }
        match served {
            Poll::Ready(served) => Poll::Ready(Some(served)),
            Poll::Pending if connection.is_at_rest() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }));
    let Some(served) = connection.unless_closed(until_rest).await else {
        ending::part(connection, serving.into_parts().io.into_inner()).await;
        return None;
    };
    let parts = serving.into_parts();
    let framed = parts.io.into_inner();
    let Some(served) = served else {
        // All that came is answered, so that hyper holds nothing of it; of a connection of which that is not true nothing is certain.
        if !parts.read_buf.is_empty() {
            return None;
        }
        connection.worker().metrics.connections_rested.inc();
        return Some(framed);
    };
    if let Err(error) = &served {
        tracing::debug!(client = %connection.peer(), %error, "client connection ended");
        match error.is_parse() || error.is_parse_too_large() {
            // hyper answered by itself, without a problem document: what it refuses should have been refused before.
            true => connection.count_refusal("library"),
            false if framed.has_refused() => {}
            false => return None,
        }
    }
    let Some(tunnel) = connection.tunnel.take() else {
        connection.unless_closed(pin!(ending::end(connection, framed))).await;
        return None;
    };
    if !parts.read_buf.is_empty() || framed.has_refused() {
        // Sent before the client could know that the protocol changes: it may be a request as well, for somebody else's eyes.
        tracing::debug!(client = %connection.peer(), "bytes of another protocol came before it was agreed on");
        return None;
    }
    connection.unless_closed(pin!(tunnel.run(connection, framed.into_inner()))).await;
    None
}
