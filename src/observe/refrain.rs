//! What happens again and again, told once and then now and then.
//!
//! A peer that is away or configured wrongly makes the same event many times a second. The first one is news; after it one line a minute
//! that says how often says as much. Metrics count every one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Between two lines about the same.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Different things that are known at one time. Some of them are named by whoever is on the other side of a connection.
const KNOWN_MAX: usize = 256;

/// When each thing was told last.
#[derive(Debug)]
pub struct Refrain<K> {
    known: Mutex<HashMap<K, Told>>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// How often it happened since.
    untold: u64,
}

impl<K> Default for Refrain<K> {
    fn default() -> Refrain<K> {
        Refrain { known: Mutex::default() }
    }
}

impl<K: Eq + Hash> Refrain<K> {
    fn known(&self) -> MutexGuard<'_, HashMap<K, Told>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `what` happened at `now`. Where it is to be told: how often it happened since it was told last.
    pub fn note(&self, what: K, now: Instant) -> Option<u64> {
        let mut known = self.known();
        if let Some(told) = known.get_mut(&what) {
            told.untold += 1;
            if now.saturating_duration_since(told.at) < TELL_INTERVAL {
                return None;
            }
            let count = std::mem::take(&mut told.untold);
            told.at = now;
            return Some(count);
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, told| now.saturating_duration_since(told.at) < TELL_INTERVAL);
        }
        // Where so many things happen at once, one more is not told.
        let has_room = known.len() < KNOWN_MAX;
        has_room.then(|| {
            known.insert(what, Told { at: now, untold: 0 });
            1
        })
    }

    /// `what` is over; true where it had been told. The next time it is news again.
    pub fn end(&self, what: &K) -> bool {
        self.known().remove(what).is_some()
    }
}

/// Lets each line of the Raft library pass once a minute: it warns at every heartbeat of a peer that is away.
#[derive(Debug, Default)]
pub(super) struct Library {
    told: Refrain<Identifier>,
}

impl Library {
    fn is_meant(metadata: &Metadata<'_>) -> bool {
        let level = *metadata.level();
        metadata.target().starts_with("openraft") && level == tracing::Level::WARN
    }
}

impl<S: Subscriber> Filter<S> for Library {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Library::is_meant(metadata) { Interest::sometimes() } else { Interest::always() }
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        !Library::is_meant(metadata) || self.told.note(metadata.callsite(), Instant::now()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_minute_with_how_many() {
        let refrain = Refrain::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(refrain.note("away", at(0)), Some(1));
        assert!((1..60).all(|second| refrain.note("away", at(second)).is_none()));
        assert_eq!(refrain.note("other", at(30)), Some(1), "one thing does not hide another");
        assert_eq!(refrain.note("away", at(60)), Some(60));
        assert_eq!(refrain.note("away", at(61)), None);
        assert!(refrain.end(&"away"));
        assert!(!refrain.end(&"away"));
        assert_eq!(refrain.note("away", at(62)), Some(1), "news again");
    }

    #[test]
    fn what_is_known_is_bounded() {
        let refrain = Refrain::default();
        let start = Instant::now();
        let told = (0..10 * KNOWN_MAX).filter(|&number| refrain.note(number, start).is_some()).count();
        assert_eq!((told, refrain.known().len()), (KNOWN_MAX, KNOWN_MAX));
        assert_eq!(refrain.note(usize::MAX, start + TELL_INTERVAL), Some(1), "room again");
    }
}
