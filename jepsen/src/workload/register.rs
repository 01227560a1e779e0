//! `register`: conditional and blind writes, and linearizable reads, of single routes at any node.

use std::collections::BTreeMap;

use super::drive::write_until_known;
use super::{Choice, KEYS, Scene};
use crate::client::{Client, Wish};
use crate::history::Key;

/// Of a hundred operations.
const READS: u32 = 45;
/// Of a hundred writes.
const CONDITIONAL: u32 = 60;
const IDEMPOTENT: u32 = 25;

/// Reads and writes until the test ends.
pub(super) async fn run(scene: Scene, mut client: Client, mut choice: Choice) {
    // What this client saw last of each key.
    let mut revisions: BTreeMap<Key, u64> = BTreeMap::new();
    while !scene.stopped() {
        let (key, members) = (choice.key(KEYS), scene.cluster.members());
        let Some(node) = choice.one_of(&members) else { return };
        if choice.percent(READS) {
            if let Some(read) = client.read(node, &[key]).await {
                revisions.insert(key, read.items[0].map_or(0, |(revision, _)| revision));
            }
        } else {
            let wish = wish(&mut choice, key, revisions.get(&key).copied());
            if let Some(revision) = write_until_known(&scene, &mut client, &mut choice, node, &wish).await {
                revisions.insert(key, revision);
            }
        }
        scene.pause(choice.think()).await;
    }
}

fn wish(choice: &mut Choice, key: Key, known: Option<u64>) -> Wish {
    let conditional = choice.percent(CONDITIONAL);
    let idempotency_key = choice.percent(IDEMPOTENT).then(|| choice.idempotency_key());
    let preconditions = known.filter(|_| conditional).map(|revision| (key, revision)).into_iter().collect();
    Wish { writes: vec![(key, choice.value())], preconditions, idempotency_key }
}
