//! `GRPCRoute`: field names and semantics of Gateway API `GRPCRoute` v1.
//!
//! A gRPC call is a request for `/service/method` (gRPC over HTTP/2, "Path"), so a match becomes one on the path. The order of the paths is
//! that of the standard: a request has one service and one method, so of the matches that hold those that name both come first (`Exact`),
//! then those of the service (a template), then those of the method, then regular expressions, then those of neither.

use std::sync::Arc;

use super::cursor::{Cursor, Object};
use super::report::Report;
use super::route::{BACKEND_REFS_MAX, Seen, backend_refs, rule_matches, rule_name, spec_of};
use super::{filters, matches};
use crate::model::spec::pattern::Pattern;
use crate::model::spec::route::{Filter, PathMatch, PathMatchType, RouteMatch, RouteSpec, Rule, RuleLimits};

/// Bytes of a service's or method's name at most.
const NAME_BYTES_MAX: usize = 1024;

/// Filters of the standard for this kind.
const FILTERS: [(&str, ()); 3] = [("RequestHeaderModifier", ()), ("ResponseHeaderModifier", ()), ("RequestMirror", ())];

/// The whole spec.
pub(super) fn grpc_route(cursor: &Cursor<'_>, report: &mut Report) -> Option<RouteSpec> {
    spec_of(cursor, None, rule, report)
}

fn rule(cursor: &Cursor<'_>, seen: &mut Seen, report: &mut Report) -> Option<Rule> {
    let object = cursor.object(&["name", "matches", "filters", "backendRefs"], &["sessionPersistence"], report)?;
    let name = object.get("name").and_then(|field| rule_name(&field, seen, report));
    let matches = rule_matches(&object, grpc_match, seen, report);
    let filters = if has_known_filters(&object, report) { filters::of_rule(&object, None, report) } else { Vec::new() };
    let backends = object.list("backendRefs", BACKEND_REFS_MAX, report);
    if backends.is_empty() {
        report.warn(cursor.path(), "the rule has no backendRefs: it answers UNAVAILABLE");
    }
    let backend_refs = backend_refs(cursor, &backends, "UNAVAILABLE", filters_of_backend, report);
    Some(Rule {
        name,
        matches: matches?.into(),
        filters: filters.into(),
        backend_refs,
        timeouts: None,
        retry: None,
        limits: RuleLimits::default(),
    })
}

fn filters_of_backend(backend: &Object<'_>, report: &mut Report) -> Vec<Filter> {
    if has_known_filters(backend, report) { filters::of_backend(backend, None, report) } else { Vec::new() }
}

/// Whether all filters of a rule or of a backend are of a type that a `GRPCRoute` can have.
fn has_known_filters(owner: &Object<'_>, report: &mut Report) -> bool {
    let fields = owner.get("filters").and_then(|field| field.list(usize::MAX, &mut Report::default())).unwrap_or_default();
    // What has no type is told with the rest of its faults.
    let types = fields.iter().filter_map(|field| field.peek("type"));
    // All are looked at, so that all faults are told.
    types.filter(|name| name.choice(&FILTERS, &["ExtensionRef"], report).is_none()).count() == 0
}

fn grpc_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<RouteMatch> {
    let object = cursor.object(&["method", "headers"], &[], report)?;
    let path = object.get("method").map_or_else(|| Some(matches::every_path()), |field| method_match(&field, report));
    let headers = matches::headers(&object, report);
    Some(RouteMatch { path: path?, method: None, headers: headers?, query_params: Box::default() })
}

fn method_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathMatch> {
    let object = cursor.object(&["type", "service", "method"], &[], report)?;
    let types = [("Exact", false), ("RegularExpression", true)];
    let is_pattern = object.get("type").map_or(Some(false), |field| field.choice(&types, &[], report))?;
    if is_pattern {
        return method_pattern(cursor, &object, report);
    }
    let name = |field: &'static str, read: fn(&str) -> Result<String, String>, report: &mut Report| {
        object.get(field).map(|field| field.read(1..=NAME_BYTES_MAX, read, report))
    };
    let (match_type, value) = match (name("service", service_name, report), name("method", method_name, report)) {
        (Some(service), Some(method)) => (PathMatchType::Exact, format!("/{}/{}", service?, method?)),
        (Some(service), None) => (PathMatchType::PathTemplate, format!("/{}/{{method}}", service?)),
        (None, Some(method)) => (PathMatchType::PathTemplate, format!("/{{service}}/{}", method?)),
        (None, None) => {
            cursor.fail(report, "names a service, a method or both");
            return None;
        }
    };
    Some(PathMatch { match_type, value: value.into(), pattern: None })
}

/// Expressions of the service and of the method become one condition on the path; what is not given matches every name.
fn method_pattern(cursor: &Cursor<'_>, object: &Object<'_>, report: &mut Report) -> Option<PathMatch> {
    let mut part = |field: &'static str| object.get(field).map(|field| matches::pattern(&field, report));
    let (service, method) = (part("service"), part("method"));
    if service.is_none() && method.is_none() {
        cursor.fail(report, "names a service, a method or both");
        return None;
    }
    let (service, method) =
        (service.map_or(Some(None), |read| read.map(Some))?, method.map_or(Some(None), |read| read.map(Some))?);
    let pattern = Arc::new(Pattern::of_call(service.as_deref(), method.as_deref()));
    let value = pattern.text().into();
    Some(PathMatch { match_type: PathMatchType::RegularExpression, value, pattern: Some(pattern) })
}

fn service_name(text: &str) -> Result<String, String> {
    if text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier) {
        return Ok(text.to_owned());
    }
    Err("a service is identifiers (letters, digits and `_`, not starting with a digit) joined by `.`, as in \"shop.v1.Orders\""
        .to_owned())
}

fn method_name(text: &str) -> Result<String, String> {
    if is_identifier(text) {
        return Ok(text.to_owned());
    }
    Err("a method is an identifier: letters, digits and `_`, not starting with a digit".to_owned())
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::spec::{Filter, PathMatchType, RouteMatch, parse_grpc_route};

    fn with_rule(rule: Value) -> Value {
        json!({"hostnames": ["a.com"], "listeners": ["public"], "rules": [rule]})
    }

    fn matched(route_match: &Value) -> RouteMatch {
        let document = with_rule(json!({"matches": [route_match], "backendRefs": [{"name": "s"}]}));
        let parsed = parse_grpc_route(&document).unwrap_or_else(|errors| panic!("{route_match}: {errors:?}"));
        assert_eq!(parsed.warnings, Vec::<String>::new());
        parsed.spec.rules[0].matches[0].clone()
    }

    #[test]
    fn services_and_methods_become_paths() {
        let table = [
            (json!({"method": {"service": "a.B", "method": "C"}}), PathMatchType::Exact, "/a.B/C"),
            (json!({"method": {"type": "Exact", "service": ".a.B_1"}}), PathMatchType::PathTemplate, "/.a.B_1/{method}"),
            (json!({"method": {"method": "C"}}), PathMatchType::PathTemplate, "/{service}/C"),
            (
                json!({"method": {"type": "RegularExpression", "service": "a|b", "method": "Get.*"}}),
                PathMatchType::RegularExpression,
                "/(?:a|b)/(?:Get.*)",
            ),
            (
                json!({"method": {"type": "RegularExpression", "method": "Get.*"}}),
                PathMatchType::RegularExpression,
                "/[^/]+/(?:Get.*)",
            ),
            (json!({"headers": [{"name": "X", "value": "1"}]}), PathMatchType::PathPrefix, "/"),
            (json!({}), PathMatchType::PathPrefix, "/"),
        ];
        for (document, match_type, value) in table {
            let found = matched(&document);
            assert_eq!((found.path.match_type, found.path.value.as_str()), (match_type, value), "{document}");
            assert_eq!(found.headers.len(), document["headers"].as_array().map_or(0, Vec::len), "{document}");
        }
    }

    #[test]
    fn a_whole_route_is_read() {
        let filter = |name: &str, field: &str| json!({"type": name, field: {"set": [{"name": "x", "value": "1"}]}});
        let rule = json!({
            "name": "read",
            "filters": [filter("RequestHeaderModifier", "requestHeaderModifier"), filter("ResponseHeaderModifier", "responseHeaderModifier")],
            "backendRefs": [{"name": "s", "weight": 0, "filters": [filter("RequestHeaderModifier", "requestHeaderModifier")]}],
        });
        let parsed = parse_grpc_route(&with_rule(rule)).unwrap();
        let spec = parsed.spec;
        assert_eq!((spec.hostnames, spec.listeners), (vec!["a.com".to_owned()], vec!["public".to_owned()]));
        assert!(matches!(spec.rules[0].filters[..], [Filter::RequestHeaderModifier(_), Filter::ResponseHeaderModifier(_)]));
        assert!(matches!(spec.rules[0].backend_refs[0].filters[..], [Filter::RequestHeaderModifier(_)]));
        assert_eq!(parsed.warnings, ["/rules/0: every backendRef has weight 0: the rule answers UNAVAILABLE"]);
        let bare = parse_grpc_route(&json!({"rules": [{}]})).unwrap();
        assert_eq!(bare.warnings, ["/rules/0: the rule has no backendRefs: it answers UNAVAILABLE"]);
        assert_eq!(bare.spec.rules[0].matches.len(), 1);
    }

    #[test]
    fn faults_are_named() {
        let of_match = |method: Value| json!({"rules": [{"matches": [{"method": method}]}]});
        let of_filter = |filter: Value| json!({"rules": [{"filters": [filter]}]});
        let table = [
            (json!({}), "/rules", "is required"),
            (json!({"rules": []}), "/rules", "at least one rule"),
            (json!({"rules": [{"timeouts": {}}]}), "/rules/0/timeouts", "unknown field"),
            (json!({"rules": [{"sessionPersistence": {}}]}), "/rules/0/sessionPersistence", "not supported yet"),
            (json!({"rules": [{"matches": [{"path": {}}]}]}), "/rules/0/matches/0/path", "unknown field"),
            (of_match(json!({})), "/rules/0/matches/0/method", "names a service, a method or both"),
            (
                of_match(json!({"type": "RegularExpression", "service": "a("})),
                "/rules/0/matches/0/method/service",
                "unclosed group",
            ),
            (of_match(json!({"type": "RegularExpression"})), "/rules/0/matches/0/method", "names a service, a method or both"),
            (of_match(json!({"type": "Prefix", "service": "a"})), "/rules/0/matches/0/method/type", "unknown value"),
            (of_match(json!({"service": "a/b"})), "/rules/0/matches/0/method/service", "joined by `.`"),
            (of_match(json!({"service": "a..b"})), "/rules/0/matches/0/method/service", "joined by `.`"),
            (of_match(json!({"service": "1a"})), "/rules/0/matches/0/method/service", "joined by `.`"),
            (of_match(json!({"service": ""})), "/rules/0/matches/0/method/service", "must not be empty"),
            (of_match(json!({"method": "a.b"})), "/rules/0/matches/0/method/method", "identifier"),
            (of_match(json!({"method": "x".repeat(1025)})), "/rules/0/matches/0/method/method", "at most 1024 bytes"),
            (
                of_filter(json!({"type": "URLRewrite", "urlRewrite": {}})),
                "/rules/0/filters/0/type",
                "unknown value \"URLRewrite\"",
            ),
            (
                json!({"rules": [{"backendRefs": [{"name": "s", "filters": [
                    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s"}}}]}]}]}),
                "/rules/0/backendRefs/0/filters/0",
                "concerns the whole rule",
            ),
            (of_filter(json!({"type": "ExtensionRef", "extensionRef": {}})), "/rules/0/filters/0/type", "not supported yet"),
            (
                json!({"rules": [{"backendRefs": [{"name": "s", "filters": [{"type": "URLRewrite", "urlRewrite": {}}]}]}]}),
                "/rules/0/backendRefs/0/filters/0/type",
                "unknown value \"URLRewrite\"",
            ),
            (of_filter(json!({"requestHeaderModifier": {}})), "/rules/0/filters/0/type", "is required"),
            (json!({"rules": [{"filters": {}}]}), "/rules/0/filters", "expected an array"),
        ];
        for (document, path, part) in table {
            let errors = parse_grpc_route(&document).expect_err(path);
            let found: Vec<_> = errors.iter().map(|error| (error.path.as_str(), error.message.as_str())).collect();
            assert!(matches!(found[..], [(at, message)] if at == path && message.contains(part)), "{document}\n  gave {found:?}");
        }
    }
}
