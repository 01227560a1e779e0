//! Two nodes whose peer addresses are swapped, as a third one sees it.

use std::time::Duration;

use super::act::{Act, Trouble};
use crate::cluster::{Cluster, Direction, wait_for};

/// Connections that meet a reset on every packet are gone by then: heartbeats come many times as often.
const RESET_TIME: Duration = Duration::from_millis(1500);
/// A node asks its peers many times a second, also those that refuse.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);
/// Messages for another node than the one that they came to.
const REFUSED: &str = "raftgate_raft_peer_refusals_total{reason=\"receiver\"}";

/// What one node sends to one of two others comes to the other: each has to refuse and count it, and nothing else happens.
pub(super) async fn swap(act: &mut Act<'_>) -> Result<(), Trouble> {
    let cluster = act.cluster();
    // What the leader sends goes the wrong way: no other node has so much to say.
    let sender = act.leader().await?;
    let met: Vec<u32> = act.shuffled(Some(sender)).into_iter().take(2).collect();
    let &[one, other] = met.as_slice() else { return Err(Trouble::Missed("fewer than three members".to_owned())) };
    act.nodes = vec![sender, one, other];
    act.begin(format!("the peer addresses of nodes {one} and {other} are swapped for node {sender}"));
    let (clusters, before) = (ids(cluster, &act.nodes).await, refusals(cluster, &met).await);
    cluster.network.direct(sender, (one, other), Direction::Reset).await?;
    act.hold_for(RESET_TIME).await;
    cluster.network.direct(sender, (one, other), Direction::Swapped).await?;
    let refused =
        wait_for(REFUSAL_PATIENCE, || async { Some(refusals(cluster, &met).await).filter(|now| all_grew(&before, now)) });
    let refused = refused.await;
    if let Some(now) = &refused {
        act.took_effect(format!("nodes {met:?} refused messages for each other: {before:?} before, {now:?} now"));
        act.hold().await;
        act.heal();
    }
    cluster.network.direct(sender, (one, other), Direction::Reset).await?;
    tokio::time::sleep(RESET_TIME).await;
    cluster.network.direct(sender, (one, other), Direction::Right).await?;
    if refused.is_none() {
        return Err(Trouble::Missed(format!("nodes {met:?} counted no refusal: {before:?}")));
    }
    let after = ids(cluster, &act.nodes).await;
    if after != clusters {
        return Err(Trouble::Product(format!("ids and members were {clusters:?}, and are {after:?} after swapped addresses")));
    }
    act.healed("each has its own address again; clusters and members are what they were");
    Ok(())
}

async fn refusals(cluster: &Cluster, nodes: &[u32]) -> Vec<f64> {
    let mut counts = Vec::new();
    for &id in nodes {
        // A counter of labels is not there before it counts.
        counts.push(cluster.metric(id, REFUSED).await.unwrap_or(0.0));
    }
    counts
}

/// Whether each count is greater than it was.
fn all_grew(before: &[f64], now: &[f64]) -> bool {
    before.len() == now.len() && before.iter().zip(now).all(|(before, now)| now > before)
}

/// Each node's cluster, and whom it knows as a member with which address. A node that does not answer knows nothing.
async fn ids(cluster: &Cluster, nodes: &[u32]) -> Vec<String> {
    let mut known = Vec::new();
    for &id in nodes {
        let status = wait_for(REFUSAL_PATIENCE, || cluster.get(id, "/v1/cluster")).await.unwrap_or_default();
        let members = status["members"].as_array().into_iter().flatten();
        let members: Vec<String> =
            members.map(|member| format!("{} {} {}", member["id"], member["role"], member["peerAddress"])).collect();
        known.push(format!("node {id} of {}: {}", status["clusterId"], members.join(", ")));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_to_be_counted_at_both() {
        assert!(all_grew(&[0.0, 3.0], &[1.0, 4.0]));
        assert!(!all_grew(&[0.0, 3.0], &[1.0, 3.0]));
        assert!(!all_grew(&[0.0, 3.0], &[1.0]));
    }
}
