//! The choices of one client, all from the test's seed.

use std::time::Duration;

use fastrand::Rng;

use super::VALUES_A_CLIENT;
use crate::history::{Key, Value};

/// The mean time between two operations of a client.
const THINK_MS_MAX: u64 = 40;

/// A client's generator, and its values: no two writes of a test write the same.
#[derive(Debug)]
pub(crate) struct Choice {
    rng: Rng,
    next: Value,
    client: u32,
}

impl Choice {
    /// Of the client with this number. Value 0 is nobody's.
    pub(crate) fn new(seed: u64, client: u32) -> Choice {
        let rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(client) + 1));
        Choice { rng, next: Value::from(client) * VALUES_A_CLIENT + 1, client }
    }

    /// A value that was never written.
    pub(crate) fn value(&mut self) -> Value {
        self.next += 1;
        self.next - 1
    }

    /// The number of the client.
    pub(crate) fn client(&self) -> u32 {
        self.client
    }

    /// A name for a retried write that no other has.
    pub(crate) fn idempotency_key(&self) -> String {
        format!("client-{}-{}", self.client, self.next)
    }

    /// One of these; none of none.
    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.rng.choice(of.iter().copied())
    }

    /// One of the first `keys` keys.
    pub(crate) fn key(&mut self, keys: u32) -> Key {
        self.rng.u32(..keys)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    /// How long the client waits before its next operation.
    pub(crate) fn think(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(..=THINK_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(choice: &mut Choice) -> Vec<u64> {
        (0..50).flat_map(|_| [choice.value(), u64::from(choice.key(12)), u64::from(choice.percent(30))]).collect()
    }

    #[test]
    fn a_seed_and_a_place_make_the_choices() {
        assert_eq!(draw(&mut Choice::new(7, 3)), draw(&mut Choice::new(7, 3)));
        assert_ne!(draw(&mut Choice::new(7, 3)), draw(&mut Choice::new(8, 3)));
        assert_ne!(draw(&mut Choice::new(7, 3)), draw(&mut Choice::new(7, 4)));
    }

    #[test]
    fn no_two_clients_share_a_value() {
        let values =
            |client| (0..1000).map(|_| ()).scan(Choice::new(1, client), |choice, ()| Some(choice.value())).collect::<Vec<_>>();
        let all: std::collections::BTreeSet<Value> = (0..10).flat_map(values).collect();
        assert_eq!(all.len(), 10_000);
    }
}
