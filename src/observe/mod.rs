//! What is seen from outside: metrics, structured logs, the access log, and how late the machine lets this process run.

mod access_log;
mod canary;
mod counted_routes;
mod crash_points;
mod known_bugs;
pub mod logging;
mod metrics;
mod refrain;

pub use access_log::{AccessEntry, AccessLog};
pub use canary::{Canary, SchedulingGap};
pub use counted_routes::{COUNTED_ROUTES_MAX, CountedRoutes, OTHER_ROUTES};
pub use crash_points::{CRASH_POINTS, arm_crash_points, crash_point};
pub use known_bugs::{KnownBug, delay_sync};
pub use metrics::{Counter, CounterVec, Gauge, GaugeVec, Histogram, Metrics};
pub use refrain::Refrain;
