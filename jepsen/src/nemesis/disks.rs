//! Disks that lose their power, are full, stuck, or slow.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::act::{Act, DEATH_PATIENCE, Trouble};
use super::processes::{restart, victims};
use crate::cluster::{Switch, Throttle, wait_for};

/// All disks lose their power within this, or it was not one cut.
const SPREAD_MAX: Duration = Duration::from_millis(50);
/// How long a cut waits for a write to be in flight.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
const SLOW_WRITES_A_SECOND: (u32, u32) = (5, 40);

/// How often a cut is tried whose disks lost their power too far apart.
const TRIES: u32 = 3;

/// Cuts the power of one, a majority or all at once, while writes are in flight. Where the machine let the cuts come one after the other, the
/// history tells that as a fault that did not happen, and it is tried again.
pub(super) async fn power_cut(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    for _ in 1..TRIES {
        match cut_and_restart(act).await? {
            None => return Ok(()),
            Some(apart) if act.stage.is_over() => return Err(Trouble::Missed(apart)),
            Some(apart) => act.missed(&apart),
        }
    }
    cut_and_restart(act).await?.map_or(Ok(()), |apart| Err(Trouble::Missed(apart)))
}

/// One try, after which all nodes run again. Gives why it was not one cut, where it was not.
async fn cut_and_restart(act: &mut Act<'_>) -> Result<Option<String>, Trouble> {
    act.begin("EXT4_IOC_SHUTDOWN without a flush of the journal");
    let (cluster, recorder) = (act.cluster(), &act.stage.scene.recorder);
    let mut switches = Vec::new();
    for &id in &act.nodes {
        switches.push(cluster.node(id).disk.switch()?);
    }
    let in_flight = wait_for(WRITE_PATIENCE, || async { Some(recorder.writes_in_flight()).filter(|&writes| writes > 0) }).await;
    let in_flight = in_flight.ok_or_else(|| Trouble::Missed("no write was in flight".to_owned()))?;
    let spread = spread(&cut_all(switches)?);
    for &id in &act.nodes {
        act.signal(id, Signal::KILL).await?;
    }
    let mut alive = Vec::new();
    for &id in &act.nodes {
        cluster.node(id).wait(DEATH_PATIENCE).await?;
        if !cluster.node(id).disk.is_dead() {
            alive.push(id);
        }
    }
    let apart = apart(act.nodes.len(), spread);
    if alive.is_empty() && apart.is_none() {
        act.took_effect(format!("spread {} us, {in_flight} writes in flight; disks dead, processes gone", spread.as_micros()));
        act.hold().await;
        act.heal();
    }
    for &id in &act.nodes {
        cluster.node(id).disk.unmount().await?;
        cluster.node(id).disk.mount().await?;
    }
    restart(act).await?;
    if !alive.is_empty() {
        return Err(Trouble::Missed(format!("the disks of nodes {alive:?} still take writes")));
    }
    if apart.is_none() {
        act.healed("");
    }
    Ok(apart)
}

/// When a disk lost its power: not before the one, and not after the other.
type Cut = (Instant, Instant);

/// Cuts all at once, each from a thread of its own, for a cut waits for what its disk is doing.
fn cut_all(switches: Vec<Switch>) -> anyhow::Result<Vec<Cut>> {
    let gate = std::sync::Barrier::new(switches.len());
    std::thread::scope(|scope| {
        let cut = |switch: Switch| {
            gate.wait();
            let begin = Instant::now();
            switch.cut().map(|()| (begin, Instant::now()))
        };
        let threads: Vec<_> = switches.into_iter().map(|switch| scope.spawn(move || cut(switch))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<Cut>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that cuts the power panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

/// The longest time that may have passed between two of the cuts, by the threads that made them: whoever waits for them may itself be late.
fn spread(cuts: &[Cut]) -> Duration {
    let (first, last) = (cuts.iter().map(|(begin, _)| *begin).min(), cuts.iter().map(|(_, end)| *end).max());
    first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first)
}

/// Why these cuts were not one of several nodes, where they were not.
fn apart(nodes: usize, spread: Duration) -> Option<String> {
    (nodes > 1 && spread > SPREAD_MAX)
        .then(|| format!("the cuts were {} ms apart, more than {} ms", spread.as_millis(), SPREAD_MAX.as_millis()))
}

/// Fills a disk; later frees it and restarts the node.
pub(super) async fn fill(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("");
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    let disk = &cluster.node(id).disk;
    let filled = disk.fill().await;
    if filled.is_ok() {
        act.took_effect("the disk takes no further block");
        act.hold().await;
        act.heal();
    }
    let failed = cluster.get(id, "/v1/cluster").await.map(|status| !status["storageFailed"].is_null());
    disk.empty()?;
    filled?;
    // Its storage has failed for as long as the process lives.
    act.kill(id).await?;
    act.start(id).await?;
    act.healed(format!("freed and restarted; the node had said that its storage failed: {failed:?}"));
    Ok(())
}

/// Freezes a disk: writes wait, without an error.
pub(super) async fn freeze(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("fsfreeze");
    let disk = &act.cluster().node(act.nodes[0]).disk;
    let frozen = disk.freeze().await;
    let is_frozen = disk.is_frozen().await;
    if is_frozen {
        act.took_effect("the file system is frozen");
        act.hold().await;
        act.heal();
    }
    disk.thaw().await?;
    frozen?;
    if !is_frozen {
        return Err(Trouble::Missed("the file system was not frozen".to_owned()));
    }
    act.healed("");
    Ok(())
}

/// Lets a node write a few times a second only.
pub(super) async fn slow(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    let rate = act.rng.u32(SLOW_WRITES_A_SECOND.0..=SLOW_WRITES_A_SECOND.1);
    act.begin(format!("{rate} writes a second"));
    let throttle = Throttle::limit(act.cluster().node(act.nodes[0]), rate).await?;
    let served = wait_for(WRITE_PATIENCE, || async { Some(throttle.served()).filter(|&served| served > 0) }).await;
    if served.is_none() {
        return Err(Trouble::Missed("no write came to the limit".to_owned()));
    }
    act.took_effect(format!("{rate} writes a second"));
    act.hold().await;
    act.heal();
    let served = throttle.served();
    drop(throttle);
    act.healed(format!("{served} writes went through the limit"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_that_are_too_far_apart_are_not_one() {
        let start = Instant::now();
        let cut = |begin, end| (start + Duration::from_millis(begin), start + Duration::from_millis(end));
        for (cuts, apart_ms) in [
            (vec![cut(0, 3), cut(1, 50), cut(2, 9)], None),
            (vec![cut(0, 3), cut(48, 51)], Some(51)),
            // Its thread was late, whenever the others were done.
            (vec![cut(70, 75), cut(0, 1), cut(0, 1)], Some(75)),
            // One alone is a cut however long it takes.
            (vec![cut(0, 400)], None),
        ] {
            let told = apart_ms.map(|ms: u64| format!("the cuts were {ms} ms apart, more than 50 ms"));
            assert_eq!(apart(cuts.len(), spread(&cuts)), told);
        }
    }
}
