//! What State was at recent log ids, in digests: what nodes compare to find a divergence.
//!
//! Every node applies in batches of its own and is asked at a time of its own, so that under a stream of writes the newest log ids of
//! two nodes seldom meet. So a node also keeps samples at indexes that all nodes have in common, the multiples of each of [`STEPS`]: at
//! a low rate the small steps meet, at a high rate the large ones reach back far enough. A sample is a fact about the past of this
//! process and stays true, whatever happens to State later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state_machine::AppliedState;
use super::types::LogId;
use crate::model::{Digest, Revision};

/// Between the indexes that all nodes sample.
const STEPS: [u64; 3] = [16, 256, 4096];
/// Samples that are kept of each step.
const KEPT_A_STEP: usize = 64;
/// Samples that are kept of the ends of batches.
const KEPT_ENDS: usize = 256;
/// Samples of each step that are told to the peers.
const TOLD_A_STEP: usize = 8;

/// State in digests, at one log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The last entry that went into it.
    pub log_id: LogId,
    /// The digest of all of State.
    pub state_digest: Digest,
    /// State's revision.
    pub revision: Revision,
    /// The digest of the resources at that revision.
    pub digest: Digest,
}

impl Sample {
    /// The sample of `applied`; `None` before the first entry.
    pub fn of(applied: &AppliedState) -> Option<Sample> {
        let state = &applied.state;
        let sample =
            |log_id| Sample { log_id, state_digest: state.state_digest(), revision: state.revision(), digest: state.digest() };
        applied.log_id.map(sample)
    }
}

/// This node's samples, bounded. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// At the end of every batch, oldest first.
    ends: VecDeque<Sample>,
    /// At the multiples of each step, oldest first.
    steps: [VecDeque<Sample>; STEPS.len()],
}

impl Samples {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sample at `log_id`, where one was kept.
    pub fn at(&self, log_id: LogId) -> Option<Sample> {
        let kept = self.kept();
        let found = |samples: &VecDeque<Sample>| samples.iter().rev().find(|sample| sample.log_id == log_id).copied();
        found(&kept.ends).or_else(|| kept.steps.iter().find_map(found))
    }

    /// The newest samples at common indexes, each once, oldest first.
    pub fn told(&self) -> Vec<Sample> {
        let kept = self.kept();
        let newest = |samples: &VecDeque<Sample>| samples.iter().rev().take(TOLD_A_STEP).copied().collect::<Vec<_>>();
        let mut told: Vec<Sample> = kept.steps.iter().flat_map(newest).collect();
        told.sort_by_key(|sample| sample.log_id);
        told.dedup_by_key(|sample| sample.log_id);
        told
    }

    /// Takes a sample after one entry, if its index is a common one.
    pub(crate) fn after_entry(&self, applied: &AppliedState) {
        let is_multiple = |step: u64| applied.log_id.is_some_and(|id| id.index.is_multiple_of(step));
        if !is_multiple(STEPS[0]) {
            return;
        }
        let Some(sample) = Sample::of(applied) else { return };
        let mut kept = self.kept();
        for (samples, _) in kept.steps.iter_mut().zip(STEPS).filter(|(_, step)| is_multiple(*step)) {
            push(samples, sample, KEPT_A_STEP);
        }
    }

    /// Takes a sample at the end of a batch.
    pub(crate) fn after_batch(&self, applied: &AppliedState) {
        if let Some(sample) = Sample::of(applied) {
            push(&mut self.kept().ends, sample, KEPT_ENDS);
        }
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample, kept_max: usize) {
    if samples.len() == kept_max {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::types::LeaderId;

    fn applied(index: u64) -> AppliedState {
        let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
        AppliedState { log_id: Some(log_id), ..AppliedState::default() }
    }

    /// A node that applied `count` entries, in batches of `batch`.
    fn after(count: u64, batch: u64) -> Samples {
        let samples = Samples::default();
        for index in 1..=count {
            samples.after_entry(&applied(index));
            if index.is_multiple_of(batch) {
                samples.after_batch(&applied(index));
            }
        }
        samples
    }

    #[test]
    fn nodes_that_are_asked_at_different_times_meet_at_every_rate() {
        for rate in [1, 7, 40, 900, 8_000] {
            // The one was asked some time before the other, and they apply in other batches.
            let (earlier, later) = (after(100 + 3 * rate, 3), after(100 + 4 * rate, 5));
            let shared = earlier.told().into_iter().filter(|sample| later.at(sample.log_id).is_some()).count();
            assert!(shared > 0, "{rate} entries from one question to the other");
        }
    }

    #[test]
    fn what_is_kept_and_told_is_bounded() {
        let samples = after(30_000, 1);
        let kept = samples.kept();
        assert_eq!(kept.ends.len(), KEPT_ENDS);
        assert!(kept.steps.iter().all(|samples| samples.len() <= KEPT_A_STEP));
        drop(kept);
        let told = samples.told();
        assert!(
            told.len() <= STEPS.len() * TOLD_A_STEP && told.windows(2).all(|pair| pair[0].log_id < pair[1].log_id),
            "{told:?}"
        );
        assert!(samples.at(applied(16).log_id.unwrap()).is_none(), "long ago");
        assert_eq!(samples.at(applied(29_999).log_id.unwrap()), Sample::of(&applied(29_999)));
    }
}
