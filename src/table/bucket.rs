//! The candidates that stand under one key.

use std::sync::Arc;

use imbl::OrdSet;

use super::rule::Candidate;

/// Above this many candidates a change no longer copies the list.
const FEW_MAX: usize = 16;

/// Candidates in order of precedence; never empty.
///
/// Nearly always there is one, so that stands in place. Many (a path that differs by header, say) stand in a persistent set.
#[derive(Debug, Clone)]
pub(super) enum Bucket {
    One(Candidate),
    Few(Arc<Vec<Candidate>>),
    Many(OrdSet<Candidate>),
}

impl Bucket {
    pub(super) fn insert(&mut self, candidate: Candidate) {
        match self {
            Bucket::One(present) => {
                let mut list = vec![present.clone(), candidate];
                list.sort();
                *self = Bucket::Few(Arc::new(list));
            }
            Bucket::Few(list) if list.len() < FEW_MAX => {
                let list = Arc::make_mut(list);
                let at = list.partition_point(|present| *present < candidate);
                list.insert(at, candidate);
            }
            Bucket::Few(list) => {
                let mut set: OrdSet<Candidate> = list.iter().cloned().collect();
                set.insert(candidate);
                *self = Bucket::Many(set);
            }
            Bucket::Many(set) => {
                set.insert(candidate);
            }
        }
    }

    /// Takes a candidate out. True: nothing is left, and the bucket has to go.
    pub(super) fn remove(&mut self, candidate: &Candidate) -> bool {
        match self {
            Bucket::One(present) => return present == candidate,
            Bucket::Few(list) => Arc::make_mut(list).retain(|present| present != candidate),
            Bucket::Many(set) => {
                set.remove(candidate);
            }
        }
        self.shrink();
        false
    }

    /// The candidate of the same place in the order, if it is here.
    pub(super) fn find(&self, candidate: &Candidate) -> Option<&Candidate> {
        match self {
            Bucket::One(present) => Some(present).filter(|present| *present == candidate),
            Bucket::Few(list) => list.binary_search(candidate).ok().map(|at| &list[at]),
            Bucket::Many(set) => set.get(candidate),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        let (list, set) = match self {
            Bucket::One(candidate) => (std::slice::from_ref(candidate), None),
            Bucket::Few(list) => (list.as_slice(), None),
            Bucket::Many(set) => ([].as_slice(), Some(set)),
        };
        list.iter().chain(set.into_iter().flatten())
    }

    fn shrink(&mut self) {
        match self {
            Bucket::Few(list) if list.len() == 1 => *self = Bucket::One(list[0].clone()),
            Bucket::Many(set) if set.len() <= FEW_MAX / 2 => *self = Bucket::Few(Arc::new(set.iter().cloned().collect())),
            Bucket::One(_) | Bucket::Few(_) | Bucket::Many(_) => {}
        }
    }
}

/// Adds to the bucket in `place`, making it if there is none.
pub(super) fn insert_into(place: &mut Option<Bucket>, candidate: Candidate) {
    match place {
        Some(bucket) => bucket.insert(candidate),
        None => *place = Some(Bucket::One(candidate)),
    }
}

/// Takes out of the bucket in `place`, and the bucket with its last candidate.
pub(super) fn remove_from(place: &mut Option<Bucket>, candidate: &Candidate) {
    if place.as_mut().is_some_and(|bucket| bucket.remove(candidate)) {
        *place = None;
    }
}
