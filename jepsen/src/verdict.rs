//! The summary at the end of a test.

use std::process::{ExitCode, Termination as _};

use crate::terminal::say;
use crate::test::{Outcome, Results};

/// A run passes where all verdicts are `Pass` or `NotTested`, and at least one is `Pass`.
pub(crate) fn overall(results: &Results) -> Outcome {
    let has = |outcome| results.verdicts.iter().any(|verdict| verdict.outcome == outcome);
    let worst = [Outcome::Fail, Outcome::Unknown, Outcome::Pass].into_iter().find(|&outcome| has(outcome));
    worst.unwrap_or(Outcome::NotTested)
}

/// In one word.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Unknown => "UNKNOWN",
        Outcome::NotTested => "not tested",
    }
}

/// Prints every verdict and number; gives the exit status.
pub(crate) fn tell(results: &Results) -> ExitCode {
    for verdict in &results.verdicts {
        say!("{:10} {:10} {}", verdict.name, word(verdict.outcome), verdict.detail);
    }
    for (name, number) in &results.numbers {
        say!("{name}: {number}");
    }
    let overall = overall(results);
    say!("{}", word(overall));
    overall.report()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Verdict;

    #[test]
    fn one_failure_fails_and_nothing_tested_is_no_pass() {
        let results = |outcomes: &[Outcome]| Results {
            verdicts: outcomes.iter().map(|&outcome| Verdict { name: String::new(), outcome, detail: String::new() }).collect(),
            numbers: Vec::new(),
        };
        assert_eq!(overall(&results(&[Outcome::Pass, Outcome::NotTested])), Outcome::Pass);
        assert_eq!(overall(&results(&[Outcome::Pass, Outcome::Unknown])), Outcome::Unknown);
        assert_eq!(overall(&results(&[Outcome::Unknown, Outcome::Fail, Outcome::Pass])), Outcome::Fail);
        assert_eq!(overall(&results(&[Outcome::NotTested])), Outcome::NotTested);
        assert_eq!(overall(&results(&[])), Outcome::NotTested);
    }
}
