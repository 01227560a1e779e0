//! HTTP routes and gRPC routes that cannot both serve, and which of them does.
//!
//! Where a `Route` and a `GRPCRoute` have hostnames that intersect, on one listener, exactly one of them serves (Gateway API, GRPCRoute
//! "hostnames"): the oldest, then the first by name. The other waits, as a whole, and comes alive when nothing stands before it any more.
//! Two routes of one kind are never in each other's way.
//!
//! Routes are judged from the oldest on: a route serves unless one of the other kind that serves already stands in its way. What a change
//! means for others is worked out by the same order: only newer routes can be touched, so the oldest that is in doubt is judged next, until
//! none is. The result depends on the routes alone and not on the order in which they came.
//!
//! The hostnames of the routes that serve stand in ordered sets, one for each kind and listener, by their text from its end: all hosts under
//! `*.example.com` stand side by side. A change costs a few look-ups a hostname and listener, and the routes that it touches. The first
//! `GRPCRoute` of a table costs one pass over its routes besides: tables that have none keep none of this.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use super::key::{ANY_HOST, HostPattern, suffixes};
use super::rule::{CompiledRoute, CompiledRule};
use crate::model::{Kind, Name, ResourceKey, Revision};

/// The order in which routes win: the oldest, then the first by name; of two made at once under one name, the `Route`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    created: Revision,
    name: Name,
    kind: Kind,
}

impl Age {
    fn of(rule: &CompiledRule) -> Age {
        Age { created: rule.created_revision, name: rule.route.clone(), kind: rule.kind() }
    }
}

/// A hostname of a route that serves. The route has a rule.
#[derive(Debug, Clone)]
struct Claim {
    route: Arc<CompiledRoute>,
    host_index: u16,
}

impl Claim {
    fn all_of(route: &Arc<CompiledRoute>) -> impl Iterator<Item = Claim> {
        let count = route.rules.first().map_or(0, |rule| rule.scope.hostnames.len());
        (0..count).map(|index| Claim { route: Arc::clone(route), host_index: index as u16 })
    }

    fn rule(&self) -> &CompiledRule {
        &self.route.rules[0]
    }

    fn host(&self) -> &str {
        &self.rule().scope.hostnames[usize::from(self.host_index)]
    }

    fn rank(&self) -> (Revision, &Name, Kind) {
        let rule = self.rule();
        (rule.created_revision, &rule.route, rule.kind())
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Claim) -> Ordering {
        from_the_end(self.host(), other.host()).then_with(|| self.rank().cmp(&other.rank()))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Claim) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Claim) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Claim {}

fn from_the_end(one: &str, other: &str) -> Ordering {
    one.bytes().rev().cmp(other.bytes().rev())
}

/// A place in a set of claims.
enum Place<'a> {
    /// Before every claim of this hostname.
    Before(&'a str),
    /// Where a claim of this hostname and age stands.
    At(&'a str, &'a Age),
    /// After every claim of this hostname.
    After(&'a str),
    /// After every claim of a hostname that ends in this text.
    AfterEnding(&'a str),
}

impl Equivalent<Claim> for Place<'_> {
    fn equivalent(&self, claim: &Claim) -> bool {
        self.compare(claim) == Ordering::Equal
    }
}

impl Comparable<Claim> for Place<'_> {
    fn compare(&self, claim: &Claim) -> Ordering {
        match *self {
            Place::Before(host) => from_the_end(host, claim.host()).then(Ordering::Less),
            Place::At(host, age) => {
                from_the_end(host, claim.host()).then_with(|| (age.created, &age.name, age.kind).cmp(&claim.rank()))
            }
            Place::After(host) => from_the_end(host, claim.host()).then(Ordering::Greater),
            Place::AfterEnding(ending) if claim.host().ends_with(ending) => Ordering::Greater,
            Place::AfterEnding(ending) => from_the_end(ending, claim.host()),
        }
    }
}

/// Which claims are looked for.
#[derive(Clone, Copy)]
enum Ages<'a> {
    All,
    Before(&'a Age),
    After(&'a Age),
}

impl Ages<'_> {
    fn hold(self, claim: &Claim) -> bool {
        match self {
            Ages::All => true,
            Ages::Before(age) => claim.rank() < (age.created, &age.name, age.kind),
            Ages::After(age) => claim.rank() > (age.created, &age.name, age.kind),
        }
    }
}

/// A route that does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    route: Arc<CompiledRoute>,
    /// One that serves and stands in its way; there may be others.
    blocker: Age,
}

/// The claims of one kind, by listener; [`EVERY_LISTENER`] for routes that are bound to none.
type Claims = OrdMap<String, OrdSet<Claim>>;

/// No listener has this name.
const EVERY_LISTENER: &str = "";

/// What becomes of a route by a change.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It serves from now on.
    Serves(Arc<CompiledRoute>),
    /// It served, and does not any more.
    Ceases(Arc<CompiledRoute>),
}

/// All routes with a rule: those that serve, and those that wait. A clone costs O(1).
///
/// Invariants: a route serves unless a serving one of the other kind, which comes before it, shares a hostname and a listener with it;
/// `claims` are those of exactly the routes that serve, once there was a gRPC route; `blocked` is `waiting` by blocker.
#[derive(Debug, Clone, Default)]
pub(super) struct Contest {
    /// Of HTTP routes, and of gRPC routes.
    claims: [Claims; 2],
    /// Whether a gRPC route ever came.
    is_open: bool,
    waiting: OrdMap<Age, Waiting>,
    blocked: OrdMap<Age, OrdSet<Age>>,
}

impl Contest {
    /// Lets a route in. `others` are those that are in.
    pub(super) fn enter<'a>(
        &mut self,
        route: &Arc<CompiledRoute>,
        others: impl Iterator<Item = &'a Arc<CompiledRoute>>,
    ) -> Vec<Verdict> {
        let rule = route.rules.first().filter(|rule| self.is_open || rule.kind() == Kind::GrpcRoute);
        let Some(rule) = rule else { return vec![Verdict::Serves(Arc::clone(route))] };
        if !self.is_open {
            self.is_open = true;
            others.for_each(|other| self.claim(other));
        }
        self.settle(BTreeMap::from([(Age::of(rule), Arc::clone(route))]))
    }

    /// Takes a route out.
    pub(super) fn leave(&mut self, route: &Arc<CompiledRoute>) -> Vec<Verdict> {
        if !self.is_open {
            return vec![Verdict::Ceases(Arc::clone(route))];
        }
        let age = route.rules.first().map(|rule| Age::of(rule));
        if let Some(waiting) = age.as_ref().and_then(|age| self.waiting.remove(age)) {
            self.unblock(&waiting.blocker, age.as_ref());
            return Vec::new();
        }
        self.withdraw(route);
        let doubtful = age.map(|age| self.release(&age)).unwrap_or_default();
        std::iter::once(Verdict::Ceases(Arc::clone(route))).chain(self.settle(doubtful)).collect()
    }

    /// Puts `new` in the place of `old`, which claims the same. Whether it serves.
    pub(super) fn swap(&mut self, old: &Arc<CompiledRoute>, new: &Arc<CompiledRoute>) -> bool {
        if !self.is_open {
            return true;
        }
        if let Some(waiting) = new.rules.first().and_then(|rule| self.waiting.get_mut(&Age::of(rule))) {
            waiting.route = Arc::clone(new);
            return false;
        }
        self.withdraw(old);
        self.claim(new);
        true
    }

    /// How many routes wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the route with this rule waits.
    pub(super) fn is_waiting(&self, rule: &CompiledRule) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&Age::of(rule))
    }

    /// Whether a route that serves stands in the way of this one.
    pub(super) fn blocks(&self, route: &CompiledRoute) -> bool {
        self.blocker(route).is_some()
    }

    /// Whether a gRPC route ever came.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The routes that wait, the oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<CompiledRoute>> {
        self.waiting.values().map(|waiting| &waiting.route)
    }

    /// The routes that wait and did not in `before`, the oldest first. Costs what differs, where one came from the other.
    pub(super) fn waiting_unlike<'t>(&'t self, before: &'t Contest) -> impl Iterator<Item = &'t Arc<CompiledRoute>> {
        before.waiting.diff(&self.waiting).filter_map(|difference| match difference {
            DiffItem::Add(_, waiting) => Some(&waiting.route),
            DiffItem::Update { .. } | DiffItem::Remove(..) => None,
        })
    }

    /// What stands in the way of a route, if anything does, for people.
    pub(super) fn reason(&self, route: &CompiledRoute) -> Option<String> {
        let claim = self.blocker(route)?;
        let blocker = ResourceKey::new(claim.rule().kind(), claim.rule().route.clone());
        let reason = "on a listener that both share: a Route and a GRPCRoute cannot both serve there";
        Some(format!("{blocker} is older, or first by name, and has hostname {:?} {reason}", claim.host()))
    }

    /// Whether a gRPC route that serves has this host, on this listener.
    pub(super) fn has_grpc(&self, host: &str, listener: &str) -> bool {
        let sets = self.sets(Kind::GrpcRoute, [listener].into_iter());
        sets.into_iter()
            .any(|claims| overlapping(claims, HostPattern::Exact(host), Ages::All, &mut ControlFlow::Break).is_break())
    }

    /// Judges routes that neither serve nor wait, and whom that touches, from the oldest on.
    fn settle(&mut self, mut doubtful: BTreeMap<Age, Arc<CompiledRoute>>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some((age, route)) = doubtful.pop_first() {
            if let Some(blocker) = self.blocker(&route).map(|claim| Age::of(claim.rule())) {
                self.wait(age, route, blocker);
                continue;
            }
            for (loser_age, loser) in self.losers(&route, &age) {
                self.withdraw(&loser);
                doubtful.extend(self.release(&loser_age));
                verdicts.push(Verdict::Ceases(Arc::clone(&loser)));
                self.wait(loser_age, loser, age.clone());
            }
            self.claim(&route);
            verdicts.push(Verdict::Serves(route));
        }
        verdicts
    }

    /// The first claim that stands in the way of a route.
    fn blocker<'t>(&'t self, route: &CompiledRoute) -> Option<&'t Claim> {
        let rule = route.rules.first()?;
        let age = Age::of(rule);
        let sets = self.rivals(rule);
        rule.scope.hostnames.iter().find_map(|host| {
            let pattern = HostPattern::parse(host);
            let first = |claims| overlapping(claims, pattern, Ages::Before(&age), &mut ControlFlow::Break).break_value();
            sets.iter().copied().find_map(first)
        })
    }

    /// The routes that serve, and that a route of this age stands in the way of.
    fn losers(&self, route: &CompiledRoute, age: &Age) -> BTreeMap<Age, Arc<CompiledRoute>> {
        let mut losers = BTreeMap::new();
        let Some(rule) = route.rules.first() else { return losers };
        for (host, claims) in
            rule.scope.hostnames.iter().flat_map(|host| self.rivals(rule).into_iter().map(move |set| (host, set)))
        {
            let _: ControlFlow<()> = overlapping(claims, HostPattern::parse(host), Ages::After(age), &mut |claim| {
                losers.insert(Age::of(claim.rule()), Arc::clone(&claim.route));
                ControlFlow::Continue(())
            });
        }
        losers
    }

    /// The claims of the other kind on listeners that a rule's route shares.
    fn rivals(&self, rule: &CompiledRule) -> Vec<&OrdSet<Claim>> {
        let kind = if rule.kind() == Kind::GrpcRoute { Kind::Route } else { Kind::GrpcRoute };
        match &*rule.scope.listeners {
            [] => self.claims[place_of(kind)].values().collect(),
            names => self.sets(kind, names.iter().map(AsRef::as_ref)),
        }
    }

    /// The claims of a kind on these listeners.
    fn sets<'n>(&self, kind: Kind, listeners: impl Iterator<Item = &'n str>) -> Vec<&OrdSet<Claim>> {
        let claims = &self.claims[place_of(kind)];
        std::iter::once(EVERY_LISTENER).chain(listeners).filter_map(|listener| claims.get(listener)).collect()
    }

    fn claim(&mut self, route: &Arc<CompiledRoute>) {
        for (kind, listener) in places_of(route) {
            let claims = self.claims[place_of(kind)].entry(listener.to_owned()).or_default();
            claims.extend(Claim::all_of(route));
        }
    }

    fn withdraw(&mut self, route: &Arc<CompiledRoute>) {
        for (kind, listener) in places_of(route) {
            let sets = &mut self.claims[place_of(kind)];
            let Some(claims) = sets.get_mut(listener) else { continue };
            Claim::all_of(route).for_each(|claim| drop(claims.remove(&claim)));
            if claims.is_empty() {
                sets.remove(listener);
            }
        }
    }

    fn wait(&mut self, age: Age, route: Arc<CompiledRoute>, blocker: Age) {
        self.blocked.entry(blocker.clone()).or_default().insert(age.clone());
        self.waiting.insert(age, Waiting { route, blocker });
    }

    fn unblock(&mut self, blocker: &Age, age: Option<&Age>) {
        let Some(blocked) = self.blocked.get_mut(blocker) else { return };
        age.map(|age| blocked.remove(age));
        if blocked.is_empty() {
            self.blocked.remove(blocker);
        }
    }

    /// The routes that waited for the one of this age, which neither serve nor wait now.
    fn release(&mut self, blocker: &Age) -> BTreeMap<Age, Arc<CompiledRoute>> {
        let blocked = self.blocked.remove(blocker).unwrap_or_default();
        let released = blocked.into_iter().filter_map(|age| self.waiting.remove(&age).map(|waiting| (age, waiting.route)));
        released.collect()
    }

    /// Whether nothing is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.claims.iter().all(OrdMap::is_empty) && self.waiting.is_empty() && self.blocked.is_empty()
    }
}

fn place_of(kind: Kind) -> usize {
    usize::from(kind == Kind::GrpcRoute)
}

/// The kind of a route, with each of its listeners.
fn places_of(route: &CompiledRoute) -> impl Iterator<Item = (Kind, &str)> {
    route.rules.first().into_iter().flat_map(|rule| {
        let listeners = &rule.scope.listeners;
        let every = listeners.is_empty().then_some(EVERY_LISTENER);
        every.into_iter().chain(listeners.iter().map(AsRef::as_ref)).map(|listener| (rule.kind(), listener))
    })
}

/// Visits the claims of some ages whose hostnames intersect with `pattern`.
fn overlapping<'t, B>(
    claims: &'t OrdSet<Claim>,
    pattern: HostPattern<'_>,
    ages: Ages<'_>,
    visit: &mut impl FnMut(&'t Claim) -> ControlFlow<B>,
) -> ControlFlow<B> {
    if pattern == HostPattern::Any {
        return claims.iter().filter(|claim| ages.hold(claim)).try_for_each(visit);
    }
    of_host(claims, ANY_HOST, ages).try_for_each(&mut *visit)?;
    for (_, suffix) in suffixes(pattern.text()) {
        of_host(claims, &format!("*.{suffix}"), ages).try_for_each(&mut *visit)?;
    }
    if let HostPattern::Exact(host) = pattern {
        return of_host(claims, host, ages).try_for_each(visit);
    }
    let ending = format!(".{}", pattern.text());
    let under = (Bound::Included(Place::Before(&ending)), Bound::Excluded(Place::AfterEnding(&ending)));
    claims.range(under).filter(|claim| ages.hold(claim)).try_for_each(visit)
}

/// The claims of one hostname and of some ages.
fn of_host<'t>(claims: &'t OrdSet<Claim>, host: &str, ages: Ages<'_>) -> impl Iterator<Item = &'t Claim> {
    let range = match ages {
        Ages::All => (Bound::Included(Place::Before(host)), Bound::Excluded(Place::After(host))),
        Ages::Before(age) => (Bound::Included(Place::Before(host)), Bound::Excluded(Place::At(host, age))),
        Ages::After(age) => (Bound::Excluded(Place::At(host, age)), Bound::Excluded(Place::After(host))),
    };
    claims.range(range)
}
