//! One revision as it is served.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use imbl::{OrdMap, OrdSet};

use super::certificate::Certificate;
use super::certificates::Certificates;
use super::compile::{Compilation, Compiled, PARALLEL_MIN, compile, compile_all, side_by_side};
use super::conditions::{Failure, first_failure};
use super::contest::{Contest, Verdict};
use super::index::Index;
use super::key::{TextMap, text_map};
use super::request::{Matched, RequestView};
use super::routes::Routes;
use super::rule::{Candidate, CompiledRoute, Service};
use crate::model::spec::RouteSpec;
use crate::model::{Digest, Kind, Name, Published, Resource, ResourceKey, Revision, State};
use crate::secrets::Keyring;

/// From this many changes on, which touch half of the resources, a table from scratch is made in less time.
const REBUILD_MIN: usize = 1_000;

/// Rules and services of one revision. Immutable once shared; a clone costs O(1).
///
/// Invariant: it depends on the State that it was made of, on the node's keys and on nothing else: made by changes or from scratch, it answers the same.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The revision of the State that it was made of.
    pub revision: Revision,
    /// The digest of that State.
    pub digest: Digest,
    pub(super) index: Index,
    /// By key, so that a route's candidates can be found when it goes.
    pub(super) routes: Routes,
    /// Which of the routes serve.
    pub(super) contest: Contest,
    services: TextMap<Name, Arc<Service>>,
    pub(super) certificates: Certificates,
    /// Opens the secrets of what is compiled.
    pub(super) keyring: Arc<Keyring>,
    not_compiled: OrdMap<ResourceKey, Arc<str>>,
    /// Routes that are bound to a listener, by its name.
    bound: OrdMap<String, OrdSet<ResourceKey>>,
    /// Regular expressions of all routes.
    pattern_count: usize,
    published_at: OnceLock<SystemTime>,
}

/// How much a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Routes that are served, with those that are answered with 500 because they do not compile.
    pub routes: usize,
    /// Services.
    pub services: usize,
    /// Certificates.
    pub certificates: usize,
    /// Resources that do not compile, and routes that wait for others.
    pub not_compiled: usize,
}

impl Snapshot {
    /// The table of revision 0: every request is a 404. Tables that are made of it open no secrets.
    pub fn empty() -> Snapshot {
        Snapshot::with_keyring(Arc::default())
    }

    /// The table of revision 0. Those that are made of it open secrets with `keyring`.
    pub fn with_keyring(keyring: Arc<Keyring>) -> Snapshot {
        Snapshot {
            revision: Revision::ZERO,
            digest: State::default().digest(),
            index: Index::default(),
            routes: Routes::default(),
            contest: Contest::default(),
            services: text_map(),
            certificates: Certificates::default(),
            keyring,
            not_compiled: OrdMap::new(),
            bound: OrdMap::new(),
            pattern_count: 0,
            published_at: OnceLock::new(),
        }
    }

    /// Compiles `state` from scratch, without keys.
    pub fn build(state: &State) -> Snapshot {
        Snapshot::empty().rebuilt(state)
    }

    /// Compiles `state` from scratch, with the keys of `self`.
    pub fn rebuilt(&self, state: &State) -> Snapshot {
        let mut snapshot = Snapshot::with_keyring(Arc::clone(&self.keyring));
        let resources: Vec<&Resource> = state.resources().map(AsRef::as_ref).collect();
        let compiled = compile_all(&resources, &self.keyring).into_iter();
        let routes = compiled.filter_map(|(resource, compilation)| snapshot.take_in(resource, compilation)).collect();
        snapshot.fill(routes);
        snapshot.stamp(state)
    }

    /// The snapshot of `new`, where `self` is that of `old`. Costs O(changes) where one State came from the other.
    pub fn updated(&self, old: &State, new: &State) -> Snapshot {
        let changes: Vec<_> = new.changes_since(old).collect();
        if changes.len() >= REBUILD_MIN && changes.len() >= new.len() / 2 {
            return self.rebuilt(new);
        }
        let mut snapshot = self.clone();
        for (before, after) in changes {
            match (before, after) {
                (Some(_), Some(resource)) => snapshot.replace(resource),
                (Some(resource), None) => snapshot.remove(&resource.key),
                (None, Some(resource)) => snapshot.add(resource),
                (None, None) => {}
            }
        }
        snapshot.stamp(new)
    }

    /// The rule that answers `request`. One synchronous call: what it gives comes from this snapshot alone.
    pub fn find(self: &Arc<Self>, request: &RequestView<'_>) -> Option<Matched> {
        Arc::clone(self).answer(request).ok()
    }

    /// As [`Snapshot::find`], for who needs this snapshot for nothing else: what is found keeps it. Error: nothing is found.
    pub fn answer(self: Arc<Self>, request: &RequestView<'_>) -> Result<Matched, Arc<Snapshot>> {
        let Some(candidate) = self.winner(request) else { return Err(self) };
        let (rule, match_index) = (Arc::clone(&candidate.rule), usize::from(candidate.match_index));
        Ok(Matched::new(self, rule, match_index, request.path))
    }

    /// The service of that name.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The certificate that `service` shows to its endpoints, if it shows one. Error: its name, where this node serves none of that name.
    pub fn client_certificate<'a>(&'a self, service: &'a Service) -> Result<Option<&'a Arc<Certificate>>, &'a Name> {
        let Some(name) = service.spec.client_certificate() else { return Ok(None) };
        self.certificates.get(name).map(Some).ok_or(name)
    }

    /// Services that `spec` names and that do not exist, each once, by name.
    pub fn dangling(&self, spec: &RouteSpec) -> Vec<Name> {
        let missing = spec.references().map(|reference| reference.service).filter(|name| !self.services.contains_key(*name));
        missing.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// What this node cannot compile, and why.
    pub fn not_compiled(&self) -> impl Iterator<Item = (&ResourceKey, &str)> {
        self.not_compiled.iter().map(|(key, reason)| (key, reason.as_ref()))
    }

    /// Routes that do not serve, or not on all of their listeners, because one of the other kind stands in their way, and why. They come alive
    /// when it goes.
    pub fn waiting(&self) -> impl Iterator<Item = (ResourceKey, String)> {
        self.contest.waiting().filter_map(|route| Some((route.key.clone(), self.contest.reason(route)?)))
    }

    /// Why the resource does not compile, if it does not.
    pub fn reason_not_compiled(&self, key: &ResourceKey) -> Option<&str> {
        self.not_compiled.get(key).map(AsRef::as_ref)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            routes: self.routes.len() - self.contest.idle_count(),
            services: self.services.len(),
            certificates: self.certificates.len(),
            not_compiled: self.not_compiled.len() + self.contest.waiting_count(),
        }
    }

    /// Resources that stand here in one way or another.
    pub(super) fn resource_count(&self) -> usize {
        let unread = self.not_compiled.keys().filter(|key| self.routes.get(key).is_none());
        self.routes.len() + self.services.len() + self.certificates.len() + unread.count()
    }

    /// Regular expressions of all routes.
    pub fn pattern_count(&self) -> usize {
        self.pattern_count
    }

    /// Regular expressions of the route with this key; none where there is no such route.
    pub fn pattern_count_of(&self, key: &ResourceKey) -> usize {
        self.routes.get(key).map_or(0, |route| route.pattern_count())
    }

    /// When it went live first; `None` before.
    pub fn published_at(&self) -> Option<SystemTime> {
        self.published_at.get().copied()
    }

    /// Revision and digest.
    pub fn identity(&self) -> Published {
        Published { revision: self.revision, digest: self.digest }
    }

    pub(super) fn note_published(&self) {
        self.published_at.get_or_init(SystemTime::now);
    }

    fn winner(&self, request: &RequestView<'_>) -> Option<&Candidate> {
        let found = self.index.walk(request.host, request.path, &mut |candidate| match self.failure(candidate, request) {
            None => ControlFlow::Break(candidate),
            Some(_) => ControlFlow::Continue(()),
        });
        found.break_value()
    }

    /// The first condition beside host and path that a candidate of the index fails. A look-up and its explanation ask this alone.
    pub(super) fn failure<'t>(&self, candidate: &'t Candidate, request: &RequestView<'_>) -> Option<Failure<'t>> {
        match self.contest.waits_on(&candidate.rule, request.listener) {
            true => Some(Failure::Waits),
            false => first_failure(candidate, request),
        }
    }

    fn stamp(mut self, state: &State) -> Snapshot {
        self.revision = state.revision();
        self.digest = state.digest();
        self.published_at = OnceLock::new();
        self
    }

    fn add(&mut self, resource: &Resource) {
        if let Some(route) = self.take_in(resource, compile(resource, &self.keyring)) {
            self.add_route(route);
        }
    }

    /// Keeps what a resource compiled to that is not in it, but for a route, which it gives.
    fn take_in(&mut self, resource: &Resource, (compiled, reason): Compilation) -> Option<Arc<CompiledRoute>> {
        if let Some(reason) = reason {
            self.not_compiled.insert(resource.key.clone(), reason);
        }
        match compiled {
            Compiled::Route(route) => return Some(route),
            Compiled::Service(service) => {
                self.services.insert(resource.key.name.clone(), service);
            }
            Compiled::Certificate(certificate) => self.certificates.insert(certificate),
            Compiled::Nothing => {}
        }
        None
    }

    pub(super) fn add_route(&mut self, route: Arc<CompiledRoute>) {
        self.pattern_count += route.pattern_count();
        let verdicts = self.contest.enter(&route, self.routes.values());
        self.routes.insert(route);
        self.carry_out(verdicts);
    }

    /// Changes a resource. A route that claims what it claimed before leaves all others as they are.
    fn replace(&mut self, resource: &Resource) {
        let old = self.routes.get(&resource.key).cloned();
        let mut compilation = compile(resource, &self.keyring);
        if let (Some(old), (Compiled::Route(new), None)) = (old, &mut compilation)
            && new.claims_same(&old)
        {
            Arc::get_mut(new).into_iter().for_each(|new| new.share_scope(&old));
            self.not_compiled.remove(&resource.key);
            self.pattern_count = self.pattern_count - old.pattern_count() + new.pattern_count();
            if self.contest.swap(&old, new) {
                self.relist(&old, new);
            }
            self.routes.insert(Arc::clone(new));
            return;
        }
        self.remove(&resource.key);
        if let Some(route) = self.take_in(resource, compilation) {
            self.add_route(route);
        }
    }

    /// Puts a route that serves in the place of another.
    fn relist(&mut self, old: &CompiledRoute, new: &CompiledRoute) {
        if new.stands_as(old) {
            return new.candidates().for_each(|candidate| self.index.replace(&candidate));
        }
        self.unlist(old);
        self.list(new);
    }

    /// Adds all routes to a snapshot that has none: what adding them one by one makes, in less time.
    pub(super) fn fill(&mut self, routes: Vec<Arc<CompiledRoute>>) {
        // Without gRPC routes nothing is in anybody's way.
        if routes.iter().any(|route| route.key.kind == Kind::GrpcRoute) {
            for (entered, route) in routes.iter().enumerate() {
                // Who serves is known once all are in.
                self.contest.enter(route, routes[..entered].iter());
            }
        }
        let contest = &self.contest;
        let serving = || routes.iter().filter(|route| contest.serves(route));
        let (index, (by_key, bound, pattern_count)) = side_by_side(
            routes.len() >= PARALLEL_MIN,
            || Index::of(serving().flat_map(|route| route.candidates())),
            || {
                let mut bound: OrdMap<String, OrdSet<ResourceKey>> = OrdMap::new();
                for (listener, key) in serving().flat_map(|route| route.bindings()) {
                    bound.entry(listener.to_owned()).or_default().insert(key);
                }
                let pattern_count = routes.iter().map(|route| route.pattern_count()).sum();
                (Routes::of(routes.iter().cloned()), bound, pattern_count)
            },
        );
        (self.index, self.routes, self.bound, self.pattern_count) = (index, by_key, bound, pattern_count);
    }

    fn carry_out(&mut self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            match verdict {
                Verdict::Serves(route) => self.list(&route),
                Verdict::Ceases(route) => self.unlist(&route),
            }
        }
    }

    fn list(&mut self, route: &CompiledRoute) {
        route.candidates().for_each(|candidate| self.index.insert(candidate));
        for (listener, key) in route.bindings() {
            self.bound.entry(listener.to_owned()).or_default().insert(key);
        }
    }

    fn unlist(&mut self, route: &CompiledRoute) {
        route.candidates().for_each(|candidate| self.index.remove(&candidate));
        route.bindings().for_each(|(listener, key)| self.unbind(listener, &key));
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) {
        self.not_compiled.remove(key);
        match key.kind {
            Kind::Route | Kind::GrpcRoute => {
                if let Some(route) = self.routes.remove(key) {
                    self.pattern_count -= route.pattern_count();
                    let verdicts = self.contest.leave(&route);
                    self.carry_out(verdicts);
                }
            }
            Kind::Service => {
                self.services.remove(&key.name);
            }
            Kind::Certificate => self.certificates.remove(&key.name),
            Kind::Unknown(_) => {}
        }
    }
}

impl Snapshot {
    fn unbind(&mut self, listener: &str, route: &ResourceKey) {
        let Some(routes) = self.bound.get_mut(listener) else { return };
        routes.remove(route);
        if routes.is_empty() {
            self.bound.remove(listener);
        }
    }

    /// Serving routes that are bound to a listener which is not among `known`, with its name. They are kept, and never refused: another node
    /// may have that listener. Costs one look a listener name, and one a route that is found.
    pub fn bound_elsewhere<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = (&'a ResourceKey, &'a str)> {
        let missing = self.bound.iter().filter(|(listener, _)| !known.contains(&listener.as_str()));
        missing.flat_map(|(listener, routes)| routes.iter().map(move |route| (route, listener.as_str())))
    }
}
