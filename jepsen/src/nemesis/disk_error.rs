//! A disk on which every write and sync fails, below a process that goes on.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::act::{Act, Trouble};
use super::processes::{restart, victims};
use crate::cluster::{Cluster, wait_for};

/// The node writes many times a second, and the first error is enough.
const NOTICE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a node whose storage failed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Shuts the file system down without ending the process. Healing ends it, mounts the disk again, and starts it.
pub(super) async fn fail(act: &mut Act<'_>) -> Result<(), Trouble> {
    // Every other time the leader, whose part in the cluster has to end.
    let victims = if act.rng.bool() { vec![act.leader().await?] } else { victims(act).await? };
    act.claim(victims)?;
    // A disk that breaks while a process starts is another fault: that process may end.
    act.wait_ready(act.nodes[0]).await?;
    act.begin("EXT4_IOC_SHUTDOWN, and the process goes on");
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    cluster.node(id).disk.switch()?.cut()?;
    let seen = see_it_fail(act).await;
    // However the look at it went: the process has to live on.
    let seen = act.ended().await.map_or(seen, Err);
    if seen.is_ok() {
        act.heal();
    }
    if cluster.node(id).runs().await {
        act.kill(id).await?;
    }
    cluster.node(id).disk.unmount().await?;
    cluster.node(id).disk.mount().await?;
    restart(act).await?;
    seen?;
    act.healed("ended, mounted again, started");
    Ok(())
}

/// Waits until the node says that its storage failed, and holds it to that for as long as the fault lasts.
async fn see_it_fail(act: &mut Act<'_>) -> Result<(), Trouble> {
    let (cluster, id) = (act.cluster(), act.nodes[0]);
    if !cluster.node(id).disk.is_dead() {
        return Err(Trouble::Missed(format!("the disk of node {id} still takes writes")));
    }
    let noticed = wait_for(NOTICE_PATIENCE, || async {
        match standing(cluster, id).await {
            None if !cluster.node(id).runs().await => Some(None),
            standing => standing.map(Some),
        }
    });
    let Some(first) = noticed.await.flatten() else {
        return Err(Trouble::Product(format!("node {id} did not say within {NOTICE_PATIENCE:?} that its storage failed")));
    };
    act.took_effect(format!("the disk is dead; node {id} says {:?}", first.reason));
    let deadline = tokio::time::Instant::now() + act.planned.length;
    while tokio::time::Instant::now() < deadline && !act.stage.is_over() {
        let now = standing(cluster, id).await;
        wrong(id, &first, now.as_ref()).map_or(Ok(()), |wrong| Err(Trouble::Product(wrong)))?;
        let (status, body) = cluster.call(id, Method::PUT, "/v1/services/of-a-dead-disk", &json!({"endpoints": []})).await?;
        if status != 503 || body["outcome"] != "notApplied" {
            return Err(Trouble::Product(format!(
                "node {id} answered a write with {status} {body} after its storage had failed"
            )));
        }
        let (status, body) = cluster.call(id, Method::GET, "/readyz/control", &json!(null)).await?;
        if status != 503 || !body.to_string().contains("storage failed") {
            return Err(Trouble::Product(format!("/readyz/control of node {id}: {status} {body}, with a dead disk")));
        }
        act.hold_for(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Where a node stands whose storage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    reason: String,
    /// The end of its log, as far as it ever counted.
    last_log_index: Option<u64>,
}

/// None before it says that its storage failed.
async fn standing(cluster: &Cluster, id: u32) -> Option<Standing> {
    let status = cluster.get(id, "/v1/cluster?consistency=local").await?;
    let reason = status["storageFailed"].as_str()?.to_owned();
    Some(Standing { reason, last_log_index: status["lastLogIndex"].as_u64() })
}

/// What is wrong with where a node stands now, some time after its storage failed.
fn wrong(id: u32, first: &Standing, now: Option<&Standing>) -> Option<String> {
    let Some(now) = now else { return Some(format!("node {id} said that its storage failed, and does not say so any more")) };
    if now.last_log_index > first.last_log_index {
        let (first, now) = (first.last_log_index, now.last_log_index);
        return Some(format!("the log of node {id} went on after its storage had failed: from {first:?} to {now:?}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::kind::Fault;
    use crate::nemesis::rehearsal;

    /// The disk of a node that is not ready stays whole.
    #[tokio::test]
    async fn it_begins_only_at_a_node_that_is_ready() {
        let directory = tempfile::tempdir().unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stage = rehearsal::stage(rehearsal::cluster(directory.path(), nobody).await, true);
        // A seed that does not ask for the leader, of which there is none.
        let seed = (0..).find(|&seed| !fastrand::Rng::with_seed(seed).bool()).unwrap();
        let mut act = Act::new(&stage, rehearsal::planned(Fault::DiskError, seed));
        let Err(Trouble::Missed(why)) = fail(&mut act).await else { panic!("it was not left out") };
        assert!(why.starts_with("node 1 was not ready"), "{why}");
        assert_eq!((act.nodes, stage.scene.recorder.events()), (vec![1], Vec::new()));
    }

    #[test]
    fn a_node_whose_storage_failed_stays_where_it_is() {
        let first = Standing { reason: "EIO".to_owned(), last_log_index: Some(7) };
        assert_eq!(wrong(2, &first, Some(&first)), None);
        assert!(wrong(2, &first, None).is_some_and(|wrong| wrong.contains("any more")));
        let on = Standing { last_log_index: Some(8), ..first.clone() };
        assert!(wrong(2, &first, Some(&on)).is_some_and(|wrong| wrong.contains("went on")));
    }
}
