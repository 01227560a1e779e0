//! openraft's network over the peers' gRPC.
//!
//! Deadlines are this project's own where entries and snapshots travel: openraft passes the heartbeat interval as an append's time to
//! live, and a 4 MiB entry on a slow disk would be sent again for ever. A batch of entries is cut by bytes; openraft goes on after the
//! part that was taken.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ErrorSource, NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::{RaftTypeConfig, StorageError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::identity::Identity;
use super::peers::{CallError, Peer, Peers, call};
use super::wire::{self, WireError};
use crate::model::NodeId;
use crate::pb::peer as pb;
use crate::pb::peer::snapshot_request::Part;
use crate::store::{Blocking, Entry, Member, Snapshot, SnapshotFile, TypeConfig, Vote};

/// Entries of one append, together; a single larger one goes alone.
const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long an append with entries may take: transfer, sync and answer.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The least that an append without entries gets.
const HEARTBEAT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Bytes of one message of a snapshot.
const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// How long a snapshot may stand still on its way.
pub(super) const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the receiver may take to install a snapshot that has arrived.
const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Between tries to reach a peer that is away. A refused connection costs little, and a restarted peer must not wait.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];

type Source = <TypeConfig as RaftTypeConfig>::ErrorSource;

/// Makes a [`Network`] a peer.
#[derive(Debug, Clone)]
pub(super) struct NetworkFactory {
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Peers>,
    pub(super) blocking: Blocking,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Network {
        let peer = self.peers.get(target, &member.peer_address);
        Network { identity: Arc::clone(&self.identity), target, peer, blocking: self.blocking }
    }
}

/// Sends openraft's messages to one peer.
#[derive(Debug)]
pub(super) struct Network {
    identity: Arc<Identity>,
    target: NodeId,
    peer: Result<Arc<Peer>, CallError>,
    blocking: Blocking,
}

impl Network {
    fn peer(&self) -> Result<&Peer, RPCError<TypeConfig>> {
        match &self.peer {
            Ok(peer) => Ok(peer),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(error))),
        }
    }

    fn header(&self) -> pb::Header {
        self.identity.header(self.target)
    }

    /// Unreachable makes openraft wait before the next try; a broken connection is tried again at once.
    fn rpc_error(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Timeout(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.identity.node_id(), target: self.target, timeout })
            }
            CallError::Broken(_) => RPCError::Network(NetworkError::new(&error)),
            CallError::NotSent(_) | CallError::Refused(_) | CallError::Removed(_) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }
}

fn malformed(error: WireError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&error))
}

/// How many of the entries, at least one, fit into one append.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let count = entries.iter().take_while(|entry| {
        bytes += wire::entry_bytes(entry);
        bytes <= APPEND_BYTES_MAX
    });
    count.count().max(1).min(entries.len())
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let count = fitting(&rpc.entries);
        let partial = (count < rpc.entries.len()).then(|| rpc.entries[count - 1].log_id);
        rpc.entries.truncate(count);
        let peer = self.peer()?;
        let (mut client, limit) = if count == 0 {
            (peer.control(), option.hard_ttl().max(HEARTBEAT_TIMEOUT_MIN))
        } else {
            (peer.bulk(), APPEND_TIMEOUT)
        };
        let request = wire::append_request(self.header(), rpc);
        let response =
            call(limit, client.append(request)).await.map_err(|error| self.rpc_error(RPCTypes::AppendEntries, error))?;
        match (wire::read_append_response(response).map_err(malformed)?, partial) {
            (AppendEntriesResponse::Success, Some(last)) => Ok(AppendEntriesResponse::PartialSuccess(Some(last))),
            (response, _) => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.peer()?.control();
        let request = wire::vote_request(self.header(), &rpc);
        let response =
            call(option.hard_ttl(), client.vote(request)).await.map_err(|error| self.rpc_error(RPCTypes::Vote, error))?;
        wire::read_vote_response(&response).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.peer()?.control();
        let request = wire::vote_request(self.header(), &rpc);
        let response =
            call(option.hard_ttl(), client.pre_vote(request)).await.map_err(|error| self.rpc_error(RPCTypes::Vote, error))?;
        wire::read_vote_response(&response).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.peer()?.control();
        let request = wire::transfer_request(self.header(), &rpc);
        let response = call(option.hard_ttl(), client.transfer_leader(request))
            .await
            .map_err(|error| self.rpc_error(RPCTypes::TransferLeader, error))?;
        if !response.refused.is_empty() {
            tracing::warn!(target = self.target, reason = response.refused, "leadership not taken over");
        }
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let [first, then] = RETRY_DELAYS;
        Some(Backoff::new(std::iter::once(first).chain(std::iter::repeat(then))))
    }
}

impl Network {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.peer()?.bulk();
        let file = snapshot.snapshot;
        let crc32c = self.read_file(&file, |file| file.crc32c()).await?;
        let head = pb::SnapshotHead {
            header: Some(self.header()),
            vote: Some(wire::vote(&vote)),
            last_log_id: snapshot.meta.last_log_id.map(wire::log_id),
            membership: Some(wire::stored_membership(&snapshot.meta.last_membership)),
            byte_count: file.byte_count(),
            crc32c,
        };
        let (parts, receiver) = mpsc::channel(2);
        let answer = client.snapshot(ReceiverStream::new(receiver));
        tokio::pin!(answer);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            fed = self.feed(parts, head, &file) => {
                fed?;
                None
            }
        };
        let answer = async {
            match answered {
                Some(answered) => answered,
                None => answer.await,
            }
        };
        let response = call(SNAPSHOT_INSTALL_TIMEOUT, answer)
            .await
            .map_err(|error| StreamingError::from(self.rpc_error(RPCTypes::InstallSnapshot, error)))?;
        let vote = wire::read_vote(response.vote.as_ref()).map_err(|error| StreamingError::from(malformed(error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    /// Hands the snapshot to the stream, part by part. A receiver that takes nothing for [`SNAPSHOT_CHUNK_TIMEOUT`] ends it.
    async fn feed(
        &self,
        parts: mpsc::Sender<pb::SnapshotRequest>,
        head: pb::SnapshotHead,
        file: &SnapshotFile,
    ) -> Result<(), StreamingError<TypeConfig>> {
        let mut offset = 0;
        let mut part = Part::Head(head);
        loop {
            let message = pb::SnapshotRequest { part: Some(part) };
            match parts.send_timeout(message, SNAPSHOT_CHUNK_TIMEOUT).await {
                Ok(()) => {}
                // The receiver hung up; the call's own answer says why.
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    let error = CallError::Timeout(SNAPSHOT_CHUNK_TIMEOUT);
                    return Err(self.rpc_error(RPCTypes::InstallSnapshot, error).into());
                }
            }
            let data = self.read_file(file, move |file| file.read_chunk(offset, SNAPSHOT_CHUNK_BYTES)).await?;
            if data.is_empty() {
                return Ok(());
            }
            offset += data.len() as u64;
            part = Part::Data(data);
        }
    }

    /// Reads from a snapshot; an error is one of this node's disk.
    async fn read_file<T: Send + 'static>(
        &self,
        file: &SnapshotFile,
        read: impl FnOnce(&SnapshotFile) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StreamingError<TypeConfig>> {
        let file = file.clone();
        let result = self.blocking.run(move || read(&file)).await;
        result.map_err(|error| StreamingError::StorageError(StorageError::read_snapshot(None, Source::from_error(&error))))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::store::{LeaderId, LogId, Proposal};

    #[test]
    fn appends_are_cut_by_bytes_and_never_empty() {
        let entry = |index, bytes| {
            let id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
            Entry::new(id, EntryPayload::Normal(Proposal(Bytes::from(vec![0; bytes]))))
        };
        let mib = 1024 * 1024;
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[entry(1, 10), entry(2, 10)]), 2);
        assert_eq!(fitting(&[entry(1, 5 * mib), entry(2, 10)]), 1);
        assert_eq!(fitting(&[entry(1, 2 * mib), entry(2, mib), entry(3, 2 * mib)]), 2);
    }
}
