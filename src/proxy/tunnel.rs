//! What follows an exchange that changed the protocol: bytes both ways, until either side ends it.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::connection::ClientConnection;
use super::tally::Tally;
use crate::upstream::Switched;

/// The backend's end of a tunnel, and what is told of it in the end.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The backend's end.
    pub(super) upstream: Switched,
    /// The exchange ends with the tunnel.
    pub(super) tally: Tally,
}

impl Tunnel {
    /// Passes bytes between `client` and the backend. No sign of life for the listener's `stream_idle_timeout` ends it.
    pub(super) async fn run<C>(self: Box<Self>, connection: &ClientConnection, client: C)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let Tunnel { mut upstream, mut tally } = *self;
        let mut client = Counted { io: client, connection, bytes: 0 };
        let copied = {
            let copying = pin!(copy_bidirectional(&mut client, &mut upstream));
            connection.unless_stalled(copying).await
        };
        drop(upstream);
        tally.add_bytes(client.bytes);
        match copied {
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!(%error, "tunnel ended"),
            None => tally.note_error("connection_timeout"),
        }
    }
}

/// The client's end: signs of life, and bytes that went to the client.
struct Counted<'a, C> {
    io: C,
    connection: &'a ClientConnection,
    bytes: usize,
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<'_, C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_ready() {
            self.connection.note_progress();
        }
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<'_, C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            self.bytes += count;
            self.connection.note_progress();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
