//! The parts of a test, each with a bound: whatever the gateway does, a test ends, and says which part did not.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::report;
use crate::test::{Outcome, Verdict};

/// What became of the parts so far.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    ended: String,
    late: Vec<String>,
}

impl Phases {
    /// Does one part; none where it was not done by its bound, and then it is given up.
    pub(crate) async fn run<T>(&mut self, name: &str, most: Duration, work: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        match timeout(most, work).await {
            Ok(done) => {
                let comma = if self.ended.is_empty() { "" } else { ", " };
                // Into a string nothing fails.
                let _ = write!(self.ended, "{comma}{name} {:.1} s", began.elapsed().as_secs_f64());
                Some(done)
            }
            Err(_) => {
                self.was_late(name, most, "");
                None
            }
        }
    }

    /// A part that looks at its own bound has passed it, with what was missing.
    pub(crate) fn was_late(&mut self, name: &str, most: Duration, missing: &str) {
        let colon = if missing.is_empty() { "" } else { ": " };
        self.late.push(format!("{name} did not end within {most:?}{colon}{missing}"));
    }

    /// How long each took, or which did not end.
    pub(crate) fn verdict(&self) -> Verdict {
        let (outcome, detail) =
            if self.late.is_empty() { (Outcome::Pass, self.ended.clone()) } else { (Outcome::Fail, self.late.join("; ")) };
        Verdict { name: report::PHASES.to_owned(), outcome, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_does_not_end_is_given_up_and_named() {
        let mut phases = Phases::default();
        assert_eq!(phases.run("setup", Duration::from_secs(5), async { 7 }).await, Some(7));
        let verdict = phases.verdict();
        assert!(verdict.outcome == Outcome::Pass && verdict.detail.starts_with("setup 0."), "{verdict:?}");
        assert_eq!(phases.run("heal", Duration::from_millis(10), std::future::pending::<()>()).await, None);
        phases.was_late("recovery", Duration::from_secs(60), "no leader");
        let verdict = phases.verdict();
        assert_eq!(verdict.outcome, Outcome::Fail);
        assert_eq!(verdict.detail, "heal did not end within 10ms; recovery did not end within 60s: no leader");
    }
}
