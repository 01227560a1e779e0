//! `set`: unique routes are added; all that were acknowledged are there at the end, on every node and in traffic.

use std::time::Duration;

use super::drive::write_until_known;
use super::{Choice, Scene};
use crate::client::{Client, Wish};

/// Keys of one client: its own, so that every route is made once. All clients' keys fit into one page of the admin API.
const ROUTES_MAX: u32 = 960;
/// Of a hundred operations.
const READS: u32 = 8;
const REQUESTS: u32 = 20;
const IDEMPOTENT: u32 = 25;
/// Besides the time that a client of any workload thinks.
const PAUSE: Duration = Duration::from_millis(250);

/// Adds routes until the test ends, or its share of them is used up.
pub(super) async fn run(scene: Scene, mut client: Client, mut choice: Choice) {
    let clients = scene.nodes * super::CLIENTS_A_NODE;
    let share = ROUTES_MAX / clients;
    let first = choice.client() * share;
    let mut added = 0;
    while !scene.stopped() {
        let Some(node) = choice.one_of(&scene.cluster.members()) else { return };
        if choice.percent(READS) || added == share {
            client.read_all(node).await;
        } else if added > 0 && choice.percent(REQUESTS) {
            let key = first + choice.key(added);
            client.proxied(node, key).await;
        } else {
            let key = first + added;
            added += 1;
            let idempotency_key = choice.percent(IDEMPOTENT).then(|| choice.idempotency_key());
            let wish = Wish { writes: vec![(key, choice.value())], preconditions: vec![(key, 0)], idempotency_key };
            if write_until_known(&scene, &mut client, &mut choice, node, &wish).await.is_some() {
                scene.add(key);
            }
        }
        scene.pause(PAUSE + choice.think()).await;
    }
}
