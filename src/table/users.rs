//! Who refers to services and certificates: asked when they go, and answered by a look at every route.
//!
//! No index is kept of it: it would cost every change of a route, and memory for each, and nobody but the author of a delete asks.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::Snapshot;
use crate::model::spec::Filter;
use crate::model::{Kind, Name, ResourceKey};

/// Users of one resource that are named.
const USERS_NAMED_MAX: usize = 3;

/// Who refers to a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// The first of them by kind and name, three at most.
    pub named: BTreeSet<ResourceKey>,
    /// How many there are.
    pub count: usize,
}

impl Users {
    fn add(&mut self, key: &ResourceKey) {
        self.count += 1;
        let is_among_first = self.named.len() < USERS_NAMED_MAX || self.named.last().is_some_and(|last| key < last);
        if is_among_first {
            self.named.insert(key.clone());
            if self.named.len() > USERS_NAMED_MAX {
                self.named.pop_last();
            }
        }
    }
}

impl Snapshot {
    /// Who refers to each of `gone`, which are services and certificates, without those whose key is `left_out`. Costs a look at every
    /// reference of every route, where a service is among them.
    pub fn users_of<'g>(
        &self,
        gone: &'g BTreeSet<ResourceKey>,
        left_out: impl Fn(&ResourceKey) -> bool,
    ) -> BTreeMap<&'g ResourceKey, Users> {
        let of_kind = |kind| gone.iter().filter(move |key| key.kind == kind).map(|key| (&key.name, key)).collect();
        let services: BTreeMap<&Name, &ResourceKey> = of_kind(Kind::Service);
        let certificates: BTreeMap<&Name, &ResourceKey> = of_kind(Kind::Certificate);
        let mut users: BTreeMap<&ResourceKey, Users> = BTreeMap::new();
        let routes = (!services.is_empty()).then(|| self.routes.values()).into_iter().flatten();
        for route in routes {
            let rules = route.rules.iter().map(|rule| &rule.rule);
            let mut found: Vec<&ResourceKey> = Vec::new();
            for rule in rules {
                let mirrors = rule.filters.iter().filter_map(|filter| match filter {
                    Filter::RequestMirror(mirror) => Some(&mirror.service),
                    _ => None,
                });
                let named = rule.backend_refs.iter().map(|backend| &backend.name).chain(mirrors);
                found.extend(named.filter_map(|name| services.get(name).copied()));
            }
            found.sort_unstable();
            found.dedup();
            if !found.is_empty() && !left_out(&route.key) {
                found.into_iter().for_each(|key| users.entry(key).or_default().add(&route.key));
            }
        }
        let showing = (!certificates.is_empty()).then(|| self.services()).into_iter().flatten();
        for service in showing {
            let shown = service.spec.client_certificate().and_then(|name| certificates.get(name));
            let key = ResourceKey::new(Kind::Service, service.id.name.clone());
            if let Some(certificate) = shown.filter(|_| !left_out(&key)) {
                users.entry(certificate).or_default().add(&key);
            }
        }
        users
    }
}
