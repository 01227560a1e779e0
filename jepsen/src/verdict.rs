//! The summary at the end of a test.

use std::process::{ExitCode, Termination as _};

use crate::check::overall;
use crate::terminal::say;
use crate::test::{Outcome, Results};

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
