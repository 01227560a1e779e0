//! Backends that flap.

use std::time::Duration;

use super::act::{Act, Trouble};
use crate::backend::{Backend, Manner, probe};
use crate::cluster::wait_for;

/// A manner is told to a task of the suite itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// The manners in turn; between two of them a backend is well.
const TURN: [Manner; 4] = [Manner::Gone, Manner::Resets, Manner::Slow, Manner::HalfCloses];

/// Half of the backends misbehave, each in its own order; the requests of the other half must not suffer.
pub(super) async fn flap(act: &mut Act<'_>) -> Result<(), Trouble> {
    let all = &act.stage.scene.backends;
    let mut victims: Vec<&Backend> = all.iter().collect();
    act.rng.shuffle(&mut victims);
    victims.truncate(all.len() / 2);
    let names = victims.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", ");
    act.begin(names.clone());
    let mut wrong = None;
    let step = act.planned.length / (2 * TURN.len() as u32);
    'turns: for turn in 0..TURN.len() {
        for (place, backend) in victims.iter().enumerate() {
            wrong = become_so(backend, TURN[(turn + place) % TURN.len()]).await.err();
            if wrong.is_some() {
                break 'turns;
            }
        }
        if turn == 0 {
            act.took_effect(format!("{names}: {TURN:?} in turn, each seen by a probe"));
        }
        act.hold_for(step).await;
        for backend in &victims {
            backend.behave(Manner::Well);
        }
        act.hold_for(step).await;
    }
    victims.iter().for_each(|backend| backend.behave(Manner::Well));
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    act.heal();
    for backend in &victims {
        become_so(backend, Manner::Well).await?;
    }
    act.healed("all backends answer");
    Ok(())
}

async fn become_so(backend: &Backend, manner: Manner) -> Result<(), Trouble> {
    backend.behave(manner);
    let seen = wait_for(PATIENCE, || async { Some(probe(backend.address).await).filter(|&seen| seen == manner) }).await;
    seen.map(drop).ok_or_else(|| Trouble::Missed(format!("{} was not seen to be {manner:?}", backend.name)))
}
