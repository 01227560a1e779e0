//! Random executions of a small model of the cluster: the best test of checkers.
//!
//! A correct execution has to pass, however its operations overlap and whichever outcomes stay unknown; the same history with one lie
//! in it has to fail, and by the right invariant. The model takes its decisions from a tape of numbers, so that a failing execution
//! is made shorter by cutting the tape.

mod model;
mod mutation;

use proptest::prelude::*;

use super::story::{register, sound, verdict};
use super::{UNJUDGED, judge, operation::pair};
use crate::history::Event;
use crate::test::{Outcome, Test, Workload};

fn history(tape: &[u32]) -> Vec<Event> {
    model::run(tape)
}

fn test() -> Test {
    Test { workload: Workload::Set, nemeses: vec!["kill".to_owned()], ..register() }
}

/// A tape from a seed (splitmix64).
fn tape(seed: u64, length: usize) -> Vec<u32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) & 0xffff_ffff).expect("32 bits")
    };
    std::iter::repeat_with(next).take(length).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn correct_executions_pass(tape in proptest::collection::vec(any::<u32>(), 0..1_500)) {
        let results = judge(&test(), &history(&tape));
        // A short tape has too few operations to say much, and that is all that may be wrong with it.
        let wrong = results.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Fail | Outcome::Unknown));
        for verdict in wrong {
            let too_few = verdict.outcome == Outcome::Unknown && verdict.detail.ends_with(UNJUDGED);
            let few = too_few || matches!(verdict.name.as_str(), "coverage" | "operations");
            prop_assert!(few, "{}: {}", verdict.name, verdict.detail);
        }
    }
}

#[test]
fn long_executions_test_nearly_everything() {
    for seed in 0..20 {
        let results = judge(&test(), &history(&tape(seed, 6_000)));
        assert_eq!(sound(&results), Ok(()), "seed {seed}");
        for name in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"] {
            assert_eq!(verdict(&results, name).0, Outcome::Pass, "seed {seed}: {:?}", verdict(&results, name));
        }
    }
}

#[test]
fn each_lie_is_found() {
    for (name, invariants, lie) in mutation::ALL {
        let mut told = 0;
        for seed in 0..60 {
            let mut events = history(&tape(seed, 1_500));
            let choice = usize::try_from(seed).expect("small") * 7;
            if !lie(&mut events, choice) {
                continue;
            }
            told += 1;
            assert_eq!(
                pair(&events).1,
                Vec::<String>::new(),
                "{name}, seed {seed}: the lie is about the gateway, not about the suite"
            );
            let results = judge(&test(), &events);
            for invariant in *invariants {
                let (outcome, detail) = verdict(&results, invariant);
                assert_eq!(outcome, Outcome::Fail, "{name}, seed {seed}: {invariant}: {detail}");
            }
        }
        assert!(told >= 20, "{name} could be told in {told} histories only");
    }
}

/// The bound is for this unoptimised build on a busy machine; it is there to find what grows with the square of the history.
#[test]
fn a_hundred_thousand_operations_are_judged_in_time() {
    let events = history(&tape(1, 1_100_000));
    assert!(events.len() > 200_000, "{}", events.len());
    let began = std::time::Instant::now();
    assert_eq!(sound(&judge(&test(), &events)), Ok(()));
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}
