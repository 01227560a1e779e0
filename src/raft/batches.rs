//! The way to the leader, in batches.
//!
//! What a round of Raft costs (appends to every follower, a sync on every node, wake-ups) it costs once, however many commands it
//! carries; so does a call over the hop to the leader. So one batch is under way to a leader; what is proposed meanwhile waits in its
//! [`Lane`] and goes with the next one. A lone proposal never waits. What still stands in the lane was certainly not proposed: when its
//! deadline comes, or when another node leads, it is taken out again and counts as not applied.
//!
//! The leader has a lane to itself: its own clients' commands and the batches of its followers become rounds there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::{NotAppliedKind, ProposeError};
use super::peers::{CallError, call};
use super::proposals::{Admitted, COMMAND_BYTES_MAX, not_applied, unknown};
use super::shared::Shared;
use super::wire_outcome::read_propose_result;
use crate::model::{NodeId, Outcome};
use crate::observe::crash_point;
use crate::pb::peer as pb;

/// Commands of one batch.
pub(super) const BATCH_COUNT_MAX: usize = 1024;
/// Bytes of the commands of one batch; a larger one goes alone.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How often a proposal without an answer looks whether its leader still leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

type Answer = Result<Outcome, ProposeError>;

/// What waits for leaders, by the leader's id.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Mutex<BTreeMap<NodeId, Arc<Lane>>>,
}

impl Lanes {
    fn lane(&self, leader: NodeId) -> Arc<Lane> {
        Arc::clone(self.lanes.lock().unwrap_or_else(PoisonError::into_inner).entry(leader).or_default())
    }
}

/// What waits to go to one leader.
#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By number, in rising order.
    waiting: VecDeque<Waiting>,
    next_number: u64,
    /// Whether a task takes batches out of it.
    is_busy: bool,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    command: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
    _admitted: Admitted,
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number, and whether the caller must start a batch.
    fn push(&self, command: Bytes, deadline: Instant, answer: oneshot::Sender<Answer>, admitted: Admitted) -> (u64, bool) {
        let mut queue = self.queue();
        let number = queue.next_number;
        queue.next_number += 1;
        queue.waiting.push_back(Waiting { number, command, deadline, answer, _admitted: admitted });
        let start = !queue.is_busy;
        queue.is_busy = true;
        (number, start)
    }

    /// Takes a proposal out again; false where a batch has it.
    fn withdraw(&self, number: u64) -> bool {
        let mut queue = self.queue();
        let position = queue.waiting.binary_search_by_key(&number, |waiting| waiting.number);
        position.is_ok_and(|position| queue.waiting.remove(position).is_some())
    }

    /// What the next batch takes. Where nothing waits, the caller's turn is over.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.front() {
            bytes += next.command.len();
            if batch.len() == BATCH_COUNT_MAX || (bytes > BATCH_BYTES_MAX && !batch.is_empty()) {
                break;
            }
            // Where nobody waits for the answer any more, nothing is sent.
            batch.extend(queue.waiting.pop_front().filter(|waiting| !waiting.answer.is_closed()));
        }
        if batch.is_empty() {
            queue.is_busy = false;
            return None;
        }
        Some(batch)
    }
}

/// A command on its way to a leader.
pub(super) struct Ticket {
    leader: NodeId,
    lane: Arc<Lane>,
    number: u64,
    deadline: Instant,
    answered: oneshot::Receiver<Answer>,
}

/// Who has stopped waiting needs no answer.
fn answer(batch: Vec<Waiting>, answers: Vec<Answer>) {
    for (waiting, answer) in batch.into_iter().zip(answers) {
        let _ = waiting.answer.send(answer);
    }
}

impl Shared {
    /// Puts a command on its way to `leader`, which may be this node.
    pub(super) fn enqueue(self: &Arc<Self>, leader: NodeId, command: Bytes, deadline: Instant) -> Result<Ticket, ProposeError> {
        if deadline <= Instant::now() {
            return Err(not_applied(NotAppliedKind::NoLeader, "the deadline has passed"));
        }
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len(), limit: COMMAND_BYTES_MAX });
        }
        let admitted = self.admission.admit(command.len())?;
        let lane = self.lanes.lane(leader);
        let (answer, answered) = oneshot::channel();
        let (number, start) = lane.push(command, deadline, answer, admitted);
        if start {
            let (shared, lane) = (Arc::clone(self), Arc::clone(&lane));
            let batches = async move {
                while let Some(batch) = lane.take() {
                    shared.send(leader, batch).await;
                }
            };
            self.tasks.spawn_on(batches, &self.runtime);
        }
        Ok(Ticket { leader, lane, number, deadline, answered })
    }

    /// Waits for what becomes of a command until its deadline.
    pub(super) async fn outcome(&self, mut ticket: Ticket) -> Answer {
        let (leader, deadline) = (ticket.leader, ticket.deadline);
        loop {
            let look = deadline.min(Instant::now() + LOOK_INTERVAL);
            if let Ok(answer) = tokio::time::timeout_at(look, &mut ticket.answered).await {
                return answer.unwrap_or_else(|_| Err(unknown("this node is stopping")));
            }
            let late = Instant::now() >= deadline;
            if (late || self.leader() != Some(leader)) && ticket.lane.withdraw(ticket.number) {
                return Err(not_applied(NotAppliedKind::NoLeader, format!("leader {leader} takes nothing")));
            }
            if late {
                return Err(unknown("not committed before the deadline"));
            }
        }
    }

    /// One batch, and its answers to those who wait, at most until the last one's deadline.
    async fn send(self: &Arc<Self>, leader: NodeId, batch: Vec<Waiting>) {
        let last = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_else(Instant::now);
        if leader != self.node_id() {
            let answers = self.call_leader(leader, &batch, last).await;
            return answer(batch, answers);
        }
        if !self.hold(last).await {
            let error = not_applied(NotAppliedKind::NoLeader, "the leader hands leadership over");
            let answers = vec![Err(error); batch.len()];
            return answer(batch, answers);
        }
        // What Raft was given counts as waiting until Raft lets go of it, also when nobody waits for it any more.
        let shared = Arc::clone(self);
        let write = self.tasks.spawn(async move {
            let answers = shared.write(batch.iter().map(|waiting| waiting.command.clone()).collect()).await;
            answer(batch, answers);
        });
        if let Ok(Err(error)) = tokio::time::timeout_at(last, write).await {
            tracing::error!(%error, "a round of proposals ended without answers");
        }
    }

    /// Waits while this node hands leadership over, so that its log stands still and the next leader can have all of it. False where
    /// `deadline` came first.
    async fn hold(&self, deadline: Instant) -> bool {
        let mut handing_over = self.handing_over.subscribe();
        let over = handing_over.wait_for(|count| *count == 0);
        tokio::time::timeout_at(deadline, over).await.is_ok()
    }

    /// As many answers as proposals.
    async fn call_leader(&self, leader: NodeId, batch: &[Waiting], deadline: Instant) -> Vec<Answer> {
        let now = Instant::now();
        let proposals = batch.iter().map(|waiting| pb::Proposal {
            command: waiting.command.clone(),
            wait_ms: u64::try_from(waiting.deadline.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX),
        });
        crash_point("forward-begun");
        let request = pb::ProposeRequest { header: Some(self.identity.header(leader)), proposals: proposals.collect() };
        let called = match self.member(leader) {
            Ok(peer) => {
                let mut client = peer.bulk();
                call(deadline.saturating_duration_since(now), client.propose(request)).await
            }
            Err(error) => Err(error),
        };
        crash_point("forward-answered");
        let error = match called {
            Ok(response) if response.results.len() == batch.len() => {
                return response.results.into_iter().map(read_propose_result).collect();
            }
            Ok(response) => unknown(format!("leader {leader}: {} answers to {}", response.results.len(), batch.len())),
            Err(error @ (CallError::NotSent(_) | CallError::Refused(_) | CallError::Removed(_))) => {
                not_applied(NotAppliedKind::NoLeader, format!("leader {leader}: {error}"))
            }
            Err(error) => unknown(format!("leader {leader}: {error}")),
        };
        vec![Err(error); batch.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::proposals::Admission;

    /// Pushes a command of so many bytes.
    fn push(lane: &Lane, bytes: usize) -> (u64, bool, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let admitted = Admission::new().admit(bytes).unwrap();
        let (number, start) = lane.push(Bytes::from(vec![0; bytes]), Instant::now(), answer, admitted);
        (number, start, answered)
    }

    fn numbers(batch: Option<Vec<Waiting>>) -> Vec<u64> {
        batch.into_iter().flatten().map(|waiting| waiting.number).collect()
    }

    #[test]
    fn what_comes_while_calls_are_under_way_goes_together() {
        let lane = Lane::default();
        let pushed: Vec<_> = (0..6).map(|_| push(&lane, 10)).collect();
        let starts: Vec<bool> = pushed.iter().map(|(_, start, _)| *start).collect();
        assert_eq!(starts, [true, false, false, false, false, false]);
        assert!(lane.withdraw(3), "nothing was sent yet");
        drop(pushed);
        let (number, _, _answered) = push(&lane, 10);
        assert_eq!(numbers(lane.take()), [number], "nobody waits for the first ones any more");
        assert!(!lane.withdraw(number), "a batch has it");
        assert!(lane.take().is_none());
        assert!(push(&lane, 10).1, "the batch is over, the next proposal starts one");
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_and_by_count() {
        let lane = Lane::default();
        let _waiting: Vec<_> = [BATCH_BYTES_MAX - 5, 10, BATCH_BYTES_MAX + 1, 1].map(|bytes| push(&lane, bytes)).into();
        assert_eq!(numbers(lane.take()), [0]);
        assert_eq!(numbers(lane.take()), [1]);
        assert_eq!(numbers(lane.take()), [2], "what is larger than a batch goes alone");
        assert_eq!(numbers(lane.take()), [3]);
        let _many: Vec<_> = (0..=BATCH_COUNT_MAX).map(|_| push(&lane, 1)).collect();
        assert_eq!(numbers(lane.take()).len(), BATCH_COUNT_MAX);
        assert_eq!(numbers(lane.take()).len(), 1);
    }
}
