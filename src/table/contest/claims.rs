//! What routes claim: hostnames, on listeners; and who comes first.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdSet;
use smol_str::SmolStr;

use crate::model::{Kind, Name, Revision};
use crate::table::key::{ANY_HOST, HostPattern, suffixes};
use crate::table::rule::{CompiledRoute, CompiledRule};

/// No listener has this name.
pub(super) const EVERY_LISTENER: &str = "";

/// The order in which routes win: the oldest, then the first by name; of two made at once under one name, the `Route`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    created: Revision,
    name: Name,
    kind: Kind,
}

impl Age {
    pub(super) fn of(rule: &CompiledRule) -> Age {
        Age { created: rule.created_revision, name: rule.route.clone(), kind: rule.kind() }
    }
}

/// A route on one of its listeners; on [`EVERY_LISTENER`] where it is bound to none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attachment {
    pub(super) age: Age,
    pub(super) listener: SmolStr,
}

impl Attachment {
    pub(super) fn of(rule: &CompiledRule, listener: &str) -> Attachment {
        Attachment { age: Age::of(rule), listener: SmolStr::new(listener) }
    }

    /// All of a route. None where it has no rule.
    pub(super) fn all_of(route: &CompiledRoute) -> impl Iterator<Item = Attachment> {
        let rule = route.rules.first();
        rule.into_iter().flat_map(|rule| listeners_of(rule).map(|listener| Attachment::of(rule, listener)))
    }
}

/// A hostname of a route that serves. The route has a rule.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) route: Arc<CompiledRoute>,
    host_index: u16,
}

impl Claim {
    pub(super) fn all_of(route: &Arc<CompiledRoute>) -> impl Iterator<Item = Claim> {
        let count = route.rules.first().map_or(0, |rule| rule.scope.hostnames.len());
        (0..count).map(|index| Claim { route: Arc::clone(route), host_index: index as u16 })
    }

    pub(super) fn rule(&self) -> &CompiledRule {
        &self.route.rules[0]
    }

    pub(super) fn host(&self) -> &str {
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
pub(super) enum Ages<'a> {
    Before(&'a Age),
    After(&'a Age),
}

impl Ages<'_> {
    fn hold(self, claim: &Claim) -> bool {
        match self {
            Ages::Before(age) => claim.rank() < (age.created, &age.name, age.kind),
            Ages::After(age) => claim.rank() > (age.created, &age.name, age.kind),
        }
    }
}

/// The listeners that a route is attached to by this rule of its own.
fn listeners_of(rule: &CompiledRule) -> impl Iterator<Item = &str> {
    let listeners = &rule.scope.listeners;
    let every = listeners.is_empty().then_some(EVERY_LISTENER);
    every.into_iter().chain(listeners.iter().map(AsRef::as_ref))
}

/// Visits the claims of some ages whose hostnames intersect with `pattern`.
pub(super) fn overlapping<'t, B>(
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
        Ages::Before(age) => (Bound::Included(Place::Before(host)), Bound::Excluded(Place::At(host, age))),
        Ages::After(age) => (Bound::Excluded(Place::At(host, age)), Bound::Excluded(Place::After(host))),
    };
    claims.range(range)
}
