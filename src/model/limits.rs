//! Limits that are constants of the protocol: every node of a cluster must hold the same ones, for `apply` refuses by them.

use std::time::Duration;

/// The highest feature level that this version knows: what commands, State and snapshots may hold. A cluster is raised to a level once every
/// member knows it, and no version that does not can come in after that.
/// Level 1: `GRPCRoute`, and staged uploads. Level 2: `Certificate`, and services over TLS.
pub const FEATURE_LEVEL_MAX: u32 = if cfg!(feature = "next-format") { 3 } else { 2 };

/// Operations in one transaction.
pub const TRANSACTION_OPERATIONS_MAX: usize = 10_000;

/// Bytes of one transaction: names and documents of its operations together.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Uploads that are staged at one time.
pub const UPLOADS_MAX: usize = 8;

/// Operations of all staged uploads together.
pub const STAGED_OPERATIONS_MAX: usize = 2_000_000;

/// Bytes of all staged uploads together: names and documents.
pub const STAGED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// How long a staged upload is kept at least after its last chunk, by the State's clock.
pub const UPLOAD_RETENTION: Duration = Duration::from_secs(600);

/// Bytes of one document (a resource's canonical spec).
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Characters of a resource's name.
pub const NAME_CHARS_MAX: usize = 253;

/// Bytes of an idempotency key, the caller's scope included.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 512;

/// How long an idempotency key is remembered at least, by the State's clock.
pub const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(600);

/// Idempotency keys remembered at most.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// Bytes of the idempotency memory at most.
pub const IDEMPOTENCY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Revisions that history keeps at most.
pub const HISTORY_REVISIONS_MAX: usize = 10_000;

/// Bytes that history keeps at most; the newest revision is always kept.
pub const HISTORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How far one command may move the State's clock forward, once it runs: a proposer whose clock jumped must not expire
/// what others still rely on.
pub const CLOCK_STEP_MAX: Duration = Duration::from_secs(60);
