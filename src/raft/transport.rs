//! How peers reach each other: TCP in clear text, TLS over it, or what a simulation brings.

use std::fmt;
use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use super::clear_text;
use super::handshakes;
use super::strangers::Strangers;
use crate::model::NodeId;
use crate::observe::Metrics;
use crate::tls::PeerTls;

/// How long making a connection may take, its handshake not counted.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How peers reach this node and this node reaches them.
pub enum Transport {
    /// TCP; peers connect to this listener, and nobody asks who they are.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls {
        /// Where peers connect.
        listener: TcpListener,
        /// Who this node is.
        identity: Arc<PeerTls>,
    },
    /// Something else.
    Custom {
        /// Connections from peers.
        incoming: BoxStream<'static, io::Result<Connection>>,
        /// Makes one to a peer.
        dialer: Dialer,
    },
}

impl Transport {
    /// Connections from `incoming`, and to peers by `connect`, which is told host and port.
    pub fn custom<F>(
        incoming: impl Stream<Item = io::Result<Connection>> + Send + 'static,
        connect: impl Fn(String, u16) -> F + Send + Sync + 'static,
    ) -> Transport
    where
        F: Future<Output = io::Result<Connection>> + Send + 'static,
    {
        let connect =
            move |uri: Uri, _| connect(uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or_default()).boxed();
        Transport::Custom { incoming: incoming.boxed(), dialer: Dialer::new(CONNECT_TIMEOUT, connect) }
    }

    pub(super) fn dialer(&self, metrics: &Metrics) -> Dialer {
        match self {
            Transport::Tcp(_) => clear_text::dialer(metrics),
            Transport::Tls { identity, .. } => handshakes::dialer(Arc::clone(identity), metrics),
            Transport::Custom { dialer, .. } => dialer.clone(),
        }
    }

    /// Connections from peers, as they come.
    pub(super) fn incoming(self, metrics: &Metrics) -> BoxStream<'static, io::Result<Connection>> {
        let strangers = Strangers::new("peer_in", metrics);
        match self {
            Transport::Tcp(listener) => clear_text::incoming(listener, strangers),
            Transport::Tls { listener, identity } => handshakes::incoming(listener, identity, strangers),
            Transport::Custom { incoming, .. } => incoming,
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Tcp(listener) => f.debug_tuple("Tcp").field(listener).finish(),
            Transport::Tls { listener, identity } => {
                f.debug_struct("Tls").field("listener", listener).field("identity", identity).finish()
            }
            Transport::Custom { .. } => f.debug_struct("Custom").finish_non_exhaustive(),
        }
    }
}

type Connect = dyn Fn(Uri, Option<NodeId>) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync;

/// Connects to the host and port of a URI, where a certain node is expected, or any.
#[derive(Clone)]
pub struct Dialer {
    connect: Arc<Connect>,
    timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(
        timeout: Duration,
        connect: impl Fn(Uri, Option<NodeId>) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync + 'static,
    ) -> Dialer {
        Dialer { connect: Arc::new(connect), timeout }
    }

    /// A channel to `node` that connects when it is first used.
    pub(super) fn channel(&self, endpoint: Endpoint, node: Option<NodeId>) -> Channel {
        let dialer = self.clone();
        endpoint.connect_timeout(self.timeout).connect_with_connector_lazy(tower::service_fn(move |address: Uri| {
            let connection = (dialer.connect)(address, node);
            async move { Ok::<_, io::Error>(TokioIo::new(connection.await?)) }
        }))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection between peers.
pub struct Connection {
    stream: Box<dyn Duplex>,
    proved: Proved,
}

/// The node that the other side of a connection proved to be; `None` where nobody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proved(pub(super) Option<NodeId>);

impl Connection {
    /// On any stream of bytes in both directions.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection { stream: Box::new(stream), proved: Proved::default() }
    }

    /// With a peer that has proved to be `node`.
    pub(super) fn of(node: NodeId, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection { stream: Box::new(stream), proved: Proved(Some(node)) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Proved;

    fn connect_info(&self) -> Proved {
        self.proved
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
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
