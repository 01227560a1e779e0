//! Networks that are split, lossy, slow, or flap; and a node that is cut off until a snapshot is its only way back.

use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::Method;
use serde_json::json;

use super::act::{Act, Trouble};
use super::kind::Fault;
use crate::cluster::network::{Link, Met, Rule, Rules, Token, partition};
use crate::cluster::{Cluster, wait_for};

/// Heartbeats meet a rule within a fraction of this.
const EFFECT_PATIENCE: Duration = Duration::from_secs(4);
/// The time between two changes of a flapping split.
const FLAP_MS: (u64, u64) = (100, 700);
const LOSS_PERCENT: (u32, u32) = (10, 50);
const DELAY_MS: (u64, u64) = (20, 200);
const TORN_PERCENT: (u32, u32) = (2, 10);
/// Heartbeats alone need less; the writes of a test need more, and have to wait.
const BYTES_PER_SECOND: (u32, u32) = (8_000, 64_000);

/// Splits as the fault says, and heals.
pub(super) async fn split(act: &mut Act<'_>) -> Result<(), Trouble> {
    let leader = act.leader().await?;
    let order = act.shuffled(Some(leader));
    let rules = rules(act.planned.fault, leader, &order, &mut act.rng);
    act.nodes = nodes_of(&rules);
    act.begin(describe(&rules));
    let network = &act.cluster().network;
    let token = network.disturb(rules.clone()).await?;
    let met = effect(act, &rules).await;
    let mut met_at_last = Met::default();
    if let Ok(met) = &met {
        act.took_effect(format!("{}; met {met} so far", describe(&rules)));
        act.hold().await;
        met_at_last = network.met(rules.keys().copied()).await?;
        act.heal();
    }
    network.restore(token).await?;
    met?;
    // Where another fault came or went meanwhile, since then.
    act.healed(format!("met {met_at_last} in all"));
    Ok(())
}

/// Another split every few hundred milliseconds.
pub(super) async fn flap(act: &mut Act<'_>) -> Result<(), Trouble> {
    let leader = act.leader().await?;
    act.nodes = act.cluster().members();
    act.begin("");
    let network = &act.cluster().network;
    let began = Instant::now();
    let (mut splits, mut met) = (0, Met::default());
    while began.elapsed() < act.planned.length && !act.stage.is_over() {
        let side = act.shuffled(None);
        let (one, other) = side.split_at(act.rng.usize(1..=side.len() / 2));
        let rules = partition(&side, &[one, other]);
        let token = network.disturb(rules.clone()).await?;
        let span = act.rng.u64(FLAP_MS.0..=FLAP_MS.1);
        act.hold_for(Duration::from_millis(span)).await;
        met += network.met(rules.keys().copied()).await?;
        splits += 1;
        network.restore(token).await?;
        act.hold_for(Duration::from_millis(span / 2)).await;
    }
    if met == Met::default() {
        return Err(Trouble::Missed(format!("{splits} splits met nothing")));
    }
    act.took_effect(format!("{splits} splits met {met}; node {leader} led before"));
    act.heal();
    act.healed("");
    Ok(())
}

/// Waits until the rules have met something.
async fn effect(act: &Act<'_>, rules: &Rules) -> Result<Met, Trouble> {
    let network = &act.cluster().network;
    let met = wait_for(EFFECT_PATIENCE, || async { network.met(rules.keys().copied()).await.ok().filter(|met| met.pieces > 0) });
    met.await.ok_or_else(|| Trouble::Missed("the rules met nothing".to_owned()))
}

fn nodes_of(rules: &Rules) -> Vec<u32> {
    let mut nodes: Vec<u32> = rules.keys().flat_map(|&(from, to)| [from, to]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn describe(rules: &Rules) -> String {
    let rule = |(&(from, to), rule): (&Link, &Rule)| match rule {
        rule if rule.cut => format!("{from}>{to}"),
        rule if rule.loss_percent > 0 => format!("{from}>{to} loses {} %", rule.loss_percent),
        rule if rule.torn_percent > 0 => format!("{from}>{to} cuts {} %", rule.torn_percent),
        rule if rule.half_open => format!("{from}>{to} half-open"),
        Rule { bytes_per_second: Some(rate), .. } => format!("{from}>{to} {rate} bytes/s"),
        rule => format!("{from}>{to} {} ms later", rule.delay.as_millis()),
    };
    rules.iter().map(rule).collect::<Vec<_>>().join(" ")
}

/// What is wrong with which link. `others` are the members but the leader, in any order.
fn rules(fault: Fault, leader: u32, others: &[u32], rng: &mut Rng) -> Rules {
    let all: Vec<u32> = others.iter().copied().chain([leader]).collect();
    let minority = all.len().saturating_sub(1) / 2;
    let everywhere = |rule: Rule| {
        let pairs = all.iter().flat_map(|&a| all.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b);
        pairs.map(|link| (link, rule)).collect::<Rules>()
    };
    match fault {
        Fault::PartitionLeaderMinority => {
            // The leader, and companions as many as still make no majority.
            let (companions, rest) = others.split_at(minority.saturating_sub(1));
            let side: Vec<u32> = companions.iter().copied().chain([leader]).collect();
            partition(&all, &[&side, rest])
        }
        Fault::PartitionLeaderMajority => partition(&all, &[&others[..1], &without(&all, &others[..1])]),
        Fault::PartitionOneWay => one_way(leader, others, Rule::CUT, rng),
        Fault::HalfOpen => one_way(leader, others, Rule { half_open: true, ..Rule::SOUND }, rng),
        Fault::PartitionBridge => {
            // One node of any kind sees all; the rest are two halves.
            let bridge = all[rng.usize(..all.len())];
            let rest = without(&all, &[bridge]);
            let (one, other) = rest.split_at(rest.len() / 2);
            partition(&rest, &[one, other])
        }
        Fault::PartitionRing => {
            let ring = &all;
            let count = ring.len();
            let distance = |a: usize, b: usize| (a + count - b) % count;
            let near = |a: usize, b: usize| match count {
                // Of three all are neighbours: one link is missing.
                3 => a + b != 1,
                _ => distance(a, b) == 1 || distance(b, a) == 1,
            };
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            pairs.filter(|&(a, b)| a != b && !near(a, b)).map(|(a, b)| ((ring[a], ring[b]), Rule::CUT)).collect()
        }
        Fault::Loss => everywhere(Rule { loss_percent: rng.u32(LOSS_PERCENT.0..=LOSS_PERCENT.1), ..Rule::SOUND }),
        Fault::CutMidFrame => everywhere(Rule { torn_percent: rng.u32(TORN_PERCENT.0..=TORN_PERCENT.1), ..Rule::SOUND }),
        Fault::SlowLink => {
            everywhere(Rule { bytes_per_second: Some(rng.u32(BYTES_PER_SECOND.0..=BYTES_PER_SECOND.1)), ..Rule::SOUND })
        }
        _ => everywhere(Rule { delay: Duration::from_millis(rng.u64(DELAY_MS.0..=DELAY_MS.1)), ..Rule::SOUND }),
    }
}

/// What the leader sends, or what is sent to it, to or from one or more others.
fn one_way(leader: u32, others: &[u32], rule: Rule, rng: &mut Rng) -> Rules {
    let (met, outward) = (&others[..rng.usize(1..=others.len())], rng.bool());
    met.iter().map(|&other| (if outward { (leader, other) } else { (other, leader) }, rule)).collect()
}

pub(super) fn without(all: &[u32], some: &[u32]) -> Vec<u32> {
    all.iter().copied().filter(|id| !some.contains(id)).collect()
}

/// Cuts a node off from all others, until the token is restored.
pub(super) async fn isolate(cluster: &Cluster, id: u32) -> anyhow::Result<Token> {
    let members = cluster.members();
    let others = without(&members, &[id]);
    cluster.network.disturb(partition(&members, &[&[id], &others])).await
}

/// Cuts a follower off, and fills the log until what it lacks is purged.
pub(super) async fn fall_behind(act: &mut Act<'_>) -> Result<(), Trouble> {
    let leader = act.leader().await?;
    let victims: Vec<u32> = act.shuffled(Some(leader)).into_iter().take(1).collect();
    act.claim(victims)?;
    let (cluster, behind) = (act.cluster(), act.nodes[0]);
    let others = without(&cluster.members(), &act.nodes);
    act.begin("");
    let installed_before = cluster.metric(behind, SNAPSHOTS_INSTALLED).await.unwrap_or(0.0);
    let token = cluster.network.disturb(partition(&cluster.members(), &[&act.nodes, &others])).await?;
    let purged = fill_log(cluster, behind, &others).await;
    if let Ok(told) = &purged {
        act.took_effect(told.clone());
        act.hold().await;
        act.heal();
    }
    cluster.network.restore(token).await?;
    purged?;
    let installed = wait_for(SNAPSHOT_PATIENCE, || async {
        cluster.metric(behind, SNAPSHOTS_INSTALLED).await.filter(|&count| count > installed_before)
    });
    if installed.await.is_none() {
        return Err(Trouble::Product(format!("node {behind} got no snapshot within {SNAPSHOT_PATIENCE:?} of the healing")));
    }
    act.healed(format!("node {behind} installed a snapshot"));
    Ok(())
}

const SNAPSHOTS_INSTALLED: &str = "raftgate_raft_snapshots_installed_total";
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);
/// How long the filling of the log may take.
const FILL_PATIENCE: Duration = Duration::from_secs(90);
/// Endpoints of a service that is written only for its size: about 100 KB.
const FILLER_ENDPOINTS: u32 = 2_000;
const FILLERS: u32 = 4;

/// Writes large services through `others` until all of them have purged what `behind` has not.
pub(super) async fn fill_log(cluster: &Cluster, behind: u32, others: &[u32]) -> Result<String, Trouble> {
    let index = |id, field: &'static str| async move { cluster.get(id, "/v1/cluster").await?[field].as_u64() };
    let has =
        index(behind, "lastLogIndex").await.ok_or_else(|| Trouble::Missed(format!("node {behind} does not tell its log")))?;
    let deadline = Instant::now() + FILL_PATIENCE;
    for round in 0u32.. {
        let endpoint = |n: u32| json!({"address": format!("10.{}.{}.{}:{}", n % 250, n / 250, round % 250, 1000 + round / 250)});
        let body = json!({"endpoints": (0..FILLER_ENDPOINTS).map(endpoint).collect::<Vec<_>>()});
        let node = others[round as usize % others.len()];
        // A refusal is as good as a pause: the loop ends by the logs' indexes alone.
        let _ = cluster.call(node, Method::PUT, &format!("/v1/services/filler-{}", round % FILLERS), &body).await;
        let mut purged = Vec::new();
        for &id in others {
            purged.extend(index(id, "purgedIndex").await);
        }
        if purged.len() == others.len() && purged.iter().all(|&purged| purged > has) {
            return Ok(format!("node {behind} has the log up to {has}, the others purged up to {purged:?}"));
        }
        if Instant::now() > deadline {
            return Err(Trouble::Missed(format!("nothing beyond {has} was purged within {FILL_PATIENCE:?}: {purged:?}")));
        }
    }
    Err(Trouble::Missed("no more rounds".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(fault: Fault, nodes: u32) -> Vec<Link> {
        let others: Vec<u32> = (2..=nodes).collect();
        rules(fault, 1, &others, &mut Rng::with_seed(1)).into_keys().collect()
    }

    #[test]
    fn the_leader_is_where_the_fault_says() {
        assert_eq!(cut(Fault::PartitionLeaderMinority, 3), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        // 1 and 2 against 3, 4 and 5.
        let five = cut(Fault::PartitionLeaderMinority, 5);
        assert!(!five.contains(&(1, 2)) && five.contains(&(1, 3)) && five.contains(&(5, 2)) && five.len() == 12);
        assert_eq!(cut(Fault::PartitionLeaderMajority, 3), [(1, 2), (2, 1), (2, 3), (3, 2)]);
    }

    #[test]
    fn one_way_is_one_way() {
        let links = cut(Fault::PartitionOneWay, 5);
        assert!(!links.is_empty() && links.iter().all(|&(from, to)| !links.contains(&(to, from))));
    }

    #[test]
    fn what_happens_to_connections_is_told() {
        let told = |fault| describe(&rules(fault, 1, &[2], &mut Rng::with_seed(1)));
        for (fault, words) in [
            (Fault::CutMidFrame, "1>2 cuts "),
            (Fault::SlowLink, " bytes/s 2>1 "),
            (Fault::HalfOpen, " half-open"),
            (Fault::Delay, " ms later 2>1"),
        ] {
            assert!(told(fault).contains(words), "{}", told(fault));
        }
        let wave = rules(Fault::HalfOpen, 1, &[2, 3], &mut Rng::with_seed(1));
        assert!(!wave.is_empty() && wave.keys().all(|&(from, to)| !wave.contains_key(&(to, from))), "{wave:?}");
    }

    #[test]
    fn each_node_of_a_ring_reaches_two_and_a_bridge_all() {
        let ring = cut(Fault::PartitionRing, 5);
        assert!((1..=5).all(|node| ring.iter().filter(|&&(from, _)| from == node).count() == 2));
        assert_eq!(cut(Fault::PartitionRing, 3).len(), 2);
        let bridge = cut(Fault::PartitionBridge, 5);
        assert_eq!((1..=5).filter(|node| bridge.iter().all(|(from, to)| from != node && to != node)).count(), 1);
    }
}
