//! A retried write takes effect once (I9): one idempotency key, one revision, through every change of leader.

use super::Finding;
use super::effect::Effects;
use crate::test::Outcome;

/// Looks for a second revision of one write: in what its attempts were told, and in what reads saw of its value.
pub(crate) fn check(effects: &Effects<'_>) -> Finding {
    let keyed: Vec<_> = effects.all.iter().filter(|effect| effect.idempotency_key.is_some()).collect();
    let retried = keyed.iter().filter(|effect| effect.attempts > 1).count() as u64;
    let mut violations = Vec::new();
    // A write without a key is sent once; the gateway's own retries may not make it two either.
    for effect in &effects.all {
        if let Some((revision, place)) = effect.again.first() {
            violations.push(format!("{} took effect again at revision {revision} ({place})", effect.name()));
        }
    }
    match (violations.is_empty(), keyed.len(), retried) {
        (true, 0, _) => Finding::new("I9", Outcome::NotTested, "no idempotency keys"),
        (true, keyed, 0) => Finding::new("I9", Outcome::NotTested, format!("none of {keyed} keys was sent twice")),
        _ => Finding::of("I9", retried, "retried writes that took effect once", &violations),
    }
}
