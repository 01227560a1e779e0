//! How fast a client is, where nothing but the client is waited for.
//!
//! A client that sends a byte of a body a minute, or takes one of an answer, is never idle, and holds a connection to a backend all the
//! while. So a listener may ask for a least rate. Time counts only while it is the client's turn: while the backend takes more of the
//! request than there is, and while more of the answer is there than the client takes. A stream that is silent on its own accord owes
//! nothing.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The pace of one exchange at a time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate: u64,
    /// Bytes that a client may owe.
    slack: u64,
    looked_at: Cell<Instant>,
    sent: Debt,
    taken: Debt,
    /// The last piece of the answer: it counts when it is handed over, and goes out after that.
    piece: Cell<u64>,
    /// Whether more of the answer is there than the client takes.
    is_to_take: Cell<bool>,
    is_exempt: Cell<bool>,
}

/// Bytes that should have passed and did not.
#[derive(Debug, Default)]
struct Debt(Cell<u64>);

impl Debt {
    fn grow(&self, bytes: u64) {
        self.0.set(self.0.get().saturating_add(bytes));
    }

    fn pay(&self, bytes: u64) {
        self.0.set(self.0.get().saturating_sub(bytes));
    }
}

impl Pace {
    /// At least `rate` bytes a second, of which a client may be `window` behind.
    pub(super) fn new(rate: u64, window: Duration, now: Instant) -> Pace {
        Pace {
            rate,
            slack: bytes_in(window, rate),
            looked_at: Cell::new(now),
            sent: Debt::default(),
            taken: Debt::default(),
            piece: Cell::new(0),
            is_to_take: Cell::new(false),
            is_exempt: Cell::new(false),
        }
    }

    /// Another exchange begins.
    pub(super) fn begin(&self) {
        self.forgive();
        self.piece.set(0);
        self.is_to_take.set(false);
        self.is_exempt.set(false);
    }

    /// Asks for no rate in this exchange.
    pub(super) fn exempt(&self) {
        self.is_exempt.set(true);
    }

    /// A piece of the answer is on its way to the client.
    pub(super) fn note_answer(&self, bytes: usize) {
        self.taken.pay(bytes as u64);
        self.piece.set(bytes as u64);
        self.is_to_take.set(true);
    }

    /// The client has taken all there is of the answer.
    pub(super) fn note_answer_awaited(&self) {
        self.is_to_take.set(false);
    }

    /// Whether the client was too slow up to now. `sent` are bytes of the request since this was asked last; `is_to_send` says whether it
    /// is the client's turn.
    pub(super) fn is_too_slow(&self, sent: u64, is_to_send: bool, now: Instant) -> bool {
        let due = bytes_in(now.saturating_duration_since(self.looked_at.replace(now)), self.rate);
        if self.is_exempt.get() {
            return false;
        }
        self.sent.pay(sent);
        if is_to_send {
            self.sent.grow(due);
        }
        if self.is_to_take.get() {
            self.taken.grow(due);
        }
        let is_too_slow = self.sent.0.get() > self.slack || self.taken.0.get() > self.slack.saturating_add(self.piece.get());
        if is_too_slow {
            self.forgive();
        }
        is_too_slow
    }

    fn forgive(&self) {
        self.sent.0.set(0);
        self.taken.0.set(0);
    }
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    let bytes = time.as_millis().saturating_mul(u128::from(rate)) / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until it is too slow, if it ever is within ten minutes; `step` gives what was sent in each second.
    fn seconds(step: impl Fn(u64, &Pace) -> (u64, bool)) -> Option<u64> {
        let start = Instant::now();
        let pace = Pace::new(1000, Duration::from_secs(10), start);
        (1..=600).find(|second| {
            let (sent, is_to_send) = step(*second, &pace);
            pace.is_too_slow(sent, is_to_send, start + Duration::from_secs(*second))
        })
    }

    #[test]
    fn time_counts_while_it_is_the_clients_turn() {
        // Nothing at all, and a byte a second.
        assert_eq!(seconds(|_, _| (0, true)), Some(11));
        assert_eq!(seconds(|_, _| (1, true)), Some(11));
        // As fast as asked; a burst now and then; the backend's turn.
        assert_eq!(seconds(|_, _| (1000, true)), None);
        assert_eq!(seconds(|second, _| (if second % 9 == 0 { 9000 } else { 0 }, true)), None);
        assert_eq!(seconds(|_, _| (0, false)), None);
        // A burst at the beginning buys no time.
        assert_eq!(seconds(|second, _| (if second == 1 { 1_000_000 } else { 0 }, true)), Some(11));
    }

    #[test]
    fn an_answer_is_to_be_taken_as_fast() {
        let of_answer = |bytes: usize, every: u64| {
            seconds(move |second, pace| {
                if second % every == 1 || every == 1 {
                    pace.note_answer(bytes);
                }
                (0, false)
            })
        };
        // One piece of 64 kB may take its 64 s beside the slack, and the next is asked for.
        assert_eq!(of_answer(64_000, 60), None);
        assert_eq!(of_answer(64_000, 1000), Some(75));
        assert_eq!(of_answer(1, 1), Some(11));
        // What is not there cannot be taken.
        let silent = seconds(|second, pace| {
            if second == 1 {
                pace.note_answer(1);
            }
            pace.note_answer_awaited();
            (0, false)
        });
        assert_eq!(silent, None);
    }

    #[test]
    fn an_exempt_exchange_owes_nothing_and_the_next_does() {
        let start = Instant::now();
        let pace = Pace::new(1000, Duration::from_secs(1), start);
        pace.exempt();
        assert!(!pace.is_too_slow(0, true, start + Duration::from_secs(5)));
        pace.begin();
        assert!(!pace.is_too_slow(0, true, start + Duration::from_secs(6)));
        assert!(pace.is_too_slow(0, true, start + Duration::from_secs(7)));
    }
}
