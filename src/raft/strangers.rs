//! Connections that come to nothing because the other side is not who, or does not speak what, it should: counted all, told now and then.
//!
//! A peer that is configured wrongly tries again many times a second. One line in the log every few seconds says as much.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::observe::{CounterVec, Metrics};

/// Between two lines in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Those at one place.
pub(super) struct Strangers {
    /// `peer_in` or `peer_out`.
    place: &'static str,
    failures: CounterVec,
    told: Mutex<Option<Instant>>,
}

impl Strangers {
    pub(super) fn new(place: &'static str, metrics: &Metrics) -> Strangers {
        Strangers { place, failures: metrics.node_tls_failures.clone(), told: Mutex::default() }
    }

    /// One more, at `address`; `reason` is of a closed set.
    pub(super) fn met(&self, address: &dyn Display, reason: &'static str, why: &dyn Display) {
        self.failures.with_label_values(&[self.place, reason]).inc();
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| now.duration_since(told) >= TELL_INTERVAL);
        if is_due {
            *told = Some(now);
        }
        drop(told);
        match (self.place, is_due) {
            ("peer_in", true) => tracing::warn!(%address, reason, "connection of a peer refused: {why}"),
            (_, true) => tracing::warn!(%address, reason, "peer not reached: {why}"),
            _ => tracing::debug!(%address, reason, place = self.place, "connection between peers failed: {why}"),
        }
    }
}
