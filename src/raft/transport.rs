//! How peers reach each other: TCP, unless a simulation brings a network of its own.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// How peers reach this node and this node reaches them.
pub enum Transport {
    /// TCP; peers connect to this listener.
    Tcp(TcpListener),
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
        Transport::Custom { incoming: incoming.boxed(), dialer: Dialer(Arc::new(move |host, port| connect(host, port).boxed())) }
    }

    pub(super) fn dialer(&self) -> Option<Dialer> {
        match self {
            Transport::Tcp(_) => None,
            Transport::Custom { dialer, .. } => Some(dialer.clone()),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Tcp(listener) => f.debug_tuple("Tcp").field(listener).finish(),
            Transport::Custom { .. } => f.debug_struct("Custom").finish_non_exhaustive(),
        }
    }
}

/// Connects to a host and a port.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync>);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// A channel that connects when it is first used.
    pub(super) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let dialer = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |address: Uri| {
            let host = address.host().unwrap_or_default().to_owned();
            let connection = (dialer.0)(host, address.port_u16().unwrap_or_default());
            async move { Ok::<_, io::Error>(TokioIo::new(connection.await?)) }
        }))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection of a [`Transport::Custom`].
pub struct Connection(Box<dyn Duplex>);

impl Connection {
    /// On any stream of bytes in both directions.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection(Box::new(stream))
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
