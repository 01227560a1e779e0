//! The `CORS` filter of a rule.

use std::net::Ipv4Addr;

use http::{HeaderValue, Method};

use super::cursor::{Cursor, Object, Pointer};
use super::host;
use super::matches::{METHODS, header_name};
use super::report::{Report, shown};
use crate::model::spec::cors::{Cors, Listed, Origin, OriginHost, OriginPattern, Origins};
use crate::model::spec::route::{Filter, RouteMatch, Rule};

/// Origins, and header names of one list, at most.
const ENTRIES_MAX: usize = 64;

/// Bytes of an origin, and of a header name, at most.
const ENTRY_BYTES_MAX: usize = 253;

/// How long a preflight's answer is kept where the document does not say, in seconds.
const MAX_AGE_DEFAULT: u32 = 5;

/// The longest age that can be given, in seconds.
const MAX_AGE_MAX: u32 = i32::MAX as u32;

/// A list that is a `*` alone, or of what it lists.
enum Entries<T> {
    All,
    Of(Vec<T>),
}

/// The whole filter.
pub(super) fn cors(cursor: &Cursor<'_>, report: &mut Report) -> Option<Cors> {
    let fields = ["allowOrigins", "allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge"];
    let object = cursor.object(&fields, &[], report)?;
    let allow_origins = match entries(&object, "allowOrigins", ENTRIES_MAX, origin, report) {
        Some(Entries::All) => Some(Origins::All),
        Some(Entries::Of(patterns)) => Some(Origins::Of(patterns)),
        None => None,
    };
    if matches!(&allow_origins, Some(Origins::Of(patterns)) if patterns.is_empty()) {
        report.warn(cursor.path(), "no origin is allowed: list some in `allowOrigins`, or \"*\"");
    }
    let allow_credentials = object.get("allowCredentials").map_or(Some(false), |field| field.boolean(report));
    let allow_methods = entries(&object, "allowMethods", METHODS.len(), method, report).map(listed);
    let allow_headers = entries(&object, "allowHeaders", ENTRIES_MAX, header_name, report).map(listed);
    let expose_headers = entries(&object, "exposeHeaders", ENTRIES_MAX, header_name, report).map(listed);
    let max_age = object.get("maxAge").map_or(Some(MAX_AGE_DEFAULT), |field| field.integer(1..=MAX_AGE_MAX, report));
    Some(Cors {
        allow_origins: allow_origins?,
        allow_credentials: allow_credentials?,
        allow_methods: allow_methods?,
        allow_headers: allow_headers?,
        expose_headers: expose_headers?,
        max_age: max_age?,
    })
}

/// Checks what a rule with the filter has beside it.
pub(super) fn check_rule(rule: &Rule, path: Pointer, report: &mut Report) {
    if rule.filters.iter().any(|filter| matches!(filter, Filter::Cors(_))) {
        warn_without_options(&rule.matches, path, report);
        let of_backends = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
        rule.filters.iter().chain(of_backends).for_each(|filter| refuse_second_word(filter, path, report));
    }
}

/// Warns of matches that no preflight gets to, because they ask for another method than OPTIONS and the rule has none for the same
/// path that does not.
fn warn_without_options(matches: &[RouteMatch], rule: Pointer, report: &mut Report) {
    let takes_options = |found: &RouteMatch| found.method.as_ref().is_none_or(|method| *method == Method::OPTIONS);
    for (index, found) in matches.iter().enumerate().filter(|(_, found)| !takes_options(found)) {
        if !matches.iter().any(|other| takes_options(other) && other.path == found.path) {
            let message = "the CORS filter gets no preflight for this match: add a match of the same path for OPTIONS";
            report.warn(format!("{rule}/matches/{index}/method"), message);
        }
    }
}

/// What a modifier does to the fields of the CORS protocol would be lost, for the filter replaces them.
fn refuse_second_word(filter: &Filter, rule: Pointer, report: &mut Report) {
    let Filter::ResponseHeaderModifier(modifier) = filter else { return };
    let written = modifier.set.iter().chain(&modifier.add).map(|field| &field.name);
    if let Some(name) = written.chain(&modifier.remove).find(|name| name.as_str().starts_with("access-control-")) {
        let message = format!("the CORS filter alone writes {:?}: take it out of the ResponseHeaderModifier", name.as_str());
        report.error(rule, message);
    }
}

/// What a list holds, or nothing where an entry could not be read.
fn entries<T: PartialEq>(
    object: &Object<'_>,
    name: &'static str,
    max: usize,
    read: impl Fn(&str) -> Result<T, String>,
    report: &mut Report,
) -> Option<Entries<T>> {
    let fields = object.list(name, max, report);
    let (mut known, mut has_all, mut all_read) = (Vec::with_capacity(fields.len()), false, true);
    for field in &fields {
        match field.string(1..=ENTRY_BYTES_MAX, report) {
            Some("*") if fields.len() > 1 => field.fail(report, "\"*\" stands alone: it takes in all others"),
            Some("*") => has_all = true,
            Some(text) => match field.check(report, read(text)) {
                Some(entry) if known.contains(&entry) => field.fail(report, format!("{} occurs twice in the list", shown(text))),
                Some(entry) => known.push(entry),
                None => all_read = false,
            },
            None => all_read = false,
        }
    }
    all_read.then_some(if has_all { Entries::All } else { Entries::Of(known) })
}

fn listed<T: AsRef<str>>(entries: Entries<T>) -> Listed {
    let names: Vec<&str> = match &entries {
        Entries::All => return Listed::All,
        Entries::Of(names) => names.iter().map(AsRef::as_ref).collect(),
    };
    match HeaderValue::from_str(&names.join(", ")) {
        Ok(value) if !value.is_empty() => Listed::Names(value),
        _ => Listed::Nothing,
    }
}

fn method(text: &str) -> Result<Method, String> {
    METHODS.iter().find(|(name, _)| *name == text).map(|(_, method)| (*method).clone()).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        format!("unknown method {}; known are {} and *", shown(text), known.join(", "))
    })
}

/// Gateway API's `CORSOrigin` but for `*`, with hosts in lower case, as browsers write them.
fn origin(text: &str) -> Result<OriginPattern, String> {
    let shape = "an origin is http:// or https://, a host, `*.` and a host, or `*`, and maybe a port; no path";
    let lower = text.to_ascii_lowercase();
    let Origin { is_https, host, port } = Origin::parse(&lower).ok_or(shape)?;
    let host = match host.strip_prefix("*.") {
        _ if host == "*" => OriginHost::Any,
        Some(suffix) => OriginHost::Under(format!(".{}", host::hostname(suffix).map_err(|error| format!("{shape}: {error}"))?)),
        None if host.parse::<Ipv4Addr>().is_ok() => OriginHost::Exact(host.to_owned()),
        None => OriginHost::Exact(host::hostname(host).map_err(|error| format!("{shape}: {error}"))?),
    };
    Ok(OriginPattern { is_https, host, port })
}
