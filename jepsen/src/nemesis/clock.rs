//! A clock of the day that jumps, by libfaketime: the node reads its offset from a file.

use std::time::Duration;

use anyhow::Context as _;

use super::act::{Act, Trouble};
use super::processes::victims;
use crate::cluster::{Cluster, wait_for};

const JUMP_SECONDS: (i64, i64) = (60, 3600);
/// While there are writes, a table is not older than this.
const TOLERANCE_SECONDS: i64 = 5;
const PATIENCE: Duration = Duration::from_secs(5);

/// Forward or back by up to an hour; later true again.
pub(super) async fn jump(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    let seconds = act.rng.i64(JUMP_SECONDS.0..=JUMP_SECONDS.1) * if act.rng.bool() { 1 } else { -1 };
    act.begin(format!("{seconds:+} s"));
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    set(cluster, id, seconds)?;
    let seen = shows(cluster, id, seconds).await;
    if seen {
        act.took_effect(format!("the node dates its tables {seconds:+} s"));
        act.hold().await;
        act.heal();
    }
    set(cluster, id, 0)?;
    if !seen {
        return Err(Trouble::Missed("the node's tables have the true date".to_owned()));
    }
    if !shows(cluster, id, 0).await {
        return Err(Trouble::Missed("the node's tables have a false date still".to_owned()));
    }
    act.healed("");
    Ok(())
}

fn set(cluster: &Cluster, id: u32, seconds: i64) -> anyhow::Result<()> {
    let directory = &cluster.node(id).directory;
    // In one step: a half-written file would be another jump.
    let new = directory.join("clock.new");
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    std::fs::rename(new, directory.join("clock")).context("set the clock's file")
}

/// Whether the node comes to date its tables so much off.
async fn shows(cluster: &Cluster, id: u32, seconds: i64) -> bool {
    let near = |offset: i64| (offset - seconds).abs() <= TOLERANCE_SECONDS;
    wait_for(PATIENCE, || async { cluster.clock_offset(id).await.filter(|&offset| near(offset)) }).await.is_some()
}
