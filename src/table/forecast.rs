//! What a write will make of routes that cannot all serve (`contest`), told before it is proposed.
//!
//! It is judged by this table: another write that comes first may change it, and then `/v1/table` tells. What a write made of them that has
//! more routes than can be looked at beforehand is told of the table afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::compile::compile_route;
use super::contest::Contest;
use super::rule::CompiledRoute;
use super::snapshot::Snapshot;
use crate::model::spec::{RouteSpec, Rule};
use crate::model::{Kind, Resource, ResourceKey, Timestamp};

/// A route of either kind as far as it can be in the way of others.
#[derive(Debug, Clone)]
pub struct RouteOutline {
    /// Which route.
    pub key: ResourceKey,
    /// As in its spec.
    pub hostnames: Vec<String>,
    /// As in its spec.
    pub listeners: Vec<String>,
}

/// What happens to the routes that a write does not make or replace.
#[derive(Debug, Clone, Copy)]
pub enum Others<'a> {
    /// They stay, but for these.
    StayBut(&'a [ResourceKey]),
    /// All of them go.
    Go,
}

impl Snapshot {
    /// Whether [`Snapshot::waiting_after`] has to look at every route for this: the table's first gRPC routes.
    pub fn opens_contest(&self, written: &[RouteOutline]) -> bool {
        !self.contest.is_open() && written.iter().any(|outline| outline.key.kind == Kind::GrpcRoute)
    }

    /// The routes that would wait for others, and why, once `written` are made or replaced: those of `written` in their order, then those that
    /// serve where they would not then.
    pub fn waiting_after(&self, written: &[RouteOutline], others: Others<'_>) -> Vec<(ResourceKey, String)> {
        if !self.contest.is_open() && !self.opens_contest(written) {
            return Vec::new();
        }
        match others {
            Others::Go => self.judged(Contest::default(), written, &|_| false),
            Others::StayBut(removed) => {
                let mut contest = self.contest.clone();
                let gone = removed.iter().filter_map(|key| self.routes.get(key));
                gone.for_each(|route| drop(contest.leave(route)));
                let touched: BTreeSet<&ResourceKey> = written.iter().map(|outline| &outline.key).chain(removed).collect();
                self.judged(contest, written, &|key| !touched.contains(key))
            }
        }
    }

    /// Whether a gRPC route ever came, so that routes may wait for others.
    pub fn has_contest(&self) -> bool {
        self.contest.is_open()
    }

    /// The routes that wait for others, the oldest first: those that are written, and those that did not wait before.
    pub fn waiting_since<'t>(
        &'t self,
        before: &'t Snapshot,
        is_written: impl Fn(&ResourceKey) -> bool + 't,
    ) -> impl Iterator<Item = &'t ResourceKey> {
        let new: BTreeSet<&ResourceKey> = self.contest.waiting_unlike(&before.contest).map(|route| &route.key).collect();
        self.contest.waiting().map(|route| &route.key).filter(move |key| is_written(key) || new.contains(key))
    }

    /// Why a route waits, if it does.
    pub fn reason_waiting(&self, key: &ResourceKey) -> Option<String> {
        self.contest.reason(self.routes.get(key)?)
    }

    /// Lets `written` into a contest of what stays.
    fn judged(
        &self,
        mut contest: Contest,
        written: &[RouteOutline],
        is_untouched: &dyn Fn(&ResourceKey) -> bool,
    ) -> Vec<(ResourceKey, String)> {
        // Before its first gRPC route a contest knows of no route: then all of them are let in anew.
        let is_open = contest.is_open();
        let mut judged = Vec::with_capacity(written.len());
        let mut entering = Vec::new();
        for outline in written {
            let old = self.routes.get(&outline.key);
            let new = self.outlined(outline, old);
            let old = old.filter(|_| is_open);
            if old.is_none_or(|old| !new.claims_same(old)) {
                old.iter().for_each(|old| drop(contest.leave(old)));
                entering.push(Arc::clone(&new));
            }
            judged.push(new);
        }
        for (index, route) in entering.iter().enumerate() {
            let untouched = self.routes.values().filter(|route| is_untouched(&route.key));
            contest.enter(route, untouched.chain(&entering[..index]));
        }
        let of_written = judged.iter().filter(|route| contest.waits(route));
        let displaced = contest.waiting_unlike(&self.contest).filter(|route| is_untouched(&route.key));
        let waiting = of_written.chain(displaced);
        waiting.filter_map(|route| Some((route.key.clone(), contest.reason(route)?))).collect()
    }

    /// The route that an outline stands for, in the place of `old` where there is one.
    fn outlined(&self, outline: &RouteOutline, old: Option<&Arc<CompiledRoute>>) -> Arc<CompiledRoute> {
        let created = old.and_then(|old| old.rules.first()).map(|rule| rule.created_revision);
        let revision = self.revision.next();
        let resource = Resource {
            key: outline.key.clone(),
            created_revision: created.unwrap_or(revision),
            revision,
            updated_at: Timestamp(0),
            spec: Bytes::new(),
        };
        let (hostnames, listeners) = (outline.hostnames.clone(), outline.listeners.clone());
        Arc::new(compile_route(&resource, RouteSpec { hostnames, listeners, rules: vec![Rule::default()] }))
    }
}
