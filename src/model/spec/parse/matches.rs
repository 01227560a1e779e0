//! The conditions of a rule.

use std::sync::Arc;

use http::{HeaderName, Method};
use smol_str::SmolStr;

use super::cursor::{Cursor, Object};
use super::report::{PATTERNS_MAX, Report};
use crate::model::path::{self, EscapedSlashes};
use crate::model::spec::pattern::{PATTERN_BYTES_MAX, Pattern};
use crate::model::spec::route::{HeaderMatch, PathMatch, PathMatchType, QueryMatch, RouteMatch, ValueMatch};
use crate::model::template::{Segment, Template};

/// Bytes of a path value at most.
pub(super) const PATH_BYTES_MAX: usize = 1024;

/// Header or query conditions of one match at most.
const CONDITIONS_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 256;
const HEADER_VALUE_BYTES_MAX: usize = 4096;
const QUERY_VALUE_BYTES_MAX: usize = 1024;

const PATH_TYPES: [(&str, PathMatchType); 4] = [
    ("Exact", PathMatchType::Exact),
    ("PathPrefix", PathMatchType::PathPrefix),
    ("PathTemplate", PathMatchType::PathTemplate),
    ("RegularExpression", PathMatchType::RegularExpression),
];

/// Methods that a document can name.
pub(super) const METHODS: [(&str, &Method); 9] = [
    ("GET", &Method::GET),
    ("HEAD", &Method::HEAD),
    ("POST", &Method::POST),
    ("PUT", &Method::PUT),
    ("DELETE", &Method::DELETE),
    ("CONNECT", &Method::CONNECT),
    ("OPTIONS", &Method::OPTIONS),
    ("TRACE", &Method::TRACE),
    ("PATCH", &Method::PATCH),
];

/// What a rule without matches has, and a match without a path.
pub(super) fn every_path() -> PathMatch {
    PathMatch { match_type: PathMatchType::PathPrefix, value: SmolStr::new_static("/"), pattern: None }
}

/// One match.
pub(super) fn route_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<RouteMatch> {
    let object = cursor.object(&["path", "method", "headers", "queryParams"], &[], report)?;
    let path = object.get("path").map_or_else(|| Some(every_path()), |field| path_match(&field, report));
    let method = object.get("method").map(|field| field.choice(&METHODS, &[], report).cloned());
    let headers = headers(&object, report);
    let query = conditions(object.list("queryParams", CONDITIONS_MAX, report), query_match, |query| &query.name, report);
    let method = match method {
        Some(None) => return None,
        Some(method) => method,
        None => None,
    };
    Some(RouteMatch { path: path?, method, headers: headers?, query_params: query? })
}

/// The header conditions of a match.
pub(super) fn headers(route_match: &Object<'_>, report: &mut Report) -> Option<Box<[HeaderMatch]>> {
    conditions(route_match.list("headers", CONDITIONS_MAX, report), header_match, |header| &header.name, report)
}

/// What two matches have in common if no request tells them apart. Parameter names and the order of conditions do not count.
pub(super) fn identity(route_match: &RouteMatch) -> String {
    let path = match route_match.path.match_type {
        PathMatchType::PathTemplate => Template::parse(&route_match.path.value)
            .map(|template| template.segments().iter().map(pattern_of).collect())
            .unwrap_or_else(|_| route_match.path.value.to_string()),
        PathMatchType::Exact | PathMatchType::PathPrefix | PathMatchType::RegularExpression => route_match.path.value.to_string(),
    };
    let mut headers: Vec<_> =
        route_match.headers.iter().map(|header| (header.name.as_str(), value_identity(&header.value))).collect();
    let mut query: Vec<_> = route_match.query_params.iter().map(|query| (&query.name, value_identity(&query.value))).collect();
    headers.sort_unstable();
    query.sort_unstable();
    format!("{:?}", (route_match.path.match_type, path, &route_match.method, headers, query))
}

fn value_identity(value: &ValueMatch) -> (bool, &str) {
    match value {
        ValueMatch::Exact(text) => (false, text),
        ValueMatch::RegularExpression(pattern) => (true, pattern.text()),
    }
}

fn pattern_of(segment: &Segment) -> String {
    match segment {
        Segment::Literal(literal) => format!("/{literal}"),
        Segment::Parameter(_) => "/{}".to_owned(),
        Segment::Rest(_) => "/{*}".to_owned(),
    }
}

fn path_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathMatch> {
    let object = cursor.object(&["type", "value"], &[], report)?;
    let match_type =
        object.get("type").map_or(Some(PathMatchType::PathPrefix), |field| field.choice(&PATH_TYPES, &[], report))?;
    if match_type == PathMatchType::RegularExpression {
        let pattern = path_pattern(&object.require("value", report)?, report)?;
        return Some(PathMatch { match_type, value: pattern.text().into(), pattern: Some(pattern) });
    }
    let Some(field) = object.get("value") else { return Some(PathMatch { match_type, ..every_path() }) };
    let value = field.read(1..=PATH_BYTES_MAX, |text| path_value(match_type, text), report)?;
    Some(PathMatch { match_type, value: value.into(), pattern: None })
}

fn path_pattern(field: &Cursor<'_>, report: &mut Report) -> Option<Arc<Pattern>> {
    let pattern = pattern(field, report)?;
    if pattern.literal().first().is_some_and(|first| *first != b'/') {
        report.warn(field.path(), "matches nothing: it must match the whole path, which starts with `/`");
    }
    Some(pattern)
}

/// A regular expression, compiled.
pub(super) fn pattern(field: &Cursor<'_>, report: &mut Report) -> Option<Arc<Pattern>> {
    if !report.count_pattern() {
        field.fail(report, format!("a route has at most {PATTERNS_MAX} regular expressions in all"));
        return None;
    }
    field.read(1..=PATTERN_BYTES_MAX, Pattern::new, report).map(Arc::new)
}

fn path_value(match_type: PathMatchType, text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("must start with `/`".to_owned());
    }
    let probe = text.to_ascii_lowercase().replace("%2e", ".");
    if let Some(sequence) = ["//", "/./", "/../", "%2f", "#", "?"].into_iter().find(|sequence| probe.contains(sequence)) {
        return Err(format!("must not contain `{sequence}`"));
    }
    if let Some(ending) = ["/..", "/."].into_iter().find(|ending| probe.ends_with(ending)) {
        return Err(format!("must not end in `{ending}`"));
    }
    if match_type == PathMatchType::PathTemplate {
        return Template::parse(text).map(|template| template.to_string());
    }
    let value = path::normalize(text, EscapedSlashes::Keep).map_err(|error| error.to_string())?;
    Ok(match (match_type, value.strip_suffix('/')) {
        (PathMatchType::PathPrefix, Some(shorter)) if !shorter.is_empty() => shorter.to_owned(),
        _ => value.into_owned(),
    })
}

/// Conditions by name. Of a repeated name the first counts (Gateway API), which is worth a warning.
fn conditions<T, N: PartialEq>(
    fields: Vec<Cursor<'_>>,
    read: impl Fn(&Cursor<'_>, &mut Report) -> Option<T>,
    name: impl Fn(&T) -> &N,
    report: &mut Report,
) -> Option<Box<[T]>> {
    let mut known: Vec<T> = Vec::with_capacity(fields.len());
    let mut all_read = true;
    for field in fields {
        match read(&field, report) {
            None => all_read = false,
            Some(condition) if known.iter().any(|other| name(other) == name(&condition)) => {
                report.warn(field.path(), "this name occurs before in the match; only the first counts");
            }
            Some(condition) => known.push(condition),
        }
    }
    all_read.then(|| known.into())
}

fn header_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<HeaderMatch> {
    let (name, value) = condition(cursor, HEADER_VALUE_BYTES_MAX, report)?;
    let name = name.read(1..=NAME_BYTES_MAX, header_name, report)?;
    Some(HeaderMatch { name, value })
}

fn query_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<QueryMatch> {
    let (name, value) = condition(cursor, QUERY_VALUE_BYTES_MAX, report)?;
    Some(QueryMatch { name: name.string(1..=NAME_BYTES_MAX, report)?.to_owned(), value })
}

/// The name's cursor and the value of a header or query condition.
fn condition<'a>(cursor: &Cursor<'a>, value_bytes_max: usize, report: &mut Report) -> Option<(Cursor<'a>, ValueMatch)> {
    let object = cursor.object(&["type", "name", "value"], &[], report)?;
    let types = [("Exact", false), ("RegularExpression", true)];
    let is_pattern = object.get("type").map_or(Some(false), |field| field.choice(&types, &[], report));
    let name = object.require("name", report);
    let field = object.require("value", report);
    let value = match is_pattern? {
        false => field?.string(1..=value_bytes_max, report).map(|text| ValueMatch::Exact(text.to_owned())),
        true => pattern(&field?, report).map(ValueMatch::RegularExpression),
    };
    Some((name?, value?))
}

/// A header's name in lower case (RFC 9110 5.1).
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "a header name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)".to_owned())
}
