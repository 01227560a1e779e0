//! Why no rule answers, in one sentence that names the candidate which came closest.
//!
//! Of candidates whose host and path match, the closest is the one whose first failing condition stands last in the order of the
//! conditions, then the first by precedence. Where no path matches, it is the one that shares most of the path's beginning.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use itertools::Itertools as _;

use super::conditions::Failure;
use super::explain::{CLOSEST_MAX, Condition, failure_text, path_text};
use super::key::HostPattern;
use super::request::RequestView;
use super::rule::Candidate;
use super::snapshot::Snapshot;

/// Routes that are looked at for candidates with another path.
const CLOSEST_SCANNED_MAX: usize = 100_000;

/// Candidates of the request's hosts that have another path.
pub(super) struct Closest {
    /// The closest first, at most [`CLOSEST_MAX`].
    pub(super) candidates: Vec<Candidate>,
    /// Whether there are more, or may be.
    pub(super) truncated: bool,
}

impl Snapshot {
    /// Candidates of these hosts, which all have another path. Looks at no more than [`CLOSEST_SCANNED_MAX`] routes.
    pub(super) fn closest(&self, patterns: &[HostPattern<'_>], path: &str) -> Closest {
        if patterns.is_empty() {
            return Closest { candidates: Vec::new(), truncated: false };
        }
        let routes = self.routes.values().take(CLOSEST_SCANNED_MAX);
        let serving = routes.filter(|route| self.contest.serves(route));
        let candidates = serving.flat_map(|route| route.candidates());
        let same_host = candidates.filter(|candidate| patterns.contains(&HostPattern::parse(candidate.host())));
        let mut candidates: Vec<Candidate> =
            same_host.k_smallest_by(CLOSEST_MAX + 1, |one, other| by_distance(path, one, other)).collect();
        let truncated = candidates.len() > CLOSEST_MAX || self.routes.len() > CLOSEST_SCANNED_MAX;
        candidates.truncate(CLOSEST_MAX);
        Closest { candidates, truncated }
    }

    /// Says why no rule answers `request`, which none does. `other_path` is what [`Snapshot::closest`] found.
    pub(super) fn why_unmatched(&self, request: &RequestView<'_>, has_host: bool, other_path: Option<&Candidate>) -> String {
        if !has_host {
            return format!("no route has host {:?}", request.host);
        }
        let mut closest: Option<(&Candidate, Failure<'_>)> = None;
        let _: ControlFlow<()> = self.index.walk(request.host, request.path, &mut |candidate| {
            let failure = self.failure(candidate, request);
            let is_closer = |failure: &Failure<'_>| closest.is_none_or(|(_, held)| held.condition() < failure.condition());
            if let Some(failure) = failure.filter(is_closer) {
                closest = Some((candidate, failure));
            }
            ControlFlow::Continue(())
        });
        match (closest, other_path) {
            (Some((candidate, failure)), _) => conditions_text(candidate, failure, request),
            (None, None) => format!("host matched, no path matched {:?}", request.path),
            (None, Some(candidate)) => format!(
                "host matched, no path matched {:?}: the closest is {} of {}",
                request.path,
                path_text(candidate),
                rule_text(candidate)
            ),
        }
    }
}

/// Who shares more of the path's beginning comes first.
fn by_distance(path: &str, one: &Candidate, other: &Candidate) -> Ordering {
    let shared = |candidate: &Candidate| {
        let bytes = path.bytes().zip(candidate.route_match().path.value.bytes());
        bytes.take_while(|(asked, expected)| asked == expected).count()
    };
    shared(other).cmp(&shared(one)).then_with(|| one.cmp(other))
}

/// `host matched, path matched /orders, method differs: route orders, rule 0: asks for GET, the request has POST`
fn conditions_text(candidate: &Candidate, failure: Failure<'_>, request: &RequestView<'_>) -> String {
    let conditions = candidate.route_match();
    let condition = failure.condition();
    let method = conditions.method.as_ref().filter(|_| condition > Condition::Method);
    let headers = !conditions.headers.is_empty() && condition > Condition::Header;
    let held = [
        Some(format!("host matched, path matched {}", conditions.path.value)),
        method.map(|method| format!("method matched {method}")),
        headers.then(|| "headers matched".to_owned()),
    ];
    let failed = match failure {
        Failure::Waits => "the route waits there".to_owned(),
        Failure::Listener(_) => "listener differs".to_owned(),
        Failure::NotGrpc => "the request is none of gRPC".to_owned(),
        Failure::Method(_) => "method differs".to_owned(),
        Failure::Header(header) => match request.headers.contains_key(&header.name) {
            true => format!("header {} differs", header.name),
            false => format!("header {} is missing", header.name),
        },
        Failure::Query(query) => format!("query parameter {} is missing or differs", query.name),
    };
    let held = held.into_iter().flatten().join(", ");
    format!("{held}, {failed}: {}: {}", rule_text(candidate), failure_text(failure, request))
}

fn rule_text(candidate: &Candidate) -> String {
    let kind = if candidate.rule.is_grpc { "GRPCRoute" } else { "route" };
    format!("{kind} {}, rule {}", candidate.rule.route, candidate.rule.rule_index)
}
