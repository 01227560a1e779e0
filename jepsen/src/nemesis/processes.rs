//! Processes that are killed, stopped, and restarted in order.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::act::{Act, READY_PATIENCE, Trouble};
use super::kind::Fault;
use crate::cluster::wait_for;
use crate::down::Down;

/// How long a graceful stop may take: the gateway drains for 30 s at most.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// How long a kill waits for a write to be in flight.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// The kernel stops a process at once, but its state is read from outside.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);

/// Whom a fault of processes meets.
pub(super) async fn victims(act: &mut Act<'_>) -> Result<Vec<u32>, Trouble> {
    Ok(match act.planned.fault {
        Fault::KillLeader | Fault::RestartLeader | Fault::PauseLeader => vec![act.leader().await?],
        Fault::KillFollower | Fault::PauseFollower => {
            let leader = act.leader().await?;
            act.shuffled(Some(leader)).into_iter().take(1).collect()
        }
        Fault::KillMajority | Fault::PauseMajority | Fault::PowerCutMajority => act.majority(),
        Fault::KillAll | Fault::PowerCutAll => act.cluster().members(),
        _ => act.shuffled(None).into_iter().take(1).collect(),
    })
}

/// kill -9, and a start after a while.
pub(super) async fn kill(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("SIGKILL");
    let cluster = act.cluster();
    for &id in &act.nodes {
        act.signal(id, Signal::KILL).await?;
    }
    for &id in &act.nodes {
        cluster.node(id).wait(STOP_PATIENCE).await?;
        refuses_connections(act, id).await?;
    }
    act.took_effect("processes gone, connections refused");
    act.hold().await;
    act.heal();
    restart(act).await?;
    act.healed("");
    Ok(())
}

/// Starts all nodes of the act at once.
pub(super) async fn restart(act: &Act<'_>) -> Result<(), Trouble> {
    for &id in &act.nodes {
        act.cluster().start(id).await?;
    }
    for &id in &act.nodes {
        act.wait_alive(id).await?;
    }
    Ok(())
}

/// kill -9 and a start at once, while writes are in flight: the node is back before the others have noticed.
pub(super) async fn restart_leader(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("SIGKILL while writes are in flight, and a start at once");
    let (cluster, id, recorder) = (act.cluster(), act.nodes[0], &act.stage.scene.recorder);
    let in_flight = wait_for(WRITE_PATIENCE, || async { Some(recorder.writes_in_flight()).filter(|&writes| writes > 0) }).await;
    let in_flight = in_flight.ok_or_else(|| Trouble::Missed("no write was in flight".to_owned()))?;
    act.kill(id).await?;
    let gone = Instant::now();
    cluster.start(id).await?;
    act.wait_alive(id).await?;
    act.took_effect(format!("{in_flight} writes in flight; it answered again after {} ms", gone.elapsed().as_millis()));
    act.heal();
    act.healed("");
    act.hold().await;
    Ok(())
}

async fn refuses_connections(act: &Act<'_>, id: u32) -> Result<(), Trouble> {
    let address = act.cluster().node(id).admin;
    match timeout(SIGNAL_PATIENCE, TcpStream::connect(address)).await {
        Ok(Err(_)) => Ok(()),
        _ => Err(Trouble::Missed(format!("somebody still listens for node {id} at {address}"))),
    }
}

/// SIGSTOP, and SIGCONT after a while.
pub(super) async fn pause(act: &mut Act<'_>) -> Result<(), Trouble> {
    let victims = victims(act).await?;
    act.claim(victims)?;
    act.begin("SIGSTOP");
    let cluster = act.cluster();
    for &id in &act.nodes {
        act.signal(id, Signal::STOP).await?;
    }
    let stopped = wait_for(SIGNAL_PATIENCE, || async {
        for &id in &act.nodes {
            if !cluster.node(id).is_stopped().await {
                return None;
            }
        }
        Some(())
    });
    let stopped = stopped.await;
    if stopped.is_some() {
        act.took_effect("processes stopped");
        act.hold().await;
        act.heal();
    }
    for &id in &act.nodes {
        cluster.node(id).signal(Signal::CONT).await?;
    }
    if stopped.is_none() {
        return Err(Trouble::Missed("the processes did not stop".to_owned()));
    }
    act.healed("");
    Ok(())
}

/// SIGTERM, wait, start, wait until ready: one node after the other.
pub(super) async fn rolling_restart(act: &mut Act<'_>) -> Result<(), Trouble> {
    let order = act.shuffled(None);
    act.claim(order)?;
    act.begin("SIGTERM, one by one");
    let told = restart_one_by_one(act, &act.cluster().settings.binary).await?;
    act.took_effect(told);
    act.heal();
    act.healed("");
    Ok(())
}

/// The same with another program, and later back.
pub(super) async fn rolling_upgrade(act: &mut Act<'_>) -> Result<(), Trouble> {
    let settings = &act.cluster().settings;
    let other = settings.other_binary.as_deref().ok_or_else(|| Trouble::NotInjectable("there is no other build".to_owned()))?;
    let order = act.shuffled(None);
    act.claim(order)?;
    act.begin("SIGTERM, one by one, and another build");
    let told = restart_one_by_one(act, other).await?;
    one_table(act).await?;
    act.took_effect(told);
    act.hold().await;
    act.heal();
    let told = restart_one_by_one(act, &settings.binary).await?;
    one_table(act).await?;
    act.healed(told);
    Ok(())
}

/// All members serve one table of one digest.
async fn one_table(act: &Act<'_>) -> Result<(), Trouble> {
    // Under writes their revisions differ at most looks, and agree at some.
    act.cluster().wait_recovered(READY_PATIENCE).await.map_err(Trouble::Product)
}

/// Restarts each node of the act as this program. Gives when each was down.
async fn restart_one_by_one(act: &Act<'_>, program: &Path) -> Result<String, Trouble> {
    let cluster = act.cluster();
    let recorder = &act.stage.scene.recorder;
    let now = || u64::try_from(recorder.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut told = Vec::new();
    for id in act.nodes.clone() {
        let (began, begin) = (Instant::now(), now());
        act.signal(id, Signal::TERM).await?;
        let code = cluster.node(id).wait(STOP_PATIENCE).await;
        let stopped = began.elapsed();
        match code {
            Ok(Some(0)) => {}
            Ok(code) => return Err(Trouble::Product(format!("node {id} ended with {code:?} after SIGTERM"))),
            Err(error) => {
                act.kill(id).await?;
                act.start(id).await?;
                return Err(Trouble::Product(format!("SIGTERM: {error:#}")));
            }
        }
        cluster.start_program(id, program, &[]).await?;
        act.wait_alive(id).await?;
        if let Some(running) = cluster.node(id).program().await
            && running != program
        {
            return Err(Trouble::Missed(format!("node {id} runs {}", running.display())));
        }
        let ready = wait_for(READY_PATIENCE, || cluster.get(id, "/readyz/control")).await;
        if ready.is_none() {
            return Err(Trouble::Product(format!("node {id} was not ready within {READY_PATIENCE:?} of its restart")));
        }
        told.push(format!("{}, stopped after {} ms", Down { node: id, begin, end: now() }, stopped.as_millis()));
        act.hold_for(act.planned.length / 3).await;
    }
    Ok(told.join("; "))
}
