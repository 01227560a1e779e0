//! Matching written straight from the rules: every match of every route is looked at, and all that fit are sorted.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use regex::Regex;

use super::{PathMatchType, RouteMatch, TestRequest, TestRoute, ValueMatch};

/// All matches whose host and path fit, best first, each with whether its other conditions hold: (`route/rule/match`, holds).
pub(super) fn candidates(routes: &[TestRoute], request: &TestRequest) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (serving, _) = judged(routes);
    let serves_on = |route: &TestRoute, listener: &str| {
        serving.iter().any(|(other, on)| other.key() == route.key() && (on.is_empty() || *on == listener))
    };
    for route in routes.iter().filter(|route| serving.iter().any(|(other, _)| other.key() == route.key())) {
        for (rule_index, rule) in route.spec.rules.iter().enumerate() {
            for (match_index, conditions) in rule.matches.iter().enumerate() {
                let Some(path) = path_rank(conditions, &request.path, route.is_grpc) else { continue };
                for host in host_ranks(&route.spec.hostnames, &request.host) {
                    let count = (Reverse(conditions.headers.len()), Reverse(conditions.query_params.len()));
                    let last = (route.created, route.name.clone(), route.is_grpc, rule_index, match_index);
                    let rank = (host, path.clone(), Reverse(conditions.method.is_some()), count, last);
                    let is_asked = !route.is_grpc || is_grpc(request);
                    let holds = serves_on(route, &request.listener) && is_asked && holds(conditions, request);
                    found.push((rank, (format!("{}/{rule_index}/{match_index}", route.name), holds)));
                }
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// `route/rule/match`, or `404`.
pub(super) fn answer(routes: &[TestRoute], request: &TestRequest) -> String {
    let fitting = candidates(routes, request).into_iter().find(|(_, holds)| *holds);
    fitting.map_or_else(|| "404".to_owned(), |(name, _)| name)
}

/// A route on one of its listeners; on none by name where it is bound to none, which is all of them at once.
type Attachment<'a> = (&'a TestRoute, &'a str);

/// Where routes serve and where they wait: one after the other, the oldest first, each serves on a listener unless one of the other kind that
/// serves there already shares a hostname with it.
pub(super) fn judged(routes: &[TestRoute]) -> (Vec<Attachment<'_>>, Vec<Attachment<'_>>) {
    let mut in_order: Vec<&TestRoute> = routes.iter().collect();
    in_order.sort_by_key(|route| (route.created, &route.name, route.is_grpc));
    let (mut serving, mut waiting): (Vec<Attachment<'_>>, Vec<Attachment<'_>>) = (Vec::new(), Vec::new());
    for route in in_order {
        let listeners = match &*route.spec.listeners {
            [] => vec![""],
            names => names.iter().map(String::as_str).collect(),
        };
        for listener in listeners {
            let is_blocked = serving.iter().any(|(other, on)| {
                let meet = on.is_empty() || listener.is_empty() || *on == listener;
                meet && other.is_grpc != route.is_grpc && share_a_host(other, route)
            });
            if is_blocked { waiting.push((route, listener)) } else { serving.push((route, listener)) }
        }
    }
    (serving, waiting)
}

fn share_a_host(one: &TestRoute, other: &TestRoute) -> bool {
    let (hosts, others) = (&one.spec.hostnames, &other.spec.hostnames);
    hosts.is_empty() || others.is_empty() || hosts.iter().any(|a| others.iter().any(|b| intersect(a, b)))
}

/// Whether some host matches both.
fn intersect(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => other.ends_with(suffix) && other.len() > suffix.len(),
        (None, Some(suffix)) => one.ends_with(suffix) && one.len() > suffix.len(),
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
    }
}

fn is_grpc(request: &TestRequest) -> bool {
    let content_type = request.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    let is_type = ["application/grpc+", "application/grpc;"].iter().any(|start| content_type.starts_with(start));
    request.method == http::Method::POST && (is_type || content_type == "application/grpc")
}

type HostRank = (u8, Reverse<usize>);

fn host_ranks(hostnames: &[String], host: &str) -> Vec<HostRank> {
    if hostnames.is_empty() {
        return vec![(2, Reverse(0))];
    }
    let ranks = hostnames.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((0, Reverse(0))),
        Some(suffix) => (host.ends_with(suffix) && host.len() > suffix.len()).then_some((1, Reverse(suffix.len()))),
    });
    ranks.collect()
}

/// Type, elements of a template, length of an expression or prefix.
type PathRank = (PathMatchType, Vec<u8>, Reverse<(usize, usize)>);

fn path_rank(conditions: &RouteMatch, path: &str, is_grpc: bool) -> Option<PathRank> {
    let value = conditions.path.value.as_str();
    let kind = conditions.path.match_type;
    match kind {
        PathMatchType::Exact => (value == path).then_some((kind, Vec::new(), Reverse((0, 0)))),
        PathMatchType::PathTemplate => {
            let path: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
            let template: Vec<&str> = value[1..].split('/').collect();
            Some((kind, template_rank(&template, &path)?, Reverse((0, 0))))
        }
        PathMatchType::RegularExpression => {
            // Of a call: `/(?:service)/(?:method)`, neither of which is empty or has a slash.
            let is_call = path.split('/').skip(1).filter(|name| !name.is_empty()).count() == 2 && path.matches('/').count() == 2;
            let fits = whole_matches(value, path) && (!is_grpc || is_call);
            let lengths = if is_grpc { call_lengths(value) } else { (value.len(), 0) };
            fits.then_some((kind, Vec::new(), Reverse(lengths)))
        }
        PathMatchType::PathPrefix => {
            let value = value.trim_end_matches('/');
            let fits = path == value || value.is_empty() || path.starts_with(&format!("{value}/"));
            fits.then_some((kind, Vec::new(), Reverse((value.len(), 0))))
        }
    }
}

/// The characters of the service and of the method of `/SERVICE/METHOD`, where `(?:...)` stands for an expression and anything else for none.
fn call_lengths(value: &str) -> (usize, usize) {
    let of = |part: &str| part.strip_prefix("(?:").and_then(|part| part.strip_suffix(')')).map_or(0, str::len);
    let cut = if value.starts_with("/(?:") { value.find(")/").map(|at| at + 1) } else { value.rfind("]+/").map(|at| at + 2) };
    cut.map_or((0, 0), |cut| (of(&value[1..cut]), of(&value[cut + 1..])))
}

/// For each element 0 for a literal, 1 for a parameter, 2 for the rest; `None` where it does not match.
fn template_rank(template: &[&str], path: &[&str]) -> Option<Vec<u8>> {
    let mut rank = Vec::new();
    for (index, element) in template.iter().enumerate() {
        if element.starts_with("{*") {
            let rest = path.get(index..)?.join("/");
            rank.push(2);
            return (!rest.is_empty()).then_some(rank);
        }
        let part = path.get(index)?;
        if element.starts_with('{') {
            rank.push(1);
            if part.is_empty() {
                return None;
            }
        } else {
            rank.push(0);
            if part != element {
                return None;
            }
        }
    }
    (template.len() == path.len()).then_some(rank)
}

fn value_holds(expected: &ValueMatch, found: &str) -> bool {
    match expected {
        ValueMatch::Exact(text) => text == found,
        ValueMatch::RegularExpression(pattern) => whole_matches(pattern.text(), found),
    }
}

fn whole_matches(expression: &str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<String, Regex>> = const { RefCell::new(BTreeMap::new()) };
    }
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || Regex::new(&format!(r"\A(?:{expression})\z")).unwrap();
        compiled.entry(expression.to_owned()).or_insert_with(compile).is_match(text)
    })
}

fn holds(conditions: &RouteMatch, request: &TestRequest) -> bool {
    let method = conditions.method.as_ref().is_none_or(|method| *method == request.method);
    let headers = conditions.headers.iter().all(|header| {
        let values: Vec<&str> = request.headers.get_all(&header.name).iter().map(|value| value.to_str().unwrap()).collect();
        let between = if header.name == "cookie" { "; " } else { "," };
        !values.is_empty() && value_holds(&header.value, &values.join(between))
    });
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let query = conditions.query_params.iter().all(|expected| {
        let pairs = request.query.iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .find(|(name, _)| decode(name) == expected.name)
            .is_some_and(|(_, value)| value_holds(&expected.value, &decode(value)))
    });
    method && headers && query
}
