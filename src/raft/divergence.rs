//! Divergence: nodes that applied the same and hold something else (`faults.md`, "Divergence" and I4).
//!
//! Every answer to a status poll brings samples of the peer's State at log ids that all nodes have in common ([`crate::store::Samples`]).
//! They are compared with this node's own past, at an equal log id and at an equal revision:
//!
//! 1. *A finding* is a peer that differs from this node. It is an alarm, once a peer and kind, and stays until this process ends or the
//!    peer is removed from the membership, which is the repair (and its id is never used again).
//! 2. *A verdict* needs more than two: at a place where samples of enough voters are known, one digest may have a quorum of them. Then
//!    every member that has another digest there is outside of the majority. "Differs" is symmetric, and only a majority breaks the tie.
//! 3. A node that is outside *stands aside* until its process ends: it answers no linearizable read, takes no proposal as the leader,
//!    hands leadership over, and does not stand for election. It goes on following, voting and proxying with its table. Its log is sound;
//!    what it made of it is not.
//!
//! Without a majority on any side everybody alarms and nobody stops. Nothing is ever overwritten or repaired here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::Shared;
use crate::model::{Digest, NodeId, Revision, State};
use crate::store::{LogId, Membership, Sample, Samples};

/// Samples of one peer that are kept.
const TOLD_MAX: usize = 256;
/// Samples of one peer that a verdict is looked for at, newest first.
const JUDGED_MAX: usize = 64;
/// How long one try to hand leadership over may take.
const HAND_OVER_TRY: Duration = Duration::from_secs(1);
/// Between two tries.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(200);

/// Where two nodes can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By all of State.
    LogId(LogId),
    /// By the resources.
    Revision(Revision),
}

impl Place {
    /// The kind of a difference there, as the metric's label has it.
    fn kind(self) -> &'static str {
        match self {
            Place::LogId(_) => "state",
            Place::Revision(_) => "revision",
        }
    }

    fn digest_in(self, sample: &Sample) -> Option<Digest> {
        match self {
            Place::LogId(log_id) => (sample.log_id == log_id).then_some(sample.state_digest),
            Place::Revision(revision) => (sample.revision == revision).then_some(sample.digest),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::LogId(log_id) => write!(f, "log id {log_id}"),
            Place::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// This node's own past.
struct Past<'a> {
    samples: &'a Samples,
    state: &'a State,
}

impl Past<'_> {
    fn digest_at(&self, place: Place) -> Option<Digest> {
        match place {
            Place::LogId(log_id) => self.samples.at(log_id).map(|sample| sample.state_digest),
            Place::Revision(revision) if revision == self.state.revision() => Some(self.state.digest()),
            Place::Revision(revision) => self.state.history_at(revision).map(|entry| entry.digest),
        }
    }
}

/// What this process has found.
#[derive(Debug, Default)]
pub(super) struct Divergence {
    inner: Mutex<Inner>,
    /// Why this node stands aside. Set once.
    aside: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What each peer said of its past, oldest first, each log id once.
    told: BTreeMap<NodeId, VecDeque<Sample>>,
    /// Peers that differ from this node, by kind: where, at first.
    findings: BTreeMap<(NodeId, &'static str), Place>,
    /// Members outside of the majority, this node perhaps among them: why.
    outside: BTreeMap<NodeId, String>,
}

impl Inner {
    fn tell(&mut self, peer: NodeId, samples: &[Sample]) {
        let told = self.told.entry(peer).or_default();
        for sample in samples {
            // A peer that was restarted may say another thing of the same log id: what it says now counts.
            told.retain(|known| known.log_id != sample.log_id);
            if told.len() == TOLD_MAX {
                told.pop_front();
            }
            told.push_back(*sample);
        }
    }

    /// Whether `peer` differs and nobody knows yet on which side the majority is.
    fn is_unsettled(&self, own: NodeId, peer: NodeId) -> bool {
        !self.outside.contains_key(&own) && !self.outside.contains_key(&peer)
    }

    /// Looks for a place where a majority shows which of `own` and `peer` is outside of it.
    fn settle(&mut self, own: NodeId, peer: NodeId, past: &Past<'_>, membership: &Membership) {
        let told: Vec<Sample> = self.told.get(&peer).into_iter().flatten().rev().take(JUDGED_MAX).copied().collect();
        for sample in told {
            for place in [Place::LogId(sample.log_id), Place::Revision(sample.revision)] {
                let Some(digest) = past.digest_at(place) else { continue };
                if place.digest_in(&sample) == Some(digest) {
                    continue;
                }
                let mut digests: BTreeMap<NodeId, Digest> = BTreeMap::from([(own, digest)]);
                for (&id, samples) in &self.told {
                    let told = samples.iter().rev().find_map(|sample| place.digest_in(sample));
                    digests.extend(told.map(|digest| (id, digest)));
                }
                if let Some(verdict) = judge(&digests, membership) {
                    for id in verdict.outside {
                        let majority = numbers(&verdict.majority);
                        let why = format!("its digest at {place} is another than that of the majority (nodes {majority})");
                        self.outside.entry(id).or_insert(why);
                    }
                    return;
                }
            }
        }
    }
}

/// Who is on which side.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    majority: BTreeSet<NodeId>,
    outside: BTreeSet<NodeId>,
}

/// The sides, where the voters that have one digest are a quorum; learners are on a side and do not make one.
fn judge(digests: &BTreeMap<NodeId, Digest>, membership: &Membership) -> Option<Verdict> {
    let mut sides: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
    for (&id, &digest) in digests.iter().filter(|(id, _)| membership.get_node(id).is_some()) {
        sides.entry(digest).or_default().insert(id);
    }
    let is_quorum = |side: &BTreeSet<NodeId>| {
        // Each of the two sets while a membership change is joint.
        let sets = membership.get_joint_config();
        !sets.is_empty() && sets.iter().all(|voters| voters.intersection(side).count() > voters.len() / 2)
    };
    let digest = sides.iter().find(|(_, side)| is_quorum(side)).map(|(digest, _)| *digest)?;
    let majority = sides.remove(&digest)?;
    Some(Verdict { majority, outside: sides.into_values().flatten().collect() })
}

fn numbers(ids: &BTreeSet<NodeId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is shown of the findings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// What this node has found, in one text; `None` where all agree.
    pub(super) summary: Option<String>,
    /// What is wrong with each member.
    pub(super) members: BTreeMap<NodeId, String>,
}

impl Divergence {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this node stands aside, if it does.
    pub(super) fn aside(&self) -> Option<String> {
        self.aside.borrow().clone()
    }

    /// Whether `id` was found outside of the majority.
    pub(super) fn is_outside(&self, id: NodeId) -> bool {
        self.inner().outside.contains_key(&id)
    }

    /// What was found of this node and of those that are members still.
    fn shown(&self, own: NodeId, membership: &Membership) -> Shown {
        let inner = self.inner();
        let mut shown = Shown::default();
        let mut parts = Vec::new();
        for (&(peer, kind), place) in inner.findings.iter().filter(|((peer, _), _)| membership.get_node(peer).is_some()) {
            parts.push(format!("node {peer} has another {} at {place}", of_kind(kind)));
            if inner.is_unsettled(own, peer) {
                let text = |other| {
                    format!("it differs from node {other} at {place}, and no majority is known that agrees with one of them")
                };
                shown.members.entry(peer).or_insert_with(|| text(own));
                shown.members.entry(own).or_insert_with(|| text(peer));
            }
        }
        for (&id, why) in inner.outside.iter().filter(|(id, _)| **id == own || membership.get_node(id).is_some()) {
            shown.members.insert(id, why.clone());
        }
        if inner.outside.contains_key(&own) || !parts.is_empty() {
            parts.push(match inner.outside.get(&own) {
                Some(why) => format!("this node stands aside: {why}"),
                None if shown.members.contains_key(&own) => "no side has a majority that is known".to_owned(),
                None => "this node agrees with the majority and goes on".to_owned(),
            });
            shown.summary = Some(parts.join("; "));
        }
        shown
    }
}

fn of_kind(kind: &str) -> &'static str {
    if kind == "state" { "state digest" } else { "digest" }
}

impl Shared {
    fn membership(&self) -> Membership {
        let raft = self.raft.borrow();
        let Some(raft) = raft.as_ref() else { return Membership::default() };
        raft.server_metrics().borrow_watched().membership_config.membership().clone()
    }

    /// What this node has found, for people.
    pub(super) fn diverged(&self) -> Shown {
        self.divergence.shown(self.node_id(), &self.membership())
    }

    /// Compares what `peer` told of its past with this node's own.
    pub(super) fn compare(&self, peer: NodeId, samples: &[Sample]) {
        let (own, state) = (self.node_id(), self.states.borrow().clone());
        let past = Past { samples: &self.samples, state: &state };
        let mut inner = self.divergence.inner();
        inner.tell(peer, samples);
        for sample in samples {
            for place in [Place::LogId(sample.log_id), Place::Revision(sample.revision)] {
                let differs = past.digest_at(place).is_some_and(|digest| place.digest_in(sample) != Some(digest));
                if differs && !inner.findings.contains_key(&(peer, place.kind())) {
                    inner.findings.insert((peer, place.kind()), place);
                    self.metrics.divergences.with_label_values(&[place.kind()]).inc();
                    tracing::error!(peer, kind = place.kind(), at = %place, "nodes have diverged");
                }
            }
        }
        let differing: BTreeSet<NodeId> = inner.findings.keys().map(|(id, _)| *id).collect();
        for id in differing {
            if inner.is_unsettled(own, id) {
                let known: BTreeSet<NodeId> = inner.outside.keys().copied().collect();
                inner.settle(own, id, &past, &self.membership());
                for (member, why) in inner.outside.iter().filter(|(id, _)| !known.contains(id)) {
                    tracing::error!(member, why, "a member is outside of the majority: remove it, and add a node under a new id");
                }
            }
        }
        let aside = inner.outside.get(&own).cloned();
        drop(inner);
        if let Some(why) = aside {
            self.divergence.aside.send_if_modified(|present| {
                let is_first = present.is_none();
                present.get_or_insert(why);
                is_first
            });
        }
    }
}

/// Waits until this node has to stand aside. From then on it does not stand for election, and hands leadership over whenever it has it:
/// an election that was under way may still end in its favour.
pub(super) async fn stand_aside(shared: Arc<Shared>) {
    let aside = async {
        if shared.divergence.aside.subscribe().wait_for(Option::is_some).await.is_err() {
            return;
        }
        // What is compared came from a peer, and only a node with a running core asks its peers.
        let Some(raft) = shared.raft() else { return };
        raft.runtime_config().elect(false);
        tracing::error!("this node stands aside: no linearizable reads, no leadership; it goes on proxying with its table");
        let mut metrics = raft.server_metrics();
        loop {
            if metrics.borrow_and_update().current_leader == Some(shared.node_id()) {
                shared.hand_over(None, Instant::now() + HAND_OVER_TRY).await;
                tokio::time::sleep(HAND_OVER_PAUSE).await;
            } else if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    shared.stopping.run_until_cancelled(aside).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{LeaderId, Member};

    fn membership(voters: &[&[NodeId]], learners: &[NodeId]) -> Membership {
        let sets: Vec<BTreeSet<NodeId>> = voters.iter().map(|ids| ids.iter().copied().collect()).collect();
        let all = sets.iter().flatten().chain(learners).map(|&id| (id, Member::default()));
        let all: BTreeMap<NodeId, Member> = all.collect();
        Membership::new(sets, all).unwrap()
    }

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn sample(index: u64, byte: u8) -> Sample {
        let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
        Sample { log_id, state_digest: digest(byte), revision: Revision(index), digest: digest(byte) }
    }

    #[test]
    fn only_a_quorum_of_voters_makes_a_majority() {
        // voters, learners, digest of each node, outside of the majority
        type Case<'a> = (&'a [&'a [NodeId]], &'a [NodeId], &'a [(NodeId, u8)], Option<&'a [NodeId]>);
        let cases: [Case<'_>; 9] = [
            (&[&[1, 2, 3]], &[], &[(1, 1), (2, 1), (3, 2)], Some(&[3])),
            (&[&[1, 2, 3]], &[], &[(1, 2), (2, 1), (3, 1)], Some(&[1])),
            (&[&[1, 2, 3]], &[], &[(1, 1), (3, 2)], None),
            (&[&[1, 2, 3]], &[], &[(1, 1), (2, 2), (3, 3)], None),
            (&[&[1, 2]], &[], &[(1, 1), (2, 2)], None),
            (&[&[1, 2, 3, 4, 5]], &[], &[(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)], Some(&[4, 5])),
            // Learners do not count for the quorum, and one that differs is outside of it.
            (&[&[1, 2, 3]], &[4, 5], &[(1, 1), (4, 1), (5, 1), (2, 2)], None),
            (&[&[1, 2, 3]], &[4], &[(1, 1), (2, 1), (4, 2), (9, 1)], Some(&[4])),
            // While a change is joint, a quorum of both sets.
            (&[&[1, 2, 3], &[3, 4, 5]], &[], &[(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)], None),
        ];
        for (voters, learners, digests, expected) in cases {
            let digests = digests.iter().map(|&(id, byte)| (id, digest(byte))).collect();
            let found = judge(&digests, &membership(voters, learners)).map(|verdict| verdict.outside);
            assert_eq!(found, expected.map(|ids| ids.iter().copied().collect()), "{voters:?} {learners:?} {digests:?}");
        }
        assert_eq!(judge(&BTreeMap::from([(1, digest(1))]), &Membership::default()), None, "no membership, no majority");
    }

    #[test]
    fn a_verdict_waits_for_a_place_that_a_majority_has_in_common() {
        let own = Samples::default();
        let mut applied = crate::store::AppliedState::default();
        for index in [16, 32, 48] {
            applied.log_id = Some(sample(index, 0).log_id);
            own.after_entry(&applied);
        }
        let state = State::default();
        let past = Past { samples: &own, state: &state };
        let same = applied.state.state_digest();
        let agreeing = |index| Sample { state_digest: same, ..sample(index, 0) };
        let three = membership(&[&[1, 2, 3]], &[]);
        let mut inner = Inner::default();
        inner.tell(3, &[sample(16, 7), sample(48, 7)]);
        inner.settle(1, 3, &past, &three);
        assert!(inner.outside.is_empty(), "node 2 is not known");
        inner.tell(2, &[agreeing(32)]);
        inner.settle(1, 3, &past, &three);
        assert!(inner.outside.is_empty(), "node 2 is known elsewhere");
        inner.tell(2, &[agreeing(16)]);
        inner.settle(1, 3, &past, &three);
        assert_eq!(inner.outside.keys().copied().collect::<Vec<_>>(), [3], "{:?}", inner.outside);
    }

    #[test]
    fn what_peers_tell_is_bounded_and_the_last_word_counts() {
        let mut inner = Inner::default();
        for index in 0..1000 {
            inner.tell(2, &[sample(index, 1), sample(index, 2)]);
        }
        let told = &inner.told[&2];
        assert_eq!(told.len(), TOLD_MAX);
        assert_eq!(told.back(), Some(&sample(999, 2)));
        assert!(told.iter().all(|sample| sample.state_digest == digest(2)));
    }

    #[test]
    fn what_is_shown_says_who_and_goes_with_the_member() {
        let three = membership(&[&[1, 2, 3]], &[]);
        let found = Divergence::default();
        assert_eq!(found.shown(1, &three), Shown::default());
        found.inner().findings.insert((3, "revision"), Place::Revision(Revision(7)));
        let shown = found.shown(1, &three);
        assert_eq!(
            shown.summary.as_deref(),
            Some("node 3 has another digest at revision 7; no side has a majority that is known")
        );
        assert_eq!(shown.members.keys().copied().collect::<Vec<_>>(), [1, 3]);
        found.inner().outside.insert(3, "why".to_owned());
        let shown = found.shown(1, &three);
        assert_eq!(
            shown.summary.as_deref(),
            Some("node 3 has another digest at revision 7; this node agrees with the majority and goes on")
        );
        assert_eq!(shown.members, BTreeMap::from([(3, "why".to_owned())]));
        assert_eq!(found.shown(1, &membership(&[&[1, 2]], &[])), Shown::default(), "removing the member is the repair");
        found.inner().outside.insert(1, "why".to_owned());
        assert!(found.shown(1, &membership(&[&[2]], &[])).summary.is_some_and(|text| text.contains("stands aside")));
    }
}
