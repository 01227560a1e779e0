//! Between openraft's types and this project's messages.
//!
//! Everything that comes in may be wrong: a missing part is a [`WireError`], never a default that could pass for a real vote or log id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::{EntryPayload, entry::RaftEntry};
use thiserror::Error;

use crate::model::{Digest, NodeId, Revision};
use crate::pb::peer as pb;
use crate::store::{
    ClusterId, Entry, Incarnation, LeaderId, LogId, Member, Membership, Proposal, Sample, SnapshotMeta, StoredMembership,
    TypeConfig, Vote,
};

/// A message that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed message: {0}")]
pub(super) struct WireError(pub(super) &'static str);

fn leader_id(id: LeaderId) -> pb::LeaderId {
    pb::LeaderId { term: id.term, node_id: id.node_id }
}

pub(super) fn log_id(id: LogId) -> pb::LogId {
    pb::LogId { leader: Some(leader_id(id.leader_id)), index: id.index }
}

pub(super) fn read_log_id(id: &pb::LogId) -> Result<LogId, WireError> {
    let leader = id.leader.as_ref().ok_or(WireError("log id without a leader"))?;
    Ok(LogId { leader_id: LeaderId { term: leader.term, node_id: leader.node_id }, index: id.index })
}

pub(super) fn read_optional_log_id(id: Option<&pb::LogId>) -> Result<Option<LogId>, WireError> {
    id.map(read_log_id).transpose()
}

pub(super) fn vote(vote: &Vote) -> pb::VoteState {
    pb::VoteState { leader: Some(leader_id(vote.leader_id)), committed: vote.committed }
}

pub(super) fn read_vote(vote: Option<&pb::VoteState>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError("no vote"))?;
    let leader = vote.leader.as_ref().ok_or(WireError("vote without a leader"))?;
    Ok(Vote { leader_id: LeaderId { term: leader.term, node_id: leader.node_id }, committed: vote.committed })
}

fn membership(membership: &Membership) -> pb::Membership {
    let member = |(id, member): (&NodeId, &Member)| {
        let message = pb::Member {
            peer_address: member.peer_address.clone(),
            admin_address: member.admin_address.clone(),
            incarnation: Bytes::copy_from_slice(&member.incarnation.0),
        };
        (*id, message)
    };
    pb::Membership {
        voters: membership.get_joint_config().iter().map(|ids| pb::VoterSet { ids: ids.iter().copied().collect() }).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

fn read_membership(message: &pb::Membership) -> Result<Membership, WireError> {
    let mut members = BTreeMap::new();
    for (id, member) in &message.members {
        let incarnation = read_incarnation(&member.incarnation)?;
        let member =
            Member { peer_address: member.peer_address.clone(), admin_address: member.admin_address.clone(), incarnation };
        members.insert(*id, member);
    }
    let voters: Vec<BTreeSet<NodeId>> = message.voters.iter().map(|set| set.ids.iter().copied().collect()).collect();
    if voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, members).map_err(|_| WireError("membership without a quorum"))
}

pub(super) fn stored_membership(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership { log_id: stored.log_id().map(log_id), membership: Some(membership(stored.membership())) }
}

fn read_stored_membership(message: Option<&pb::StoredMembership>) -> Result<StoredMembership, WireError> {
    let message = message.ok_or(WireError("no membership"))?;
    let membership = message.membership.as_ref().ok_or(WireError("empty membership"))?;
    Ok(StoredMembership::new(read_optional_log_id(message.log_id.as_ref())?, read_membership(membership)?))
}

fn entry(entry: Entry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(true),
        EntryPayload::Normal(proposal) => pb::entry::Payload::Command(proposal.0),
        EntryPayload::Membership(change) => pb::entry::Payload::Membership(membership(&change)),
    };
    pb::Entry { log_id: Some(log_id(entry.log_id)), payload: Some(payload) }
}

fn read_entry(message: pb::Entry) -> Result<Entry, WireError> {
    let id = read_log_id(message.log_id.as_ref().ok_or(WireError("entry without a log id"))?)?;
    let payload = match message.payload.ok_or(WireError("entry without a payload"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Command(bytes) => EntryPayload::Normal(own(&bytes)),
        pb::entry::Payload::Membership(change) => EntryPayload::Membership(read_membership(&change)?),
    };
    Ok(Entry::new(id, payload))
}

/// A command of a message as bytes of its own. What a message holds are slices of the connection's read buffer: kept in the log's tail,
/// each of some hundred bytes would hold a buffer of 8 KiB in memory.
pub(super) fn own(command: &Bytes) -> Proposal {
    Proposal(Bytes::copy_from_slice(command))
}

/// Bytes that an entry takes on the wire, about.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    const OVERHEAD: usize = 64;
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len() + OVERHEAD,
        EntryPayload::Blank => OVERHEAD,
        EntryPayload::Membership(change) => change.nodes().count() * 256 + OVERHEAD,
    }
}

pub(super) fn append_request(header: pb::Header, request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        header: Some(header),
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.map(log_id),
        entries: request.entries.into_iter().map(entry).collect(),
        committed: request.leader_commit.map(log_id),
    }
}

pub(super) fn read_append_request(message: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: read_vote(message.vote.as_ref())?,
        prev_log_id: read_optional_log_id(message.previous.as_ref())?,
        entries: message.entries.into_iter().map(read_entry).collect::<Result<_, _>>()?,
        leader_commit: read_optional_log_id(message.committed.as_ref())?,
    })
}

pub(super) fn append_response(response: AppendEntriesResponse<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result;
    let result = match response {
        AppendEntriesResponse::Success => Result::Success(true),
        AppendEntriesResponse::Conflict => Result::Conflict(true),
        AppendEntriesResponse::HigherVote(higher) => Result::HigherVote(vote(&higher)),
        AppendEntriesResponse::PartialSuccess(matched) => Result::Partial(pb::Partial { matched: matched.map(log_id) }),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(super) fn read_append_response(message: pb::AppendResponse) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use pb::append_response::Result;
    Ok(match message.result.ok_or(WireError("no result"))? {
        Result::Success(_) => AppendEntriesResponse::Success,
        Result::Conflict(_) => AppendEntriesResponse::Conflict,
        Result::HigherVote(higher) => AppendEntriesResponse::HigherVote(read_vote(Some(&higher))?),
        Result::Partial(partial) => AppendEntriesResponse::PartialSuccess(read_optional_log_id(partial.matched.as_ref())?),
    })
}

pub(super) fn vote_request(header: pb::Header, request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        header: Some(header),
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn read_vote_request(message: &pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut request = VoteRequest::new(read_vote(message.vote.as_ref())?, read_optional_log_id(message.last_log_id.as_ref())?);
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(super) fn vote_response(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id),
    }
}

pub(super) fn read_vote_response(message: &pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    let last_log_id = read_optional_log_id(message.last_log_id.as_ref())?;
    Ok(VoteResponse::new(read_vote(message.vote.as_ref())?, last_log_id, message.granted))
}

pub(super) fn transfer_request(header: pb::Header, request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        header: Some(header),
        from: Some(vote(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().copied().map(log_id),
    }
}

pub(super) fn read_transfer_request(message: &pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let last_log_id = read_optional_log_id(message.last_log_id.as_ref())?;
    Ok(TransferLeaderRequest::new(read_vote(message.from.as_ref())?, message.to, last_log_id))
}

pub(super) fn read_snapshot_meta(message: &pb::SnapshotHead) -> Result<SnapshotMeta, WireError> {
    Ok(SnapshotMeta {
        last_log_id: read_optional_log_id(message.last_log_id.as_ref())?,
        last_membership: read_stored_membership(message.membership.as_ref())?,
    })
}

pub(super) fn read_incarnation(bytes: &Bytes) -> Result<Incarnation, WireError> {
    <[u8; 16]>::try_from(bytes.as_ref()).map(Incarnation).map_err(|_| WireError("incarnation is not 16 bytes"))
}

/// `None` where the bytes are empty.
pub(super) fn read_cluster_id(bytes: &Bytes) -> Result<Option<ClusterId>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    <[u8; 16]>::try_from(bytes.as_ref()).map(|id| Some(ClusterId(id))).map_err(|_| WireError("cluster id is not 16 bytes"))
}

pub(super) fn read_digest(bytes: &Bytes) -> Result<Digest, WireError> {
    <[u8; 32]>::try_from(bytes.as_ref()).map(Digest).map_err(|_| WireError("digest is not 32 bytes"))
}

pub(super) fn sample(sample: &Sample) -> pb::Sample {
    pb::Sample {
        log_id: Some(log_id(sample.log_id)),
        state_digest: Bytes::copy_from_slice(&sample.state_digest.0),
        revision: sample.revision.0,
        digest: Bytes::copy_from_slice(&sample.digest.0),
    }
}

pub(super) fn read_sample(message: &pb::Sample) -> Result<Sample, WireError> {
    let log_id = read_optional_log_id(message.log_id.as_ref())?.ok_or(WireError("sample without a log id"))?;
    let (state_digest, digest) = (read_digest(&message.state_digest)?, read_digest(&message.digest)?);
    Ok(Sample { log_id, state_digest, revision: Revision(message.revision), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id }, index }
    }

    #[test]
    fn an_append_survives_the_wire() {
        let member = Member {
            peer_address: "10.0.0.1:7081".to_owned(),
            admin_address: "10.0.0.1:9081".to_owned(),
            incarnation: Incarnation([7; 16]),
        };
        let membership = Membership::new(
            vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
            BTreeMap::from([(1, member.clone()), (2, member)]),
        )
        .unwrap();
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: true },
            prev_log_id: Some(id(2, 1, 6)),
            entries: vec![
                Entry::new(id(3, 2, 7), EntryPayload::Blank),
                Entry::new(id(3, 2, 8), EntryPayload::Normal(Proposal(Bytes::from_static(b"command")))),
                Entry::new(id(3, 2, 9), EntryPayload::Membership(membership)),
            ],
            leader_commit: None,
        };
        let message = append_request(pb::Header::default(), request.clone());
        let bytes = prost::Message::encode_to_vec(&message);
        let back = read_append_request(prost::Message::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (request.vote, request.prev_log_id, None));
        assert_eq!(back.entries, request.entries);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert!(read_append_request(pb::AppendRequest::default()).is_err());
        assert!(read_vote(Some(&pb::VoteState::default())).is_err());
        assert!(read_entry(pb::Entry { log_id: Some(log_id(id(1, 1, 1))), payload: None }).is_err());
        assert!(read_cluster_id(&Bytes::from_static(b"short")).is_err());
        assert_eq!(read_cluster_id(&Bytes::new()), Ok(None));
    }
}
