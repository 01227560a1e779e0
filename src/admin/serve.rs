//! Connections to the admin API: bounded in number, and none may stand still for ever.
//!
//! Over TLS the handshake is part of a connection's own task: it holds up no other, and a connection without one counts against the same
//! bound. Who the caller's certificate names travels with each request to [`super::call`].

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service as _, service_fn};
use tracing::{debug, info, warn};

use crate::observe::CounterVec;
use crate::tls::{AdminTls, CallerName};

/// Open connections.
const CONNECTIONS_MAX: usize = 2048;
/// From the end of an answer (or the start of the connection) to the end of the next request's head. Also the idle time of a connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may leave what was sent to it without acknowledgement, or its window closed.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long calls under way may take once the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to accept where the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// How long a caller may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTPS for the admin API.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Its certificate.
    pub tls: Arc<AdminTls>,
    /// Counts handshakes that come to nothing.
    pub failures: CounterVec,
}

/// Serves `router` on `listener`, in clear text unless it is `secured`, until `shutdown` ends, then finishes the calls under way.
pub async fn serve(listener: TcpListener, secured: Option<Secured>, router: Router, shutdown: impl Future<Output = ()>) {
    let stopping = CancellationToken::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                connections.spawn(connection(stream, secured.clone(), router.clone(), stopping.clone(), permit));
            }
            Err(error) => {
                warn!(%error, "admin connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    let drained = timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    info!(complete = drained.is_ok(), "admin connections drained");
    connections.shutdown().await;
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    secured: Option<Secured>,
    router: Router,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let Some(Secured { tls, failures }) = secured else { return calls(stream, None, router, stopping).await };
    let handshake = tokio::select! {
        handshake = tls.accept(stream, HANDSHAKE_TIMEOUT) => handshake,
        () = stopping.cancelled() => return,
    };
    match handshake {
        Ok((stream, caller)) => calls(stream, caller, router, stopping).await,
        Err(error) => {
            failures.with_label_values(&["admin", error.reason()]).inc();
            debug!(%error, "admin connection without a handshake");
        }
    }
}

/// The calls of one connection, all of them of `caller` where its certificate names one.
async fn calls(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Option<CallerName>,
    router: Router,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_READ_TIMEOUT)
        .keep_alive_timeout(SEND_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        router.clone().call(request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "admin connection ended");
    }
}
