//! The history on disk while it grows: whatever ends the suite, what happened before can be read and checked.
//!
//! `history.edn` is only ever appended to. Its last line is the end ([`Op::End`](crate::history::Op::End)), written after the last
//! operation; a history without that line was cut short, and no checker lets it pass.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::record::Recorder;
use crate::report;
use crate::terminal::say;

/// Between two writes: what a suite that is killed loses.
const INTERVAL: Duration = Duration::from_millis(500);

/// Writes down what a recorder has. What is left is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Journal {
    recorder: Arc<Recorder>,
    path: PathBuf,
    file: BufWriter<File>,
    written: usize,
}

impl Journal {
    /// An empty history in a test's directory.
    pub(crate) fn create(directory: &Path, recorder: &Arc<Recorder>) -> anyhow::Result<Journal> {
        let path = directory.join(report::HISTORY);
        let file = File::create(&path).with_context(|| format!("{}: create", path.display()))?;
        Ok(Journal { recorder: Arc::clone(recorder), path, file: BufWriter::new(file), written: 0 })
    }

    /// Writes every now and then until this is dropped; gives the error that ends it.
    pub(crate) async fn keep(&mut self) -> anyhow::Error {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.catch_up() {
                return error;
            }
        }
    }

    /// Writes what was recorded since the last time.
    pub(crate) fn catch_up(&mut self) -> anyhow::Result<()> {
        let events = self.recorder.events_from(self.written);
        let mut write = || -> std::io::Result<()> {
            for event in &events {
                writeln!(self.file, "{}", report::line(event))?;
                self.written += 1;
            }
            self.file.flush()
        };
        write().with_context(|| format!("{}: write", self.path.display()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.catch_up() {
            say!("the history is not complete: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kind, Op};

    #[tokio::test]
    async fn what_was_recorded_is_on_disk_soon_and_all_of_it_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new());
        let mut journal = Journal::create(directory.path(), &recorder).unwrap();
        let lines = || std::fs::read_to_string(directory.path().join(report::HISTORY)).unwrap().lines().count();
        let process = recorder.new_process();
        recorder.invoke(process, Some(1), Op::Poll { seen: None });
        let seen = async {
            while lines() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            error = journal.keep() => panic!("{error:#}"),
            seen = tokio::time::timeout(Duration::from_secs(60), seen) => seen.unwrap(),
        }
        recorder.end(process, Kind::Fail, Some(1), Op::Poll { seen: None }, None);
        recorder.finish(|before| Op::End { verdicts: Vec::new(), stalls: Vec::new(), seal: Some(report::seal(before)) });
        drop(journal);
        assert_eq!(lines(), 3);
        // The end is of the lines as they stand there.
        let whole = std::fs::read_to_string(directory.path().join(report::HISTORY)).unwrap();
        let end = whole.trim_end().rfind('\n').unwrap() + 1;
        let crc32c = crc32c::crc32c(&whole.as_bytes()[..end]);
        assert!(whole[end..].contains(&format!(":events 2, :crc32c {crc32c}}}")), "{whole}");
    }
}
