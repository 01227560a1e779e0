//! What the other members last said of themselves.
//!
//! One task asks every member every [`POLL_INTERVAL`]. The answers feed `/v1/cluster`, the sign of life of leader transfer, the
//! follower's view of the quorum, and the comparison of digests ([`super::divergence`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::peers::{CallError, call};
use super::shared::Shared;
use super::wire::{self, WireError};
use crate::model::{Digest, NodeId, Revision};
use crate::observe::Refrain;
use crate::pb::peer as pb;
use crate::store::{LogId, Sample};

/// Between two questions to one member.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long one answer may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// A member is reachable while its last answer is no older.
const REACHABLE_FOR: Duration = Duration::from_secs(1);
/// Samples of one answer that are looked at.
const SAMPLES_MAX: usize = 64;
/// Characters of a peer's reason that are kept.
const REASON_CHARS_MAX: usize = 500;

/// What one member said last.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) answered_at: Instant,
    pub(super) leads: bool,
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    pub(super) applied: Option<LogId>,
    /// Its State in digests, at recent log ids.
    pub(super) samples: Vec<Sample>,
    /// Why it stands aside, if it does.
    pub(super) stands_aside: Option<String>,
    pub(super) published: Revision,
    pub(super) version: String,
    pub(super) admin_address: String,
    pub(super) feature_level_max: u32,
}

impl Report {
    fn read(message: pb::StatusResponse) -> Result<Report, WireError> {
        let (revision, digest) = (Revision(message.revision), wire::read_digest(&message.digest)?);
        let applied = wire::read_optional_log_id(message.applied.as_ref())?;
        let state_digest = wire::read_digest(&message.state_digest)?;
        let mut samples = message.samples.iter().take(SAMPLES_MAX).map(wire::read_sample).collect::<Result<Vec<_>, _>>()?;
        samples.extend(applied.map(|log_id| Sample { log_id, state_digest, revision, digest }));
        let reason = Some(message.stands_aside).filter(|reason| !reason.is_empty());
        Ok(Report {
            answered_at: Instant::now(),
            leads: message.leads,
            revision,
            digest,
            applied,
            samples,
            stands_aside: reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect()),
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

/// The last report of every member.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reports: BTreeMap<NodeId, Report>,
    /// When each member was asked first.
    asked_since: BTreeMap<NodeId, Instant>,
    /// The term at the last look.
    term: Option<u64>,
    /// The last leader that was seen, and its term.
    led: Option<(u64, NodeId)>,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reports(&self) -> BTreeMap<NodeId, Report> {
        self.inner().reports.clone()
    }

    /// The last log index that another member has said it applied. A node that no leader reaches hears of nothing that is committed; but it
    /// asks the others itself.
    pub(super) fn applied_elsewhere(&self) -> u64 {
        self.inner().reports.values().filter_map(|report| report.applied).map(|id| id.index).max().unwrap_or(0)
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
}

/// Asks all members until the node stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut polls = JoinSet::new();
    let mut under_way = BTreeSet::new();
    let silent = Refrain::default();
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            _ = ticks.tick() => {
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
                    shared.tell(&silent, id, answer.err().as_ref());
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
    /// Tells that a member became unreachable, why, and that it is back.
    fn tell(&self, silent: &Refrain<NodeId>, id: NodeId, error: Option<&CallError>) {
        let Some(error) = error else {
            if silent.end(&id) {
                tracing::info!(peer = id, "peer reachable again");
            }
            return;
        };
        tracing::debug!(peer = id, %error, "no status of a peer");
        // One answer that is lost, or late, is no news.
        let is_away = self.board.silent_since(id).is_none_or(|since| since.elapsed() > REACHABLE_FOR);
        if is_away && let Some(questions) = silent.note(id, std::time::Instant::now()) {
            tracing::warn!(peer = id, %error, questions, "peer unreachable");
        }
    }

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
        self.compare(id, &report.samples);
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
        if let Some(leader) = leader
            && self.board.inner().led.replace((term, leader)) != Some((term, leader))
        {
            tracing::info!(leader, term, "the cluster has a leader");
        }
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.raft_term.set(gauge(term));
        self.metrics.raft_is_leader.set(i64::from(leader == Some(self.node_id())));
        self.metrics.raft_has_quorum.set(i64::from(self.leader_with_quorum().is_some()));
        self.metrics.raft_applied_index.set(gauge(applied));
        self.metrics.raft_diverged.set(i64::from(self.diverged().summary.is_some()));
        self.metrics.raft_stands_aside.set(i64::from(self.divergence.aside().is_some()));
        self.metrics.raft_apply_lag_entries.set(gauge(last.max(self.board.applied_elsewhere()).saturating_sub(applied)));
    }
}
