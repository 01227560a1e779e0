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
        let mut start = 0;
        while prefixes.count <= depth_max && path[start..].starts_with('/') {
            let end = path[start + 1..].find('/').map_or(path.len(), |at| start + 1 + at);
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
