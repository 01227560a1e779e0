//! Changing who belongs to the cluster (Raft 6): one change at a time, made by the leader.
//!
//! A change of voters is two entries, a joint configuration and the one it leads to; openraft's caller on the leader writes both. Where
//! that leader falls in between, the next one finishes what it finds ([`run`]): who was to leave the voters stays as a learner then, for
//! that can be taken back and a removal cannot. Every change is proposed under the condition that the membership is still the one it was
//! judged by, so two leaders cannot mix theirs.
//!
//! A change is refused where its majority would not be there to commit anything. A removed member's id and incarnation stay in State for
//! ever; the members tell it so when it asks ([`super::identity`]), and it stops its Raft side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, MissedTickBehavior};

use super::error::{MemberError, NotAppliedKind};
use super::hand_over::HAND_OVER_PATIENCE;
use super::peers::{CallError, call};
use super::shared::{Raft, Shared};
use super::wire_outcome;
use crate::model::NodeId;
use crate::pb::peer as pb;
use crate::store::{LogId, Member, StoredMembership, TypeConfig};

/// A learner that is no more entries behind counts as caught up: the rest is on its way.
const CAUGHT_UP_ENTRIES: u64 = 128;
/// How long a member may take to answer for itself.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a leader looks for a joint configuration that nobody finishes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A change of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// A learner becomes a voter, once it is caught up.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A member leaves the cluster for ever.
    Remove(NodeId),
    /// A voter takes over as the leader.
    Lead(NodeId),
}

impl MemberChange {
    fn message(self) -> (pb::change_member_request::Change, NodeId) {
        use pb::change_member_request::Change;
        match self {
            MemberChange::Promote(id) => (Change::Promote, id),
            MemberChange::Demote(id) => (Change::Demote, id),
            MemberChange::Remove(id) => (Change::Remove, id),
            MemberChange::Lead(id) => (Change::Lead, id),
        }
    }

    /// What a request asks for; `None` where this version does not know it.
    pub(super) fn read(request: &pb::ChangeMemberRequest) -> Option<MemberChange> {
        use pb::change_member_request::Change;
        let id = request.node_id;
        match request.change() {
            Change::Promote => Some(MemberChange::Promote(id)),
            Change::Demote => Some(MemberChange::Demote(id)),
            Change::Remove => Some(MemberChange::Remove(id)),
            Change::Lead => Some(MemberChange::Lead(id)),
            Change::Unspecified => None,
        }
    }
}

/// What is to be proposed, judged by the membership at `seen`.
pub(super) struct Proposed {
    pub(super) changes: ChangeMembers<NodeId, Member>,
    /// Whether voters that leave stay as learners.
    pub(super) retain: bool,
    pub(super) seen: Option<LogId>,
}

/// What a change needs.
enum Plan {
    /// Nothing: it is so already.
    Done,
    Propose(Proposed),
    /// Another leader, which then is asked for the rest.
    HandOver(Option<NodeId>),
}

/// Holds all other changes off.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Shared {
    /// Makes a change from any node and waits until this node shows it.
    pub(super) async fn change_member(self: &Arc<Self>, change: MemberChange, deadline: Instant) -> Result<(), MemberError> {
        loop {
            let error = match self.change_member_once(change, deadline).await {
                Ok(index) => {
                    self.wait_shown(change, index, deadline).await;
                    return Ok(());
                }
                Err(error) => error,
            };
            if !error.may_be_tried_again() || !self.pause(deadline).await {
                return Err(error);
            }
        }
    }

    async fn change_member_once(self: &Arc<Self>, change: MemberChange, deadline: Instant) -> Result<u64, MemberError> {
        self.raft_to_propose()?;
        let leader = self.leader().ok_or_else(|| MemberError::not_applied(NotAppliedKind::NoLeader, "no leader"))?;
        if leader == self.node_id() {
            return self.change_here(change, deadline).await;
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        let (kind, node_id) = change.message();
        let request = pb::ChangeMemberRequest {
            header: Some(self.identity.header(leader)),
            change: kind.into(),
            node_id,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        let called = match self.member(leader) {
            Ok(peer) => {
                let mut client = peer.bulk();
                call(wait, client.change_member(request)).await
            }
            Err(error) => Err(error),
        };
        match called {
            Ok(response) => wire_outcome::read_change_response(response),
            Err(error @ (CallError::NotSent(_) | CallError::Refused(_) | CallError::Removed(_))) => {
                Err(MemberError::not_applied(NotAppliedKind::NoLeader, format!("leader {leader}: {error}")))
            }
            Err(error) => Err(MemberError::Unknown(format!("leader {leader}: {error}"))),
        }
    }

    /// Makes a change as the leader; gives the log index of the membership that shows it.
    pub(super) async fn change_here(self: &Arc<Self>, change: MemberChange, deadline: Instant) -> Result<u64, MemberError> {
        let raft = self.raft_to_propose()?;
        if let MemberChange::Promote(id) = change {
            // One that never catches up shall not keep others from their changes, its own removal among them.
            self.wait_caught_up(&raft, id, deadline).await?;
        }
        let turn = self.turn()?;
        let seen = self.settled(&raft, deadline).await?;
        match self.plan(change, &raft, &seen).await? {
            Plan::Done => Ok(seen.log_id().map_or(0, |id| id.index)),
            Plan::Propose(proposed) => {
                let after = self.propose_members(&raft, turn, proposed, deadline).await?;
                tracing::info!(?change, before = %describe(&seen), after = %after.1, "the members have changed");
                Ok(after.0)
            }
            Plan::HandOver(target) => {
                drop(turn);
                let moved = self.hand_over(target, deadline).await;
                match change {
                    MemberChange::Lead(_) if moved => Ok(seen.log_id().map_or(0, |id| id.index)),
                    MemberChange::Lead(id) => Err(MemberError::Conflict(format!(
                        "leadership did not move to node {id}: it is behind or does not answer"
                    ))),
                    _ if moved => Err(MemberError::not_applied(NotAppliedKind::NoLeader, "the leader has handed over first")),
                    _ => Err(MemberError::Conflict("this node leads, and no other voter can take over at present".to_owned())),
                }
            }
        }
    }

    pub(super) fn turn(&self) -> Result<Turn, MemberError> {
        let busy = || MemberError::Conflict("another change of the members is under way".to_owned());
        Arc::clone(&self.member_turn).try_lock_owned().map_err(|_| busy())
    }

    /// The membership once it is committed, applied here and not joint.
    pub(super) async fn settled(&self, raft: &Raft, deadline: Instant) -> Result<Arc<StoredMembership>, MemberError> {
        loop {
            let effective = Arc::clone(&raft.metrics().borrow_watched().membership_config);
            if effective.membership().get_joint_config().len() > 1 {
                self.finish_joint(raft, &effective).await?;
            } else if *self.applied.borrow().membership.log_id() == *effective.log_id() {
                return Ok(effective);
            }
            if !self.pause(deadline).await {
                return Err(MemberError::Conflict("another change of the members is not committed yet".to_owned()));
            }
        }
    }

    async fn plan(&self, change: MemberChange, raft: &Raft, seen: &StoredMembership) -> Result<Plan, MemberError> {
        let (MemberChange::Promote(id) | MemberChange::Demote(id) | MemberChange::Remove(id) | MemberChange::Lead(id)) = change;
        if seen.membership().get_node(&id).is_none() {
            return Err(no_member(id));
        }
        let voters: BTreeSet<NodeId> = seen.voter_ids().collect();
        let is_voter = voters.contains(&id);
        let propose = |changes, retain| Plan::Propose(Proposed { changes, retain, seen: *seen.log_id() });
        match change {
            MemberChange::Promote(_) if is_voter => return Ok(Plan::Done),
            MemberChange::Promote(_) => {
                self.check_caught_up(raft, id)?;
                return Ok(propose(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true));
            }
            MemberChange::Lead(_) if id == self.node_id() => return Ok(Plan::Done),
            MemberChange::Lead(_) if is_voter => return Ok(Plan::HandOver(Some(id))),
            MemberChange::Lead(_) => {
                return Err(MemberError::Refused(format!("node {id} is a learner, and only a voter can lead: promote it first")));
            }
            MemberChange::Demote(_) if !is_voter => return Ok(Plan::Done),
            MemberChange::Remove(_) if !is_voter => {
                return Ok(propose(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false));
            }
            MemberChange::Demote(_) | MemberChange::Remove(_) => {}
        }
        let rest: Vec<NodeId> = voters.into_iter().filter(|&voter| voter != id).collect();
        if rest.is_empty() {
            return Err(MemberError::Refused(format!("node {id} is the only voter: promote another first")));
        }
        self.check_majority(&rest).await?;
        if id == self.node_id() {
            return Ok(Plan::HandOver(None));
        }
        Ok(propose(ChangeMembers::RemoveVoters(BTreeSet::from([id])), matches!(change, MemberChange::Demote(_))))
    }

    /// Asks all of them now: what the board says may be a second old, or not be there yet.
    async fn check_majority(&self, voters: &[NodeId]) -> Result<(), MemberError> {
        let asked = voters.iter().map(|&id| async move { id == self.node_id() || self.poll(id, ANSWER_TIMEOUT).await.is_ok() });
        let reachable = join_all(asked).await.into_iter().filter(|&answers| answers).count();
        if reachable * 2 > voters.len() {
            return Ok(());
        }
        Err(MemberError::Conflict(format!(
            "of the voters that would be left {voters:?} only {reachable} can be reached, which is no majority: bring one back, or add and \
             promote another node first"
        )))
    }

    /// Waits until a learner is caught up.
    async fn wait_caught_up(&self, raft: &Raft, id: NodeId, deadline: Instant) -> Result<(), MemberError> {
        loop {
            match self.check_caught_up(raft, id) {
                Err(MemberError::Conflict(_)) if self.pause(deadline).await => {}
                checked => return checked,
            }
        }
    }

    /// Whether a node is caught up, as a voter always is.
    fn check_caught_up(&self, raft: &Raft, id: NodeId) -> Result<(), MemberError> {
        let behind = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            if membership.membership().get_node(&id).is_none() {
                return Err(no_member(id));
            }
            if membership.voter_ids().any(|voter| voter == id) {
                return Ok(());
            }
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
            metrics.last_log_index.unwrap_or(0).saturating_sub(matched.map_or(0, |id| id.index))
        };
        let reason = if !self.board.report(id).is_some_and(|report| report.is_fresh()) {
            "does not answer".to_owned()
        } else if behind > CAUGHT_UP_ENTRIES {
            format!("is {behind} entries behind")
        } else {
            return Ok(());
        };
        Err(MemberError::Conflict(format!("node {id} {reason}: a voter must be caught up")))
    }

    /// Proposes, and goes on to the end also where nobody waits for it any more.
    pub(super) async fn propose_members(
        &self,
        raft: &Raft,
        turn: Turn,
        proposed: Proposed,
        deadline: Instant,
    ) -> Result<(u64, String), MemberError> {
        let raft = raft.clone();
        let work = async move {
            let _turn = turn;
            write_members(&raft, proposed).await
        };
        let work = self.tasks.spawn_on(work, &self.runtime);
        match tokio::time::timeout_at(deadline, work).await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => Err(MemberError::Unknown(error.to_string())),
            Err(_) => Err(MemberError::Unknown("not committed before the deadline".to_owned())),
        }
    }

    /// Ends a joint configuration that was left by another leader.
    async fn finish_joint(&self, raft: &Raft, joint: &StoredMembership) -> Result<(), MemberError> {
        let changes = ChangeMembers::AddVoterIds(BTreeSet::new());
        let (index, after) = write_members(raft, Proposed { changes, retain: true, seen: *joint.log_id() }).await?;
        tracing::info!(index, before = %describe(joint), %after, "finished the change of members that another leader began");
        Ok(())
    }

    /// Waits until this node has applied the membership at `index` and its status says so. It has happened: where the deadline comes first,
    /// what is not shown here yet will be.
    async fn wait_shown(&self, change: MemberChange, index: u64, deadline: Instant) {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| applied.log_id.is_some_and(|id| id.index >= index));
        let _ = tokio::time::timeout_at(deadline, reached).await;
        // A leader may have lost its place again before this node heard of it.
        let give_up =
            if matches!(change, MemberChange::Lead(_)) { deadline.min(Instant::now() + HAND_OVER_PATIENCE) } else { deadline };
        loop {
            if let MemberChange::Lead(id) = change
                && id != self.node_id()
            {
                // The board asks ten times a second, and a hand-over takes less.
                let _ = self.poll(id, ANSWER_TIMEOUT).await;
            }
            if self.shows(change, index) || !self.pause(give_up).await {
                return;
            }
        }
    }

    fn shows(&self, change: MemberChange, index: u64) -> bool {
        // Nothing more will come.
        if self.removed.borrow().is_some() || self.stopping.is_cancelled() {
            return true;
        }
        let Some(raft) = self.raft() else { return true };
        // The core tells of itself a moment after the State machine has.
        let known = raft.metrics().borrow_watched().membership_config.log_id().map_or(0, |id| id.index);
        let leads = |id| self.leader_with_quorum() == Some(id);
        known >= index && !matches!(change, MemberChange::Lead(id) if !leads(id))
    }

    /// This node heard that the cluster removed it: it takes no part in Raft any more.
    pub(super) fn note_removed(&self, reason: &str) {
        let news = self.removed.send_if_modified(|removed| {
            let news = removed.is_none();
            removed.get_or_insert_with(|| reason.to_owned());
            news
        });
        if news {
            tracing::error!(
                reason,
                "this node was removed from the cluster: it stops voting, and goes on serving its last table"
            );
        }
    }
}

async fn write_members(raft: &Raft, proposed: Proposed) -> Result<(u64, String), MemberError> {
    let seen = proposed.seen;
    let condition = Precondition::<TypeConfig>::LastMembershipLogId { last_membership_log_id: seen };
    match raft.change_membership_if(proposed.changes, proposed.retain, [condition]).await {
        Ok(written) => {
            let after = written.membership.as_ref().map(|membership| text(&membership.voter_ids().collect(), membership.nodes()));
            Ok((written.log_id.index, after.unwrap_or_default()))
        }
        Err(error) => {
            let moved = *raft.metrics().borrow_watched().membership_config.log_id() != seen;
            Err(if moved { MemberError::Unknown(format!("half made: {error}")) } else { member_error(error) })
        }
    }
}

fn no_member(id: NodeId) -> MemberError {
    MemberError::NotFound(format!("node {id} is no member"))
}

/// Of a change whose first entry was not appended.
fn member_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MemberError {
    let no_leader = |reason: String| MemberError::not_applied(NotAppliedKind::NoLeader, reason);
    match error {
        RaftError::Fatal(error) => MemberError::Unknown(error.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => no_leader("this node does not lead any more".to_owned()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::UncommittedLeaderLog(error) => no_leader(error.to_string()),
            ChangeMembershipError::InProgress(_) => {
                MemberError::Conflict("another change of the members is under way".to_owned())
            }
            error => MemberError::Refused(error.to_string()),
        },
        RaftError::APIError(error) => MemberError::Conflict(error.to_string()),
    }
}

pub(super) fn describe(membership: &StoredMembership) -> String {
    text(&membership.voter_ids().collect(), membership.nodes())
}

fn text<'a>(voters: &BTreeSet<NodeId>, members: impl Iterator<Item = (&'a NodeId, &'a Member)>) -> String {
    let learners: Vec<NodeId> = members.map(|(id, _)| *id).filter(|id| !voters.contains(id)).collect();
    format!("voters {voters:?}, learners {learners:?}")
}

/// Finishes joint configurations that this node finds as the leader, until the node stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shared.stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(raft) = shared.raft().filter(|_| shared.leads_with_quorum()) else { continue };
        let effective = Arc::clone(&raft.metrics().borrow_watched().membership_config);
        if effective.membership().get_joint_config().len() < 2 {
            continue;
        }
        // Who has the turn finishes it.
        let Ok(_turn) = shared.turn() else { continue };
        if let Err(error) = shared.finish_joint(&raft, &effective).await {
            tracing::debug!(%error, "a joint configuration is not finished yet");
        }
    }
}
