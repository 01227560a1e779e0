//! The language of the cases.
//!
//! ```text
//! # why
//! table                                         an empty table
//! route NAME@CREATED [hosts=A,B] [listeners=L]: MATCH | MATCH ; MATCH     `|` between matches, `;` between rules
//! METHOD HOST PATH[?QUERY] [via=LISTENER] [NAME:VALUE]... => ROUTE/RULE/MATCH [PARAMETER=VALUE]...   or => 404
//! ```
//!
//! A match is `exact|template|regex|prefix PATH [METHOD] [NAME:VALUE]... [?NAME=VALUE]...`; a value `~TEXT` is a regular expression.

use http::{HeaderMap, Method};

use super::{PathMatchType, RouteMatch, RouteSpec, TestRequest, TestRoute};
use super::{header_match, path_match, query_match, rule_of, snapshot_of};

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
            routes.push(parse_route(text));
        } else {
            requests += 1;
            let (request, expected) = line.split_once("=>").expect("a request line has =>");
            let found = run_request(&routes, request);
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
    found.captures.iter().for_each(|(name, value)| text.push_str(&format!(" {name}={value}")));
    text
}

fn parse_request(text: &str) -> TestRequest {
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

fn parse_route(text: &str) -> TestRoute {
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
    spec.rules = rules.split(" ; ").map(|rule| rule_of(rule.split(" | ").map(parse_match).collect())).collect();
    TestRoute { name: name.to_owned(), created: created.parse().unwrap(), spec }
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
            conditions.query_params.push(query_match(name, value));
        } else if let Some((name, value)) = word.split_once(':') {
            conditions.headers.push(header_match(name, value));
        } else {
            conditions.method = Some(word.parse().unwrap());
        }
    }
    conditions
}
