//! What a test leaves behind, in Jepsen's shape: `history.edn`, `results.edn`, `timeline.html`, plots.
//!
//! `test.edn` beside the history says what was asked for, so that a history can be judged again with no more than its directory.

mod edn;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::edn::Edn;
use crate::history::Event;
use crate::test::{Results, Test};

/// The longest line of a history that is read: a read of 100,000 routes fits.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Writes all files of a test into its directory.
pub(crate) fn write(directory: &Path, test: &Test, history: &[Event], results: &Results) -> anyhow::Result<()> {
    write_lines(&directory.join("test.edn"), std::iter::once(edn::of_test(test)))?;
    write_lines(&directory.join("history.edn"), history.iter().map(edn::of_event))?;
    write_lines(&directory.join("results.edn"), std::iter::once(edn::of_results(test, results)))?;
    Ok(())
}

fn write_lines(path: &Path, lines: impl Iterator<Item = Edn>) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()
    };
    write().with_context(|| format!("{}: write", path.display()))
}

/// Reads a test and its history back from a `history.edn`, with the `test.edn` that stands beside it.
pub(crate) fn read(history: &Path) -> anyhow::Result<(Test, Vec<Event>)> {
    let beside = history.with_file_name("test.edn");
    let text =
        std::fs::read_to_string(&beside).with_context(|| format!("{}: what the test was stands there", beside.display()))?;
    let test = crate::edn::parse(&text).with_context(|| beside.display().to_string())?;
    let test = edn::test(&test).with_context(|| beside.display().to_string())?;
    let file = File::open(history).with_context(|| history.display().to_string())?;
    Ok((test, read_events(BufReader::new(file)).with_context(|| history.display().to_string())?))
}

fn read_events(mut file: impl BufRead) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read =
            std::io::Read::take(&mut file, LINE_BYTES_MAX).read_line(&mut line).with_context(|| format!("line {number}"))?;
        if read == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let event = crate::edn::parse(&line).with_context(|| format!("line {number}"))?;
        events.push(edn::event(&event).with_context(|| format!("line {number}"))?);
    }
    Ok(events)
}
