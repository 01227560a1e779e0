//! The directory of a demo, among the system's temporary files.
//!
//! A demo holds a lock (flock) on its directory for as long as its process lives, however that ends; a process id would say less, for the
//! system gives it to others again. A directory whose lock is free was left by a demo that could not tidy up, and the next one removes it.
//! The directory gets its name only once it is locked, so that no other demo finds it in between.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use uuid::Uuid;

/// What the names of directories begin with.
const PREFIX: &str = "raftgate-demo-";

/// A locked directory that is removed with what is in it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes one in `parent`, after it removed those that demos of this user left there.
    pub(super) fn make(parent: &Path) -> io::Result<Directory> {
        sweep(parent)?;
        let id = Uuid::new_v4();
        let unnamed = parent.join(format!(".{PREFIX}{id}"));
        fs::create_dir(&unnamed)?;
        let lock = open(&unnamed)?;
        lock.lock()?;
        let path = parent.join(format!("{PREFIX}{id}"));
        fs::rename(&unnamed, &path)?;
        Ok(Directory { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nobody could do anything about it; the next demo tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories in `parent` whose demos are gone. What cannot be opened, locked or removed stays.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(directory) = open(&entry.path()) else { continue };
        let is_own = directory.metadata().is_ok_and(|metadata| metadata.uid() == geteuid().as_raw());
        if is_own && directory.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Opens a directory; a link to one is refused.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Directory::make(parent.path()).unwrap();
        // A killed process keeps its files and loses its locks.
        let killed = parent.path().join("raftgate-demo-killed");
        let (linked, foreign) = (parent.path().join("linked"), parent.path().join("raftgate"));
        for path in [&killed, &linked, &foreign] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("node1.toml"), "").unwrap();
        }
        let link = parent.path().join("raftgate-demo-link");
        symlink(&linked, &link).unwrap();
        let file = parent.path().join("raftgate-demo-file");
        fs::write(&file, "").unwrap();

        let next = Directory::make(parent.path()).unwrap();
        assert!(!killed.exists());
        for path in [alive.path(), next.path(), &link, &linked.join("node1.toml"), &foreign.join("node1.toml"), &file] {
            assert!(path.exists(), "{path:?}");
        }
        let gone = [alive.path().to_owned(), next.path().to_owned()];
        drop((alive, next));
        assert!(gone.iter().all(|path| !path.exists()));
    }
}
