//! Files that are torn between kill and start, and a disk that comes back empty.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;

use super::START_PATIENCE;
use super::act::{Act, Trouble};
use super::processes::victims;
use crate::cluster::shell::run;
use crate::cluster::wait_for;

/// A node that refuses its data does so before this; one that goes on has answered.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(20);
const TORN_BYTES_MAX: u64 = 4096;

/// Kills a node, damages one of its files, and starts it. It may refuse, and then gets back what it had; or go on, and then must be right.
pub(super) async fn tear(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("");
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    let node = cluster.node(id);
    act.kill(id).await?;
    let kept = keep(&node.data()).await?;
    let damage = damage(&node.data(), &mut act.rng)?;
    act.took_effect(damage);
    act.hold().await;
    act.heal();
    cluster.start(id).await?;
    let outcome = if refuses(act, id).await? {
        restore(&kept, &node.data()).await?;
        act.start(id).await?;
        "the node refused to start, and got its files back"
    } else {
        discard(&kept)?;
        "the node started"
    };
    act.healed(outcome);
    Ok(())
}

/// Kills a node, empties its data directory, and starts it under its old id: it must refuse. Then it gets its data back.
pub(super) async fn wipe(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("");
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    let node = cluster.node(id);
    act.kill(id).await?;
    let kept = keep(&node.data()).await?;
    fs::remove_dir_all(node.data()).context("remove the data directory")?;
    act.took_effect("the data directory is gone");
    act.heal();
    cluster.start(id).await?;
    let refused = refuses(act, id).await?;
    // A node that cannot know yet whether it was a member may wait; what it must not do is take part.
    let took_part = !refused && cluster.get(id, "/readyz/control").await.is_some();
    if !refused {
        act.kill(id).await?;
    }
    let _ = fs::remove_dir_all(node.data());
    restore(&kept, &node.data()).await?;
    act.start(id).await?;
    if took_part {
        return Err(Trouble::Product(format!("node {id} took part under its old id although its data was gone")));
    }
    if !refused {
        return Err(Trouble::Product(format!(
            "node {id} neither refused its empty directory within {REFUSAL_PATIENCE:?} nor took part"
        )));
    }
    act.healed("the node refused to start, and got its files back");
    Ok(())
}

/// Whether a node that was just started ends with an error. False once it is ready.
async fn refuses(act: &Act<'_>, id: u32) -> Result<bool, Trouble> {
    let cluster = act.cluster();
    let seen = wait_for(REFUSAL_PATIENCE, || async {
        if !cluster.node(id).runs().await {
            return Some(true);
        }
        cluster.get(id, "/readyz/control").await.map(|_| false)
    });
    match seen.await {
        Some(true) => match cluster.node(id).wait(START_PATIENCE).await? {
            Some(0) => Err(Trouble::Product(format!("node {id} ended with status 0 instead of an error"))),
            _ => Ok(true),
        },
        _ => Ok(false),
    }
}

fn copy_of(data: &Path) -> PathBuf {
    data.with_extension("kept")
}

async fn keep(data: &Path) -> anyhow::Result<PathBuf> {
    let kept = copy_of(data);
    run("cp", &[Path::new("-a"), data, &kept]).await?;
    Ok(kept)
}

async fn restore(kept: &Path, data: &Path) -> anyhow::Result<()> {
    if data.exists() {
        fs::remove_dir_all(data)?;
    }
    run("mv", &[kept, data]).await?;
    run("sync", &["-f".as_ref(), data]).await.map(drop)
}

fn discard(kept: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(kept).context("remove the copy of the data directory")
}

/// Damages one file that is not empty; says which and how.
fn damage(data: &Path, rng: &mut Rng) -> anyhow::Result<String> {
    let mut files = files(data)?;
    // It is written for people, and never read again.
    files.retain(|path| path.file_name().is_none_or(|name| name != "addresses.json"));
    files.sort();
    let path = rng.choice(files).context("a data directory without files")?;
    let length = fs::metadata(&path)?.len();
    let file = File::options().read(true).write(true).open(&path)?;
    let name = path.strip_prefix(data).unwrap_or(&path).display().to_string();
    let told = match rng.u32(..3) {
        0 => {
            let lost = rng.u64(1..=length.min(TORN_BYTES_MAX));
            file.set_len(length - lost)?;
            format!("{name}: the last {lost} of {length} bytes cut off")
        }
        1 => {
            let at = rng.u64(..length);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << rng.u32(..8);
            file.write_all_at(&byte, at)?;
            format!("{name}: one bit of byte {at} of {length} flipped")
        }
        _ => {
            let torn = length.min(512);
            file.write_all_at(&vec![0; usize::try_from(torn)?], length - torn)?;
            format!("{name}: the last {torn} of {length} bytes zeroed")
        }
    };
    file.sync_all()?;
    Ok(told)
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() && entry.metadata()?.len() > 0 {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_file_is_damaged_and_a_seed_says_which() {
        let before = b"0123456789".repeat(100);
        let mut told = Vec::new();
        for seed in 0..12 {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("log")).unwrap();
            for name in ["a", "log/b"] {
                fs::write(directory.path().join(name), &before).unwrap();
            }
            fs::write(directory.path().join("empty"), b"").unwrap();
            told.push(damage(directory.path(), &mut Rng::with_seed(seed % 6)).unwrap());
            let changed = ["a", "log/b"].iter().filter(|name| fs::read(directory.path().join(name)).unwrap() != before).count();
            assert_eq!(changed, 1, "{}", told[told.len() - 1]);
        }
        assert_eq!(told[..6], told[6..]);
        assert!(told[..6].iter().any(|text| text != &told[0]));
    }
}
