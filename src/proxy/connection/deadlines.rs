//! What a connection, or a stream, may take its time for: looked at by the worker's clock.

use std::time::Instant;

use super::{ClientConnection, Phase, Protocol, REST_AFTER};
use crate::upstream::BodyState;

impl ClientConnection {
    /// Closes what is over its time. An exchange that stands still is told first, so that it can still answer, and closed after that;
    /// an idle connection of HTTP/2 is told to leave first.
    pub(in super::super) fn check_deadlines(&self, now: Instant) {
        if self.progress.borrow().as_ref().is_some_and(|progress| progress.has_moved()) {
            self.since.set(now);
        }
        if self.is_too_slow(now) {
            self.worker().metrics.slow_clients.inc();
            // Once the answer has begun, there is no other way to say so.
            return if self.is_answered.get() { self.close() } else { self.give_up(now) };
        }
        let still_for = now.saturating_duration_since(self.since.get());
        if self.phase.get() == Phase::Idle && still_for >= REST_AFTER && !self.is_to_rest.replace(true) {
            self.wake();
        }
        let options = &self.listener().options;
        if self.block_since.get().is_some_and(|since| now.saturating_duration_since(since) >= options.header_read_timeout) {
            return self.end_for("header_read_timeout");
        }
        let limit = match self.phase.get() {
            Phase::Idle => options.idle_timeout,
            Phase::Head => options.header_read_timeout,
            // Its streams have deadlines of their own.
            Phase::Exchange if self.streams.get() > 0 => return,
            Phase::Exchange => options.stream_idle_timeout,
        };
        if still_for < limit {
            return;
        }
        match self.phase.get() {
            Phase::Exchange => self.give_up(now),
            Phase::Idle if self.protocol.get() == Protocol::Http2 && !self.is_leaving.get() => self.leave(),
            Phase::Head => self.end_for("header_read_timeout"),
            Phase::Idle => self.close(),
        }
    }

    /// Ends the connection for a limit.
    fn end_for(&self, reason: &str) {
        self.worker().metrics.connections_ended.with_label_values(&[reason]).inc();
        self.close();
    }

    /// Lets the exchange answer that it stood still, and ends it the second time, or where the answer has begun.
    fn give_up(&self, now: Instant) {
        if self.is_stalled.replace(true) || self.is_answered.get() {
            return self.end_for("stream_idle_timeout");
        }
        self.since.set(now);
        self.wake();
    }

    /// Whether the client of the present exchange is under the least rate.
    fn is_too_slow(&self, now: Instant) -> bool {
        let Some(pace) = &self.pace else { return false };
        let progress = self.progress.borrow();
        let sent = progress.as_ref().map_or(0, |progress| progress.take_bytes());
        let is_to_send = progress.as_ref().is_some_and(|progress| progress.state() == BodyState::Awaited);
        pace.is_too_slow(sent, is_to_send, now) && self.phase.get() == Phase::Exchange
    }

    /// Whether the client is in the middle of a header block of HTTP/2, and whether it came to the end of anything in this read.
    pub(super) fn note_block(&self, is_open: bool, has_ended: bool) {
        match (is_open, self.block_since.get()) {
            (true, since) if since.is_none() || has_ended => self.block_since.set(Some(self.worker().now())),
            (false, Some(_)) => self.block_since.set(None),
            _ => {}
        }
    }
}
