//! Services that show a certificate to their endpoints: whether it is there.

use std::collections::BTreeSet;

use crate::model::{Kind, Name, ResourceKey, State};

/// References that are kept for a warning at most. Beyond them nobody is warned.
const REFERENCES_MAX: usize = 10_000;

/// The client certificates that the documents of a write name, and the certificates that it makes.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Where each is named.
    named: Vec<(String, Name)>,
    written: BTreeSet<Name>,
}

impl Shown {
    /// A service names `certificate` at `place`.
    pub(super) fn name(&mut self, place: String, certificate: Name) {
        self.named.push((place, certificate));
    }

    /// A certificate is written.
    pub(super) fn write(&mut self, name: &Name) {
        self.written.insert(name.clone());
    }

    /// What their authors should know: a certificate stands neither in `state` nor among those that are written, or is `gone`.
    pub(super) fn warnings(&self, state: &State, gone: &BTreeSet<ResourceKey>) -> impl Iterator<Item = String> {
        let missing = self.named.iter().filter(move |(_, name)| {
            let key = key(name);
            !self.written.contains(name) && (gone.contains(&key) || state.get(&key).is_none())
        });
        missing.map(|(place, name)| {
            let name = name.as_str();
            format!("{place}: certificate {name:?} does not exist; requests to the service are answered with 500 until it does")
        })
    }

    /// Forgets what gives no warning, and what is too much for one answer. `present` is the State whose certificates stay, if they do.
    pub(super) fn settle(&mut self, present: Option<&State>) {
        let is_there = |name: &Name| self.written.contains(name) || present.is_some_and(|state| state.get(&key(name)).is_some());
        self.named.retain(|(_, name)| !is_there(name));
        self.named.truncate(REFERENCES_MAX);
    }
}

fn key(certificate: &Name) -> ResourceKey {
    ResourceKey::new(Kind::Certificate, certificate.clone())
}
