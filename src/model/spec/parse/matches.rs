//! The conditions of a rule.

use http::{HeaderName, Method};

use super::cursor::Cursor;
use super::report::Report;
use crate::model::path::{self, EscapedSlashes};
use crate::model::spec::route::{HeaderMatch, PathMatch, PathMatchType, QueryMatch, RouteMatch};
use crate::model::template::{Segment, Template};

/// Bytes of a path value at most.
pub(super) const PATH_BYTES_MAX: usize = 1024;

/// Header or query conditions of one match at most.
const CONDITIONS_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 256;
const HEADER_VALUE_BYTES_MAX: usize = 4096;
const QUERY_VALUE_BYTES_MAX: usize = 1024;

const PATH_TYPES: [(&str, PathMatchType); 3] =
    [("Exact", PathMatchType::Exact), ("PathPrefix", PathMatchType::PathPrefix), ("PathTemplate", PathMatchType::PathTemplate)];

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
    PathMatch { match_type: PathMatchType::PathPrefix, value: "/".to_owned() }
}

/// One match.
pub(super) fn route_match(cursor: &Cursor<'_>, report: &mut Report) -> Option<RouteMatch> {
    let object = cursor.object(&["path", "method", "headers", "queryParams"], &[], report)?;
    let path = object.get("path").map_or_else(|| Some(every_path()), |field| path_match(&field, report));
    let method = object.get("method").map(|field| field.choice(&METHODS, &[], report).cloned());
    let headers = conditions(object.list("headers", CONDITIONS_MAX, report), header_match, |header| &header.name, report);
    let query = conditions(object.list("queryParams", CONDITIONS_MAX, report), query_match, |query| &query.name, report);
    let method = match method {
        Some(None) => return None,
        Some(method) => method,
        None => None,
    };
    Some(RouteMatch { path: path?, method, headers: headers?, query_params: query? })
}

/// What two matches have in common if no request tells them apart. Parameter names and the order of conditions do not count.
pub(super) fn identity(route_match: &RouteMatch) -> String {
    let path = match route_match.path.match_type {
        PathMatchType::PathTemplate => Template::parse(&route_match.path.value)
            .map(|template| template.segments().iter().map(pattern_of).collect())
            .unwrap_or_else(|_| route_match.path.value.clone()),
        PathMatchType::Exact | PathMatchType::PathPrefix => route_match.path.value.clone(),
    };
    let mut headers: Vec<_> = route_match.headers.iter().map(|header| (header.name.as_str(), &header.value)).collect();
    let mut query: Vec<_> = route_match.query_params.iter().map(|query| (&query.name, &query.value)).collect();
    headers.sort_unstable();
    query.sort_unstable();
    format!("{:?}", (route_match.path.match_type, path, &route_match.method, headers, query))
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
    let match_type = object
        .get("type")
        .map_or(Some(PathMatchType::PathPrefix), |field| field.choice(&PATH_TYPES, &["RegularExpression"], report))?;
    let Some(field) = object.get("value") else { return Some(PathMatch { match_type, value: "/".to_owned() }) };
    let value = field.read(1..=PATH_BYTES_MAX, |text| path_value(match_type, text), report)?;
    Some(PathMatch { match_type, value })
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
) -> Option<Vec<T>> {
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
    all_read.then_some(known)
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
fn condition<'a>(cursor: &Cursor<'a>, value_bytes_max: usize, report: &mut Report) -> Option<(Cursor<'a>, String)> {
    let object = cursor.object(&["type", "name", "value"], &[], report)?;
    let is_exact =
        object.get("type").map_or(Some(()), |field| field.choice(&[("Exact", ())], &["RegularExpression"], report)).is_some();
    let name = object.require("name", report);
    let value = object.require("value", report).and_then(|field| field.string(1..=value_bytes_max, report));
    if !is_exact {
        return None;
    }
    Some((name?, value?.to_owned()))
}

/// A header's name in lower case (RFC 9110 5.1).
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "a header name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)".to_owned())
}
