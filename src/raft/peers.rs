//! Connections to the other nodes.
//!
//! Two a peer: one for what must not wait (heartbeats, votes, status) and one for entries, snapshots and forwarded calls, so that a
//! snapshot on a slow link never costs an election. They connect on first use and again after a failure; HTTP/2 pings find a dead one
//! within [`PING_INTERVAL`] + [`PING_TIMEOUT`], long before TCP does.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::identity::says_removed;
use super::transport::Dialer;
use crate::model::NodeId;
use crate::pb::peer::peer_client::PeerClient;

/// A message between peers, decoded, at most.
pub(super) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    address: String,
    control: PeerClient<Channel>,
    bulk: PeerClient<Channel>,
}

impl Peer {
    fn new(address: &str, node: Option<NodeId>, dialer: &Dialer) -> Result<Peer, CallError> {
        let client = || {
            let client = PeerClient::new(dialer.channel(endpoint(address)?, node));
            Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
        };
        Ok(Peer { address: address.to_owned(), control: client()?, bulk: client()? })
    }

    /// For small messages that must not wait.
    pub(super) fn control(&self) -> PeerClient<Channel> {
        self.control.clone()
    }

    /// For everything else.
    pub(super) fn bulk(&self) -> PeerClient<Channel> {
        self.bulk.clone()
    }
}

fn endpoint(address: &str) -> Result<Endpoint, CallError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| CallError::NotSent(format!("address \"{address}\": {error}")))?;
    Ok(endpoint
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// All of them, by id and address.
#[derive(Debug)]
pub(super) struct Peers {
    known: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    dialer: Dialer,
    /// Where connections are made and read, whoever asks for them first.
    runtime: Handle,
}

impl Peers {
    /// Nobody yet; connections are made by `dialer`, on the runtime of the caller.
    pub(super) fn new(dialer: Dialer) -> Peers {
        Peers { known: Mutex::default(), dialer, runtime: Handle::current() }
    }

    /// The connections to `id` at `address`; others to that id are forgotten.
    pub(super) fn get(&self, id: NodeId, address: &str) -> Result<Arc<Peer>, CallError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.get(&id).filter(|peer| peer.address == address) {
            return Ok(Arc::clone(peer));
        }
        let peer = Arc::new(self.at(address, Some(id))?);
        known.insert(id, Arc::clone(&peer));
        Ok(peer)
    }

    /// Connections to `node`, or to whoever is at `address`. They are made when they are needed.
    pub(super) fn at(&self, address: &str, node: Option<NodeId>) -> Result<Peer, CallError> {
        let _entered = self.runtime.enter();
        Peer::new(address, node, &self.dialer)
    }
}

/// Why a call to a peer has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CallError {
    /// It certainly never left this node.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The peer refused it before doing anything.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer refused it, since the cluster removed this node.
    #[error("refused: {0}")]
    Removed(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It broke off on the way.
    #[error("broke off: {0}")]
    Broken(String),
}

/// Waits for a call at most `limit`, and tells its failures apart.
pub(super) async fn call<T>(limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Err(_) => Err(CallError::Timeout(limit)),
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(classify(&status)),
    }
}

fn classify(status: &Status) -> CallError {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return CallError::NotSent(format!("{error}"));
        }
        source = error.source();
    }
    // Only this project's own checks answer with this code; the transport never does.
    if status.code() == Code::FailedPrecondition {
        let reason = status.message().to_owned();
        return if says_removed(status) { CallError::Removed(reason) } else { CallError::Refused(reason) };
    }
    CallError::Broken(format!("{:?}: {}", status.code(), status.message()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::clear_text;
    use super::*;
    use crate::observe::Metrics;
    use crate::pb::peer::HelloRequest;

    fn peers() -> Peers {
        Peers::new(clear_text::dialer(&Metrics::new()))
    }

    #[tokio::test]
    async fn a_refused_connection_was_never_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let peer = peers().get(2, &address).unwrap();
        let mut client = peer.control();
        let answer = call(Duration::from_secs(5), client.hello(HelloRequest::default())).await;
        assert!(matches!(answer, Err(CallError::NotSent(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_off_may_have_been_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                stream.readable().await.unwrap();
                let _ = stream.try_read(&mut buffer);
            }
        });
        let peer = peers().get(2, &address).unwrap();
        let mut client = peer.control();
        let answer = call(Duration::from_secs(5), client.hello(HelloRequest::default())).await;
        assert!(matches!(answer, Err(CallError::Broken(_))), "{answer:?}");
    }
}
