//! Why a request is answered by the rule that answers it, or by none.

use std::ops::ControlFlow;

use serde::Serialize;

use super::conditions::Failure;
use super::key::{ANY_HOST, HostPattern};
use super::request::RequestView;
use super::rule::Candidate;
use super::snapshot::Snapshot;
use crate::model::Revision;
use crate::model::spec::PathMatchType;

/// What [`Snapshot::explain`](super::Snapshot::explain) tells. Serialised in camelCase for `POST /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The revision that was asked.
    pub revision: Revision,
    /// The candidate that answers; null means 404.
    pub outcome: Option<CandidateReport>,
    /// Candidates whose host and path match, in order of precedence, the first [`CANDIDATES_MAX`] and so maybe not the outcome. Where none
    /// matches, the rules of the host levels whose path differs, the closest first, at most [`CLOSEST_MAX`].
    pub candidates: Vec<CandidateReport>,
    /// Whether there were more, or may be.
    pub truncated: bool,
    /// Where no rule answers: why, for people, with the candidate that came closest and the first condition that it fails.
    pub unmatched: Option<String>,
    /// Host patterns that the host matches and that have rules, best first; `*` stands for routes without hostnames.
    pub host_levels: Vec<String>,
}

/// [`Explanation::candidates`] are cut here.
pub const CANDIDATES_MAX: usize = 2_000;

/// Candidates with another path are cut here.
pub const CLOSEST_MAX: usize = 20;

/// One match of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateReport {
    /// The route's kind: `Route` or `GRPCRoute`.
    pub kind: &'static str,
    /// The route's name.
    pub route: String,
    /// The rule's place in the route, from 0.
    pub rule: usize,
    /// The rule's name.
    pub rule_name: Option<String>,
    /// The match's place in the rule, from 0.
    pub match_index: usize,
    /// The host pattern that it stands under; `*` for a route without hostnames.
    pub host: String,
    /// `Exact /orders`, `PathPrefix /`.
    pub path: String,
    /// Why this node answers 500 for it.
    pub unservable: Option<String>,
    /// Why it does not answer; null for the one that does.
    pub passed_over: Option<PassedOver>,
}

/// The first condition that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    /// Which condition.
    pub condition: Condition,
    /// For people: what was asked for and what was found.
    pub detail: String,
}

/// What a candidate can fail on, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// The path differs.
    Path,
    /// The route is bound to other listeners, or waits on this one for a route of the other kind.
    Listener,
    /// The route is a `GRPCRoute`, and the request is none of gRPC.
    Grpc,
    /// The method differs.
    Method,
    /// A header is missing or differs.
    Header,
    /// A query parameter is missing or differs.
    Query,
    /// All conditions hold, and a better candidate answers.
    Precedence,
}

impl Snapshot {
    /// Tells what [`Snapshot::find`] does with this request, by the same enumerator. For people: it allocates as it likes, within
    /// [`CANDIDATES_MAX`].
    pub fn explain(&self, request: &RequestView<'_>) -> Explanation {
        let mut candidates = Vec::new();
        let mut outcome = None;
        let mut truncated = false;
        let _: ControlFlow<()> = self.index.walk(request.host, request.path, &mut |candidate| {
            truncated = candidates.len() == CANDIDATES_MAX;
            if truncated && outcome.is_some() {
                return ControlFlow::Break(());
            }
            let passed_over = passed_over(self.failure(candidate, request), request, outcome.is_some());
            let answers = passed_over.is_none();
            let report = report(candidate, passed_over);
            if answers {
                outcome = Some(report.clone());
            }
            if !truncated {
                candidates.push(report);
            }
            ControlFlow::Continue(())
        });
        let patterns = self.host_levels(request.host);
        let mut other_path = None;
        if candidates.is_empty() {
            let closest = self.closest(&patterns, request.path);
            candidates = closest.candidates.iter().map(|candidate| report_other_path(candidate, request.path)).collect();
            (truncated, other_path) = (closest.truncated, closest.candidates.into_iter().next());
        }
        let unmatched = outcome.is_none().then(|| self.why_unmatched(request, !patterns.is_empty(), other_path.as_ref()));
        let host_levels = patterns.into_iter().map(host_text).collect();
        Explanation { revision: self.revision, outcome, candidates, truncated, unmatched, host_levels }
    }

    fn host_levels<'r>(&self, host: &'r str) -> Vec<HostPattern<'r>> {
        let mut patterns = Vec::new();
        let _: ControlFlow<()> = self.index.hosts.levels(host, &mut |level| {
            patterns.push(level.pattern);
            ControlFlow::Continue(())
        });
        patterns
    }
}

fn passed_over(failure: Option<Failure<'_>>, request: &RequestView<'_>, answered: bool) -> Option<PassedOver> {
    let Some(failure) = failure else {
        let detail = "a candidate before it answers".to_owned();
        return answered.then_some(PassedOver { condition: Condition::Precedence, detail });
    };
    Some(PassedOver { condition: failure.condition(), detail: failure_text(failure, request) })
}

/// What was asked for and what was found.
pub(super) fn failure_text(failure: Failure<'_>, request: &RequestView<'_>) -> String {
    match failure {
        Failure::Waits => {
            format!("waits on listener {:?} until the routes of the other kind before it are gone", request.listener)
        }
        Failure::Listener(names) => format!("bound to {}, the request came by {:?}", names.join(", "), request.listener),
        Failure::NotGrpc => "asks for a gRPC request: POST with content-type application/grpc".to_owned(),
        Failure::Method(method) => format!("asks for {method}, the request has {}", request.method),
        Failure::Header(header) => format!("asks for header {}: {}", header.name, header.value),
        Failure::Query(query) => format!("asks for query parameter {}={}", query.name, query.value),
    }
}

fn report_other_path(candidate: &Candidate, path: &str) -> CandidateReport {
    let detail = format!("path {path:?} does not match {}", path_text(candidate));
    report(candidate, Some(PassedOver { condition: Condition::Path, detail }))
}

fn report(candidate: &Candidate, passed_over: Option<PassedOver>) -> CandidateReport {
    let rule = &candidate.rule;
    CandidateReport {
        kind: rule.kind().as_str(),
        route: rule.route.as_str().to_owned(),
        rule: rule.rule_index as usize,
        rule_name: rule.rule.name.as_deref().map(str::to_owned),
        match_index: usize::from(candidate.match_index),
        host: candidate.host().to_owned(),
        path: path_text(candidate),
        unservable: rule.unservable.as_deref().map(str::to_owned),
        passed_over,
    }
}

/// `Exact /orders`
pub(super) fn path_text(candidate: &Candidate) -> String {
    let path = &candidate.route_match().path;
    let kind = match path.match_type {
        PathMatchType::Exact => "Exact",
        PathMatchType::PathTemplate => "PathTemplate",
        PathMatchType::RegularExpression => "RegularExpression",
        PathMatchType::PathPrefix => "PathPrefix",
    };
    format!("{kind} {}", path.value)
}

fn host_text(pattern: HostPattern<'_>) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_owned(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Any => ANY_HOST.to_owned(),
    }
}
