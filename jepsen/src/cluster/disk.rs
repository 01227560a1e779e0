//! A node's disk: an ext4 image of its own, so that its power can be cut, it can be filled, frozen and made slow; or a plain directory
//! where the machine does not allow that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::power::Switch;
use super::shell::run;

/// The images are sparse; a node of these tests uses a small part of it.
const IMAGE_BYTES: u64 = 512 * 1024 * 1024;
/// The file that fills a disk.
const FILLER: &str = "filler";

/// Where a node's data stands.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    image: Option<PathBuf>,
    mounted: AtomicBool,
    frozen: AtomicBool,
}

impl Disk {
    /// A directory without powers.
    pub(crate) fn plain(directory: PathBuf) -> anyhow::Result<Disk> {
        std::fs::create_dir_all(&directory)?;
        Ok(Disk { directory, image: None, mounted: AtomicBool::new(false), frozen: AtomicBool::new(false) })
    }

    /// A new file system in `image`, mounted at `directory`.
    pub(crate) async fn format(image: PathBuf, directory: PathBuf) -> anyhow::Result<Disk> {
        std::fs::create_dir_all(&directory)?;
        let file = std::fs::File::create(&image).with_context(|| format!("create {}", image.display()))?;
        file.set_len(IMAGE_BYTES)?;
        // No blocks are kept back for root, so that a full disk is full for the node too.
        let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let mut arguments: Vec<&str> = options.to_vec();
        let text = image.to_string_lossy().into_owned();
        arguments.push(&text);
        run("mkfs.ext4", &arguments).await?;
        let disk = Disk { directory, image: Some(image), mounted: AtomicBool::new(false), frozen: AtomicBool::new(false) };
        disk.mount().await?;
        Ok(disk)
    }

    /// Whether it has an image of its own.
    pub(crate) fn is_image(&self) -> bool {
        self.image.is_some()
    }

    /// Where it is mounted.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mounts the image; ext4 replays its journal here.
    pub(crate) async fn mount(&self) -> anyhow::Result<()> {
        if let Some(image) = &self.image {
            let directory = self.directory.to_string_lossy().into_owned();
            run("mount", &["-o", "loop", &image.to_string_lossy(), &directory]).await?;
            self.mounted.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Unmounts it; nobody may use it any more.
    pub(crate) async fn unmount(&self) -> anyhow::Result<()> {
        if self.is_image() {
            run("umount", &[&self.directory]).await?;
            self.mounted.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// What cuts its power.
    pub(crate) fn switch(&self) -> anyhow::Result<Switch> {
        Switch::open(&self.directory)
    }

    /// Whether nothing can be written, as after a power cut.
    pub(crate) fn is_dead(&self) -> bool {
        std::fs::write(self.directory.join("probe"), b"probe").is_err()
    }

    /// Fills it to the last block, and makes sure that nothing can be added.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        let path = self.directory.join(FILLER);
        let free = run("stat", &["-f", "-c", "%a %S", &self.directory.to_string_lossy()]).await?;
        let numbers: Vec<u64> = free.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let bytes = numbers.iter().product::<u64>();
        // In steps, for the tree of the file's extents takes blocks too.
        for part in [bytes * 9 / 10, bytes / 20, bytes / 50, bytes / 100] {
            let _ =
                run("fallocate", &["-o", &size_of(&path).to_string(), "-l", &part.max(1).to_string(), &path.to_string_lossy()])
                    .await;
        }
        let full = tokio::task::spawn_blocking(move || fill_up(&path)).await?;
        anyhow::ensure!(full?, "the disk takes more although it was filled");
        Ok(())
    }

    /// Removes what filled it.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.directory.join(FILLER)).context("remove the file that fills the disk")
    }

    /// Stops every write until [`Disk::thaw`].
    pub(crate) async fn freeze(&self) -> anyhow::Result<()> {
        self.frozen.store(true, Ordering::SeqCst);
        run("fsfreeze", &["-f", &self.directory.to_string_lossy()]).await.map(drop)
    }

    /// Whether it is frozen: a second freeze is refused.
    pub(crate) async fn is_frozen(&self) -> bool {
        run("fsfreeze", &["-f", &self.directory.to_string_lossy()])
            .await
            .is_err_and(|error| format!("{error:#}").contains("busy"))
    }

    /// Lets writes go on.
    pub(crate) async fn thaw(&self) -> anyhow::Result<()> {
        run("fsfreeze", &["-u", &self.directory.to_string_lossy()]).await?;
        self.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Takes back what a fault that was given up has left: frozen, or full.
    pub(crate) async fn mend(&self) -> anyhow::Result<()> {
        if self.frozen.load(Ordering::SeqCst) {
            self.thaw().await?;
        }
        if self.directory.join(FILLER).exists() { self.empty() } else { Ok(()) }
    }

    /// The device's numbers, as the block layer's controls take them: `7:3`.
    pub(crate) async fn device(&self) -> anyhow::Result<String> {
        let source = run("findmnt", &["-n", "-o", "MAJ:MIN", "--target", &self.directory.to_string_lossy()]).await?;
        Ok(source.trim().to_owned())
    }
}

impl Drop for Disk {
    /// A frozen file system outlives its mount: whatever happened, it is thawed, and unmounted when its last user is gone.
    fn drop(&mut self) {
        if self.frozen.load(Ordering::SeqCst) {
            let _ = Command::new("fsfreeze").arg("-u").arg(&self.directory).status();
        }
        if self.mounted.load(Ordering::SeqCst) {
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
    }
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Appends until the disk refuses; true once it does.
fn fill_up(path: &Path) -> std::io::Result<bool> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).create(true).open(path)?;
    // Far more than the steps before left over.
    for _ in 0..64 * 1024 {
        if let Err(error) = file.write_all(&[0u8; 4096]).and_then(|()| file.sync_data()) {
            return Ok(error.kind() == std::io::ErrorKind::StorageFull);
        }
    }
    Ok(false)
}
