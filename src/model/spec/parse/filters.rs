//! The filters of a rule and of its backends.

use http::{HeaderName, HeaderValue as FieldValue, StatusCode};

use super::cursor::{Cursor, Object, Pointer};
use super::matches::{PATH_BYTES_MAX, header_name};
use super::report::Report;
use super::{cors, host, mirror, rewrite};
use crate::model::hostname;
use crate::model::spec::route::{
    Filter, HeaderModifier, HeaderValue, PathModifier, RedirectScheme, RequestRedirect, RouteMatch, UrlRewrite,
};

/// Filters of one list, and names of one list of a header modifier, at most.
const ENTRIES_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 4096;

/// Statuses of a redirect.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// Fields that belong to one connection or frame the message (RFC 9110 7.6.1, RFC 9112 6): the gateway alone writes them.
const OWN_FIELDS: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    UrlRewrite,
    Cors,
    RequestMirror,
}

/// Names in documents: of the type, and of the field that holds its settings.
const TYPES: [(&str, FilterType, &str); 6] = [
    ("RequestHeaderModifier", FilterType::RequestHeaderModifier, "requestHeaderModifier"),
    ("ResponseHeaderModifier", FilterType::ResponseHeaderModifier, "responseHeaderModifier"),
    ("RequestRedirect", FilterType::RequestRedirect, "requestRedirect"),
    ("URLRewrite", FilterType::UrlRewrite, "urlRewrite"),
    ("CORS", FilterType::Cors, "cors"),
    ("RequestMirror", FilterType::RequestMirror, "requestMirror"),
];

/// Types that change the request or the answer of one backend. All others concern the rule as a whole.
const OF_BACKENDS: [FilterType; 3] =
    [FilterType::RequestHeaderModifier, FilterType::ResponseHeaderModifier, FilterType::UrlRewrite];

/// A rule's filters in list order. `matches` are the rule's, or nothing where one could not be read.
pub(super) fn of_rule(rule: &Object<'_>, matches: Option<&[RouteMatch]>, report: &mut Report) -> Vec<Filter> {
    filters(rule, matches, None, report)
}

/// The filters of a `backendRef` (Gateway API `HTTPBackendRef.filters`) in list order.
pub(super) fn of_backend(backend: &Object<'_>, matches: Option<&[RouteMatch]>, report: &mut Report) -> Vec<Filter> {
    filters(backend, matches, Some(&OF_BACKENDS), report)
}

/// The filters of `owner`; where `allowed` lists types, only of those.
fn filters(
    owner: &Object<'_>,
    matches: Option<&[RouteMatch]>,
    allowed: Option<&[FilterType]>,
    report: &mut Report,
) -> Vec<Filter> {
    let mut seen: Vec<(FilterType, Pointer)> = Vec::new();
    let mut filters = Vec::new();
    for cursor in owner.list("filters", ENTRIES_MAX, report) {
        let Some((filter_type, settings)) = settings_of(&cursor, report) else { continue };
        if allowed.is_some_and(|allowed| !allowed.contains(&filter_type)) {
            cursor.fail(report, "this type concerns the whole rule: move it to the filters of the rule");
            continue;
        }
        for (other, path) in &seen {
            if let Some(conflict) = conflict(*other, filter_type) {
                cursor.fail(report, format!("{conflict}; {path} is the other"));
            }
        }
        seen.push((filter_type, cursor.path()));
        filters.extend(match filter_type {
            FilterType::RequestHeaderModifier => modifier(&settings, true, report).map(Filter::RequestHeaderModifier),
            FilterType::ResponseHeaderModifier => modifier(&settings, false, report).map(Filter::ResponseHeaderModifier),
            FilterType::RequestRedirect => redirect(&settings, matches, report).map(Filter::RequestRedirect),
            FilterType::UrlRewrite => url_rewrite(&settings, matches, report).map(Filter::UrlRewrite),
            FilterType::Cors => cors::cors(&settings, report).map(Box::new).map(Filter::Cors),
            FilterType::RequestMirror => mirror::request_mirror(&settings, report).map(Filter::RequestMirror),
        });
    }
    filters
}

/// Why two filters cannot stand in one list, if they cannot.
fn conflict(one: FilterType, other: FilterType) -> Option<&'static str> {
    use FilterType::{RequestMirror, RequestRedirect, UrlRewrite};
    match (one, other) {
        (RequestMirror, RequestMirror) => None,
        (RequestRedirect, UrlRewrite) | (UrlRewrite, RequestRedirect) => {
            Some("RequestRedirect and URLRewrite exclude each other")
        }
        (RequestRedirect, RequestMirror) | (RequestMirror, RequestRedirect) => {
            Some("a request that is answered with a RequestRedirect goes to no RequestMirror: remove one")
        }
        (one, other) => (one == other).then_some("a list of filters has this type once"),
    }
}

/// The filter's type and the field that belongs to it; every other field is a fault.
fn settings_of<'a>(cursor: &Cursor<'a>, report: &mut Report) -> Option<(FilterType, Cursor<'a>)> {
    let fields = ["type"].into_iter().chain(TYPES.map(|(_, _, field)| field)).collect::<Vec<_>>();
    let object = cursor.object(&fields, &["policy", "externalAuth", "extensionRef"], report)?;
    let served = TYPES.map(|(name, filter_type, field)| (name, (name, filter_type, field)));
    let not_yet = ["Policy", "ExternalAuth", "ExtensionRef"];
    let (name, filter_type, field) = object.require("type", report)?.choice(&served, &not_yet, report)?;
    for (_, _, other) in TYPES.iter().filter(|(_, _, other)| *other != field) {
        if let Some(stray) = object.get(other) {
            stray.fail(report, format!("does not belong to type {name}"));
        }
    }
    object.require(field, report).map(|settings| (filter_type, settings))
}

fn modifier(cursor: &Cursor<'_>, of_request: bool, report: &mut Report) -> Option<HeaderModifier> {
    let object = cursor.object(&["set", "add", "remove"], &[], report)?;
    let mut seen: Vec<HeaderName> = Vec::new();
    let set = object.list("set", ENTRIES_MAX, report);
    let set = set.iter().filter_map(|entry| header_value(entry, true, &mut seen, report)).collect();
    let add = object.list("add", ENTRIES_MAX, report);
    let add = add.iter().filter_map(|entry| header_value(entry, !of_request, &mut seen, report)).collect();
    let remove = object.list("remove", ENTRIES_MAX, report);
    let remove = remove.iter().filter_map(|entry| modified_name(entry, !of_request, &mut seen, report)).collect();
    Some(HeaderModifier { set, add, remove })
}

fn header_value(cursor: &Cursor<'_>, host: bool, seen: &mut Vec<HeaderName>, report: &mut Report) -> Option<HeaderValue> {
    let object = cursor.object(&["name", "value"], &[], report)?;
    let name = object.require("name", report).and_then(|field| modified_name(&field, host, seen, report));
    let field = object.require("value", report)?;
    let text = field.string(1..=VALUE_BYTES_MAX, report)?;
    if text.trim_matches([' ', '\t']) != text {
        field.fail(report, "must not start or end with white space (RFC 9110 5.5)");
        return None;
    }
    if name.as_ref() == Some(&http::header::HOST) && hostname::host_of(text).is_none() {
        field.fail(report, "a `host` is a name or an address, with a port where there is one (RFC 9110 7.2)");
        return None;
    }
    let value = FieldValue::from_str(text).map_err(|_| "a header value has no control characters but tabs (RFC 9110 5.5)");
    Some(HeaderValue { value: field.check(report, value)?, name: name? })
}

/// A name that a modifier may change; `host` says whether it may be `Host`.
fn modified_name(cursor: &Cursor<'_>, host: bool, seen: &mut Vec<HeaderName>, report: &mut Report) -> Option<HeaderName> {
    let name = cursor.read(1..=NAME_BYTES_MAX, header_name, report)?;
    if OWN_FIELDS.contains(&name.as_str()) || name.as_str().starts_with("raftgate-") {
        cursor.fail(report, format!("header {:?} is the gateway's own and cannot be changed", name.as_str()));
        return None;
    }
    if name == http::header::HOST && !host {
        cursor.fail(report, "a request has exactly one `host`: use set, or URLRewrite with a hostname");
        return None;
    }
    if seen.contains(&name) {
        cursor.fail(report, format!("header {:?} occurs twice in the modifier; a name has one action", name.as_str()));
        return None;
    }
    seen.push(name.clone());
    Some(name)
}

fn redirect(cursor: &Cursor<'_>, matches: Option<&[RouteMatch]>, report: &mut Report) -> Option<RequestRedirect> {
    let object = cursor.object(&["scheme", "hostname", "path", "port", "statusCode"], &[], report)?;
    let schemes = [("http", RedirectScheme::Http), ("https", RedirectScheme::Https)];
    let scheme = object.get("scheme").and_then(|field| field.choice(&schemes, &[], report));
    let hostname = hostname(&object, report);
    let path = object.get("path").and_then(|field| path_modifier(&field, matches, report));
    let port = object.get("port").and_then(|field| field.integer(1..=65_535, report)).and_then(|port| u16::try_from(port).ok());
    let status_code = object.get("statusCode").map_or(Some(StatusCode::FOUND), |field| status_code(&field, report))?;
    if ["scheme", "hostname", "path", "port"].iter().all(|name| object.get(name).is_none()) {
        report.warn(cursor.path(), "the redirect changes nothing: clients come back to where they were");
    }
    Some(RequestRedirect { scheme, hostname, path, port, status_code })
}

fn status_code(cursor: &Cursor<'_>, report: &mut Report) -> Option<StatusCode> {
    let number = cursor.integer(100..=599, report)?;
    let found = REDIRECTS.into_iter().find(|status| u32::from(status.as_u16()) == number);
    if found.is_none() {
        cursor.fail(report, format!("must be 301, 302, 303, 307 or 308, found {number}"));
    }
    found
}

fn url_rewrite(cursor: &Cursor<'_>, matches: Option<&[RouteMatch]>, report: &mut Report) -> Option<UrlRewrite> {
    let object = cursor.object(&["hostname", "path"], &[], report)?;
    let hostname = hostname(&object, report);
    let path = object.get("path").and_then(|field| path_modifier(&field, matches, report));
    Some(UrlRewrite { hostname, path })
}

fn hostname(object: &Object<'_>, report: &mut Report) -> Option<String> {
    object.get("hostname")?.read(1..=usize::MAX, host::hostname, report)
}

fn path_modifier(cursor: &Cursor<'_>, matches: Option<&[RouteMatch]>, report: &mut Report) -> Option<PathModifier> {
    let object = cursor.object(&["type", "replaceFullPath", "replacePrefixMatch"], &[], report)?;
    let types = [
        ("ReplaceFullPath", ("replaceFullPath", "replacePrefixMatch")),
        ("ReplacePrefixMatch", ("replacePrefixMatch", "replaceFullPath")),
    ];
    let (own, other) = object.require("type", report)?.choice(&types, &[], report)?;
    if let Some(stray) = object.get(other) {
        stray.fail(report, format!("does not belong to this type, which takes {own:?}"));
    }
    let field = object.require(own, report)?;
    let text = field.string(0..=PATH_BYTES_MAX, report)?;
    if own == "replaceFullPath" {
        return field.check(report, rewrite::full_path(text, matches)).map(PathModifier::ReplaceFullPath);
    }
    if let Some(matches) = matches {
        cursor.check(report, rewrite::has_one_prefix(matches));
    }
    field.check(report, rewrite::prefix(text)).map(PathModifier::ReplacePrefixMatch)
}
