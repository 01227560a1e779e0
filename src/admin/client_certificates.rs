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

    /// Forgets what gives no warning, and what is too much for one answer; true: there was such. `present` is the State whose certificates
    /// stay, if they do.
    pub(super) fn settle(&mut self, present: Option<&State>) -> bool {
        let is_there = |name: &Name| self.written.contains(name) || present.is_some_and(|state| state.get(&key(name)).is_some());
        self.named.retain(|(_, name)| !is_there(name));
        let is_cut = self.named.len() > REFERENCES_MAX;
        self.named.truncate(REFERENCES_MAX);
        is_cut
    }
}

fn key(certificate: &Name) -> ResourceKey {
    ResourceKey::new(Kind::Certificate, certificate.clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Command, CommandBody, Operation, Timestamp, Transaction};

    #[test]
    fn what_is_missing_is_told() {
        let name = |text: &str| Name::new(text).expect("a name");
        let mut state = State::default();
        let operations = vec![Operation::Put { key: key(&name("present")), spec: Bytes::from_static(b"{}") }];
        let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
        state.apply(&Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body });
        let gone = BTreeSet::from([key(&name("present"))]);
        // What is named, what is written with it, whether what is present goes, and whether it is told.
        let table = [
            ("missing", None, false, true),
            ("missing", Some("missing"), false, false),
            ("present", None, false, false),
            ("present", None, true, true),
            ("present", Some("present"), true, false),
        ];
        for (named, written, goes, is_told) in table {
            let mut shown = Shown::default();
            shown.name("Service \"s\": /tls/clientCertificate".to_owned(), name(named));
            written.into_iter().for_each(|written| shown.write(&name(written)));
            let gone = if goes { gone.clone() } else { BTreeSet::new() };
            let warnings: Vec<String> = shown.warnings(&state, &gone).collect();
            let expected = format!(
                "Service \"s\": /tls/clientCertificate: certificate {named:?} does not exist; requests to the service are answered with \
                 500 until it does"
            );
            assert_eq!(warnings, if is_told { vec![expected] } else { vec![] }, "{named}, {written:?}, {goes}");
            assert!(!shown.settle((!goes).then_some(&state)));
            assert_eq!(shown.warnings(&state, &gone).count(), usize::from(is_told), "{named}, {written:?}, {goes}");
        }
    }
}
