//! Bugs that the fault-injection suite must find: what is not caught by it when it is switched on, the suite does not test.
//!
//! A program built with the feature `known-bugs` has the one that `RAFTGATE_KNOWN_BUG` names, and says so when it starts. Every other
//! program has none of this code.

/// One of them. Each breaks what `faults.md` of the design promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBug {
    /// The log is flushed and not synced: a power cut loses acknowledged changes (I1).
    FlushWithoutSync,
    /// The vote is written and not synced: after a power cut a node can vote twice in a term.
    VoteNotSynced,
    /// A local State is given as linearizable (I2).
    StaleRead,
    /// A snapshot says that it covers one entry more than it does (I1, I4).
    SnapshotOneAhead,
    /// A write of unknown outcome is sent again although it has no idempotency key (I9).
    BlindRetry,
    /// A leader that restarts leads on in its old term, although its followers may have committed what it never had on disk (I1, I4).
    LeaderRestore,
    /// A node publishes what is appended and not committed (I4, I5).
    PublishOnAppend,
    /// A node whose data directory was wiped is taken back under its old id (I1).
    IdReuse,
    /// A table says that it is of a revision whose changes it does not have, until the background check builds it anew (I5).
    StaleTable,
}

impl KnownBug {
    /// As `RAFTGATE_KNOWN_BUG` names it.
    #[cfg(feature = "known-bugs")]
    fn name(self) -> &'static str {
        match self {
            KnownBug::FlushWithoutSync => "flush-without-sync",
            KnownBug::VoteNotSynced => "vote-not-synced",
            KnownBug::StaleRead => "stale-read",
            KnownBug::SnapshotOneAhead => "snapshot-one-ahead",
            KnownBug::BlindRetry => "blind-retry",
            KnownBug::LeaderRestore => "leader-restore",
            KnownBug::PublishOnAppend => "publish-on-append",
            KnownBug::IdReuse => "id-reuse",
            KnownBug::StaleTable => "stale-table",
        }
    }

    /// Whether this program has it.
    #[cfg(feature = "known-bugs")]
    pub fn is_on(self) -> bool {
        static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let name = NAME.get_or_init(|| {
            let name = std::env::var("RAFTGATE_KNOWN_BUG").unwrap_or_default();
            tracing::warn!(name, "this program was built with known bugs, for tests alone");
            name
        });
        name == self.name()
    }

    /// Whether this program has it.
    #[cfg(not(feature = "known-bugs"))]
    pub const fn is_on(self) -> bool {
        false
    }
}

/// Waits for a random part of `RAFTGATE_SYNC_DELAY_MS` before the log's sync, so that what a crash between append and sync breaks has the
/// time to show. Not a bug: the sound program passes with it.
#[cfg(feature = "known-bugs")]
pub fn delay_sync() {
    static MOST: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let most = *MOST.get_or_init(|| std::env::var("RAFTGATE_SYNC_DELAY_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0));
    if most > 0 {
        std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(..=most)));
    }
}

/// Nothing in this program.
#[cfg(not(feature = "known-bugs"))]
pub const fn delay_sync() {}
