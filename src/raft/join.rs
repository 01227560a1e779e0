//! Joining a running cluster: how an empty node becomes a learner.
//!
//! 1. The node asks any member, at the address that `--join` names or that a member names when it invites the node.
//! 2. That member passes the question to the leader, which asks the node back at the address it gave: a wrong address shows here, and not
//!    as a learner that nobody reaches.
//! 3. The leader commits the membership with the new learner, its incarnation and, where the node has none, the next id that was never
//!    used. It answers the cluster's id.
//! 4. The node syncs its identity and starts its Raft core. It never votes before somebody promotes it.
//!
//! A question that is asked again after its answer got lost finds the node in the membership by its incarnation. A node that crashes
//! between 3 and 4 leaves a learner behind that nobody is; its message tells which one to remove.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use tokio::time::Instant;

use super::error::{MemberError, NotAppliedKind};
use super::identity::PROTOCOL;
use super::members::{Proposed, describe};
use super::peers::{CallError, call};
use super::shared::Shared;
use super::wire;
use crate::model::NodeId;
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::pb::peer as pb;
use crate::store::{AppliedState, ClusterId, Incarnation, Member};

/// Between two questions of a node that waits to be let in.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a member may take to let a node in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions between two lines in the log that say what is waited for.
const ASKS_A_NOTE: u32 = 25;

/// A node that wants to be let in.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    node_id: Option<NodeId>,
    member: Member,
}

impl Candidate {
    pub(super) fn read(request: &pb::JoinRequest, cluster_name: &str, feature_level: u32) -> Result<Candidate, MemberError> {
        let refused = |reason: String| Err(MemberError::Refused(reason));
        if request.protocol != PROTOCOL {
            return refused(format!("it speaks protocol {}, this cluster {PROTOCOL}", request.protocol));
        }
        if request.cluster_name != cluster_name {
            return refused(format!("its cluster.name is {:?}, here it is {cluster_name:?}", request.cluster_name));
        }
        if request.feature_level_max < feature_level {
            let known = request.feature_level_max;
            return refused(format!("its version knows feature levels up to {known}, and the cluster is at {feature_level}"));
        }
        let incarnation = wire::read_incarnation(&request.incarnation);
        let incarnation = incarnation.map_err(|error| MemberError::Refused(error.to_string()))?;
        let (peer_address, admin_address) = (request.peer_address.clone(), request.admin_address.clone());
        let node_id = Some(request.node_id).filter(|&id| id != 0);
        Ok(Candidate { node_id, member: Member { peer_address, admin_address, incarnation } })
    }
}

/// What the leader finds about a candidate.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// It is a member already.
    Member(NodeId),
    /// It may come in as this id.
    Admit(NodeId),
}

fn judge(
    candidate: &Candidate,
    members: &BTreeMap<NodeId, Member>,
    removed: impl Fn(NodeId) -> bool,
    last_removed: Option<NodeId>,
) -> Result<Judged, MemberError> {
    let refused = |reason: String| Err(MemberError::Refused(reason));
    let asked = &candidate.member;
    if let Some((&id, known)) = members.iter().find(|(_, member)| member.incarnation == asked.incarnation) {
        return if known.peer_address == asked.peer_address && candidate.node_id.is_none_or(|asked| asked == id) {
            Ok(Judged::Member(id))
        } else {
            refused(format!("it is member {id} at {} already", known.peer_address))
        };
    }
    if let Some((id, _)) = members.iter().find(|(_, member)| member.peer_address == asked.peer_address) {
        let address = &asked.peer_address;
        return refused(format!(
            "{address} is the address of member {id}, which had another data directory: remove that member first (raftgate cluster \
             remove {id})"
        ));
    }
    match candidate.node_id {
        // The next after the greatest that any member has or had.
        None => Ok(Judged::Admit(members.keys().next_back().copied().max(last_removed).unwrap_or(0) + 1)),
        Some(id) if members.contains_key(&id) => refused(format!(
            "node {id} is a member with another data directory: remove it (raftgate cluster remove {id}) and join under a new id; \
             without node_id the cluster gives one"
        )),
        Some(id) if removed(id) => refused(format!(
            "node {id} was removed, and ids are never used again: join under a new id; without node_id the cluster gives one"
        )),
        Some(id) => Ok(Judged::Admit(id)),
    }
}

impl Shared {
    /// Lets a node in as a learner, here as the leader or over one hop.
    pub(super) async fn admit(
        self: &Arc<Self>,
        request: pb::JoinRequest,
        deadline: Instant,
    ) -> Result<(ClusterId, NodeId), MemberError> {
        let cluster = self.identity.cluster_id();
        let later = |reason: &str| MemberError::not_applied(NotAppliedKind::NoLeader, reason);
        let cluster = cluster.ok_or_else(|| later("this node does not belong to a cluster itself"))?;
        self.raft_to_propose()?;
        let level = self.states.borrow().feature_level();
        let candidate = Candidate::read(&request, &self.cluster_name, level)?;
        let leader = self.leader().ok_or_else(|| later("no leader"))?;
        if leader == self.node_id() {
            return self.admit_here(candidate, deadline).await.map(|id| (cluster, id));
        }
        if request.forwarded {
            return Err(later("this node does not lead any more"));
        }
        let peer = self.member(leader).map_err(|error| later(&error.to_string()))?;
        let mut client = peer.bulk();
        let wait = deadline.saturating_duration_since(Instant::now());
        let response = call(wait, client.join(pb::JoinRequest { forwarded: true, ..request })).await;
        read_response(response)
    }

    async fn admit_here(self: &Arc<Self>, candidate: Candidate, deadline: Instant) -> Result<NodeId, MemberError> {
        let raft = self.raft_to_propose()?;
        let turn = self.turn()?;
        let seen = self.settled(&raft, deadline).await?;
        let members = seen.nodes().map(|(id, member)| (*id, member.clone())).collect();
        let judged = {
            let applied = self.applied.borrow();
            let state = &applied.state;
            judge(&candidate, &members, |id| state.removed_member(id).is_some(), state.last_removed_member())?
        };
        let id = match judged {
            Judged::Member(id) => return Ok(id),
            Judged::Admit(id) => id,
        };
        self.ask_back(&candidate).await?;
        let changes = ChangeMembers::AddNodes(BTreeMap::from([(id, candidate.member)]));
        let proposed = Proposed { changes, retain: true, seen: *seen.log_id() };
        let (_, after) = self.propose_members(&raft, turn, proposed, deadline).await?;
        tracing::info!(id, before = %describe(&seen), %after, "a node has joined as a learner");
        Ok(id)
    }

    /// Whether the candidate is where it says it is.
    async fn ask_back(&self, candidate: &Candidate) -> Result<(), MemberError> {
        let address = &candidate.member.peer_address;
        let answered = match self.peers.at(address, candidate.node_id) {
            Ok(peer) => self.say_hello(&peer, 0).await,
            Err(error) => Err(error),
        };
        let hello = answered.map_err(|error| {
            let reason = format!("no answer from the node at the address it gave, {address}: {error}");
            MemberError::not_applied(NotAppliedKind::NoLeader, reason)
        })?;
        if hello.incarnation[..] != candidate.member.incarnation.0 {
            return Err(MemberError::Refused(format!("another node answers at the address it gave, {address}")));
        }
        Ok(())
    }

    /// Asks a node that belongs to no cluster to join this one, and waits until it is a member.
    pub(super) async fn add_member(
        self: &Arc<Self>,
        peer_address: &str,
        node_id: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, MemberError> {
        self.raft_to_propose()?;
        let no_leader = |reason: String| MemberError::not_applied(NotAppliedKind::NoLeader, reason);
        // A member of a cluster that was formed a moment ago may not have applied that yet.
        let own = |applied: &AppliedState| {
            let member = applied.membership.membership().get_node(&self.node_id());
            member.map(|member| member.peer_address.clone())
        };
        let mut applied = self.applied.clone();
        let is_member = tokio::time::timeout_at(deadline, applied.wait_for(|applied| own(applied).is_some())).await;
        let join_address = is_member.ok().and_then(|applied| own(&*applied.ok()?));
        let join_address = join_address.ok_or_else(|| no_leader("this node is no member itself".to_owned()))?;
        let request = pb::InviteRequest {
            node_id: node_id.unwrap_or(0),
            cluster_name: self.cluster_name.to_string(),
            join_address,
            protocol: PROTOCOL,
        };
        let peer = self.peers.at(peer_address, node_id).map_err(|error| MemberError::Refused(error.to_string()))?;
        let wait = deadline.saturating_duration_since(Instant::now());
        let mut client = peer.control();
        let answer = call(wait, client.invite(request)).await;
        let answer = answer.map_err(|error| no_leader(format!("the node at {peer_address}: {error}")))?;
        if !answer.refused.is_empty() {
            return Err(MemberError::Refused(format!("the node at {peer_address}: {}", answer.refused)));
        }
        let incarnation = wire::read_incarnation(&answer.incarnation).map_err(|error| MemberError::Refused(error.to_string()))?;
        let joined = applied.wait_for(|applied| member_id(applied.membership.nodes(), incarnation).is_some());
        match tokio::time::timeout_at(deadline, joined).await {
            Ok(Ok(applied)) => Ok(member_id(applied.membership.nodes(), incarnation).unwrap_or(0)),
            Ok(Err(_)) => Err(MemberError::Unknown("this node is stopping".to_owned())),
            Err(_) => Err(MemberError::Unknown(format!(
                "the node at {peer_address} was invited and has not joined yet; its log says why"
            ))),
        }
    }

    /// Takes an invitation, where this node has no cluster and waits for one.
    pub(super) fn take_invitation(&self, request: &pb::InviteRequest) -> pb::InviteResponse {
        let refuse = |refused: String| pb::InviteResponse { refused, incarnation: Bytes::new() };
        if let Some(cluster) = self.identity.cluster_text() {
            return refuse(format!("it belongs to cluster {cluster} already"));
        }
        if request.protocol != PROTOCOL {
            return refuse(format!("it speaks protocol {PROTOCOL}, not {}", request.protocol));
        }
        if request.cluster_name != *self.cluster_name {
            return refuse(format!("its cluster.name is {:?}, not {:?}", self.cluster_name, request.cluster_name));
        }
        let own = self.node_id();
        if own != 0 && request.node_id != 0 && own != request.node_id {
            return refuse(format!("its node_id is {own}, not {}", request.node_id));
        }
        if !self.initial_members.is_empty() {
            return refuse("it has cluster.initial_members, and forms a cluster of its own".to_owned());
        }
        let node_id = Some(request.node_id).filter(|&id| id != 0);
        self.invitation.send_replace(Some(Invitation { address: request.join_address.clone(), node_id }));
        pb::InviteResponse { refused: String::new(), incarnation: Bytes::copy_from_slice(&self.identity.incarnation().0) }
    }
}

/// Whom to ask, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invitation {
    pub(super) address: String,
    pub(super) node_id: Option<NodeId>,
}

fn member_id<'a>(mut members: impl Iterator<Item = (&'a NodeId, &'a Member)>, incarnation: Incarnation) -> Option<NodeId> {
    members.find(|(_, member)| member.incarnation == incarnation).map(|(id, _)| *id)
}

/// Asks until this node is let in; `Err` says why that will never be. The caller syncs the identity, then starts Raft.
pub(super) async fn join(shared: &Arc<Shared>) -> Result<(ClusterId, NodeId), String> {
    let mut invitation = shared.invitation.subscribe();
    let mut asks = 0;
    loop {
        if invitation.borrow().is_none() {
            tracing::info!(
                "this node belongs to no cluster: it waits until it is added (raftgate cluster add), or start it with --join ADDRESS or \
                 cluster.initial_members"
            );
        }
        let waited = invitation.wait_for(Option::is_some).await.map(|invitation| invitation.clone());
        let Ok(Some(Invitation { address, node_id })) = waited else { return Err("this node is stopping".to_owned()) };
        match ask(shared, &address, node_id).await {
            Ok(joined) => return Ok(joined),
            Err(MemberError::Refused(reason)) => return Err(format!("the cluster at {address} refuses this node: {reason}")),
            Err(error) if asks % ASKS_A_NOTE == 0 => tracing::info!(address, %error, "not let in yet"),
            Err(_) => {}
        }
        asks += 1;
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

async fn ask(shared: &Shared, address: &str, node_id: Option<NodeId>) -> Result<(ClusterId, NodeId), MemberError> {
    let own = Some(shared.node_id()).filter(|&id| id != 0);
    let request = pb::JoinRequest {
        node_id: own.or(node_id).unwrap_or(0),
        cluster_name: shared.cluster_name.to_string(),
        peer_address: shared.peer_address.clone(),
        admin_address: shared.admin_address.clone(),
        incarnation: Bytes::copy_from_slice(&shared.identity.incarnation().0),
        protocol: PROTOCOL,
        forwarded: false,
        wait_ms: u64::try_from(JOIN_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        feature_level_max: FEATURE_LEVEL_MAX,
    };
    let peer = shared.peers.at(address, None).map_err(|error| MemberError::Refused(error.to_string()))?;
    let mut client = peer.bulk();
    read_response(call(JOIN_TIMEOUT, client.join(request)).await)
}

/// What a member answers to one that asks.
pub(super) fn response(result: Result<(ClusterId, NodeId), MemberError>) -> pb::JoinResponse {
    use pb::join_response::Result;
    let result = match result {
        Ok((cluster, node_id)) => Result::Joined(pb::Joined { cluster_id: Bytes::copy_from_slice(&cluster.0), node_id }),
        Err(MemberError::Refused(reason)) => Result::Refused(reason),
        Err(error) => Result::Later(error.to_string()),
    };
    pb::JoinResponse { result: Some(result) }
}

fn read_response(response: Result<pb::JoinResponse, CallError>) -> Result<(ClusterId, NodeId), MemberError> {
    use pb::join_response::Result as Answer;
    let later = |reason: String| MemberError::not_applied(NotAppliedKind::NoLeader, reason);
    match response.map_err(|error| later(error.to_string()))?.result {
        Some(Answer::Joined(joined)) => {
            let cluster = wire::read_cluster_id(&joined.cluster_id).map_err(|error| later(error.to_string()))?;
            let cluster =
                cluster.filter(|_| joined.node_id != 0).ok_or_else(|| later("an answer without a cluster or id".to_owned()))?;
            Ok((cluster, joined.node_id))
        }
        Some(Answer::Refused(reason)) => Err(MemberError::Refused(reason)),
        Some(Answer::Later(reason)) => Err(later(reason)),
        None => Err(later("an empty answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(port: u16, incarnation: u8) -> Member {
        Member { peer_address: format!("h:{port}"), admin_address: String::new(), incarnation: Incarnation([incarnation; 16]) }
    }

    #[test]
    fn a_candidate_is_judged_by_id_address_and_incarnation() {
        let members = BTreeMap::from([(1, member(1, 1)), (2, member(2, 2))]);
        let judged = |id: Option<NodeId>, member: Member| {
            judge(&Candidate { node_id: id, member }, &members, |id| id == 5, Some(5)).map_err(|error| error.to_string())
        };
        assert_eq!(judged(None, member(3, 3)), Ok(Judged::Admit(6)), "ids of removed members are not given again");
        assert_eq!(judged(Some(4), member(3, 3)), Ok(Judged::Admit(4)));
        assert_eq!(judged(Some(2), member(2, 2)), Ok(Judged::Member(2)), "asked again");
        assert_eq!(judged(None, member(2, 2)), Ok(Judged::Member(2)));
        for (id, asked, expected) in [
            (Some(2), member(3, 3), "node 2 is a member with another data directory"),
            (Some(5), member(3, 3), "node 5 was removed, and ids are never used again"),
            (None, member(2, 3), "h:2 is the address of member 2"),
            (Some(3), member(2, 2), "it is member 2 at h:2 already"),
            (None, member(3, 2), "it is member 2 at h:2 already"),
        ] {
            let refused = judged(id, asked.clone()).unwrap_err();
            assert!(refused.contains(expected), "{id:?} {asked:?}: {refused}");
        }
    }
}
