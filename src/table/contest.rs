//! HTTP routes and gRPC routes that cannot both serve, and which of them does.
//!
//! Where a `Route` and a `GRPCRoute` have hostnames that intersect, on one listener, exactly one of them serves there (Gateway API, GRPCRoute
//! "hostnames"): the oldest, then the first by name. The other waits on that listener, with all of its hostnames, and comes alive when nothing
//! stands before it any more; on its other listeners it serves meanwhile. A route that is bound to no listener is attached to all at once:
//! which there are, only the nodes know. Two routes of one kind are never in each other's way.
//!
//! What is judged is the [`Attachment`] of a route to a listener, from the oldest route on: it serves unless one of the other kind that serves
//! already stands in its way. What a change means for others is worked out by the same order: only newer routes can be touched, so the
//! oldest attachment that is in doubt is judged next, until none is. The result depends on the routes alone and not on the order in which
//! they came.
//!
//! The hostnames of the routes that serve ([`claims`]) stand in ordered sets, one for each kind and listener, by their text from its end: all hosts under
//! `*.example.com` stand side by side. A change costs a few look-ups a hostname and listener, and the routes that it touches. The first
//! `GRPCRoute` of a table costs one pass over its routes besides: tables that have none keep none of this.

mod claims;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use itertools::Itertools as _;
use smol_str::SmolStr;

use self::claims::{Age, Ages, Attachment, Claim, EVERY_LISTENER, overlapping};
use super::key::HostPattern;
use super::rule::{CompiledRoute, CompiledRule};
use crate::model::{Kind, ResourceKey};

/// An attachment that does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    route: Arc<CompiledRoute>,
    /// One that serves and stands in its way; there may be others.
    blocker: Attachment,
}

/// The claims of one kind, by listener; [`EVERY_LISTENER`] for routes that are bound to none.
type Claims = OrdMap<SmolStr, OrdSet<Claim>>;

/// What becomes of a route by a change.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It serves from now on, on one listener at least.
    Serves(Arc<CompiledRoute>),
    /// It served, and does not any more on any.
    Ceases(Arc<CompiledRoute>),
}

/// On how many of its listeners a route serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It is not in.
    Absent,
    Nowhere,
    Partly,
    Everywhere,
}

impl Extent {
    fn serves(self) -> bool {
        matches!(self, Extent::Partly | Extent::Everywhere)
    }
}

/// Routes that a change touches, and on how many listeners they served before.
type Touched = BTreeMap<Age, (Arc<CompiledRoute>, Extent)>;

/// All routes with a rule: those that serve, and those that wait. A clone costs O(1).
///
/// Invariants: an attachment serves unless a serving one of the other kind, whose route comes before its own, shares a hostname and a listener
/// with it; `claims` are those of exactly the attachments that serve, once there was a gRPC route; `blocked` is `waiting` by blocker; the
/// counts are those of the routes of `waiting`.
#[derive(Debug, Clone, Default)]
pub(super) struct Contest {
    /// Of HTTP routes, and of gRPC routes.
    claims: [Claims; 2],
    /// Whether a gRPC route ever came.
    is_open: bool,
    waiting: OrdMap<Attachment, Waiting>,
    blocked: OrdMap<Attachment, OrdSet<Attachment>>,
    /// Routes that serve nowhere.
    idle_count: usize,
    /// Routes that serve on some of their listeners.
    partial_count: usize,
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
            for other in others {
                Attachment::all_of(other).for_each(|attachment| self.claim(other, &attachment.listener));
            }
        }
        let touched = Touched::from([(Age::of(rule), (Arc::clone(route), Extent::Absent))]);
        let doubtful = Attachment::all_of(route).map(|attachment| (attachment, Arc::clone(route)));
        self.settle(doubtful.collect(), touched)
    }

    /// Takes a route out.
    pub(super) fn leave(&mut self, route: &Arc<CompiledRoute>) -> Vec<Verdict> {
        if !self.is_open {
            return vec![Verdict::Ceases(Arc::clone(route))];
        }
        let extent = self.extent(route);
        self.count(extent, Extent::Absent);
        let (mut doubtful, mut touched) = (BTreeMap::new(), Touched::new());
        for attachment in Attachment::all_of(route) {
            if let Some(waiting) = self.waiting.remove(&attachment) {
                self.unblock(&waiting.blocker, &attachment);
                continue;
            }
            self.withdraw(route, &attachment.listener);
            doubtful.extend(self.release(&attachment, &mut touched));
        }
        let own = extent.serves().then(|| Verdict::Ceases(Arc::clone(route)));
        own.into_iter().chain(self.settle(doubtful, touched)).collect()
    }

    /// Puts `new` in the place of `old`, which claims the same. Whether it serves.
    pub(super) fn swap(&mut self, old: &Arc<CompiledRoute>, new: &Arc<CompiledRoute>) -> bool {
        if !self.is_open {
            return true;
        }
        for attachment in Attachment::all_of(new) {
            if let Some(waiting) = self.waiting.get_mut(&attachment) {
                waiting.route = Arc::clone(new);
                continue;
            }
            self.withdraw(old, &attachment.listener);
            self.claim(new, &attachment.listener);
        }
        self.serves(new)
    }

    /// How many routes serve nowhere.
    pub(super) fn idle_count(&self) -> usize {
        self.idle_count
    }

    /// How many routes wait, on all or some of their listeners.
    pub(super) fn waiting_count(&self) -> usize {
        self.idle_count + self.partial_count
    }

    /// Whether the route, which is in, serves on one listener at least.
    pub(super) fn serves(&self, route: &CompiledRoute) -> bool {
        self.idle_count == 0 || self.extent(route).serves()
    }

    /// Whether the route, which is in, waits on one listener at least.
    pub(super) fn waits(&self, route: &CompiledRoute) -> bool {
        self.extent(route) != Extent::Everywhere
    }

    /// Whether the route of this rule, which serves, waits on this listener.
    pub(super) fn waits_on(&self, rule: &CompiledRule, listener: &str) -> bool {
        self.partial_count > 0 && self.waiting.contains_key(&Attachment::of(rule, listener))
    }

    /// Whether what is held of a route, which is in, is what the routes that serve make of it.
    pub(super) fn is_settled(&self, route: &CompiledRoute) -> bool {
        Attachment::all_of(route).all(|attachment| {
            let is_blocked = self.blocker(route, &attachment).is_some();
            is_blocked == self.waiting.contains_key(&attachment)
        })
    }

    /// Whether a gRPC route ever came.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The routes that wait somewhere, the oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<CompiledRoute>> {
        self.waiting.values().map(|waiting| &waiting.route).dedup_by(|one, other| one.key == other.key)
    }

    /// The routes that wait where they did not in `before`, the oldest first. Costs what differs, where one came from the other.
    pub(super) fn waiting_unlike<'t>(&'t self, before: &'t Contest) -> impl Iterator<Item = &'t Arc<CompiledRoute>> {
        let routes = before.waiting.diff(&self.waiting).filter_map(|difference| match difference {
            DiffItem::Add(_, waiting) => Some(&waiting.route),
            DiffItem::Update { .. } | DiffItem::Remove(..) => None,
        });
        routes.dedup_by(|one, other| one.key == other.key)
    }

    /// What stands in the way of a route, if anything does, for people.
    pub(super) fn reason(&self, route: &CompiledRoute) -> Option<String> {
        let mut reasons = Vec::new();
        let mut is_partial = false;
        for attachment in Attachment::all_of(route) {
            let Some((_, claim)) = self.blocker(route, &attachment) else {
                is_partial = true;
                continue;
            };
            let blocker = ResourceKey::new(claim.rule().kind(), claim.rule().route.clone());
            let place = match attachment.listener.as_str() {
                EVERY_LISTENER => "on a listener that both share".to_owned(),
                listener => format!("on listener {listener:?}"),
            };
            reasons.push(format!("{blocker} is older, or first by name, and has hostname {:?} {place}", claim.host()));
        }
        let meanwhile = if is_partial { "; it serves on its other listeners" } else { "" };
        let reason = "a Route and a GRPCRoute cannot both serve there";
        (!reasons.is_empty()).then(|| format!("{}: {reason}{meanwhile}", reasons.join(", and ")))
    }

    /// Judges attachments that neither serve nor wait, and whom that touches, from the oldest on.
    fn settle(&mut self, mut doubtful: BTreeMap<Attachment, Arc<CompiledRoute>>, mut touched: Touched) -> Vec<Verdict> {
        while let Some((attachment, route)) = doubtful.pop_first() {
            if let Some(blocker) =
                self.blocker(&route, &attachment).map(|(listener, claim)| Attachment::of(claim.rule(), listener))
            {
                self.wait(attachment, route, blocker);
                continue;
            }
            for (lost, loser) in self.losers(&route, &attachment) {
                self.touch(&lost.age, &loser, &mut touched);
                self.withdraw(&loser, &lost.listener);
                doubtful.extend(self.release(&lost, &mut touched));
                self.wait(lost, loser, attachment.clone());
            }
            self.claim(&route, &attachment.listener);
        }
        let mut verdicts = Vec::new();
        for (route, before) in touched.into_values() {
            let after = self.extent(&route);
            self.count(before, after);
            match (before.serves(), after.serves()) {
                (false, true) => verdicts.push(Verdict::Serves(route)),
                (true, false) => verdicts.push(Verdict::Ceases(route)),
                (true, true) | (false, false) => {}
            }
        }
        verdicts
    }

    /// Notes on how many listeners a route serves, before the first change of that.
    fn touch(&self, age: &Age, route: &Arc<CompiledRoute>, touched: &mut Touched) {
        if !touched.contains_key(age) {
            touched.insert(age.clone(), (Arc::clone(route), self.extent(route)));
        }
    }

    fn extent(&self, route: &CompiledRoute) -> Extent {
        if self.waiting.is_empty() {
            return Extent::Everywhere;
        }
        let (mut waits, mut serves) = (false, false);
        for attachment in Attachment::all_of(route) {
            let is_waiting = self.waiting.contains_key(&attachment);
            (waits, serves) = (waits || is_waiting, serves || !is_waiting);
        }
        match (waits, serves) {
            (false, _) => Extent::Everywhere,
            (true, true) => Extent::Partly,
            (true, false) => Extent::Nowhere,
        }
    }

    fn count(&mut self, before: Extent, after: Extent) {
        let is = |extent| (usize::from(before == extent), usize::from(after == extent));
        for (count, (less, more)) in [(&mut self.idle_count, is(Extent::Nowhere)), (&mut self.partial_count, is(Extent::Partly))]
        {
            *count = *count + more - less;
        }
    }

    /// The first claim that stands in the way of an attachment of a route, and the listener of its own.
    fn blocker<'t>(&'t self, route: &CompiledRoute, attachment: &Attachment) -> Option<(&'t SmolStr, &'t Claim)> {
        let rule = route.rules.first()?;
        let sets: Vec<_> = self.rivals(rule.kind(), &attachment.listener).collect();
        rule.scope.hostnames.iter().find_map(|host| {
            let pattern = HostPattern::parse(host);
            let ages = Ages::Before(&attachment.age);
            sets.iter().find_map(|(listener, claims)| {
                let claim = overlapping(claims, pattern, ages, &mut ControlFlow::Break).break_value()?;
                Some((*listener, claim))
            })
        })
    }

    /// The attachments that serve, and that one of a route stands in the way of.
    fn losers(&self, route: &CompiledRoute, attachment: &Attachment) -> BTreeMap<Attachment, Arc<CompiledRoute>> {
        let mut losers = BTreeMap::new();
        let Some(rule) = route.rules.first() else { return losers };
        for (listener, claims) in self.rivals(rule.kind(), &attachment.listener) {
            for host in &rule.scope.hostnames {
                let ages = Ages::After(&attachment.age);
                let _: ControlFlow<()> = overlapping(claims, HostPattern::parse(host), ages, &mut |claim| {
                    losers.insert(Attachment::of(claim.rule(), listener), Arc::clone(&claim.route));
                    ControlFlow::Continue(())
                });
            }
        }
        losers
    }

    /// The claims of the other kind that a route of `kind` meets on `listener`.
    fn rivals(&self, kind: Kind, listener: &str) -> impl Iterator<Item = (&SmolStr, &OrdSet<Claim>)> {
        let other = if kind == Kind::GrpcRoute { Kind::Route } else { Kind::GrpcRoute };
        let every = (listener == EVERY_LISTENER).then(|| self.claims[place_of(other)].iter());
        let some = (listener != EVERY_LISTENER).then(|| self.sets(other, listener));
        every.into_iter().flatten().chain(some.into_iter().flatten())
    }

    /// The claims of a kind on this listener.
    fn sets(&self, kind: Kind, listener: &str) -> impl Iterator<Item = (&SmolStr, &OrdSet<Claim>)> {
        let claims = &self.claims[place_of(kind)];
        [EVERY_LISTENER, listener].into_iter().filter_map(|listener| claims.get_key_value(listener))
    }

    fn claim(&mut self, route: &Arc<CompiledRoute>, listener: &str) {
        let Some(rule) = route.rules.first() else { return };
        let claims = self.claims[place_of(rule.kind())].entry(SmolStr::new(listener)).or_default();
        claims.extend(Claim::all_of(route));
    }

    fn withdraw(&mut self, route: &Arc<CompiledRoute>, listener: &str) {
        let Some(rule) = route.rules.first() else { return };
        let sets = &mut self.claims[place_of(rule.kind())];
        let Some(claims) = sets.get_mut(listener) else { return };
        Claim::all_of(route).for_each(|claim| drop(claims.remove(&claim)));
        if claims.is_empty() {
            sets.remove(listener);
        }
    }

    fn wait(&mut self, attachment: Attachment, route: Arc<CompiledRoute>, blocker: Attachment) {
        self.blocked.entry(blocker.clone()).or_default().insert(attachment.clone());
        self.waiting.insert(attachment, Waiting { route, blocker });
    }

    fn unblock(&mut self, blocker: &Attachment, attachment: &Attachment) {
        let Some(blocked) = self.blocked.get_mut(blocker) else { return };
        blocked.remove(attachment);
        if blocked.is_empty() {
            self.blocked.remove(blocker);
        }
    }

    /// The attachments that waited for this one, which neither serve nor wait from now on.
    fn release(&mut self, blocker: &Attachment, touched: &mut Touched) -> Vec<(Attachment, Arc<CompiledRoute>)> {
        let blocked = self.blocked.remove(blocker).unwrap_or_default();
        let mut released = Vec::with_capacity(blocked.len());
        for attachment in blocked {
            let Some(waiting) = self.waiting.get(&attachment) else { continue };
            let route = Arc::clone(&waiting.route);
            self.touch(&attachment.age, &route, touched);
            self.waiting.remove(&attachment);
            released.push((attachment, route));
        }
        released
    }

    /// The routes that wait, each with a listener on which it does.
    #[cfg(test)]
    pub(super) fn waiting_attachments(&self) -> impl Iterator<Item = (ResourceKey, String)> {
        self.waiting.iter().map(|(attachment, waiting)| (waiting.route.key.clone(), attachment.listener.to_string()))
    }

    /// Whether nothing is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.claims.iter().all(OrdMap::is_empty)
            && self.waiting.is_empty()
            && self.blocked.is_empty()
            && self.waiting_count() == 0
    }
}

fn place_of(kind: Kind) -> usize {
    usize::from(kind == Kind::GrpcRoute)
}
