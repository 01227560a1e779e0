//! What all workloads do: write every key first, ask nodes what they serve, and prove at the end that every key can be used.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Choice, Scene};
use crate::client::{Client, Wish};
use crate::history::{Kind, Value};
use crate::test::Workload;

/// Clients whose numbers no workload reaches: the first and the last writes are theirs.
const FIRST_WRITER: u32 = 1_000;
const LAST_WRITER: u32 = 2_000;
/// Attempts at a write with an idempotency key.
const ATTEMPTS_MAX: u32 = 5;
/// Between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(300);

/// Writes every key once, pairs together. Gives the first that did not succeed.
pub(crate) async fn initial_writes(scene: &Scene) -> anyhow::Result<Option<String>> {
    let mut client = scene.client()?;
    let mut choice = Choice::new(scene.seed, FIRST_WRITER);
    for pair in scene.keys().chunks(2) {
        let value = choice.value();
        let wish = Wish::blind(pair.iter().map(|&key| (key, value)).collect());
        let (kind, _) = client.write(1, &wish).await;
        if kind != Kind::Ok {
            return Ok(Some(format!("the first write of keys {pair:?} ended as {kind:?} although nothing was broken yet")));
        }
    }
    Ok(None)
}

/// Asks a node what it serves, again and again.
pub(super) async fn poll(scene: Scene, mut client: Client, node: u32, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !scene.stopped() {
        ticks.tick().await;
        client.poll(node).await;
    }
}

/// Writes; where the outcome is unknown and the wish carries an idempotency key, again, at any node.
pub(super) async fn write_until_known(
    scene: &Scene,
    client: &mut Client,
    choice: &mut Choice,
    node: u32,
    wish: &Wish,
) -> Option<u64> {
    let (mut kind, mut made) = client.write(node, wish).await;
    for _ in 1..ATTEMPTS_MAX {
        if kind != Kind::Info || wish.idempotency_key.is_none() || scene.stopped() {
            break;
        }
        scene.pause(RETRY_AFTER).await;
        let node = choice.one_of(&scene.cluster.members()).unwrap_or(node);
        (kind, made) = client.write(node, wish).await;
    }
    made.map(|made| made.revision)
}

/// After everything was healed: one write and one linearizable read of every key at each node, and what its proxy says. Gives what did
/// not succeed.
pub(crate) async fn proves_each_key(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let mut client = scene.client()?;
    let mut choice = Choice::new(scene.seed, LAST_WRITER);
    let mut failures = Vec::new();
    for node in scene.cluster.members() {
        for pair in scene.keys().chunks(2) {
            let value: Value = choice.value();
            let wishes: Vec<Wish> = match scene.workload {
                Workload::Txn => vec![Wish::blind(pair.iter().map(|&key| (key, value)).collect())],
                _ => pair
                    .iter()
                    .map(|&key| Wish::blind(vec![(key, if key == pair[0] { value } else { choice.value() })]))
                    .collect(),
            };
            for wish in wishes {
                let (kind, _) = client.write(node, &wish).await;
                if kind != Kind::Ok {
                    failures.push(format!("a write of {:?} through node {node} ended as {kind:?}", wish.writes));
                }
            }
            let reads: Vec<&[u32]> = if scene.workload == Workload::Txn { vec![pair] } else { pair.chunks(1).collect() };
            for keys in reads {
                if client.read(node, keys).await.is_none() {
                    failures.push(format!("a read of {keys:?} through node {node} failed"));
                }
            }
        }
        if scene.workload == Workload::Set && client.read_all(node).await.is_none() {
            failures.push(format!("a read of all routes through node {node} failed"));
        }
    }
    Ok(failures)
}

/// Asks every proxy for every key, and every node what it serves.
pub(crate) async fn looks_at_each_node(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let mut client = scene.client()?;
    let mut failures = Vec::new();
    for node in scene.cluster.members() {
        if client.poll(node).await.is_none() {
            failures.push(format!("node {node} does not say what it serves"));
        }
        for key in scene.keys() {
            let answered = client.proxied(node, key).await;
            if answered.as_ref().is_none_or(|answered| answered.status != 200) {
                failures.push(format!("the proxy of node {node} answered {answered:?} to a request for key {key}"));
            }
        }
    }
    Ok(failures)
}
