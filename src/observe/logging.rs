//! The program's own log: structured events on the standard error.
//!
//! error = a person must act, warn = degraded, info = a state changed, debug = per request. Events carry fields, not prose. What repeats
//! itself at every heartbeat is told now and then ([`super::refrain`]).

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use super::refrain::Library;

/// Why the log was not set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("configuration key `log`: `{filter}`: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        reason: String,
    },
    /// This process has a log already.
    #[error("the log was set up twice")]
    Twice,
}

/// Sends the events that pass `filter` (as in `info` or `info,raftgate::raft=debug`) to the standard error, coloured on a terminal.
/// Once a process.
pub fn init(filter: &str) -> Result<(), LoggingError> {
    let log = subscriber(parse(filter)?, io::stderr, io::stderr().is_terminal());
    log.try_init().map_err(|_| LoggingError::Twice)
}

fn subscriber(
    filter: EnvFilter,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    is_coloured: bool,
) -> impl Subscriber + Send + Sync {
    let lines = fmt::layer().with_writer(writer).with_ansi(is_coloured).with_filter(Library::default());
    registry().with(lines).with(filter)
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        assert!(parse("info,raftgate::raft=debug").is_ok());
        let message = parse("raftgate=loud").unwrap_err().to_string();
        assert!(message.contains("`log`") && message.contains("raftgate=loud"), "{message}");
    }

    #[test]
    fn each_warning_of_the_raft_library_passes_once_and_all_of_this_program() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = std::sync::Mutex::new(file.reopen().unwrap());
        let log = subscriber(parse("info,openraft=warn").unwrap(), writer, false);
        tracing::subscriber::with_default(log, || {
            for count in 0..50 {
                tracing::warn!(target: "openraft::replication", count, "heartbeat failed");
                tracing::info!(target: "openraft::replication", "not warned of");
                tracing::warn!(count, "own");
            }
            tracing::warn!(target: "openraft::replication", "another");
            tracing::error!(target: "openraft::core", "stopped");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        let counts = ["heartbeat failed", "not warned of", "own", "another", "stopped"].map(count);
        assert_eq!(counts, [1, 0, 50, 1, 1], "{text}");
    }
}
