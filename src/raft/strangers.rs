//! Connections that come to nothing because the other side is not who, or does not speak what, it should: counted all, told now and then.
//!
//! A peer that is configured wrongly tries again many times a second. One line a minute and reason says as much.

use std::fmt::Display;
use std::time::Instant;

use crate::observe::{CounterVec, Metrics, Refrain};

/// Those at one place.
pub(super) struct Strangers {
    /// `peer_in` or `peer_out`.
    place: &'static str,
    failures: CounterVec,
    told: Refrain<&'static str>,
}

impl Strangers {
    pub(super) fn new(place: &'static str, metrics: &Metrics) -> Strangers {
        Strangers { place, failures: metrics.node_tls_failures.clone(), told: Refrain::default() }
    }

    /// One more, at `address`; `reason` is of a closed set.
    pub(super) fn met(&self, address: &dyn Display, reason: &'static str, why: &dyn Display) {
        self.failures.with_label_values(&[self.place, reason]).inc();
        let Some(count) = self.told.note(reason, Instant::now()) else {
            return tracing::debug!(%address, reason, place = self.place, "connection between peers failed: {why}");
        };
        match self.place {
            "peer_in" => tracing::warn!(%address, reason, count, "connection of a peer refused: {why}"),
            _ => tracing::warn!(%address, reason, count, "peer not reached: {why}"),
        }
    }
}
