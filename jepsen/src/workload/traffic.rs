//! Requests at a fixed rate through the proxy of every member, beside every workload: I5, I6 and I7 are judged in each test. The workload
//! `traffic` has more of them, and writers that do nothing but move their routes between backends.
//!
//! The rate does not depend on the answers: a proxy that stands still has as many requests to answer as one that does not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::drive::write_until_known;
use super::{Choice, KEYS, Scene};
use crate::client::{Client, Wish};
use crate::test::Workload;

/// Between two requests at one node.
const INTERVAL: Duration = Duration::from_millis(20);
/// The same beside another workload, which shall get most of the machine.
const INTERVAL_BESIDE: Duration = Duration::from_millis(50);
/// Between two looks at a node that may join.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Requests under way at one node; a node that answers none has this many open, and the rest is not sent.
const OPEN_MAX: usize = 300;
/// The generators of the senders come after those of the writers.
const SENDERS: u32 = 500;
/// Of a hundred writes.
const IDEMPOTENT: u32 = 25;

/// Sends requests to one node's proxy until the test ends, while the node is a member.
pub(super) async fn run(scene: Scene, node: u32) {
    let mut choice = Choice::new(scene.seed, SENDERS + node);
    // One that joins later has to serve from the moment at which it says that it is ready.
    while node > scene.nodes && !scene.stopped() && scene.cluster.get(node, "/readyz").await.is_none() {
        scene.pause(LOOK_AGAIN).await;
    }
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let mut open = JoinSet::new();
    let mut ticks = tokio::time::interval(if scene.workload == Workload::Traffic { INTERVAL } else { INTERVAL_BESIDE });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !scene.stopped() {
        ticks.tick().await;
        while open.try_join_next().is_some() {}
        let Some(key) = scene.existing_key(&mut choice) else { continue };
        if open.len() >= OPEN_MAX || !scene.cluster.members().contains(&node) {
            continue;
        }
        let rested = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut client) = rested.or_else(|| scene.client().ok()) else { continue };
        let idle = Arc::clone(&idle);
        open.spawn(async move {
            client.proxied(node, key).await;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        });
    }
    while open.join_next().await.is_some() {}
}

/// Moves routes between backends, and reads some.
pub(super) async fn write(scene: Scene, mut client: Client, mut choice: Choice) {
    while !scene.stopped() {
        let key = choice.key(KEYS);
        let Some(node) = choice.one_of(&scene.cluster.members()) else { return };
        let mut wish = Wish::blind(vec![(key, choice.value())]);
        wish.idempotency_key = choice.percent(IDEMPOTENT).then(|| choice.idempotency_key());
        write_until_known(&scene, &mut client, &mut choice, node, &wish).await;
        scene.pause(choice.think() * 3).await;
    }
}
