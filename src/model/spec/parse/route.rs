//! Routes and their rules.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cursor::{Cursor, Object, Pointer};
use super::report::Report;
use super::{cors, filters, host, matches, retry};
use crate::model::Name;
use crate::model::spec::document::{Document, Fields};
use crate::model::spec::duration::parse_duration;
use crate::model::spec::route::{BackendRef, Filter, RouteMatch, RouteSpec, Rule, RuleLimits, Timeouts};

const HOSTNAMES_MAX: usize = 16;
const LISTENERS_MAX: usize = 32;
const RULES_MAX: usize = 16;
const RULE_MATCHES_MAX: usize = 64;
const ROUTE_MATCHES_MAX: usize = 128;
pub(super) const BACKEND_REFS_MAX: usize = 16;

/// The greatest weight of a backend or endpoint.
pub(super) const WEIGHT_MAX: u32 = 1_000_000;

/// The matches of a route so far, and names of its rules: what shall not occur twice.
#[derive(Default)]
pub(super) struct Seen {
    /// Whether the route has one rule only.
    is_lone_rule: bool,
    match_count: usize,
    matches: BTreeMap<String, Pointer>,
    names: BTreeMap<Name, Pointer>,
}

/// The whole spec of a `Route`.
pub(super) fn route(cursor: &Cursor<'_>, report: &mut Report) -> Option<RouteSpec> {
    // Without rules there is one, of which everything is left out (Gateway API, default of `rules`).
    let rules_default = Document::Array(vec![Document::Object(Fields::default())]);
    spec_of(cursor, Some(&rules_default), rule, report)
}

/// The whole spec of a route whose rules `rule` reads; with `rules_default`, where it has none.
pub(super) fn spec_of<'a>(
    cursor: &Cursor<'a>,
    rules_default: Option<&'a Document<'a>>,
    rule: fn(&Cursor<'_>, &mut Seen, &mut Report) -> Option<Rule>,
    report: &mut Report,
) -> Option<RouteSpec> {
    let object = cursor.object(&["hostnames", "listeners", "rules"], &[], report)?;
    let hostnames = distinct(object.list("hostnames", HOSTNAMES_MAX, report), report, host::hostname_or_wildcard);
    let listeners = distinct(object.list("listeners", LISTENERS_MAX, report), report, |text| {
        Name::new(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
    });
    let field = match rules_default {
        Some(rules) => object.get("rules").unwrap_or(object.assume("rules", rules)),
        None => object.require("rules", report)?,
    };
    let rule_fields = field.list(RULES_MAX, report)?;
    if rule_fields.is_empty() {
        field.fail(report, "a route has at least one rule");
    }
    let mut seen = Seen { is_lone_rule: rule_fields.len() == 1, ..Seen::default() };
    let rules = rule_fields.iter().filter_map(|field| rule(field, &mut seen, report)).collect();
    if seen.match_count > ROUTE_MATCHES_MAX {
        field.fail(report, format!("at most {ROUTE_MATCHES_MAX} matches in all rules together, found {}", seen.match_count));
    }
    Some(RouteSpec { hostnames, listeners, rules })
}

/// Checked texts, each once. A repetition has no meaning.
fn distinct(fields: Vec<Cursor<'_>>, report: &mut Report, read: impl Fn(&str) -> Result<String, String>) -> Vec<String> {
    let mut texts = Vec::with_capacity(fields.len());
    for field in fields {
        match field.read(1..=usize::MAX, &read, report) {
            Some(text) if texts.contains(&text) => report.warn(field.path(), &format!("{text:?} occurs twice in the list")),
            text => texts.extend(text),
        }
    }
    texts
}

fn rule(cursor: &Cursor<'_>, seen: &mut Seen, report: &mut Report) -> Option<Rule> {
    let served = ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "limits"];
    let object = cursor.object(&served, &["sessionPersistence"], report)?;
    let name = object.get("name").and_then(|field| rule_name(&field, seen, report));
    let matches = rule_matches(&object, matches::route_match, seen, report);
    let filters = filters::of_rule(&object, matches.as_deref(), report);
    let backends = object.list("backendRefs", BACKEND_REFS_MAX, report);
    let is_redirect = filters.iter().any(|filter| matches!(filter, Filter::RequestRedirect(_)));
    if let (true, Some(_), Some(field)) = (is_redirect, backends.first(), object.get("backendRefs")) {
        field.fail(report, "a rule with a RequestRedirect has no backendRefs");
    }
    if backends.is_empty() && !is_redirect {
        report.warn(cursor.path(), "the rule has neither backendRefs nor a redirect: it answers 500");
    }
    let of_backend = |backend: &Object<'_>, report: &mut Report| filters::of_backend(backend, matches.as_deref(), report);
    let backend_refs = backend_refs(cursor, &backends, "500", of_backend, report);
    let timeouts = match object.get("timeouts") {
        Some(field) => timeouts(&field, report).map(|timeouts| Some(Box::new(timeouts))),
        None => Some(None),
    };
    let retry = match object.get("retry") {
        Some(field) => Some(Box::new(retry::retry(&field, report)?)),
        None => None,
    };
    let limits = object.get("limits").map_or_else(|| Some(RuleLimits::default()), |field| limits(&field, report));
    let rule = Rule {
        name,
        matches: matches?.into(),
        filters: filters.into(),
        backend_refs,
        timeouts: timeouts?,
        retry,
        limits: limits?,
    };
    cors::check_rule(&rule, cursor.path(), report);
    Some(rule)
}

fn limits(cursor: &Cursor<'_>, report: &mut Report) -> Option<RuleLimits> {
    let object = cursor.object(&["maxRequestBody"], &[], report)?;
    let max_request_body = match object.get("maxRequestBody") {
        Some(field) => Some(field.size(report)?),
        None => None,
    };
    Some(RuleLimits { max_request_body })
}

/// The backends of the rule at `cursor`, each with the filters that `filters` reads; with no weight at all it gives `answer`.
pub(super) fn backend_refs(
    cursor: &Cursor<'_>,
    fields: &[Cursor<'_>],
    answer: &str,
    filters: impl Fn(&Object<'_>, &mut Report) -> Vec<Filter>,
    report: &mut Report,
) -> Box<[BackendRef]> {
    let backends: Box<[BackendRef]> = fields.iter().filter_map(|field| backend_ref(field, &filters, report)).collect();
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        report.warn(cursor.path(), &format!("every backendRef has weight 0: the rule answers {answer}"));
    }
    backends
}

pub(super) fn rule_name(cursor: &Cursor<'_>, seen: &mut Seen, report: &mut Report) -> Option<Box<str>> {
    let name = cursor.read(0..=usize::MAX, Name::new, report)?;
    if let Some(other) = seen.names.get(&name) {
        cursor.fail(report, format!("rule names are unique within a route; {other} has this name"));
        return None;
    }
    seen.names.insert(name.clone(), cursor.path());
    Some(Box::from(name.as_str()))
}

/// The matches of a rule, or nothing where one could not be read.
pub(super) fn rule_matches(
    rule: &Object<'_>,
    read: fn(&Cursor<'_>, &mut Report) -> Option<RouteMatch>,
    seen: &mut Seen,
    report: &mut Report,
) -> Option<Vec<RouteMatch>> {
    let field = rule.get("matches");
    let fields = field.as_ref().map_or_else(|| Some(Vec::new()), |field| field.list(RULE_MATCHES_MAX, report))?;
    seen.match_count += fields.len().max(1);
    let mut all: Vec<RouteMatch> = Vec::with_capacity(fields.len());
    for field in &fields {
        if let Some(found) = read(field, report) {
            if !(seen.is_lone_rule && fields.len() == 1) {
                warn_of_duplicate(&found, field.path(), seen, report);
            }
            all.push(found);
        }
    }
    if fields.is_empty() {
        let found =
            RouteMatch { path: matches::every_path(), method: None, headers: Box::default(), query_params: Box::default() };
        warn_of_duplicate(&found, rule.path(), seen, report);
        return Some(vec![found]);
    }
    (all.len() == fields.len()).then_some(all)
}

/// The first of two equal matches answers (Gateway API, "matches" of a rule): the other is a slip.
fn warn_of_duplicate(found: &RouteMatch, path: Pointer, seen: &mut Seen, report: &mut Report) {
    let identity = matches::identity(found);
    match seen.matches.get(&identity) {
        Some(other) => report.warn(path, &format!("matches exactly what {other} matches, and never answers")),
        None => {
            seen.matches.insert(identity, path);
        }
    }
}

fn backend_ref(
    cursor: &Cursor<'_>,
    filters: impl Fn(&Object<'_>, &mut Report) -> Vec<Filter>,
    report: &mut Report,
) -> Option<BackendRef> {
    let object = cursor.object(&["name", "weight", "filters"], &[], report)?;
    let filters = filters(&object, report);
    let weight = object.get("weight").map_or(Some(1), |field| field.integer(0..=WEIGHT_MAX, report));
    let field = object.require("name", report)?;
    let name = field.read(0..=usize::MAX, Name::new, report)?;
    Some(BackendRef { name, weight: weight?, filters: filters.into() })
}

fn timeouts(cursor: &Cursor<'_>, report: &mut Report) -> Option<Timeouts> {
    let object = cursor.object(&["request", "backendRequest"], &[], report)?;
    let request = object.get("request").and_then(|field| duration(&field, report)).filter(|limit| !limit.is_zero());
    let field = object.get("backendRequest");
    let backend_request = field.as_ref().and_then(|field| duration(field, report)).filter(|limit| !limit.is_zero());
    if let (Some(field), Some(whole), Some(part)) = (field, request, backend_request)
        && part > whole
    {
        field.fail(report, "must not be longer than `request`, unless that is \"0s\"");
    }
    Some(Timeouts { request, backend_request })
}

/// A duration field.
pub(super) fn duration(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    cursor.read(0..=usize::MAX, parse_duration, report)
}
