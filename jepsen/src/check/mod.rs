//! The checkers: from a history to a verdict.

use crate::history::Event;
use crate::test::{Results, Test};

/// Judges a history.
pub(crate) fn judge(_test: &Test, _history: &[Event]) -> Results {
    Results { verdicts: Vec::new(), numbers: Vec::new() }
}
