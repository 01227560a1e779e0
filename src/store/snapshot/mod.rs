//! Snapshots: files of their own beside the log, for sled does not sync large values (see `faults.md`, section 3).
//!
//! A snapshot is written to a temporary file, synced, renamed, the directory synced, and only then in use. The *previous* one is kept,
//! and the log is purged only up to it ([`super::SnapshotAdvisor`]): should the newest turn out damaged at a start, the node starts
//! from the previous one and the log. A received snapshot is checked in full before it takes the place of anything.

mod file;
mod incoming;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

pub use file::SnapshotFile;
pub use incoming::{IncomingSnapshot, ReceiveError};

use super::types::SnapshotMeta;
use crate::model::State;
use crate::observe::crash_point;

/// How many snapshots are kept: the newest and the previous one.
const KEPT: usize = 2;

const SUFFIX: &str = "snapshot";
const TEMPORARY_SUFFIX: &str = "tmp";

/// The directory that holds this node's snapshots. Cloning shares it.
#[derive(Debug, Clone)]
pub struct SnapshotDirectory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Good snapshots, oldest first, at most [`KEPT`].
    kept: Mutex<Vec<SnapshotFile>>,
    /// Numbers temporary files.
    next_temporary: AtomicU64,
}

/// What a start found.
pub(crate) struct Loaded {
    pub(crate) directory: SnapshotDirectory,
    /// The newest good snapshot and its content.
    pub(crate) newest: Option<(SnapshotFile, State)>,
}

/// Why no snapshot could be loaded though there are some.
#[derive(Debug)]
pub(crate) struct AllDamaged {
    pub(crate) reasons: Vec<String>,
}

impl SnapshotDirectory {
    /// Opens the directory, makes it where it is missing, removes what a crash left over, and loads the newest good snapshot.
    /// Damaged files stay where they are, for people to look at. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<Result<Loaded, AllDamaged>> {
        fs::create_dir_all(path)?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            match path.extension().and_then(|suffix| suffix.to_str()) {
                Some(TEMPORARY_SUFFIX) => fs::remove_file(&path)?,
                Some(SUFFIX) => paths.push(path),
                _ => {}
            }
        }
        paths.sort();
        let loaded = load_newest(path, &paths);
        if let Ok(loaded) = &loaded {
            loaded.directory.remove_left_over(&paths)?;
        }
        Ok(loaded)
    }

    /// A crash between the rename of a new snapshot and the removal of the oldest leaves that one. Where a snapshot is damaged, all stay.
    fn remove_left_over(&self, found: &[PathBuf]) -> io::Result<()> {
        let kept = self.kept();
        let newest_are_kept = found.iter().rev().zip(kept.iter().rev()).all(|(path, kept)| path == kept.path());
        if newest_are_kept {
            let left_over = found.len().saturating_sub(kept.len());
            found[..left_over].iter().try_for_each(fs::remove_file)?;
        }
        Ok(())
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<SnapshotFile> {
        self.kept().last().cloned()
    }

    /// The one before the newest.
    pub fn previous(&self) -> Option<SnapshotFile> {
        let kept = self.kept();
        kept.len().checked_sub(2).and_then(|index| kept.get(index).cloned())
    }

    /// Begins to receive a snapshot from a peer, into a temporary file. Blocks on the disk.
    pub fn receive(&self) -> io::Result<IncomingSnapshot> {
        IncomingSnapshot::create(self.temporary_path())
    }

    /// Writes a snapshot of `state` and keeps it as the newest. Blocks until it is durable.
    pub(crate) fn write(&self, meta: &SnapshotMeta, state: &State) -> io::Result<SnapshotFile> {
        let temporary = self.temporary_path();
        file::write(&temporary, meta, state)?;
        crash_point("snapshot-written");
        self.keep(&temporary, meta)
    }

    /// Checks a received snapshot in full and keeps it as the newest. One that is kept already is only read: openraft installs the
    /// newest again at every start. Blocks until it is durable.
    pub(crate) fn install(&self, meta: &SnapshotMeta, snapshot: &SnapshotFile) -> io::Result<State> {
        if snapshot.meta() != meta {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "snapshot: its header does not cover what its sender says"));
        }
        let state = snapshot.load()?;
        if !self.kept().iter().any(|kept| kept.path() == snapshot.path()) {
            let temporary = self.temporary_path();
            if snapshot.path().parent() == Some(&self.shared.path) {
                fs::rename(snapshot.path(), &temporary)?;
            } else {
                fs::copy(snapshot.path(), &temporary)?;
            }
            File::open(&temporary)?.sync_all()?;
            self.keep(&temporary, meta)?;
        }
        Ok(state)
    }

    /// Gives a synced temporary file its name, and removes what is older than the previous snapshot.
    fn keep(&self, temporary: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let path = self.shared.path.join(file::name(meta.last_log_id));
        fs::rename(temporary, &path)?;
        crash_point("snapshot-renamed");
        File::open(&self.shared.path)?.sync_all()?;
        let snapshot = SnapshotFile::open(&path)?;
        let mut kept = self.kept();
        kept.retain(|old| old.path() != path);
        kept.push(snapshot.clone());
        // One that was built may be done only after a later one was installed; it is not the newest then.
        kept.sort_by_key(|kept| kept.meta().last_log_id);
        let superfluous = kept.len().saturating_sub(KEPT);
        for old in kept.drain(..superfluous) {
            fs::remove_file(old.path())?;
        }
        Ok(snapshot)
    }

    fn temporary_path(&self) -> PathBuf {
        let number = self.shared.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.shared.path.join(format!("{number}.{TEMPORARY_SUFFIX}"))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<SnapshotFile>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads the last of `paths` that is good. The one before it is kept if its header reads: its content is checked when it is needed.
fn load_newest(directory: &Path, paths: &[PathBuf]) -> Result<Loaded, AllDamaged> {
    let mut reasons = Vec::new();
    let mut newest: Option<(SnapshotFile, State)> = None;
    let mut kept = Vec::new();
    for path in paths.iter().rev() {
        if kept.len() == KEPT {
            break;
        }
        let loaded = SnapshotFile::open(path).and_then(|file| {
            if newest.is_none() {
                newest = Some((file.clone(), file.load()?));
            }
            Ok(file)
        });
        match loaded {
            Ok(file) => kept.insert(0, file),
            Err(error) => {
                warn!(path = %path.display(), %error, "snapshot damaged, trying the one before it");
                reasons.push(format!("{}: {error}", path.display()));
            }
        }
    }
    if newest.is_none() && !reasons.is_empty() {
        return Err(AllDamaged { reasons });
    }
    let shared = Shared { path: directory.to_path_buf(), kept: Mutex::new(kept), next_temporary: AtomicU64::new(0) };
    Ok(Loaded { directory: SnapshotDirectory { shared: Arc::new(shared) }, newest })
}
