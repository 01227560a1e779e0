//! What the other members last said of themselves.
//!
//! One task asks every member every [`POLL_INTERVAL`]. The answers feed `/v1/cluster`, the sign of life of leader transfer, the
//! follower's view of the quorum, and the comparison of digests: two nodes at one revision (or one applied log id) must have one digest
//! (`faults.md`, I4). A difference is an alarm, once a peer and kind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::peers::{CallError, call};
use super::shared::Shared;
use super::wire::{self, WireError};
use crate::model::{Digest, NodeId, Revision};
use crate::pb::peer as pb;
use crate::store::LogId;

/// Between two questions to one member.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long one answer may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// A member is reachable while its last answer is no older.
const REACHABLE_FOR: Duration = Duration::from_secs(1);
/// State digests of this node's own past that are kept for comparison.
const PAST_MAX: usize = 1024;

/// What one member said last.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) answered_at: Instant,
    pub(super) leads: bool,
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    pub(super) applied: Option<LogId>,
    pub(super) state_digest: Digest,
    pub(super) published: Revision,
    pub(super) version: String,
    pub(super) admin_address: String,
    pub(super) feature_level_max: u32,
}

impl Report {
    fn read(message: pb::StatusResponse) -> Result<Report, WireError> {
        Ok(Report {
            answered_at: Instant::now(),
            leads: message.leads,
            revision: Revision(message.revision),
            digest: wire::read_digest(&message.digest)?,
            applied: wire::read_optional_log_id(message.applied.as_ref())?,
            state_digest: wire::read_digest(&message.state_digest)?,
            published: Revision(message.published_revision),
            version: message.version,
            admin_address: message.admin_address,
            feature_level_max: message.feature_level_max,
        })
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.answered_at.elapsed() <= REACHABLE_FOR
    }
}

/// The last report of every member, and what differed.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reports: BTreeMap<NodeId, Report>,
    /// When each member was asked first.
    asked_since: BTreeMap<NodeId, Instant>,
    /// This node's state digests by applied log id, oldest first.
    past: VecDeque<(LogId, Digest)>,
    alarms: BTreeSet<(NodeId, &'static str)>,
    /// The term at the last look.
    term: Option<u64>,
    diverged: Option<String>,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reports(&self) -> BTreeMap<NodeId, Report> {
        self.inner().reports.clone()
    }

    pub(super) fn report(&self, id: NodeId) -> Option<Report> {
        self.inner().reports.get(&id).cloned()
    }

    /// When a member answered last, or was asked first where it never answered; `None` for one that was not asked yet.
    pub(super) fn silent_since(&self, id: NodeId) -> Option<Instant> {
        let inner = self.inner();
        inner.reports.get(&id).map(|report| report.answered_at).or_else(|| inner.asked_since.get(&id).copied())
    }

    /// A member said elsewhere than in a report what it has published.
    pub(super) fn note_published(&self, id: NodeId, published: Revision) {
        if let Some(report) = self.inner().reports.get_mut(&id) {
            report.published = published;
        }
    }

    /// What differs from a peer, once something does.
    pub(super) fn diverged(&self) -> Option<String> {
        self.inner().diverged.clone()
    }
}

/// Asks all members until the node stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut polls = JoinSet::new();
    let mut under_way = BTreeSet::new();
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = ticks.tick() => {
                shared.remember_own_digest();
                shared.observe();
                for id in shared.other_members() {
                    if under_way.insert(id) {
                        let shared = Arc::clone(&shared);
                        polls.spawn(async move { (id, shared.poll(id, POLL_TIMEOUT).await) });
                    }
                }
            }
            Some(polled) = polls.join_next() => match polled {
                Ok((id, answer)) => {
                    under_way.remove(&id);
                    if let Err(error) = answer {
                        tracing::debug!(peer = id, %error, "no status of a peer");
                    }
                }
                Err(error) => {
                    // Which poll it was is not known any more.
                    tracing::error!(%error, "poll of a peer failed");
                    under_way.clear();
                }
            }
        }
    }
}

impl Shared {
    /// Every member but this node.
    pub(super) fn other_members(&self) -> Vec<NodeId> {
        let raft = self.raft.borrow();
        let Some(raft) = raft.as_ref() else { return Vec::new() };
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, _)| *id).filter(|&id| id != self.node_id()).collect()
    }

    /// Asks one member how it is, and puts its answer on the board.
    pub(super) async fn poll(&self, id: NodeId, limit: Duration) -> Result<Report, CallError> {
        self.board.inner().asked_since.entry(id).or_insert_with(Instant::now);
        let peer = self.member(id)?;
        let request = pb::StatusRequest { header: Some(self.identity.header(id)) };
        let mut client = peer.control();
        let answer = call(limit, client.status(request)).await.inspect_err(|error| {
            if let CallError::Removed(reason) = error {
                self.note_removed(reason);
            }
        })?;
        let report = Report::read(answer).map_err(|error| CallError::Broken(error.to_string()))?;
        self.compare(id, &report);
        self.board.inner().reports.insert(id, report.clone());
        Ok(report)
    }

    /// The leader that a quorum follows, as far as this node knows. Raft itself goes on naming the leader of the term after it died.
    pub(super) fn leader_with_quorum(&self) -> Option<NodeId> {
        self.leader().filter(|&id| {
            if id == self.node_id() {
                self.leads_with_quorum()
            } else {
                self.board.report(id).is_some_and(|report| report.leads && report.is_fresh())
            }
        })
    }

    fn remember_own_digest(&self) {
        let own = {
            let applied = self.applied.borrow();
            applied.log_id.map(|id| (id, applied.state.state_digest()))
        };
        let Some(own) = own else { return };
        let mut board = self.board.inner();
        if board.past.back().map(|(id, _)| *id) == Some(own.0) {
            return;
        }
        if board.past.len() == PAST_MAX {
            board.past.pop_front();
        }
        board.past.push_back(own);
    }

    fn compare(&self, peer: NodeId, report: &Report) {
        let state = self.states.borrow().clone();
        let own = if report.revision == state.revision() {
            Some(state.digest())
        } else {
            state.history_at(report.revision).map(|entry| entry.digest)
        };
        if own.is_some_and(|own| own != report.digest) {
            self.alarm(peer, "revision", format!("node {peer} has another digest at revision {}", report.revision));
        }
        self.remember_own_digest();
        let own = report.applied.and_then(|applied| {
            let board = self.board.inner();
            board.past.iter().rev().find(|(id, _)| *id == applied).map(|(_, digest)| *digest)
        });
        if let Some(applied) = report.applied.filter(|_| own.is_some_and(|own| own != report.state_digest)) {
            self.alarm(peer, "state", format!("node {peer} has another state digest at log id {applied}"));
        }
    }

    fn alarm(&self, peer: NodeId, kind: &'static str, what: String) {
        let mut board = self.board.inner();
        if board.alarms.insert((peer, kind)) {
            self.metrics.divergences.with_label_values(&[kind]).inc();
            tracing::error!(peer, kind, what, "nodes have diverged");
            board.diverged = Some(what);
        }
    }

    /// Counts the terms that began since the last look.
    fn count_elections(&self, term: u64) {
        let Some(before) = self.board.inner().term.replace(term) else { return };
        let starved = self.scheduling_gap.worst() > self.settings.election_timeout_min / 2;
        let label = if starved { "true" } else { "false" };
        self.metrics.raft_elections.with_label_values(&[label]).inc_by(term.saturating_sub(before));
        if starved && term > before {
            tracing::warn!(term, gap = ?self.scheduling_gap.worst(), "an election while the machine kept this process from running");
        }
    }

    /// Shows Raft's numbers as metrics.
    fn observe(&self) {
        let Some(raft) = self.raft() else { return };
        let (term, last, applied, leader) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let applied = metrics.last_applied.map_or(0, |id| id.index);
            (metrics.current_term, metrics.last_log_index.unwrap_or(0), applied, metrics.current_leader)
        };
        self.count_elections(term);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.raft_term.set(gauge(term));
        self.metrics.raft_is_leader.set(i64::from(leader == Some(self.node_id())));
        self.metrics.raft_has_quorum.set(i64::from(self.leader_with_quorum().is_some()));
        self.metrics.raft_applied_index.set(gauge(applied));
        self.metrics.raft_apply_lag_entries.set(gauge(last.saturating_sub(applied)));
    }
}
