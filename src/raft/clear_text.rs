//! Peers in clear text over TCP.
//!
//! A peer that speaks TLS shows by its first byte: records of TLS begin with 20 to 23, and HTTP/2 with a frame of a length under 2^20 or
//! with the letter P. Neither side could make sense of the other's bytes; the log says what is wrong instead.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tower::Service as _;

use super::strangers::Strangers;
use super::transport::{CONNECT_TIMEOUT, Connection, Dialer};
use crate::observe::Metrics;

/// First bytes of records of TLS (RFC 8446 5.1).
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 20..=23;

/// TCP to a peer, by name or address.
pub(super) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

/// Connects to peers.
pub(super) fn dialer(metrics: &Metrics) -> Dialer {
    let strangers = Arc::new(Strangers::new("peer_out", metrics));
    let connector = connector();
    Dialer::new(CONNECT_TIMEOUT, move |uri, _| {
        let (mut connector, strangers) = (connector.clone(), Arc::clone(&strangers));
        async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            let stream = connector.call(uri).await.map_err(io::Error::other)?.into_inner();
            Ok(Connection::new(ClearText::new(stream, address, strangers)))
        }
        .boxed()
    })
}

/// Connections from peers.
pub(super) fn incoming(listener: TcpListener, strangers: Strangers) -> BoxStream<'static, io::Result<Connection>> {
    let strangers = Arc::new(strangers);
    let accepted = TcpIncoming::from(listener).with_nodelay(Some(true));
    let connection = move |stream: TcpStream| {
        let address = stream.peer_addr().map_or_else(|_| "gone".to_owned(), |address| address.to_string());
        Connection::new(ClearText::new(stream, address, Arc::clone(&strangers)))
    };
    accepted.map(move |stream| stream.map(&connection)).boxed()
}

/// A stream whose first byte is looked at.
struct ClearText {
    stream: TcpStream,
    /// Who to tell about whom; `None` once the first byte is there.
    unknown: Option<(String, Arc<Strangers>)>,
}

impl ClearText {
    fn new(stream: TcpStream, address: String, strangers: Arc<Strangers>) -> ClearText {
        ClearText { stream, unknown: Some((address, strangers)) }
    }
}

impl AsyncRead for ClearText {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.unknown.is_some()
            && let Some(first) = buffer.filled().get(before).copied()
            && let Some((address, strangers)) = self.unknown.take()
            && TLS_RECORDS.contains(&first)
        {
            const WHY: &str = "it speaks TLS, and this node clear text: set cluster.tls on all nodes, or on none";
            strangers.met(&address, "tls", &WHY);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, WHY)));
        }
        read
    }
}

impl AsyncWrite for ClearText {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
