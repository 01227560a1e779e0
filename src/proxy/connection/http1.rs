//! HTTP/1.1 on a client's connection (RFC 9112), and what may follow it there.

use std::pin::{Pin, pin};
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::exchange;
use super::framed::Framed;
use super::io::Watched;
use super::{ClientConnection, Protocol, ending};

/// Bytes that are read at once at most, where many come: a body of 64 KiB with its head. A longer head that is allowed needs more.
const BUFFER_BYTES_MIN: usize = 80 * 1024;

/// Serves requests, one after another, until the connection ends or becomes a tunnel; then the tunnel.
pub(super) async fn serve<I>(connection: &Rc<ClientConnection>, io: Watched<I>)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connection.protocol.set(Protocol::Http1);
    let header_bytes_max = connection.listener().options.header_bytes_max;
    let mut builder = http1::Builder::new();
    // The worker's clock bounds the head's arrival; hyper's own timer would cost an allocation a request.
    builder.header_read_timeout(None);
    // Without `max_headers`: hyper's own bound is the follower's (FIELDS_MAX), and one that is set costs a walk over as many places.
    builder.half_close(false).max_header_size(header_bytes_max);
    builder.max_buf_size(header_bytes_max.max(BUFFER_BYTES_MIN));
    let service = service_fn(|request| exchange::serve(Rc::clone(connection), request));
    let mut serving = builder.serve_connection(TokioIo::new(Framed::new(io, connection)), service);
    let Some(served) = connection.unless_closed(Pin::new(&mut serving)).await else {
        return ending::part(connection, serving.into_parts().io.into_inner()).await;
    };
    let parts = serving.into_parts();
    let framed = parts.io.into_inner();
    if let Err(error) = &served {
        tracing::debug!(client = %connection.peer(), %error, "client connection ended");
        match error.is_parse() || error.is_parse_too_large() {
            // hyper answered by itself, without a problem document: what it refuses should have been refused before.
            true => connection.count_refusal("library"),
            false if framed.has_refused() => {}
            false => return,
        }
    }
    let Some(tunnel) = connection.tunnel.take() else {
        connection.unless_closed(pin!(ending::end(connection, framed))).await;
        return;
    };
    if !parts.read_buf.is_empty() || framed.has_refused() {
        // Sent before the client could know that the protocol changes: it may be a request as well, for somebody else's eyes.
        return tracing::debug!(client = %connection.peer(), "bytes of another protocol came before it was agreed on");
    }
    connection.unless_closed(pin!(tunnel.run(connection, framed.into_inner()))).await;
}
