//! Host patterns, and the hashes that patterns are found by.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use imbl::shared_ptr::DefaultSharedPtr;

/// How a route without hostnames is written where a host pattern is asked for.
pub(super) const ANY_HOST: &str = "*";

/// The same on every node and in every run. Only admitted documents enter the maps, so nobody gains by choosing keys: a request whose
/// hash collides fails the comparison and goes on.
const HASH: FixedState = FixedState::with_seed(0x7261_6674_6761_7465);

/// Hashes of paths kept without an allocation; longer paths spill.
const INLINE_DEPTHS: usize = 8;

/// A map of text that hashes with the fixed seed.
pub(super) type TextMap<K, V> = imbl::GenericHashMap<K, V, FixedState, DefaultSharedPtr>;

/// An empty [`TextMap`].
pub(super) fn text_map<K, V>() -> TextMap<K, V> {
    TextMap::with_hasher(HASH)
}

/// What a route's hostname says about the request's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostPattern<'a> {
    /// This host.
    Exact(&'a str),
    /// One or more labels before this suffix (without its dot).
    Wildcard(&'a str),
    /// Every host.
    Any,
}

impl<'a> HostPattern<'a> {
    /// Reads a hostname of a route.
    pub(super) fn parse(hostname: &'a str) -> HostPattern<'a> {
        match hostname.strip_prefix("*.") {
            Some(suffix) => HostPattern::Wildcard(suffix),
            None if hostname == ANY_HOST => HostPattern::Any,
            None => HostPattern::Exact(hostname),
        }
    }

    /// The text that tells patterns of one kind apart.
    pub(super) fn text(self) -> &'a str {
        match self {
            HostPattern::Exact(text) | HostPattern::Wildcard(text) => text,
            HostPattern::Any => "",
        }
    }

    /// Half of a pattern's key.
    pub(super) fn hash(self) -> u64 {
        let kind = match self {
            HostPattern::Exact(_) => 0,
            HostPattern::Wildcard(_) => 1,
            HostPattern::Any => return 0,
        };
        let mut hasher = HASH.build_hasher();
        hasher.write_u8(kind);
        hasher.write(self.text().as_bytes());
        hasher.finish()
    }
}

/// The suffixes of `host` that a wildcard can have, with their numbers of labels, longest first: `a.b.c` gives `b.c`, `c`.
pub(super) fn suffixes(host: &str) -> impl Iterator<Item = (usize, &str)> {
    let labels = label_count(host);
    let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.').zip(1..);
    dots.filter(|((at, _), _)| *at > 0).map(move |((at, _), dot)| (labels - dot, &host[at + 1..]))
}

/// The number of labels.
pub(super) fn label_count(host: &str) -> usize {
    host.bytes().filter(|&byte| byte == b'.').count() + 1
}

/// The number of elements of a path or prefix: that of its slashes.
pub(super) fn depth(path: &str) -> usize {
    path.bytes().filter(|&byte| byte == b'/').count()
}

/// The key of (host pattern, path).
pub(super) fn key(host: u64, path: u64) -> u64 {
    host.rotate_left(32) ^ path
}

/// The hash of a text.
pub(super) fn text_hash(text: &str) -> u64 {
    let mut hasher = HASH.build_hasher();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// The hash of a prefix, as [`Prefixes`] gives it for a path that begins with it.
pub(super) fn prefix_hash(prefix: &str) -> u64 {
    Prefixes::new(prefix, usize::MAX).last().hash
}

/// Where the slashes of a path are.
///
/// Those among its first bytes are found eight at a time, without a jump that depends on where they are: such jumps, one an element, were most of
/// what the hashes of a path cost.
struct Slashes<'p> {
    path: &'p [u8],
    /// One bit for each byte.
    first: u64,
}

/// Bytes that have a bit.
const MARKED_BYTES: usize = u64::BITS as usize;
const WORD_BYTES: usize = 8;

impl<'p> Slashes<'p> {
    fn of(path: &'p [u8]) -> Slashes<'p> {
        let (words, rest) = path[..path.len().min(MARKED_BYTES)].as_chunks::<WORD_BYTES>();
        let words = words.iter().zip((0..).step_by(WORD_BYTES)).map(|(word, at)| slashes_of(*word) << at);
        let first = words.fold(0, |all, those| all | those);
        let last = match path.last_chunk::<WORD_BYTES>() {
            _ if rest.is_empty() => 0,
            // It overlaps the last whole word.
            Some(word) => slashes_of(*word) << (path.len() - WORD_BYTES),
            None => rest.iter().zip(0..).map(|(byte, at)| u64::from(*byte == b'/') << at).sum(),
        };
        Slashes { path, first: first | last }
    }

    /// The place of the first slash from `from` on, or the path's end.
    fn next_from(&self, from: usize) -> usize {
        let marked = if from < MARKED_BYTES { self.first >> from } else { 0 };
        if marked != 0 {
            return from + marked.trailing_zeros() as usize;
        }
        let unmarked = from.max(MARKED_BYTES).min(self.path.len());
        self.path[unmarked..].iter().position(|byte| *byte == b'/').map_or(self.path.len(), |at| unmarked + at)
    }
}

/// One bit for each byte that is a slash, the first the lowest.
fn slashes_of(word: [u8; WORD_BYTES]) -> u64 {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x7f; WORD_BYTES]);
    let differing = u64::from_le_bytes(word) ^ u64::from_ne_bytes([b'/'; WORD_BYTES]);
    // The high bit of each byte that has no bit set, and no other.
    let same = !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS);
    // Moves bit 8 i to 56 + i.
    (same >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// A prefix of a path that ends where an element ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prefix {
    /// Its length in bytes.
    pub(super) end: usize,
    /// Half of a pattern's key.
    pub(super) hash: u64,
}

/// The element-wise prefixes of one path, from the empty one, hashed in one pass.
#[derive(Debug)]
pub(super) struct Prefixes {
    inline: [Prefix; INLINE_DEPTHS],
    spilled: Vec<Prefix>,
    count: usize,
}

impl Prefixes {
    /// Those of at most `depth_max` elements. `*` has only the empty one.
    pub(super) fn new(path: &str, depth_max: usize) -> Prefixes {
        let mut hasher = HASH.build_hasher();
        let mut prefixes = Prefixes { inline: [Prefix::default(); INLINE_DEPTHS], spilled: Vec::new(), count: 0 };
        prefixes.push(Prefix { end: 0, hash: hasher.finish() });
        let slashes = Slashes::of(path.as_bytes());
        let mut start = 0;
        while prefixes.count <= depth_max && path.as_bytes().get(start) == Some(&b'/') {
            let end = slashes.next_from(start + 1);
            hasher.write(&path.as_bytes()[start..end]);
            prefixes.push(Prefix { end, hash: hasher.finish() });
            start = end;
        }
        prefixes
    }

    /// The prefix of `depth` elements, if the path has as many.
    pub(super) fn get(&self, depth: usize) -> Option<Prefix> {
        if depth >= self.count {
            return None;
        }
        self.inline.get(depth).or_else(|| self.spilled.get(depth - INLINE_DEPTHS)).copied()
    }

    fn last(&self) -> Prefix {
        self.get(self.count - 1).unwrap_or_default()
    }

    fn push(&mut self, prefix: Prefix) {
        match self.inline.get_mut(self.count) {
            Some(place) => *place = prefix,
            None => self.spilled.push(prefix),
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    #[test]
    fn prefixes_end_where_elements_end() {
        let mut rng = Rng::with_seed(3);
        for _ in 0..3_000 {
            let length = rng.usize(..100);
            let path: String =
                (0..length).map(|at| if at == 0 || rng.u8(..4) == 0 { '/' } else { rng.char('.'..='o') }).collect();
            let ends = path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
            let ends: Vec<usize> = [0].into_iter().chain(ends).chain((length > 0).then_some(length)).collect();
            let prefixes = Prefixes::new(&path, usize::MAX);
            let found: Vec<usize> = (0..).map_while(|depth| prefixes.get(depth)).map(|prefix| prefix.end).collect();
            assert_eq!(found, ends, "{path}");
            for (depth, end) in ends.iter().enumerate() {
                assert_eq!(prefix_hash(&path[..*end]), prefixes.get(depth).unwrap().hash, "{path} {depth}");
            }
        }
        assert_eq!(Prefixes::new("*", usize::MAX).last().end, 0);
        assert_eq!(Prefixes::new("/a/b/c", 2).get(3).map(|prefix| prefix.end), None);
    }
}
