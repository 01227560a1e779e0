//! The access log: one JSON object a line for each request, off by default.
//!
//! A worker hands its entry over through a bounded channel and never waits: what the writer thread cannot take is dropped and
//! counted. The thread gathers for a moment, writes what came through a buffer, and flushes: a worker pays for waking it once a burst and
//! not once a line.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::metrics::Counter;

/// Entries that wait for the writer at most.
const WAITING_MAX: usize = 8192;
/// How long the writer gathers after the first entry. At 100,000 requests a second 2,000 entries come meanwhile.
const GATHER: Duration = Duration::from_millis(20);

/// One request, as it is written. Times in seconds.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the contract: api.md, section 7")]
pub struct AccessEntry {
    pub time: String,
    pub request_id: String,
    pub trace_id: Option<String>,
    pub client: String,
    pub method: &'static str,
    pub host: String,
    pub path: String,
    pub kind: &'static str,
    pub route: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub captures: BTreeMap<String, String>,
    pub revision: u64,
    pub service: String,
    pub endpoint: String,
    pub status: u16,
    pub bytes: u64,
    pub duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_duration: Option<f64>,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Takes entries from any thread. Clones share one writer; it ends, flushed, once the last clone is gone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    entries: SyncSender<AccessEntry>,
    dropped: Counter,
}

impl AccessLog {
    /// Appends to the file at `path`, or to standard output without one. `dropped` counts what could not be taken. The handle ends
    /// after the last clone of the log.
    ///
    /// Errors: the file cannot be opened, or no thread started.
    pub fn open(path: Option<&Path>, dropped: Counter) -> io::Result<(AccessLog, JoinHandle<()>)> {
        match path {
            Some(path) => AccessLog::to(OpenOptions::new().create(true).append(true).open(path)?, dropped),
            None => AccessLog::to(io::stdout(), dropped),
        }
    }

    fn to(target: impl Write + Send + 'static, dropped: Counter) -> io::Result<(AccessLog, JoinHandle<()>)> {
        let (entries, waiting) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&waiting, target))?;
        Ok((AccessLog { entries, dropped }, thread))
    }

    /// Hands an entry over, or counts it as dropped.
    pub fn record(&self, entry: AccessEntry) {
        if self.entries.try_send(entry).is_err() {
            self.dropped.inc();
        }
    }
}

fn write_all(waiting: &Receiver<AccessEntry>, target: impl Write) {
    let mut target = BufWriter::with_capacity(64 * 1024, target);
    while let Ok(first) = waiting.recv() {
        std::thread::sleep(GATHER);
        if let Err(error) = write_burst(waiting, first, &mut target) {
            tracing::error!(%error, "access log not written");
        }
    }
}

fn write_burst(waiting: &Receiver<AccessEntry>, first: AccessEntry, target: &mut impl Write) -> io::Result<()> {
    let mut next = Some(first);
    while let Some(entry) = next {
        serde_json::to_writer(&mut *target, &entry)?;
        target.write_all(b"\n")?;
        next = waiting.try_recv().ok();
    }
    target.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;

    fn entry(path: &str) -> AccessEntry {
        AccessEntry {
            time: "2026-01-01T00:00:00.000Z".into(),
            request_id: "r1".into(),
            trace_id: None,
            client: "127.0.0.1".into(),
            method: "GET",
            host: "a.example".into(),
            path: path.into(),
            kind: "Route",
            route: "shop".into(),
            rule: None,
            captures: BTreeMap::new(),
            revision: 7,
            service: "orders".into(),
            endpoint: "127.0.0.1:1".into(),
            status: 200,
            bytes: 5,
            duration: 0.25,
            upstream_duration: Some(0.125),
            attempts: 1,
            error: None,
        }
    }

    #[test]
    fn writes_one_object_a_line_and_ends_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let (log, thread) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
        log.record(AccessEntry { captures: BTreeMap::from([("id".into(), "4\n\"2".into())]), ..entry("/a\n\"b") });
        log.record(entry("/c"));
        drop(log);
        thread.join().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["path"], "/a\n\"b");
        assert_eq!(lines[0]["captures"], serde_json::json!({"id": "4\n\"2"}));
        assert_eq!(lines[1]["upstreamDuration"], 0.125);
        assert!(lines[1].get("captures").is_none());
        assert!(lines[0].get("error").is_none());
        assert!(lines[0].get("traceId").is_some_and(serde_json::Value::is_null));
    }

    #[test]
    fn a_writer_that_stands_still_costs_entries_and_never_time() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let dropped = Metrics::new().access_log_dropped;
        let (log, thread) = AccessLog::to(Stuck(stuck), dropped.clone()).unwrap();
        for _ in 0..2 * WAITING_MAX + 2000 {
            log.record(entry("/"));
        }
        assert!(dropped.get() >= 1000, "{}", dropped.get());
        drop((log, release));
        thread.join().unwrap();
    }
}
