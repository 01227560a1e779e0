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

pub use identity::{Identity, IdentityFile};
pub(crate) use slots::Slots;

/// Holds the data directory against other processes until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock; `None` where another process has it.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<DirectoryLock>> {
        let file = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(DirectoryLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Syncs a directory: the names in it.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
