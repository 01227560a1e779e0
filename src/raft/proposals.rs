//! Proposing a command: here where this node leads, else over one hop.
//!
//! Every failure is told apart by one question, may it have happened? *Not applied* is tried again inside the deadline. *Unknown* ends
//! the call, unless the command carries an idempotency key that the State machine remembers (`faults.md`, I9).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::error::{NotAppliedKind, ProposeError};
use super::shared::{Raft, Shared};
use crate::model::limits::TRANSACTION_BYTES_MAX;
use crate::model::{Command, CommandBody, Outcome};
use crate::observe::KnownBug;
use crate::store::{Proposal, decode_command, encode_command};

/// Bytes of one encoded command: a full transaction with what surrounds its documents. Fits into a peers' message.
pub(super) const COMMAND_BYTES_MAX: usize = TRANSACTION_BYTES_MAX + 2 * 1024 * 1024;
/// Proposals that wait on one node.
const PENDING_MAX: usize = 4096;
/// Bytes of the proposals that wait on one node. Each stands in memory several times: as an entry, and in what is sent to peers.
const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
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
pub(super) struct Admitted {
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

    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted, ProposeError> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.count).try_acquire_owned();
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(permits);
        match (count, bytes) {
            (Ok(count), Ok(bytes)) => Ok(Admitted { _count: count, _bytes: bytes }),
            _ => Err(not_applied(NotAppliedKind::Busy, "too many proposals wait")),
        }
    }
}

pub(super) fn not_applied(kind: NotAppliedKind, reason: impl Into<String>) -> ProposeError {
    ProposeError::NotApplied { kind, reason: reason.into() }
}

pub(super) fn unknown(reason: impl Into<String>) -> ProposeError {
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
        let repeatable = command.body.is_repeatable() || KnownBug::BlindRetry.is_on();
        self.check_level(&command.body)?;
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
        self.raft_to_propose()?;
        match self.leader() {
            Some(leader) => self.outcome(self.enqueue(leader, bytes.clone(), deadline)?).await,
            None => Err(not_applied(NotAppliedKind::NoLeader, "no leader")),
        }
    }

    fn check_level(&self, command: &CommandBody) -> Result<(), ProposeError> {
        let present = self.states.borrow().feature_level();
        match command.refused_at(present) {
            Some(reason) => Err(not_applied(NotAppliedKind::Unsupported, reason)),
            None => Ok(()),
        }
    }

    pub(super) fn raft_to_propose(&self) -> Result<Raft, ProposeError> {
        if let Some(reason) = self.storage_failure() {
            return Err(not_applied(NotAppliedKind::StorageFailed, reason));
        }
        if self.stopping.is_cancelled() {
            return Err(not_applied(NotAppliedKind::Stopping, "this node is stopping"));
        }
        if let Some(reason) = self.removed.borrow().clone() {
            return Err(not_applied(NotAppliedKind::Removed, reason));
        }
        self.raft().ok_or_else(|| not_applied(NotAppliedKind::NoLeader, "this node has not joined a cluster yet"))
    }

    /// What a peer proposes: here, or not at all. One result for each command, in their order.
    pub(super) async fn propose_for_peer(
        self: &Arc<Self>,
        commands: Vec<(Bytes, Instant)>,
    ) -> Vec<Result<Outcome, ProposeError>> {
        let enqueue = |(command, deadline): (Bytes, Instant)| {
            // What this version cannot read would stop every node that applies it.
            let body =
                decode_command(&command).map_err(|error| not_applied(NotAppliedKind::Unsupported, error.to_string()))?.body;
            self.check_level(&body)?;
            self.enqueue(self.node_id(), command, deadline)
        };
        let tickets: Vec<_> = commands.into_iter().map(enqueue).collect();
        let mut results = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            results.push(match ticket {
                Ok(ticket) => self.outcome(ticket).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Writes at this node: one result for each command, in their order.
    pub(super) async fn write(&self, commands: Vec<Bytes>) -> Vec<Result<Outcome, ProposeError>> {
        let count = commands.len();
        if self.divergence.aside().is_some() {
            // Its outcomes would come from a State that is not the majority's.
            let error = not_applied(NotAppliedKind::NoLeader, "the leader has diverged and hands leadership over");
            return vec![Err(error); count];
        }
        let mut results = match self.raft_to_propose() {
            Ok(raft) => write_all(&raft, commands).await,
            Err(error) => vec![Err(error); count],
        };
        results.resize_with(count, || Err(unknown("the raft core of this node has stopped")));
        results
    }
}

/// Hands all to the Raft core at once. As many results, in the same order, unless the core stops: then fewer.
async fn write_all(raft: &Raft, commands: Vec<Bytes>) -> Vec<Result<Outcome, ProposeError>> {
    let mut results = Vec::with_capacity(commands.len());
    let Ok(mut written) = raft.client_write_many(commands.into_iter().map(Proposal)).await else { return results };
    while let Some(Ok(result)) = written.next().await {
        results.push(match result {
            Ok(written) => written.response.ok_or_else(|| unknown("the entry answered no outcome")),
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(match forward.leader_id {
                Some(id) => not_applied(NotAppliedKind::NoLeader, format!("node {id} leads")),
                None => not_applied(NotAppliedKind::NoQuorum, "no leader with a quorum"),
            }),
            Err(error) => Err(unknown(error.to_string())),
        });
    }
    results
}

/// How long a peer's proposal may wait at most, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The deadline of a request that asks for `wait_ms`.
pub(super) fn deadline_of(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_count_and_bytes() {
        let admission = Admission::new();
        let large: Vec<_> = (0..8).map(|_| admission.admit(PENDING_BYTES_MAX / 8).unwrap()).collect();
        assert!(matches!(admission.admit(1), Err(ProposeError::NotApplied { kind: NotAppliedKind::Busy, .. })));
        drop(large);
        let small: Vec<_> = (0..PENDING_MAX).map(|_| admission.admit(1).unwrap()).collect();
        assert!(admission.admit(1).is_err());
        drop(small);
        assert!(admission.admit(1).is_ok());
    }
}
