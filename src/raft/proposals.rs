//! Proposing a command: here where this node leads, else over one hop.
//!
//! Every failure is told apart by one question, may it have happened? *Not applied* is tried again inside the deadline. *Unknown* ends
//! the call, unless the command carries an idempotency key that the State machine remembers (`faults.md`, I9).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::{NotAppliedKind, ProposeError};
use super::peers::{CallError, call};
use super::shared::{Raft, Shared};
use super::wire_outcome;
use crate::model::limits::TRANSACTION_BYTES_MAX;
use crate::model::{Command, CommandBody, NodeId, Outcome};
use crate::pb::peer as pb;
use crate::store::{Proposal, encode_command};

/// Bytes of one encoded command: a full transaction with what surrounds its documents. Fits into a peers' message.
pub(super) const COMMAND_BYTES_MAX: usize = TRANSACTION_BYTES_MAX + 2 * 1024 * 1024;
/// Proposals that wait on one node.
const PENDING_MAX: usize = 4096;
/// Bytes of the proposals that wait on one node.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What one permit of the byte count stands for.
const PERMIT_BYTES: usize = 1024;

/// Bounds what waits. A proposal that nobody waits for any more still counts until Raft lets go of it.
#[derive(Debug)]
pub(super) struct Admission {
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Held as long as a proposal waits.
#[derive(Debug)]
struct Admitted {
    _count: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new() -> Admission {
        Admission {
            count: Arc::new(Semaphore::new(PENDING_MAX)),
            bytes: Arc::new(Semaphore::new(PENDING_BYTES_MAX / PERMIT_BYTES)),
        }
    }

    fn admit(&self, bytes: usize) -> Result<Admitted, ProposeError> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.count).try_acquire_owned();
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(permits);
        match (count, bytes) {
            (Ok(count), Ok(bytes)) => Ok(Admitted { _count: count, _bytes: bytes }),
            _ => Err(not_applied(NotAppliedKind::Busy, "too many proposals wait")),
        }
    }
}

fn not_applied(kind: NotAppliedKind, reason: impl Into<String>) -> ProposeError {
    ProposeError::NotApplied { kind, reason: reason.into() }
}

fn unknown(reason: impl Into<String>) -> ProposeError {
    ProposeError::Unknown { reason: reason.into() }
}

impl Shared {
    pub(super) async fn propose(self: &Arc<Self>, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let started = Instant::now();
        let result = self.propose_until(command, deadline).await;
        let label = match &result {
            Ok(Outcome::Applied { .. }) => "applied",
            Ok(Outcome::Refused { .. }) => "refused",
            Err(ProposeError::Unknown { .. }) => "unknown",
            Err(ProposeError::NotApplied { .. } | ProposeError::TooLarge { .. }) => "not_applied",
        };
        self.metrics.raft_proposals.with_label_values(&[label]).inc();
        if result.is_ok() {
            self.metrics.raft_commit_duration.observe(started.elapsed().as_secs_f64());
        }
        result
    }

    async fn propose_until(self: &Arc<Self>, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let repeatable = matches!(&command.body, CommandBody::Transaction(transaction) if transaction.idempotency.is_some());
        let bytes =
            encode_command(&command).map_err(|error| not_applied(NotAppliedKind::Busy, format!("not encodable: {error}")))?;
        drop(command);
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len(), limit: COMMAND_BYTES_MAX });
        }
        let mut doubt = None;
        loop {
            let error = match self.propose_once(&bytes, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let again = match &error {
                ProposeError::NotApplied { kind, .. } => matches!(kind, NotAppliedKind::NoLeader | NotAppliedKind::NoQuorum),
                ProposeError::Unknown { .. } => repeatable,
                ProposeError::TooLarge { .. } => false,
            };
            if matches!(error, ProposeError::Unknown { .. }) {
                doubt = Some(error.clone());
            }
            if !again || !self.pause(deadline).await {
                // Once in doubt, a later "not applied" speaks only of its own try.
                return Err(doubt.unwrap_or(error));
            }
        }
    }

    async fn propose_once(self: &Arc<Self>, bytes: &Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        let raft = self.raft_to_propose()?;
        match self.leader() {
            Some(id) if id == self.node_id() => self.propose_here(raft, bytes.clone(), deadline).await,
            Some(id) => self.propose_there(id, bytes.clone(), deadline).await,
            None => Err(not_applied(NotAppliedKind::NoLeader, "no leader")),
        }
    }

    fn raft_to_propose(&self) -> Result<Raft, ProposeError> {
        if let Some(reason) = self.storage_failure() {
            return Err(not_applied(NotAppliedKind::StorageFailed, reason));
        }
        if self.stopping.is_cancelled() {
            return Err(not_applied(NotAppliedKind::Stopping, "this node is stopping"));
        }
        self.raft().ok_or_else(|| not_applied(NotAppliedKind::NoLeader, "this node has not joined a cluster yet"))
    }

    /// A peer's proposal: here or not at all.
    pub(super) async fn propose_for_peer(self: &Arc<Self>, bytes: Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len(), limit: COMMAND_BYTES_MAX });
        }
        let raft = self.raft_to_propose()?;
        self.propose_here(raft, bytes, deadline).await
    }

    /// Writes at this node. The write goes on, and counts as waiting, also when nobody waits for it any more.
    async fn propose_here(&self, raft: Raft, bytes: Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        let admitted = self.admission.admit(bytes.len())?;
        let write = self.tasks.spawn(async move {
            let written = raft.client_write(Proposal(bytes)).await;
            drop(admitted);
            written
        });
        let written = match tokio::time::timeout_at(deadline, write).await {
            Err(_) => return Err(unknown("not committed before the deadline")),
            Ok(Err(_)) => return Err(unknown("this node is stopping")),
            Ok(Ok(written)) => written,
        };
        match written {
            Ok(response) => response.data.ok_or_else(|| unknown("the entry answered no outcome")),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(match forward.leader_id {
                Some(id) => not_applied(NotAppliedKind::NoLeader, format!("node {id} leads")),
                None => not_applied(NotAppliedKind::NoQuorum, "no leader with a quorum"),
            }),
            Err(error) => Err(unknown(error.to_string())),
        }
    }

    async fn propose_there(&self, leader: NodeId, bytes: Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        let not_sent = |error: CallError| not_applied(NotAppliedKind::NoLeader, format!("leader {leader}: {error}"));
        let peer = self.member(leader).map_err(not_sent)?;
        let wait = deadline.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Err(not_applied(NotAppliedKind::NoLeader, "the deadline has passed"));
        }
        let _admitted = self.admission.admit(bytes.len())?;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = pb::ProposeRequest { header: Some(self.identity.header(leader)), command: bytes, wait_ms };
        let mut client = peer.bulk();
        match call(wait, client.propose(request)).await {
            Ok(response) => read_response(response),
            Err(error @ (CallError::NotSent(_) | CallError::Refused(_))) => Err(not_sent(error)),
            Err(error) => Err(unknown(format!("leader {leader}: {error}"))),
        }
    }
}

/// How long a peer's proposal may wait at most, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The deadline of a request that asks for `wait_ms`.
pub(super) fn deadline_of(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX)
}

pub(super) fn response(result: Result<Outcome, ProposeError>) -> pb::ProposeResponse {
    use pb::not_applied::Kind;
    use pb::propose_response::Result;
    let result = match result {
        Ok(outcome) => Result::Outcome(wire_outcome::outcome(outcome)),
        Err(ProposeError::Unknown { reason }) => Result::Unknown(reason),
        Err(error @ ProposeError::TooLarge { .. }) => {
            Result::NotApplied(pb::NotApplied { kind: Kind::Busy.into(), reason: error.to_string() })
        }
        Err(ProposeError::NotApplied { kind, reason }) => {
            let kind = match kind {
                NotAppliedKind::NoLeader => Kind::NoLeader,
                NotAppliedKind::NoQuorum => Kind::NoQuorum,
                NotAppliedKind::Busy => Kind::Busy,
                NotAppliedKind::StorageFailed => Kind::StorageFailed,
                NotAppliedKind::Stopping => Kind::Stopping,
            };
            Result::NotApplied(pb::NotApplied { kind: kind.into(), reason })
        }
    };
    pb::ProposeResponse { result: Some(result) }
}

fn read_response(message: pb::ProposeResponse) -> Result<Outcome, ProposeError> {
    use pb::not_applied::Kind;
    use pb::propose_response::Result;
    match message.result {
        Some(Result::Outcome(outcome)) => wire_outcome::read_outcome(&outcome).map_err(|error| unknown(error.to_string())),
        Some(Result::Unknown(reason)) => Err(unknown(reason)),
        Some(Result::NotApplied(refused)) => {
            let kind = match refused.kind() {
                Kind::NoLeader => NotAppliedKind::NoLeader,
                Kind::NoQuorum => NotAppliedKind::NoQuorum,
                Kind::Busy => NotAppliedKind::Busy,
                // That storage or process is the leader's: another leader will come.
                Kind::StorageFailed | Kind::Stopping => NotAppliedKind::NoLeader,
            };
            Err(not_applied(kind, refused.reason))
        }
        None => Err(unknown("empty answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_count_and_bytes() {
        let admission = Admission::new();
        let large: Vec<_> = (0..16).map(|_| admission.admit(4 * 1024 * 1024).unwrap()).collect();
        assert!(matches!(admission.admit(1), Err(ProposeError::NotApplied { kind: NotAppliedKind::Busy, .. })));
        drop(large);
        let small: Vec<_> = (0..PENDING_MAX).map(|_| admission.admit(1).unwrap()).collect();
        assert!(admission.admit(1).is_err());
        drop(small);
        assert!(admission.admit(1).is_ok());
    }

    #[test]
    fn every_error_keeps_its_meaning_over_the_hop() {
        let cases = [
            (unknown("lost"), unknown("lost")),
            (not_applied(NotAppliedKind::Busy, "b"), not_applied(NotAppliedKind::Busy, "b")),
            (not_applied(NotAppliedKind::NoQuorum, "q"), not_applied(NotAppliedKind::NoQuorum, "q")),
            (not_applied(NotAppliedKind::StorageFailed, "s"), not_applied(NotAppliedKind::NoLeader, "s")),
        ];
        for (error, expected) in cases {
            assert_eq!(read_response(response(Err(error))), Err(expected));
        }
        assert!(matches!(read_response(pb::ProposeResponse::default()), Err(ProposeError::Unknown { .. })));
    }
}
