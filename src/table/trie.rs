//! A persistent map by 64-bit hashes, made for look-ups among a million keys that are not in the cache.
//!
//! Slots stand side by side in leaves; above them stand branches of 16 children, one for each four bits of the hash from the highest on. A
//! look-up at a million keys passes four branches, whose upper levels the cache holds, and waits for memory at the leaf. A change
//! copies one leaf and the branches above it. Leaves are as long as what they hold: a slot costs its own size and some 6 bytes. (A hash map of
//! `imbl` keeps 32 places a node and took 230 bytes a route for each map at a million.)
//!
//! Many slots may have one hash: who looks says which of them is meant.

use std::hint::black_box;
use std::sync::Arc;
use std::vec::IntoIter;

const DIGIT_BITS: u32 = 4;
const FAN: usize = 1 << DIGIT_BITS;
/// Below this level no digit is left, and a leaf holds whatever has its hash.
const DEPTH_MAX: u32 = u64::BITS / DIGIT_BITS;
/// Slots of a leaf at most. Sixteen leaves of a split one are small, and cost more than their slots; that many slots cost a change.
const LEAF_MAX: usize = 24;

/// A value whose copies are counted in memory of its own.
///
/// To copy a node is to add to the counts of all that stands in it. At a million keys each of them is a cache miss, and additions that other cores
/// may see wait for one another. Plain reads do not: so all counts of a node are read before it is copied, which fetches them together.
pub(super) trait Counted: Clone {
    /// The count that a copy adds to.
    fn count(&self) -> usize;
}

impl<T: ?Sized> Counted for Arc<T> {
    fn count(&self) -> usize {
        Arc::strong_count(self)
    }
}

/// Fetches the counts of what is about to be copied.
fn touch<'v, V: Counted + 'v>(values: impl Iterator<Item = &'v V>) {
    black_box(values.map(V::count).sum::<usize>());
}

#[derive(Debug, Clone)]
struct Slot<V> {
    hash: u64,
    value: V,
}

#[derive(Debug, Clone)]
enum Node<V> {
    Leaf(Arc<[Slot<V>]>),
    Branch(Arc<[Node<V>; FAN]>),
}

/// Values by hash. A clone costs O(1), a change O(log n).
///
/// Invariants: no leaf above [`DEPTH_MAX`] has more than [`LEAF_MAX`] slots; `len` is the number of slots.
#[derive(Debug, Clone)]
pub(super) struct HashTrie<V> {
    root: Node<V>,
    len: usize,
}

impl<V> Default for HashTrie<V> {
    fn default() -> HashTrie<V> {
        HashTrie { root: Node::Leaf(Arc::default()), len: 0 }
    }
}

/// The digit of a hash at a depth.
fn digit(hash: u64, depth: u32) -> usize {
    (hash >> (u64::BITS - DIGIT_BITS - depth * DIGIT_BITS)) as usize % FAN
}

impl<V> HashTrie<V> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value with this hash of which `is_meant` holds.
    pub(super) fn get(&self, hash: u64, is_meant: impl Fn(&V) -> bool) -> Option<&V> {
        let mut node = &self.root;
        let mut rest = hash;
        loop {
            match node {
                Node::Branch(children) => {
                    rest = rest.rotate_left(DIGIT_BITS);
                    node = &children[rest as usize % FAN];
                }
                Node::Leaf(slots) => {
                    let found = slots.iter().find(|slot| slot.hash == hash && is_meant(&slot.value));
                    return found.map(|slot| &slot.value);
                }
            }
        }
    }

    /// All values, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        let mut nodes = vec![&self.root];
        let mut leaf = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(Slot { value, .. }) = leaf.next() {
                    return Some(value);
                }
                match nodes.pop()? {
                    Node::Leaf(slots) => leaf = slots.iter(),
                    Node::Branch(children) => nodes.extend(children.iter()),
                }
            }
        })
    }

    /// All at once: values with their hashes, sorted by hash. Nothing is copied.
    pub(super) fn from_sorted(values: Vec<(u64, V)>) -> HashTrie<V> {
        let len = values.len();
        let slots: Vec<Slot<V>> = values.into_iter().map(|(hash, value)| Slot { hash, value }).collect();
        HashTrie { root: Node::build(&mut slots.into_iter(), len, 0), len }
    }
}

impl<V: Counted> HashTrie<V> {
    /// The value with this hash of which `is_meant` holds, to change it in place.
    pub(super) fn get_mut(&mut self, hash: u64, is_meant: impl Fn(&V) -> bool) -> Option<&mut V> {
        // Looked up first: what is not there must not cost copies.
        self.get(hash, &is_meant)?;
        let mut node = &mut self.root;
        let mut rest = hash;
        loop {
            match node {
                Node::Branch(children) => {
                    rest = rest.rotate_left(DIGIT_BITS);
                    node = &mut own_children(children)[rest as usize % FAN];
                }
                Node::Leaf(slots) => {
                    return own_slots(slots)
                        .iter_mut()
                        .map(|slot| (slot.hash, &mut slot.value))
                        .find_map(|(found, value)| (found == hash && is_meant(value)).then_some(value));
                }
            }
        }
    }

    /// Adds a value beside those that have its hash.
    pub(super) fn insert(&mut self, hash: u64, value: V) {
        self.root.insert(Slot { hash, value }, 0);
        self.len += 1;
    }

    /// Takes the value with this hash out of which `is_meant` holds.
    pub(super) fn remove(&mut self, hash: u64, is_meant: impl Fn(&V) -> bool) -> Option<V> {
        let value = self.get(hash, &is_meant)?.clone();
        self.root.remove(hash, &is_meant, 0);
        self.len -= 1;
        Some(value)
    }
}

impl<V> Node<V> {
    /// Of the next `count` slots, which are sorted by hash.
    fn build(slots: &mut IntoIter<Slot<V>>, count: usize, depth: u32) -> Node<V> {
        if count <= LEAF_MAX || depth == DEPTH_MAX {
            return Node::Leaf(slots.by_ref().take(count).collect());
        }
        let mut left = count;
        Node::Branch(Arc::new(std::array::from_fn(|place| {
            let count = slots.as_slice()[..left].partition_point(|slot| digit(slot.hash, depth) <= place);
            left -= count;
            Node::build(slots, count, depth + 1)
        })))
    }
}

impl<V: Clone> Counted for Node<V> {
    fn count(&self) -> usize {
        match self {
            Node::Leaf(slots) => slots.count(),
            Node::Branch(children) => children.count(),
        }
    }
}

/// The slots of a leaf, in a copy of their own.
fn own_slots<V: Counted>(slots: &mut Arc<[Slot<V>]>) -> &mut [Slot<V>] {
    if slots.count() > 1 {
        touch(slots.iter().map(|slot| &slot.value));
    }
    Arc::make_mut(slots)
}

/// The children of a branch, in a copy of their own.
fn own_children<V: Counted>(children: &mut Arc<[Node<V>; FAN]>) -> &mut [Node<V>; FAN] {
    if children.count() > 1 {
        touch(children.iter());
    }
    Arc::make_mut(children)
}

impl<V: Counted> Node<V> {
    fn insert(&mut self, slot: Slot<V>, depth: u32) {
        match self {
            Node::Branch(children) => own_children(children)[digit(slot.hash, depth)].insert(slot, depth + 1),
            Node::Leaf(slots) => {
                touch(slots.iter().map(|slot| &slot.value));
                let is_full = slots.len() >= LEAF_MAX && depth < DEPTH_MAX;
                let all = slots.iter().cloned().chain([slot]);
                if !is_full {
                    *slots = all.collect();
                    return;
                }
                let mut all: Vec<Slot<V>> = all.collect();
                all.sort_by_key(|slot| slot.hash);
                let count = all.len();
                *self = Node::build(&mut all.into_iter(), count, depth);
            }
        }
    }

    /// Takes a slot out that is there.
    fn remove(&mut self, hash: u64, is_meant: &impl Fn(&V) -> bool, depth: u32) {
        match self {
            Node::Leaf(slots) => {
                if let Some(at) = slots.iter().position(|slot| slot.hash == hash && is_meant(&slot.value)) {
                    touch(slots.iter().map(|slot| &slot.value));
                    *slots = slots[..at].iter().chain(&slots[at + 1..]).cloned().collect();
                }
            }
            Node::Branch(children) => {
                let children = own_children(children);
                children[digit(hash, depth)].remove(hash, is_meant, depth + 1);
                let lengths = children.iter().map(|child| match child {
                    Node::Leaf(slots) => Some(slots.len()),
                    Node::Branch(_) => None,
                });
                // Half of what would be split again, so that a slot that comes and goes does not build and fold the branch each time.
                if lengths.sum::<Option<usize>>().is_some_and(|count| count <= LEAF_MAX / 2) {
                    *self = Node::Leaf(children.iter().flat_map(Node::slots).cloned().collect());
                }
            }
        }
    }

    /// Those of a leaf.
    fn slots(&self) -> &[Slot<V>] {
        match self {
            Node::Leaf(slots) => slots,
            Node::Branch(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    impl Counted for u32 {
        fn count(&self) -> usize {
            1
        }
    }

    /// Hashes of which some are equal, some differ in their last digits alone, and most are far apart.
    fn hash(rng: &mut Rng) -> u64 {
        match rng.u8(..4) {
            0 => rng.u64(..40),
            1 => 0xabcd_0000_0000_0000 | rng.u64(..3),
            _ => rng.u64(..2_000).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn assert_same(trie: &HashTrie<u32>, expected: &BTreeMap<u32, u64>) {
        assert_eq!((trie.len(), trie.is_empty()), (expected.len(), expected.is_empty()));
        for (value, hash) in expected {
            assert_eq!(trie.get(*hash, |found| found == value), Some(value));
            assert_eq!(trie.get(hash.wrapping_add(7_000), |found| found == value), None);
        }
        let mut values: Vec<u32> = trie.values().copied().collect();
        values.sort_unstable();
        assert!(values.iter().eq(expected.keys()));
    }

    #[test]
    fn it_holds_what_was_put_in_and_older_copies_stay() {
        let mut rng = Rng::with_seed(1);
        let (mut trie, mut expected) = (HashTrie::default(), BTreeMap::new());
        let mut kept = Vec::new();
        for number in 0..6_000 {
            if rng.u8(..3) == 0
                && let Some((value, hash)) = expected.iter().nth(rng.usize(..expected.len().max(1))).map(|(v, h)| (*v, *h))
            {
                assert_eq!(trie.remove(hash, |found| *found == value), Some(value));
                assert_eq!(trie.remove(hash, |found| *found == value), None);
                expected.remove(&value);
            } else {
                let hash = hash(&mut rng);
                trie.insert(hash, number);
                expected.insert(number, hash);
            }
            if number % 1_000 == 0 {
                kept.push((trie.clone(), expected.clone()));
            }
        }
        kept.push((trie.clone(), expected.clone()));
        kept.iter().for_each(|(trie, expected)| assert_same(trie, expected));
        for (value, hash) in &expected {
            assert_eq!(trie.remove(*hash, |found| found == value), Some(*value));
        }
        assert!(trie.is_empty() && trie.values().next().is_none());
        assert!(matches!(trie.root, Node::Leaf(_)), "branches are left: {trie:?}");
        kept.iter().for_each(|(trie, expected)| assert_same(trie, expected));
    }

    #[test]
    fn one_that_is_made_at_once_equals_one_of_changes() {
        let mut rng = Rng::with_seed(2);
        for count in [0, 1, LEAF_MAX, LEAF_MAX + 1, 5_000] {
            let expected: BTreeMap<u32, u64> = (0..count as u32).map(|value| (value, hash(&mut rng))).collect();
            let mut sorted: Vec<(u64, u32)> = expected.iter().map(|(value, hash)| (*hash, *value)).collect();
            sorted.sort_unstable();
            assert_same(&HashTrie::from_sorted(sorted), &expected);
        }
    }

    #[test]
    fn a_value_is_changed_in_its_own_copy_alone() {
        let mut trie = HashTrie::default();
        (0..1_000).for_each(|value: u32| trie.insert(u64::from(value % 100) << 50, value));
        let before = trie.clone();
        let hash = 7_u64 << 50;
        *trie.get_mut(hash, |value| *value == 207).unwrap() = 5_000;
        assert_eq!(trie.get_mut(hash, |value| *value == 207), None);
        assert_eq!(trie.get(hash, |value| *value == 5_000), Some(&5_000));
        assert_eq!(before.get(hash, |value| *value == 207), Some(&207));
        assert_eq!((trie.len(), before.len()), (1_000, 1_000));
    }
}
