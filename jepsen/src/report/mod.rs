//! What a test leaves behind, in Jepsen's shape: `history.edn`, `results.edn`, `timeline.html`, plots.

use std::path::Path;

use crate::history::Event;
use crate::test::{Results, Test};

/// Writes all files of a test into its directory.
pub(crate) fn write(_directory: &Path, _test: &Test, _history: &[Event], _results: &Results) -> anyhow::Result<()> {
    Ok(())
}

/// Reads a test and its history back from a `history.edn`.
pub(crate) fn read(_history: &Path) -> anyhow::Result<(Test, Vec<Event>)> {
    anyhow::bail!("not yet")
}
