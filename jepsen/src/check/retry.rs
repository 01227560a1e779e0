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

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read, write, write_once};
    use crate::history::Kind;
    use crate::test::Outcome;

    #[test]
    fn a_retry_is_told_what_the_first_attempt_made() {
        let mut story = Story::new();
        story.run(0, 1, Kind::Info, write_once("a", (1, 10), 0)).ok(1, write(&[(2, 20)], 2)).ok(2, write_once("a", (1, 10), 1));
        story.ok(2, write_once("a", (1, 10), 1)).ok(1, read(1, 2, Some((1, 10))));
        story.is("I9", Outcome::Pass, "1 retried writes");
        story.is("I2", Outcome::Pass, "");
    }

    #[test]
    fn a_second_effect_is_found_in_answers_and_in_reads() {
        let mut story = Story::new();
        story.ok(0, write_once("a", (1, 10), 1)).ok(0, write_once("a", (1, 10), 2));
        story.is("I9", Outcome::Fail, "took effect again at revision 2");
        let mut story = Story::new();
        story.run(0, 1, Kind::Info, write_once("a", (1, 10), 0)).ok(2, write_once("a", (1, 10), 1)).ok(1, write(&[(1, 20)], 2));
        story.ok(1, read(1, 3, Some((3, 10)))).is("I9", Outcome::Fail, "took effect again at revision 3 (events 6-7");
    }

    #[test]
    fn without_a_retry_nothing_is_said() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).is("I9", Outcome::NotTested, "no idempotency keys");
        story.ok(0, write_once("a", (1, 11), 2)).is("I9", Outcome::NotTested, "none of 1 keys was sent twice");
    }
}
