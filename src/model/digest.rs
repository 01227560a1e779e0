//! Digests that move with one change at a time.
//!
//! A [`SetHash`] is a hash of a *set* of byte strings: the sum, modulo 2^256, of the SHA-256 of each member. Adding and removing a
//! member costs one hash, whatever the size of the set, and the order of changes does not matter (an additive multiset hash,
//! AdHash). It finds divergence by fault; it is not meant to withstand somebody who can choose documents in order to collide.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// 256 bits, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 over `parts`, each preceded by its length, so that no two lists of parts run together.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hasher = PartsHasher::default();
        parts.into_iter().for_each(|part| hasher.add(part));
        hasher.digest()
    }
}

/// [`Digest::of_parts`] of parts that come one by one.
#[derive(Default)]
pub(super) struct PartsHasher(Sha256);

impl PartsHasher {
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    pub(super) fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An incremental hash of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetHash {
    /// The sum, least significant word first.
    words: [u64; 4],
}

impl SetHash {
    /// Adds a member's digest.
    pub fn insert(&mut self, member: Digest) {
        let mut carry = false;
        for (word, addend) in self.words.iter_mut().zip(words_of(member)) {
            let (sum, first) = word.overflowing_add(addend);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
    }

    /// Takes a member's digest out again.
    pub fn remove(&mut self, member: Digest) {
        let mut borrow = false;
        for (word, subtrahend) in self.words.iter_mut().zip(words_of(member)) {
            let (difference, first) = word.overflowing_sub(subtrahend);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            *word = difference;
            borrow = first || second;
        }
    }

    /// The hash of the set as it stands.
    pub fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Digest(bytes)
    }
}

fn words_of(digest: Digest) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(digest.0.chunks_exact(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        *word = u64::from_le_bytes(bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_hash_forgets_order_and_undoes_itself() {
        let members: Vec<Digest> = (0u32..100).map(|n| Digest::of_parts([n.to_le_bytes().as_slice()])).collect();
        let mut forward = SetHash::default();
        let mut backward = SetHash::default();
        members.iter().for_each(|&m| forward.insert(m));
        members.iter().rev().for_each(|&m| backward.insert(m));
        assert_eq!(forward, backward);
        members.iter().skip(1).for_each(|&m| forward.remove(m));
        let mut first = SetHash::default();
        first.insert(members[0]);
        assert_eq!(forward, first);
        forward.remove(members[0]);
        assert_eq!(forward, SetHash::default());
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(Digest::of_parts([b"ab".as_slice(), b"c"]), Digest::of_parts([b"a".as_slice(), b"bc"]));
    }
}
