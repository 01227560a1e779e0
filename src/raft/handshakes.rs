//! Peers over TLS: handshakes, in both directions.
//!
//! Whoever connects is unknown until its handshake is done. So handshakes run beside the loop that accepts, each for a bounded time, and a
//! bounded number of them: where one more comes, the oldest gives way. A peer's takes milliseconds, so somebody who opens connections and
//! says nothing pushes out himself and not the peers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tower::Service as _;

use super::clear_text::connector;
use super::strangers::Strangers;
use super::transport::{CONNECT_TIMEOUT, Connection, Dialer};
use crate::observe::Metrics;
use crate::tls::PeerTls;

/// How long the handshake with a peer may take, in either direction.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes under way with whoever connected.
const HANDSHAKES_MAX: usize = 256;
/// Connections that are known and not taken yet.
const KNOWN_MAX: usize = 16;
/// Between two tries to accept where the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connects to peers, and to nobody else.
pub(super) fn dialer(identity: Arc<PeerTls>, metrics: &Metrics) -> Dialer {
    let strangers = Arc::new(Strangers::new("peer_out", metrics));
    let connector = connector();
    Dialer::new(CONNECT_TIMEOUT + HANDSHAKE_TIMEOUT, move |uri, node| {
        let (mut connector, strangers, identity) = (connector.clone(), Arc::clone(&strangers), Arc::clone(&identity));
        async move {
            let stream = connector.call(uri.clone()).await.map_err(io::Error::other)?.into_inner();
            let host = uri.host().unwrap_or_default();
            let handshake = identity.connect(stream, host, node, HANDSHAKE_TIMEOUT).await;
            let stream = handshake.inspect_err(|error| {
                let address = uri.authority().map(ToString::to_string).unwrap_or_default();
                strangers.met(&address, error.reason(), error);
            })?;
            Ok(Connection::new(stream))
        }
        .boxed()
    })
}

/// Connections from peers. The task behind them ends with the stream.
pub(super) fn incoming(
    listener: TcpListener,
    identity: Arc<PeerTls>,
    strangers: Strangers,
) -> BoxStream<'static, io::Result<Connection>> {
    let (known, connections) = mpsc::channel(KNOWN_MAX);
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener, identity, Arc::new(strangers), known));
    // The set goes where the stream goes, and ends its task when it is dropped.
    ReceiverStream::new(connections)
        .map(move |connection| {
            let _owned = &accepting;
            Ok(connection)
        })
        .boxed()
}

/// Accepts until nobody takes the connections any more.
async fn accept(listener: TcpListener, identity: Arc<PeerTls>, strangers: Arc<Strangers>, known: mpsc::Sender<Connection>) {
    let mut handshakes = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = known.closed() => return,
            Some(_) = handshakes.join_next() => {
                oldest.retain(|handshake| !handshake.is_finished());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection of a peer not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if oldest.len() >= HANDSHAKES_MAX
            && let Some(handshake) = oldest.pop_front()
        {
            handshake.abort();
            strangers.met(&address, "crowded", &format!("over {HANDSHAKES_MAX} handshakes are under way; the oldest gave way"));
        }
        let (identity, strangers, known) = (Arc::clone(&identity), Arc::clone(&strangers), known.clone());
        oldest.push_back(handshakes.spawn(async move {
            match shake_hands(stream, &identity).await {
                // A receiver that is gone is stopping.
                Ok(connection) => drop(known.send(connection).await),
                Err(error) => strangers.met(&address, error.reason(), &error),
            }
        }));
    }
}

async fn shake_hands(stream: TcpStream, identity: &PeerTls) -> Result<Connection, crate::tls::HandshakeError> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small messages of a peer may wait");
    }
    let (stream, node) = identity.accept(stream, HANDSHAKE_TIMEOUT).await?;
    Ok(Connection::of(node, stream))
}
