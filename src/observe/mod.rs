//! What is seen from outside: metrics, structured logs, and the access log.

pub mod logging;
mod metrics;

pub use metrics::{Counter, CounterVec, Gauge, GaugeVec, Histogram, Metrics};
