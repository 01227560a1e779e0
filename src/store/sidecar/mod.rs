//! The sidecar: small files of our own beside sled, which opens a truncated log without an error.
//!
//! | file | content | synced |
//! |---|---|---|
//! | `lock` | nothing; locked while a process has the directory | - |
//! | `identity` | cluster id, node id, incarnation, cluster name | when written, by a new file and a rename |
//! | `vote` | the vote, twice, so that a damaged copy does not bring an older one back; its only authority | before `save_vote` returns |
//! | `mark` | last and purged log id at the log's last sync | every 100 ms while it moves, at a stop, and before a truncation |

mod identity;
mod slots;

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub use identity::{Identity, IdentityFile};
pub(crate) use slots::Slots;

/// How long a lock may take to go whose process has ended.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Holds the data directory against other processes until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock; `None` where another process has it. Blocks a moment: a child process of the one that had it before holds the
    /// descriptor until its exec.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<DirectoryLock>> {
        let file = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(DirectoryLock { _file: file })),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// Syncs a directory: the names in it.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
