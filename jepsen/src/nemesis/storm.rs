//! Hundreds of changes a second.

use std::time::Instant;

use tokio::task::JoinSet;

use super::act::{Act, Trouble};
use crate::client::Wish;
use crate::history::Kind;
use crate::test::Workload;
use crate::workload::Choice;

const WRITERS: u32 = 12;
/// The numbers of these clients come after all others'.
const FIRST_NUMBER: u32 = 10_000;
/// A storm is at least this many acknowledged changes a second.
const LEAST_A_SECOND: f64 = 100.0;

/// Many writers without a pause between their writes.
pub(super) async fn swap(act: &mut Act<'_>) -> Result<(), Trouble> {
    let scene = &act.stage.scene;
    let (keys, together) = (scene.keys(), scene.workload == Workload::Txn);
    act.nodes = scene.cluster.members();
    act.begin(format!("{WRITERS} writers without pauses"));
    let began = Instant::now();
    let deadline = began + act.planned.length;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let mut client = scene.client()?;
        let number = FIRST_NUMBER + act.rng.u32(..1 << 24);
        let (mut choice, keys, members) = (Choice::new(act.planned.seed, number), keys.clone(), act.nodes.clone());
        let stage = act.stage.clone();
        writers.spawn(async move {
            let mut made = 0u32;
            while Instant::now() < deadline && !stage.is_over() {
                let (Some(key), Some(node)) = (choice.one_of(&keys), choice.one_of(&members)) else { break };
                let value = choice.value();
                let pair = [(key & !1, value), (key | 1, value)];
                let wish = Wish::blind(if together { pair.to_vec() } else { vec![(key, value)] });
                made += u32::from(client.write(node, &wish).await.0 == Kind::Ok);
            }
            made
        });
    }
    let made: u32 = writers.join_all().await.into_iter().sum();
    let rate = f64::from(made) / began.elapsed().as_secs_f64();
    if rate < LEAST_A_SECOND {
        return Err(Trouble::Missed(format!("{made} changes, {rate:.0} a second")));
    }
    act.took_effect(format!("{made} changes, {rate:.0} a second"));
    act.heal();
    act.healed("");
    Ok(())
}
