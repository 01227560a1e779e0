//! What is made of files, and made again when they change.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use super::files::FileError;

/// What tells one content of a file from another. Renaming another file over it changes the inode, writing into it the time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

type Build<T> = Box<dyn Fn() -> Result<T, FileError> + Send + Sync>;

/// A value that stands for the present content of some files.
pub(super) struct Renewing<T> {
    paths: Vec<PathBuf>,
    build: Build<T>,
    current: RwLock<Arc<T>>,
    /// What the files were before they were last read, so that a change while they are read is seen at the next look.
    seen: Mutex<Vec<Option<Stamp>>>,
}

impl<T> Renewing<T> {
    /// Reads `paths` by `build`.
    pub(super) fn load(
        paths: Vec<PathBuf>,
        build: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Renewing<T>, FileError> {
        let seen = Mutex::new(stamps(&paths));
        let current = RwLock::new(Arc::new(build()?));
        Ok(Renewing { paths, build: Box::new(build), current, seen })
    }

    /// What was last read whole.
    pub(super) fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again where one of them changed; true where that took effect. After an error the value is as it was, and the files
    /// are read again once they change: while certificate and key are replaced one after the other, they do not fit for a moment.
    pub(super) fn renew(&self) -> Result<bool, FileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamps(&self.paths);
        if *seen == found {
            return Ok(false);
        }
        *seen = found;
        let value = Arc::new((self.build)()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(true)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some(Stamp { inode: found.ino(), bytes: found.len(), modified: found.modified().ok() })
    };
    paths.iter().map(stamp).collect()
}
