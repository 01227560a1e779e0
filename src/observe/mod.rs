//! What is seen from outside: metrics, structured logs, the access log, traces, and how late the machine lets this process run.

mod access_log;
mod canary;
mod counted_routes;
mod crash_points;
mod known_bugs;
pub mod logging;
mod metrics;
mod refrain;
mod traces;

pub use access_log::{AccessEntry, AccessLog};
pub use canary::{Canary, SchedulingGap};
pub use counted_routes::{COUNTED_ROUTES_MAX, CountedRoutes, OTHER_ROUTES};
pub use crash_points::{CRASH_POINTS, arm_crash_points, crash_point};
pub use known_bugs::{KnownBug, delay_sync};
pub use metrics::{Counter, CounterVec, Gauge, GaugeVec, Histogram, Metrics};
pub use refrain::Refrain;
pub use traces::{Span, Trace, TraceOptions, Traces, TracesError};

/// What is told of every request, one by one.
#[derive(Debug, Clone, Default)]
pub struct RequestSinks {
    /// `None` writes no access log.
    pub access_log: Option<AccessLog>,
    /// `None` makes no spans, and no `traceparent`.
    pub traces: Option<Traces>,
}
