//! Rules, routes and services as a snapshot holds them, and the order of candidates.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use itertools::Itertools as _;
use smol_str::SmolStr;

use crate::model::spec::{PathMatchType, RouteMatch, Rule, ServiceSpec};
use crate::model::{Kind, Name, ResourceKey, Revision};

/// One rule of a route, ready to answer requests.
///
/// Laid out as written: what a look-up reads, the first match of the rule, stands at the beginning and so in one pair of cache lines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C)]
pub struct CompiledRule {
    /// The rule.
    pub rule: Rule,
    /// The route that it belongs to.
    pub route: Name,
    /// The revision that made the route; the older of two equal candidates wins.
    pub created_revision: Revision,
    /// Its place in the route, from 0.
    pub rule_index: u32,
    /// Its matches could not be read either, so it stands for every path, behind all others that do.
    pub(super) guessed: bool,
    /// Whether its route is a `GRPCRoute`, which answers gRPC requests alone. Here and not in the scope, which a request need not read.
    pub(super) is_grpc: bool,
    /// Why this node cannot serve it: the route's document does not compile here. Such a rule has no filters and no backends and is
    /// answered with 500.
    pub unservable: Option<Box<str>>,
    pub(super) scope: Arc<Scope>,
}

impl CompiledRule {
    /// The kind of its route.
    pub fn kind(&self) -> Kind {
        if self.is_grpc { Kind::GrpcRoute } else { Kind::Route }
    }
}

/// What the rules of one route share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Each once; [`ANY_HOST`](super::key::ANY_HOST) for a route without hostnames.
    pub(super) hostnames: Box<[SmolStr]>,
    /// Empty means all.
    pub(super) listeners: Box<[Box<str>]>,
}

/// A route: its rules, kept by key so that it can be taken out again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompiledRoute {
    pub(super) key: ResourceKey,
    /// None where its document has none that this node can read.
    pub(super) rules: Box<[Arc<CompiledRule>]>,
}

impl CompiledRoute {
    /// The listeners that it is bound to, each with its own key; none means all.
    pub(super) fn bindings(&self) -> impl Iterator<Item = (&str, ResourceKey)> {
        let listeners = self.rules.first().into_iter().flat_map(|rule| &rule.scope.listeners);
        listeners.map(|listener| (listener.as_ref(), self.key.clone()))
    }

    /// Whether it stands for the same hostnames and listeners, with the same age.
    pub(super) fn claims_same(&self, other: &CompiledRoute) -> bool {
        match (self.rules.first(), other.rules.first()) {
            (Some(one), Some(other)) => one.created_revision == other.created_revision && one.scope == other.scope,
            (None, None) => true,
            _ => false,
        }
    }

    /// Takes over what `old`, which claims the same, shares among its rules: a route that changes leaves less behind.
    pub(super) fn share_scope(&mut self, old: &CompiledRoute) {
        let Some(scope) = old.rules.first().map(|rule| &rule.scope) else { return };
        // It was compiled a moment ago, and nobody else has its rules.
        self.rules.iter_mut().filter_map(Arc::get_mut).for_each(|rule| rule.scope = Arc::clone(scope));
    }

    /// Whether its candidates stand under the same patterns as those of `other`, which claims the same, and are equal to them in order.
    pub(super) fn stands_as(&self, other: &CompiledRoute) -> bool {
        let same = |one: Candidate, other: Candidate| one == other && one.pattern() == other.pattern();
        self.candidates().zip_longest(other.candidates()).all(|pair| pair.both().is_some_and(|(one, other)| same(one, other)))
    }

    /// Regular expressions in it.
    pub(super) fn pattern_count(&self) -> usize {
        self.rules.iter().map(|rule| rule.rule.pattern_count()).sum()
    }

    /// One candidate for each hostname and match.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate> {
        self.rules.iter().flat_map(|rule| {
            let takes_all = !rule.is_grpc && rule.scope.listeners.is_empty();
            (0..rule.scope.hostnames.len()).flat_map(move |host| {
                (0..rule.rule.matches.len()).map(move |index| Candidate {
                    rule: Arc::clone(rule),
                    match_index: index as u16,
                    host_index: host as u16,
                    takes_all,
                })
            })
        })
    }
}

/// Which service: a name that was deleted and made again is another service, so that runtime state never passes from one to the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    /// Its name.
    pub name: Name,
    /// The revision that made it.
    pub created_revision: Revision,
}

/// A backend of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which service.
    pub id: ServiceId,
    /// Its spec.
    pub spec: ServiceSpec,
}

/// One match of one rule under one of its route's hostnames.
///
/// Its order is the precedence among candidates of one pattern (host, path type and path): less comes first. It is Gateway API's
/// (HTTPRouteRule `matches`), with the oldest route told by its revision and the last ties by place.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) rule: Arc<CompiledRule>,
    pub(super) match_index: u16,
    pub(super) host_index: u16,
    /// Whether its route takes requests of every listener and gRPC or not: then a look-up need not read the scope.
    pub(super) takes_all: bool,
}

impl Candidate {
    pub(super) fn route_match(&self) -> &RouteMatch {
        &self.rule.rule.matches[usize::from(self.match_index)]
    }

    /// The host pattern that it stands under.
    pub(super) fn host(&self) -> &str {
        &self.rule.scope.hostnames[usize::from(self.host_index)]
    }

    /// Type and path that it stands under. A prefix without its trailing slash: `/` becomes the empty prefix of every path.
    pub(super) fn pattern(&self) -> (PathMatchType, &str) {
        let path = &self.route_match().path;
        match path.match_type {
            PathMatchType::PathPrefix => (path.match_type, path.value.strip_suffix('/').unwrap_or(&path.value)),
            other => (other, &path.value),
        }
    }

    /// Whether its path condition holds, where that is an expression; the index tells for all others.
    pub(super) fn pattern_holds(&self, path: &str) -> bool {
        self.route_match().path.pattern.as_ref().is_none_or(|pattern| pattern.matches(path.as_bytes()))
    }

    fn rank(&self) -> impl Ord + '_ {
        let conditions = self.route_match();
        (
            // Expressions are asked together, the longer first, of calls the one with the longer service; under every other path there is one
            // pattern only.
            Reverse(conditions.path.pattern.as_ref().map_or((0, 0), |pattern| pattern.lengths())),
            self.rule.guessed,
            Reverse(conditions.method.is_some()),
            Reverse(conditions.headers.len()),
            Reverse(conditions.query_params.len()),
            self.rule.created_revision,
            &self.rule.route,
            self.rule.is_grpc,
            self.rule.rule_index,
            self.match_index,
            self.host_index,
        )
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a million routes each of these bytes is a megabyte.
    #[test]
    fn a_rule_with_its_counts_fits_256_bytes() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<CompiledRule>() + counts <= 256, "{}", size_of::<CompiledRule>());
    }
}
