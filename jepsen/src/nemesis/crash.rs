//! Crash points: a node that ends itself in the middle of something, as a crash there would.
//!
//! The program must be built with the feature `crash-points`. A node is restarted with one point armed, is brought to where it passes it,
//! ends there, and is started again without. The points come in turn, so that a test of some minutes has them all.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::act::{Act, DEATH_PATIENCE, Trouble};
use super::splits::{fill_log, isolate, without};
use crate::cluster::{Cluster, wait_for};

/// How long a point may take to be passed.
const PATIENCE: Duration = Duration::from_secs(8);
/// One that is passed often ends the node at one of so many passings.
const PASSINGS: u32 = 20;
/// A leader that is cut off takes writes that will be truncated for so long.
const CUT_OFF: Duration = Duration::from_millis(1_200);
const SETTLED: Duration = Duration::from_millis(500);
const LOST_TRIES: u32 = 3;
const LOST_WRITES: u32 = 10;
const LOST_WRITE: Duration = Duration::from_millis(30);
/// What a program without crash points does not say when it starts.
const BUILT: &str = "built with crash points";

/// What makes a node pass a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Whatever the clients do.
    Work,
    /// A change of the leader.
    Vote,
    /// A log that grows until a snapshot is due.
    Grow,
    /// A snapshot of another node.
    Install,
    /// Writes of a leader that is cut off.
    Truncate,
    /// A change of the members.
    Members,
}

const POINTS: [(&str, Way); 23] = [
    ("vote-begun", Way::Vote),
    ("append-queued", Way::Work),
    ("snapshot-written", Way::Grow),
    ("append-applied", Way::Work),
    ("install-begun", Way::Install),
    ("append-synced", Way::Work),
    ("truncate-marked", Way::Truncate),
    ("append-marked", Way::Work),
    ("vote-once", Way::Vote),
    ("committed-queued", Way::Work),
    ("purge-noted", Way::Grow),
    ("apply-begun", Way::Work),
    ("install-kept", Way::Install),
    ("apply-published", Way::Work),
    ("truncate-half", Way::Truncate),
    ("table-built", Way::Work),
    ("snapshot-renamed", Way::Grow),
    ("table-published", Way::Work),
    ("vote-synced", Way::Vote),
    ("forward-begun", Way::Work),
    ("purge-half", Way::Grow),
    ("forward-answered", Way::Work),
    ("members-joint", Way::Members),
];

/// Why a program has no crash points: one that has them holds what it says when it starts.
pub(super) fn refusal(program: &Path) -> Option<String> {
    // One that cannot be read is another error, of its start.
    let bytes = std::fs::read(program).ok()?;
    let holds = bytes.windows(BUILT.len()).any(|window| window == BUILT.as_bytes());
    (!holds).then(|| {
        let program = program.display();
        format!(
            "{program} was built without crash points: cargo build --release --features crash-points --target-dir \
             target/crash-points, and --binary target/crash-points/release/raftgate"
        )
    })
}

/// Restarts a node with the next point armed, waits until it ends there, and starts it again.
pub(super) async fn crash(act: &mut Act<'_>) -> Result<(), Trouble> {
    let leader = act.leader().await?;
    let victim = act.shuffled(Some(leader))[0];
    act.claim(vec![victim])?;
    let (point, way) = POINTS[act.stage.next_crash() % POINTS.len()];
    act.begin(point);
    if way == Way::Install {
        fall_behind(act, victim).await?;
    }
    act.kill(victim).await?;
    let later = if way == Way::Work { act.rng.u32(..PASSINGS) } else { 0 };
    let action = if later == 0 { "return".to_owned() } else { format!("{later}*off->return") };
    let cluster = act.cluster();
    let heard = cluster.node(victim).log_bytes();
    cluster.start_armed(victim, &format!("{point}={action}")).await?;
    let passed = pass(act, victim, way).await;
    let ended = wait_for(PATIENCE, || async { (!cluster.node(victim).runs().await).then_some(()) }).await.is_some();
    let said = cluster.node(victim).log_after(heard);
    if ended {
        cluster.node(victim).wait(DEATH_PATIENCE).await?;
    } else {
        act.kill(victim).await?;
    }
    let at_point = said.contains(&format!("crash point {point}"));
    if at_point {
        act.took_effect(format!("ended at {point}, passed {later} times before"));
        act.hold().await;
        act.heal();
    }
    let words = cluster.node(victim).last_words();
    act.start(victim).await?;
    if !said.contains(BUILT) {
        return Err(Trouble::NotInjectable("this program was built without crash points".to_owned()));
    }
    if ended && !at_point {
        return Err(Trouble::Ended(format!("node {victim} ended by itself, not at {point}: {words}")));
    }
    passed?;
    if !at_point {
        return Err(Trouble::Missed(format!("{point} was not passed within {PATIENCE:?}")));
    }
    act.healed("");
    Ok(())
}

/// Brings the node to its point. What does not work is a point that is not passed.
async fn pass(act: &mut Act<'_>, victim: u32, way: Way) -> Result<(), Trouble> {
    let cluster = act.cluster();
    let up = wait_for(PATIENCE, || async {
        let answers = cluster.get(victim, "/readyz/control").await.is_some();
        (answers || !cluster.node(victim).runs().await).then_some(())
    });
    up.await.ok_or_else(|| Trouble::Missed(format!("node {victim} was not ready within {PATIENCE:?}")))?;
    match way {
        Way::Work | Way::Install => Ok(()),
        Way::Vote => {
            let others = act.shuffled(Some(victim));
            lead(act, others[0]).await?;
            lead(act, others[1]).await
        }
        Way::Grow => {
            let others = without(&act.cluster().members(), &[victim]);
            for round in 0.. {
                if act.stage.is_over() || !act.cluster().node(victim).runs().await || round == 3 {
                    break;
                }
                // The log that the node has now is purged, by itself too.
                fill_log(act.cluster(), victim, &others).await?;
            }
            Ok(())
        }
        Way::Truncate => {
            for _ in 0..LOST_TRIES {
                lead(act, victim).await?;
                // A leader that has just come to it has no quorum that it knows of, and takes nothing.
                act.hold_for(SETTLED).await;
                // Writes on both sides of the cut: some stand in the node's log and nowhere else.
                let (token, ()) = tokio::join!(isolate(cluster, victim), write_in_vain(cluster, victim));
                act.hold_for(CUT_OFF).await;
                cluster.network.restore(token?).await?;
                if wait_for(SETTLED, || async { (!cluster.node(victim).runs().await).then_some(()) }).await.is_some() {
                    break;
                }
            }
            Ok(())
        }
        Way::Members => {
            let target = act.shuffled(Some(victim))[0];
            lead(act, target).await?;
            for change in ["demote", "promote"] {
                let other = act.shuffled(Some(target)).into_iter().find(|&id| id != victim).unwrap_or(victim);
                let path = format!("/v1/cluster/members/{other}/{change}");
                // The node that ends may be the one that would have answered.
                let _ = act.cluster().call(target, Method::POST, &path, &json!({})).await;
            }
            Ok(())
        }
    }
}

async fn write_in_vain(cluster: &Cluster, id: u32) {
    let nothing = json!({"endpoints": []});
    for number in 0..LOST_WRITES {
        let path = format!("/v1/services/of-a-lost-leader-{number}");
        let _ = tokio::time::timeout(LOST_WRITE, cluster.call(id, Method::PUT, &path, &nothing)).await;
    }
}

/// Makes a node lead, if it does not yet.
async fn lead(act: &Act<'_>, id: u32) -> Result<(), Trouble> {
    let cluster = act.cluster();
    let led = wait_for(PATIENCE, || async {
        let leader = cluster.leader().await?;
        if leader == id {
            return Some(());
        }
        let _ = cluster.call(leader, Method::POST, "/v1/cluster/leader", &json!({"id": id})).await;
        // A node that has ended at its point leads nobody.
        (!cluster.node(id).runs().await).then_some(())
    });
    led.await.ok_or_else(|| Trouble::Missed(format!("node {id} did not lead within {PATIENCE:?}")))
}

/// Cuts the node off until the others have purged what it lacks.
async fn fall_behind(act: &Act<'_>, victim: u32) -> Result<(), Trouble> {
    let cluster = act.cluster();
    let others = without(&cluster.members(), &[victim]);
    let token = isolate(cluster, victim).await?;
    let purged = fill_log(cluster, victim, &others).await;
    cluster.network.restore(token).await?;
    purged.map(drop)
}
