//! What this node answers its peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::batches::BATCH_COUNT_MAX;
use super::join;
use super::members::MemberChange;
use super::network::SNAPSHOT_CHUNK_TIMEOUT;
use super::peers::MESSAGE_BYTES_MAX;
use super::proposals::deadline_of;
use super::shared::{Raft, Shared};
use super::transport::{Connection, Proved, Transport};
use super::wire::{self, WireError};
use super::wire_outcome;
use crate::model::Revision;
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::pb::peer as pb;
use crate::pb::peer::peer_server::{Peer, PeerServer};
use crate::pb::peer::snapshot_request::Part;
use crate::store::{Snapshot, SnapshotFile};

/// Calls of one connection that are under way at once.
const STREAMS_MAX: u32 = 8192;
/// Calls that were given up before this node looked at them. A node that stood still for seconds finds as many as its peers made
/// meanwhile; above this the connection ends, and with it forwarded proposals whose outcome nobody knows then.
const PENDING_RESETS_MAX: usize = STREAMS_MAX as usize;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// How long a peer may ask this node to wait for its table.
const PUBLISHED_WAIT_MAX: Duration = Duration::from_secs(1);
/// The version that this node reports.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serves peers until the node stops; then gives calls under way a moment.
pub(super) async fn run(transport: Transport, shared: Arc<Shared>) {
    if let Err(error) = serve(transport.incoming(&shared.metrics), &shared).await {
        tracing::error!(address = shared.peer_address, %error, "peers are not served any more");
    }
}

async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>>,
    shared: &Arc<Shared>,
) -> Result<(), tonic::transport::Error> {
    let service = PeerServer::new(PeerService { shared: Arc::clone(shared) })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shared.stopping.cancelled())
        .await
}

struct PeerService {
    shared: Arc<Shared>,
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A message, and the node that its sender has proved to be.
fn opened<T>(request: Request<T>) -> (T, Proved) {
    let sender = request.extensions().get::<Proved>().copied().unwrap_or_default();
    (request.into_inner(), sender)
}

/// A refusal before anything was done.
fn refused(reason: impl Into<String>) -> Status {
    Status::failed_precondition(reason)
}

fn disk_failed(error: io::Error) -> Status {
    Status::internal(error.to_string())
}

fn core_failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl PeerService {
    /// The Raft core, for a message of a peer that may speak to it.
    fn admit(&self, header: Option<&pb::Header>, sender: Proved) -> Result<Raft, Status> {
        self.shared.identity.admit(header, sender)?;
        if let Some(reason) = self.shared.storage_failure() {
            return Err(refused(format!("storage of node {} failed: {reason}", self.shared.node_id())));
        }
        if self.shared.removed.borrow().is_some() {
            return Err(refused(format!("node {} was removed from the cluster", self.shared.node_id())));
        }
        self.shared.raft().ok_or_else(|| refused(format!("node {} is starting", self.shared.node_id())))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let (request, sender) = opened(request);
        let raft = self.admit(request.header.as_ref(), sender)?;
        let request = wire::read_append_request(request).map_err(malformed)?;
        let response = raft.append_entries(request).await.map_err(core_failed)?;
        Ok(Response::new(wire::append_response(response)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (request, sender) = opened(request);
        let raft = self.admit(request.header.as_ref(), sender)?;
        let request = wire::read_vote_request(&request).map_err(malformed)?;
        let response = raft.vote(request).await.map_err(core_failed)?;
        Ok(Response::new(wire::vote_response(&response)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (request, sender) = opened(request);
        let raft = self.admit(request.header.as_ref(), sender)?;
        let request = wire::read_vote_request(&request).map_err(malformed)?;
        let response = raft.pre_vote(request).await.map_err(core_failed)?;
        Ok(Response::new(wire::vote_response(&response)))
    }

    async fn snapshot(&self, request: Request<Streaming<pb::SnapshotRequest>>) -> Result<Response<pb::SnapshotResponse>, Status> {
        let (mut parts, sender) = opened(request);
        let Some(Part::Head(head)) = next_part(&mut parts).await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        let raft = self.admit(head.header.as_ref(), sender)?;
        let vote = wire::read_vote(head.vote.as_ref()).map_err(malformed)?;
        let meta = wire::read_snapshot_meta(&head).map_err(malformed)?;
        let _turn = self.shared.receiving.try_acquire().map_err(|_| refused("another snapshot is arriving"))?;
        let snapshot = self.receive(parts, head.byte_count, head.crc32c).await?;
        if *snapshot.meta() != meta {
            return Err(Status::invalid_argument("the snapshot covers something else than its sender says"));
        }
        let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await.map_err(core_failed)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::vote(&installed.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (request, sender) = opened(request);
        let raft = self.admit(request.header.as_ref(), sender)?;
        let request = wire::read_transfer_request(&request).map_err(malformed)?;
        if let Some(why) = self.shared.divergence.aside().filter(|_| *request.to_node_id() == self.shared.node_id()) {
            return Ok(Response::new(pb::TransferLeaderResponse { refused: format!("it has diverged: {why}") }));
        }
        let taken = raft.handle_transfer_leader(request).await.map_err(core_failed)?;
        let refused = taken.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(pb::TransferLeaderResponse { refused }))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        let (request, sender) = opened(request);
        self.shared.identity.admit(request.header.as_ref(), sender)?;
        if request.proposals.len() > BATCH_COUNT_MAX {
            return Err(refused(format!("at most {BATCH_COUNT_MAX} proposals in one call, found {}", request.proposals.len())));
        }
        let proposals = request.proposals.iter();
        let proposals = proposals.map(|proposal| (wire::own(&proposal.command).0, deadline_of(proposal.wait_ms))).collect();
        let results = self.shared.propose_for_peer(proposals).await.into_iter().map(wire_outcome::propose_result).collect();
        Ok(Response::new(pb::ProposeResponse { results }))
    }

    async fn read_index(&self, request: Request<pb::ReadIndexRequest>) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Result;
        let (request, sender) = opened(request);
        self.admit(request.header.as_ref(), sender)?;
        let round = self.shared.leader_rounds.join();
        let result = match tokio::time::timeout_at(deadline_of(request.wait_ms), round).await {
            Ok(Ok(id)) => Result::ReadLogId(wire::log_id(id)),
            Ok(Err(reason)) => Result::Unavailable(reason),
            Err(_) => Result::Unavailable("no quorum confirmed it in time".to_owned()),
        };
        Ok(Response::new(pb::ReadIndexResponse { result: Some(result) }))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        let (request, sender) = opened(request);
        // One that has no id yet says 0.
        self.shared.identity.check_claim(Some(request.sender).filter(|&id| id != 0), sender)?;
        Ok(Response::new(self.shared.hello()))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let (request, sender) = opened(request);
        // One that passes the question on speaks for another.
        self.shared.identity.check_claim(Some(request.node_id).filter(|_| !request.forwarded), sender)?;
        let deadline = deadline_of(request.wait_ms);
        Ok(Response::new(join::response(self.shared.admit(request, deadline).await)))
    }

    async fn invite(&self, request: Request<pb::InviteRequest>) -> Result<Response<pb::InviteResponse>, Status> {
        Ok(Response::new(self.shared.take_invitation(&request.into_inner())))
    }

    async fn change_member(
        &self,
        request: Request<pb::ChangeMemberRequest>,
    ) -> Result<Response<pb::ChangeMemberResponse>, Status> {
        let (request, sender) = opened(request);
        self.shared.identity.admit(request.header.as_ref(), sender)?;
        let change = MemberChange::read(&request).ok_or_else(|| refused("a change that this version does not know"))?;
        let changed = self.shared.change_here(change, deadline_of(request.wait_ms)).await;
        Ok(Response::new(wire_outcome::change_response(changed)))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (request, sender) = opened(request);
        let raft = self.admit(request.header.as_ref(), sender)?;
        let (term, last_log_index) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.last_log_index.unwrap_or(0))
        };
        let applied = self.shared.applied.borrow().clone();
        let published = *self.shared.published.borrow();
        Ok(Response::new(pb::StatusResponse {
            term,
            leads: self.shared.leads_with_quorum(),
            revision: applied.state.revision().0,
            digest: Bytes::copy_from_slice(&applied.state.digest().0),
            applied: applied.log_id.map(wire::log_id),
            state_digest: Bytes::copy_from_slice(&applied.state.state_digest().0),
            published_revision: published.revision.0,
            published_digest: Bytes::copy_from_slice(&published.digest.0),
            last_log_index,
            version: VERSION.to_owned(),
            admin_address: self.shared.admin_address.clone(),
            feature_level_max: FEATURE_LEVEL_MAX,
            samples: self.shared.samples.told().iter().map(wire::sample).collect(),
            stands_aside: self.shared.divergence.aside().unwrap_or_default(),
        }))
    }

    async fn await_published(
        &self,
        request: Request<pb::AwaitPublishedRequest>,
    ) -> Result<Response<pb::AwaitPublishedResponse>, Status> {
        let (request, sender) = opened(request);
        self.shared.identity.admit(request.header.as_ref(), sender)?;
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms).min(PUBLISHED_WAIT_MAX);
        let published = self.shared.await_published(Revision(request.revision), deadline).await;
        let digest = Bytes::copy_from_slice(&published.digest.0);
        Ok(Response::new(pb::AwaitPublishedResponse { revision: published.revision.0, digest }))
    }
}

impl PeerService {
    /// Takes a snapshot's bytes in, up to the announced number, and checks the whole.
    async fn receive(
        &self,
        mut parts: Streaming<pb::SnapshotRequest>,
        byte_count: u64,
        crc32c: u32,
    ) -> Result<SnapshotFile, Status> {
        let directory = self.shared.snapshots.clone();
        let blocking = self.shared.blocking;
        let mut incoming = blocking.run(move || directory.receive()).await.map_err(disk_failed)?;
        while let Some(part) = next_part(&mut parts).await? {
            let Part::Data(data) = part else { return Err(Status::invalid_argument("a snapshot has one head")) };
            if incoming.byte_count() + data.len() as u64 > byte_count {
                return Err(Status::invalid_argument("more bytes than announced"));
            }
            let written = blocking.run(move || {
                incoming.write(&data)?;
                Ok(incoming)
            });
            incoming = written.await.map_err(disk_failed)?;
        }
        let finished = blocking.run(move || Ok(incoming.finish(byte_count, crc32c))).await.map_err(disk_failed)?;
        finished.map_err(|error| Status::internal(error.to_string()))
    }
}

/// The next message of a snapshot; one that does not come in time ends it.
async fn next_part(parts: &mut Streaming<pb::SnapshotRequest>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(SNAPSHOT_CHUNK_TIMEOUT, parts.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the snapshot stands still"))??;
    match message {
        None => Ok(None),
        Some(message) => message.part.map(Some).ok_or_else(|| Status::invalid_argument("empty part")),
    }
}
