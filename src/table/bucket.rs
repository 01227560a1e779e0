//! The candidates that stand under one key.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdSet;

use super::hosts::HostId;
use super::rule::Candidate;
use super::trie::Counted;

/// Above this many candidates a change no longer copies the list.
const FEW_MAX: usize = 16;

/// A candidate as it stands in the index.
///
/// Its order is the candidate's, which tells any two apart.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) candidate: Candidate,
    /// That of its host pattern, so that a look-up need not read the pattern.
    pub(super) host: HostId,
}

impl Ord for Placed {
    fn cmp(&self, other: &Placed) -> Ordering {
        self.candidate.cmp(&other.candidate)
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Placed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Placed) -> bool {
        self.candidate == other.candidate
    }
}

impl Eq for Placed {}

impl Equivalent<Placed> for Candidate {
    fn equivalent(&self, placed: &Placed) -> bool {
        *self == placed.candidate
    }
}

impl Comparable<Placed> for Candidate {
    fn compare(&self, placed: &Placed) -> Ordering {
        self.cmp(&placed.candidate)
    }
}

/// Candidates in order of precedence; never empty.
///
/// Nearly always there is one, so that stands in place. Many (a path that differs by header, say) stand in a persistent set.
#[derive(Debug, Clone)]
pub(super) enum Bucket {
    One(Placed),
    Few(Arc<Vec<Placed>>),
    /// Boxed: in place it would make every bucket larger.
    Many(Box<OrdSet<Placed>>),
}

impl Bucket {
    pub(super) fn insert(&mut self, placed: Placed) {
        match self {
            Bucket::One(present) => {
                let mut list = vec![present.clone(), placed];
                list.sort();
                *self = Bucket::Few(Arc::new(list));
            }
            Bucket::Few(list) if list.len() < FEW_MAX => {
                let list = Arc::make_mut(list);
                let at = list.partition_point(|present| *present < placed);
                list.insert(at, placed);
            }
            Bucket::Few(list) => {
                let mut set: OrdSet<Placed> = list.iter().cloned().collect();
                set.insert(placed);
                *self = Bucket::Many(Box::new(set));
            }
            Bucket::Many(set) => {
                set.insert(placed);
            }
        }
    }

    /// Takes a candidate out. True: nothing is left, and the bucket has to go.
    pub(super) fn remove(&mut self, candidate: &Candidate) -> bool {
        match self {
            Bucket::One(present) => return present.candidate == *candidate,
            Bucket::Few(list) => Arc::make_mut(list).retain(|present| present.candidate != *candidate),
            Bucket::Many(set) => {
                set.remove(candidate);
            }
        }
        self.shrink();
        false
    }

    /// Puts a candidate in the place of the one that is equal in order, if that is here.
    pub(super) fn replace(&mut self, candidate: &Candidate) {
        match self {
            Bucket::One(present) if present.candidate == *candidate => present.candidate = candidate.clone(),
            Bucket::One(_) => {}
            Bucket::Few(list) => {
                if let Ok(at) = list.binary_search_by(|present| present.candidate.cmp(candidate)) {
                    Arc::make_mut(list)[at].candidate = candidate.clone();
                }
            }
            Bucket::Many(set) => {
                if let Some(host) = set.get(candidate).map(|present| present.host) {
                    set.insert(Placed { candidate: candidate.clone(), host });
                }
            }
        }
    }

    /// The candidate of the same place in the order, if it is here.
    pub(super) fn find(&self, candidate: &Candidate) -> Option<&Candidate> {
        let found = match self {
            Bucket::One(present) => Some(present).filter(|present| present.candidate == *candidate),
            Bucket::Few(list) => list.binary_search_by(|present| present.candidate.cmp(candidate)).ok().map(|at| &list[at]),
            Bucket::Many(set) => set.get(candidate),
        };
        found.map(|placed| &placed.candidate)
    }

    /// Visits the candidates in order.
    pub(super) fn walk<'t, B>(&'t self, visit: &mut impl FnMut(&'t Placed) -> ControlFlow<B>) -> ControlFlow<B> {
        match self {
            Bucket::One(placed) => visit(placed),
            Bucket::Few(list) => list.iter().try_for_each(visit),
            Bucket::Many(set) => set.iter().try_for_each(visit),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed> {
        let (list, set) = match self {
            Bucket::One(placed) => (std::slice::from_ref(placed), None),
            Bucket::Few(list) => (list.as_slice(), None),
            Bucket::Many(set) => ([].as_slice(), Some(set)),
        };
        list.iter().chain(set.into_iter().flat_map(|set| set.iter()))
    }

    fn shrink(&mut self) {
        match self {
            Bucket::Few(list) if list.len() == 1 => *self = Bucket::One(list[0].clone()),
            Bucket::Many(set) if set.len() <= FEW_MAX / 2 => *self = Bucket::Few(Arc::new(set.iter().cloned().collect())),
            Bucket::One(_) | Bucket::Few(_) | Bucket::Many(_) => {}
        }
    }
}

impl Counted for Bucket {
    fn count(&self) -> usize {
        match self {
            Bucket::One(placed) => placed.candidate.rule.count(),
            Bucket::Few(list) => list.count(),
            // Its count is that of its root, behind the box.
            Bucket::Many(set) => set.len(),
        }
    }
}

/// Adds to the bucket in `place`, making it if there is none.
pub(super) fn insert_into(place: &mut Option<Bucket>, placed: Placed) {
    match place {
        Some(bucket) => bucket.insert(placed),
        None => *place = Some(Bucket::One(placed)),
    }
}

/// Takes out of the bucket in `place`, and the bucket with its last candidate.
pub(super) fn remove_from(place: &mut Option<Bucket>, candidate: &Candidate) {
    if place.as_mut().is_some_and(|bucket| bucket.remove(candidate)) {
        *place = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf of the index holds buckets in place: two of them with their keys in a cache line.
    #[test]
    fn a_bucket_takes_no_more_than_a_candidate() {
        assert_eq!(size_of::<Bucket>(), size_of::<Placed>());
        assert!(size_of::<Bucket>() <= 24, "{}", size_of::<Bucket>());
    }
}
