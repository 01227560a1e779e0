//! Which certificate answers a client: by the server name that it asks for (SNI, RFC 6066 3).
//!
//! The exact name comes first, then the wildcard of one label (RFC 6125 6.4.3), then the default. Where several have the same, the oldest
//! serves, then the first by name: as with routes, nobody takes a host from its owner by writing later. The maps are persistent, like all of
//! the table: a change costs what it changes, and connections keep the certificate that they began with.

use std::borrow::Cow;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::certificate::{Certificate, Chain};
use super::key::{TextMap, text_map};
use super::snapshot::Snapshot;
use crate::model::spec::{Secret, parse_certificate};
use crate::model::{Kind, Name, Resource, Revision};
use crate::secrets::{Keyring, Place};

/// Certificates of one host, those that come first before others.
type Ranked = OrdMap<(Revision, Name), Arc<Certificate>>;

/// All certificates of one revision.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    all: OrdMap<Name, Arc<Certificate>>,
    /// By exact host.
    exact: TextMap<String, Ranked>,
    /// By the suffix after `*.`.
    wildcard: TextMap<String, Ranked>,
    defaults: Ranked,
}

impl Default for Certificates {
    fn default() -> Certificates {
        Certificates { all: OrdMap::new(), exact: text_map(), wildcard: text_map(), defaults: OrdMap::new() }
    }
}

impl Certificates {
    pub(super) fn insert(&mut self, certificate: Certificate) {
        let certificate = Arc::new(certificate);
        let rank = rank(&certificate);
        for host in &certificate.hosts {
            let (map, host) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, host.as_str()),
            };
            map.entry(host.to_owned()).or_default().insert(rank.clone(), Arc::clone(&certificate));
        }
        if certificate.is_default {
            self.defaults.insert(rank, Arc::clone(&certificate));
        }
        self.all.insert(certificate.name.clone(), certificate);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let Some(certificate) = self.all.remove(name) else { return };
        let rank = rank(&certificate);
        for host in &certificate.hosts {
            let (map, host) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, host.as_str()),
            };
            let Some(ranked) = map.get_mut(host) else { continue };
            ranked.remove(&rank);
            if ranked.is_empty() {
                map.remove(host);
            }
        }
        self.defaults.remove(&rank);
    }

    /// Loses a host, as a fault would.
    #[cfg(test)]
    pub(super) fn damage(&mut self, host: &str) {
        self.exact.remove(host);
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Certificate>> {
        self.all.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Those that have this very host, as a certificate names it.
    fn of_host(&self, host: &str) -> Option<&Ranked> {
        match host.strip_prefix("*.") {
            Some(suffix) => self.wildcard.get(suffix),
            None => self.exact.get(host),
        }
    }

    fn choose(&self, host: &str) -> Option<&Arc<Certificate>> {
        let wildcard = || self.wildcard.get(host.split_once('.').filter(|(label, _)| !label.is_empty())?.1);
        first(self.exact.get(host).or_else(wildcard)?)
    }

    /// Whether a certificate is found wherever it should be, and nowhere twice.
    pub(super) fn holds(&self, certificate: &Certificate) -> bool {
        let rank = rank(certificate);
        let is_there = |ranked: Option<&Ranked>| ranked.is_some_and(|ranked| ranked.contains_key(&rank));
        certificate.hosts.iter().all(|host| is_there(self.of_host(host)))
            && self.defaults.contains_key(&rank) == certificate.is_default
    }
}

fn rank(certificate: &Certificate) -> (Revision, Name) {
    (certificate.created_revision, certificate.name.clone())
}

fn first(ranked: &Ranked) -> Option<&Arc<Certificate>> {
    ranked.get_min().map(|(_, certificate)| certificate)
}

impl Snapshot {
    /// The certificate of that name.
    pub fn certificate(&self, name: &Name) -> Option<&Arc<Certificate>> {
        self.certificates.get(name)
    }

    /// The certificate that answers a client which names the server `sni`, or none. `None`: there is none for it, and no default.
    pub fn certificate_for(&self, sni: Option<&str>) -> Option<&Arc<Certificate>> {
        let of_host = sni.and_then(|host| {
            let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
            let host = if is_lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) };
            self.certificates.choose(&host)
        });
        of_host.or_else(|| first(&self.certificates.defaults))
    }

    /// Those that have this very host, exact or with `*.`, as a certificate names it; the one that serves comes first.
    pub fn certificates_of<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Arc<Certificate>> {
        self.certificates.of_host(host).into_iter().flat_map(OrdMap::values)
    }

    /// Those that are marked as default; the one that serves comes first.
    pub fn default_certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.defaults.values()
    }

    /// What differs from `old` to `self`: pairs of before and after. Costs O(changes) where one came from the other.
    pub fn certificate_changes<'a>(
        &'a self,
        old: &'a Snapshot,
    ) -> impl Iterator<Item = (Option<&'a Arc<Certificate>>, Option<&'a Arc<Certificate>>)> {
        old.certificates.all.diff(&self.certificates.all).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(new)),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
            DiffItem::Remove(_, old) => (Some(old), None),
        })
    }
}

/// Compiles a certificate. Errors: the reason, for people.
pub(super) fn compile_certificate(
    resource: &Resource,
    document: &serde_json::Value,
    keyring: &Keyring,
) -> Result<Certificate, String> {
    let spec = parse_certificate(document).map_err(|errors| super::compile::reason(&errors))?.spec;
    let Secret::Sealed(sealed) = &spec.private_key else {
        return Err("/privateKey: it is not sealed".to_owned());
    };
    let name = &resource.key.name;
    let place = Place { kind: Kind::Certificate, name, field: "privateKey" };
    let plain = keyring.open(place, sealed).map_err(|error| format!("/privateKey: {error}"))?;
    let at_fault = |error: super::certificate::CertificateError| format!("/{}: {error}", error.field());
    let chain = Chain::read(&spec.certificate).map_err(at_fault)?;
    let key = chain.with_key(&plain).map_err(at_fault)?;
    Ok(Certificate {
        name: name.clone(),
        created_revision: resource.created_revision,
        revision: resource.revision,
        hosts: chain.hosts,
        is_default: spec.is_default,
        not_before: chain.not_before,
        not_after: chain.not_after,
        key: Arc::new(key),
        spec: resource.spec.clone(),
    })
}
