//! What is seen from outside: metrics, structured logs, and the access log.

mod access_log;
pub mod logging;
mod metrics;

pub use access_log::{AccessEntry, AccessLog};
pub use metrics::{Counter, CounterVec, Gauge, Histogram, Metrics};
