//! The language of the cases.
//!
//! ```text
//! # why
//! table                                         an empty table
//! route NAME@CREATED [hosts=A,B] [listeners=L]: MATCH | MATCH ; MATCH     `|` between matches, `;` between rules
//! grpc NAME@CREATED [hosts=A,B] [listeners=L]: CALL | CALL ; CALL         the same of gRPC routes
//! METHOD HOST PATH[?QUERY] [via=LISTENER] [NAME:VALUE]... => ROUTE/RULE/MATCH [PARAMETER=VALUE]...   or => 404
//! call HOST PATH [via=LISTENER] [NAME:VALUE]... => ...                      a gRPC request
//! why METHOD HOST PATH ... => SENTENCE                                      what explain says of a request that no rule answers
//! waiting NAME... or: waiting                                             the routes that wait for others, oldest first
//! ```
//!
//! A match is `exact|template|regex|prefix PATH [METHOD] [NAME:VALUE]... [?NAME=VALUE]...` (a value `~TEXT` is a regular
//! expression), a call `SERVICE/METHOD [NAME:VALUE]...`, where `*` stands
//! for any service or method; `~` before it makes both regular expressions. `grpc` lines are read by the parser of documents.

use http::{HeaderMap, Method};
use serde_json::json;

use super::{PathMatchType, RouteMatch, RouteSpec, TestRequest, TestRoute};
use super::{header_match, path_match, push, query_match, rule_of, snapshot_of};
use crate::model::spec::parse_grpc_route;

/// Runs a script. Panics with every line that came out otherwise; gives the number of requests.
pub(super) fn run(script: &str) -> usize {
    let mut routes = Vec::new();
    let mut failures = Vec::new();
    let mut requests = 0;
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "table" {
            routes.clear();
        } else if let Some(text) = line.strip_prefix("route ") {
            routes.push(parse_route(text, false));
        } else if let Some(text) = line.strip_prefix("grpc ") {
            routes.push(parse_route(text, true));
        } else if let Some(names) = line.strip_prefix("waiting") {
            let found: Vec<String> = snapshot_of(&routes).waiting().map(|(key, _)| key.name.to_string()).collect();
            if found != names.split_whitespace().collect::<Vec<_>>() {
                failures.push(format!("line {}: {line}\n    found {}", number + 1, found.join(" ")));
            }
        } else {
            requests += 1;
            let (request, expected) = line.split_once("=>").expect("a request line has =>");
            let found = match request.strip_prefix("why ") {
                Some(request) => run_why(&routes, request),
                None => run_request(&routes, request),
            };
            if found != expected.trim() {
                failures.push(format!("line {}: {line}\n    found {found}", number + 1));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    requests
}

fn run_request(routes: &[TestRoute], text: &str) -> String {
    let snapshot = snapshot_of(routes);
    let request = parse_request(text);
    let Some(found) = snapshot.find(&request.view()) else { return "404".to_owned() };
    let mut text = format!("{}/{}/{}", found.rule.route, found.rule.rule_index, found.match_index);
    found.captures().iter().for_each(|(name, value)| text.push_str(&format!(" {name}={value}")));
    text
}

fn run_why(routes: &[TestRoute], text: &str) -> String {
    let snapshot = snapshot_of(routes);
    let explained = snapshot.explain(&parse_request(text).view());
    explained.unmatched.unwrap_or_else(|| "answered".to_owned())
}

fn parse_request(text: &str) -> TestRequest {
    let text = match text.strip_prefix("call ") {
        Some(rest) => format!("POST {rest} content-type:application/grpc"),
        None => text.to_owned(),
    };
    let mut words = text.split_whitespace();
    let method: Method = words.next().unwrap().parse().unwrap();
    let host = words.next().unwrap().to_owned();
    let target = words.next().unwrap();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let listener = "default".to_owned();
    let mut request = TestRequest { listener, host, path: path.to_owned(), query, method, headers: HeaderMap::new() };
    for word in words {
        match (word.strip_prefix("via="), word.split_once(':')) {
            (Some(listener), _) => request.listener = listener.to_owned(),
            (None, Some((name, value))) => request.add_header(name, value),
            (None, None) => panic!("{word}?"),
        }
    }
    request
}

fn parse_route(text: &str, is_grpc: bool) -> TestRoute {
    let (head, rules) = text.split_once(": ").expect("a route line has a colon");
    let mut words = head.split_whitespace();
    let (name, created) = words.next().unwrap().split_once('@').expect("a route has a revision");
    let mut spec = RouteSpec::default();
    for word in words {
        let (field, list) = word.split_once('=').unwrap();
        let list = list.split(',').map(str::to_owned).collect();
        match field {
            "hosts" => spec.hostnames = list,
            "listeners" => spec.listeners = list,
            _ => panic!("{field}?"),
        }
    }
    let parse_match = if is_grpc { parse_call } else { parse_match };
    spec.rules = rules.split(" ; ").map(|rule| rule_of(rule.split(" | ").map(parse_match).collect())).collect();
    TestRoute { name: name.to_owned(), created: created.parse().unwrap(), is_grpc, spec }
}

fn parse_call(text: &str) -> RouteMatch {
    let mut words = text.split_whitespace();
    let call = words.next().unwrap();
    let (kind, call) = call.strip_prefix('~').map_or(("Exact", call), |call| ("RegularExpression", call));
    let (service, method) = call.split_once('/').expect("a call has a slash");
    let mut names = serde_json::Map::new();
    for (field, name) in [("service", service), ("method", method)] {
        if name != "*" {
            names.insert(field.to_owned(), name.into());
        }
    }
    let headers = words.map(|word| {
        let (name, value) = word.split_once(':')?;
        let (kind, value) = value.strip_prefix('~').map_or(("Exact", value), |text| ("RegularExpression", text));
        Some(json!({"type": kind, "name": name, "value": value}))
    });
    let mut found = json!({"headers": headers.collect::<Option<Vec<_>>>().expect("NAME:VALUE")});
    if !names.is_empty() {
        names.insert("type".to_owned(), kind.into());
        found["method"] = names.into();
    }
    let parsed = parse_grpc_route(&json!({"rules": [{"matches": [found]}]})).expect("a good gRPC match");
    parsed.spec.rules[0].matches[0].clone()
}

fn parse_match(text: &str) -> RouteMatch {
    let mut words = text.split_whitespace();
    let match_type = match words.next().unwrap() {
        "exact" => PathMatchType::Exact,
        "template" => PathMatchType::PathTemplate,
        "prefix" => PathMatchType::PathPrefix,
        "regex" => PathMatchType::RegularExpression,
        other => panic!("{other}?"),
    };
    let mut conditions = path_match(match_type, words.next().unwrap());
    for word in words {
        if let Some((name, value)) = word.strip_prefix('?').and_then(|query| query.split_once('=')) {
            push(&mut conditions.query_params, query_match(name, value));
        } else if let Some((name, value)) = word.split_once(':') {
            push(&mut conditions.headers, header_match(name, value));
        } else {
            conditions.method = Some(word.parse().unwrap());
        }
    }
    conditions
}
