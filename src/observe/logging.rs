//! The program's own log: structured events on the standard error.
//!
//! error = a person must act, warn = degraded, info = a state changed, debug = per request. Events carry fields, not prose.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;

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
    tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|_| LoggingError::Twice)
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
}
