//! `txn`: pairs of routes that are always changed together, read together through the admin API and one by one through the proxies.

use super::drive::write_until_known;
use super::{Choice, KEYS, Scene};
use crate::client::{Client, Wish};
use crate::history::Key;

/// Of a hundred operations.
const READS: u32 = 35;
const REQUESTS: u32 = 20;
/// Of a hundred writes.
const CONDITIONAL: u32 = 50;
const IDEMPOTENT: u32 = 25;

/// Reads and writes pairs until the test ends.
pub(super) async fn run(scene: Scene, mut client: Client, mut choice: Choice) {
    while !scene.stopped() {
        let pair = choice.key(KEYS / 2) * 2;
        let keys: [Key; 2] = [pair, pair + 1];
        let Some(node) = choice.one_of(&scene.cluster.members()) else { return };
        if choice.percent(REQUESTS) {
            let key = choice.one_of(&keys).unwrap_or(pair);
            client.proxied(node, key).await;
        } else if choice.percent(READS * 100 / (100 - REQUESTS)) {
            client.read(node, &keys).await;
        } else {
            let value = choice.value();
            let mut wish = Wish::blind(keys.map(|key| (key, value)).to_vec());
            wish.idempotency_key = choice.percent(IDEMPOTENT).then(|| choice.idempotency_key());
            if choice.percent(CONDITIONAL) {
                let Some(read) = client.read(node, &keys).await else { continue };
                let revision = |item: &Option<(u64, u64)>| item.map_or(0, |(revision, _)| revision);
                wish.preconditions = keys.iter().zip(&read.items).map(|(key, item)| (*key, revision(item))).collect();
            }
            write_until_known(&scene, &mut client, &mut choice, node, &wish).await;
        }
        scene.pause(choice.think()).await;
    }
}
