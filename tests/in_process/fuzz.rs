//! Fuzz targets: what comes from outside may be refused, and never panics, and never means two things.
//!
//! `cargo test` runs each with random input for a few seconds, `RAFTGATE_FUZZ_SECONDS=600 cargo test --test in_process fuzz` longer, and
//! `cargo bolero test fuzz::paths` (any of the three) under libFuzzer. A failure prints the input, made as small as it gets.

use std::sync::Arc;
use std::time::Duration;

use bolero::{ValueGenerator, check, produce};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use raftgate::model::path::{EscapedSlashes, normalize};
use raftgate::model::spec::{FieldError, Parsed, RouteSpec, canonical, parse_grpc_route, parse_route};
use raftgate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, State, Timestamp, Transaction};
use raftgate::table::{RequestView, Snapshot};
use serde_json::{Map, Value, json};

const SECONDS_VARIABLE: &str = "RAFTGATE_FUZZ_SECONDS";

pub(crate) fn time() -> Duration {
    let Ok(text) = std::env::var(SECONDS_VARIABLE) else { return Duration::from_secs(5) };
    Duration::from_secs(text.parse().unwrap_or_else(|_| panic!("{SECONDS_VARIABLE} is a number of seconds, found {text:?}")))
}

pub(crate) fn bytes(count_max: usize) -> impl ValueGenerator<Output = Vec<u8>> {
    produce::<Vec<u8>>().with().len(0..=count_max)
}

/// Choices, made by bytes; zero for ever once they are used up.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    pub(crate) fn number(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % below
    }

    pub(crate) fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.number(list.len())]
    }

    pub(crate) fn seldom(&mut self) -> bool {
        self.number(16) == 1
    }

    fn text(&mut self, parts: &[&str]) -> String {
        (0..=self.number(5)).map(|_| self.one(parts)).collect()
    }
}

const PATH_PARTS: [&str; 22] = [
    "/", "/", "/", "a", "b", "ab", ".", "..", "%2e", "%2F", "%5c", "%00", "%7e", "%zz", "%", "\\", "//", "{", "|", "é", "%C3%A9",
    " ",
];

#[test]
fn paths() {
    check!().with_test_time(time()).with_max_len(1024).with_generator((produce::<bool>(), bytes(512))).for_each(
        |(is_raw, bytes)| {
            let text = match is_raw {
                true => String::from_utf8_lossy(bytes).into_owned(),
                false => Choices(bytes).text(&PATH_PARTS),
            };
            let kept = normalize(&text, EscapedSlashes::Keep);
            if let Ok(path) = normalize(&text, EscapedSlashes::Refuse) {
                assert_eq!(Ok(&path), kept.as_ref());
                let upper = path.to_ascii_uppercase();
                assert!(["%2F", "%5C", "%00"].iter().all(|escape| !upper.contains(escape)), "{path}");
            }
            let Ok(path) = kept else { return };
            assert_eq!(normalize(&path, EscapedSlashes::Keep).as_deref(), Ok(path.as_ref()), "a second time changes it");
            assert!(path.starts_with('/') && path.is_ascii() && !path.contains(['?', '#', '\\', ' ']), "{path}");
            let climbs = |element: &str| matches!(element.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
            assert!(!path.split('/').any(climbs), "{path}");
        },
    );
}

const FIELDS: [&str; 37] = [
    "hostnames",
    "listeners",
    "rules",
    "name",
    "matches",
    "filters",
    "backendRefs",
    "timeouts",
    "retry",
    "path",
    "method",
    "service",
    "headers",
    "queryParams",
    "type",
    "value",
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestRedirect",
    "urlRewrite",
    "requestMirror",
    "cors",
    "set",
    "add",
    "remove",
    "scheme",
    "hostname",
    "port",
    "statusCode",
    "replaceFullPath",
    "replacePrefixMatch",
    "weight",
    "request",
    "backendRequest",
    "codes",
    "attempts",
    "unknown~/field",
];
const TEXTS: [&str; 28] = [
    "",
    "/",
    "/a",
    "/a/{id}",
    "/a/{*rest}",
    "/a/../b",
    "/a(.*",
    "a|b",
    "[a-z]+",
    "*.example.com",
    "example.com",
    "Example.com",
    "10.0.0.1",
    "GET",
    "get",
    "shop.Orders",
    "shop..Orders",
    "Exact",
    "PathPrefix",
    "PathTemplate",
    "RegularExpression",
    "RequestRedirect",
    "URLRewrite",
    "RequestHeaderModifier",
    "https",
    "10s",
    "x-env",
    "{id}",
];

/// Any JSON, of the words of routes.
fn any_value(choices: &mut Choices<'_>, depth: usize) -> Value {
    match choices.number(if depth == 0 { 5 } else { 9 }) {
        0 => Value::Null,
        1 => json!(choices.number(2) == 1),
        2 => json!(choices.one(&[0_i64, 1, -1, 80, 301, 502, 65_536, 1_000_001, i64::MAX])),
        3 | 4 => json!(choices.one(&TEXTS)),
        5 | 6 => (0..choices.number(4)).map(|_| any_value(choices, depth - 1)).collect(),
        _ => Value::Object(
            (0..choices.number(5)).map(|_| (choices.one(&FIELDS).to_owned(), any_value(choices, depth - 1))).collect(),
        ),
    }
}

/// A kind of route, and what reads its documents.
type RouteKind = (Kind, fn(&Value) -> Result<Parsed<RouteSpec>, Vec<FieldError>>);

const KINDS: [RouteKind; 2] = [(Kind::Route, parse_route), (Kind::GrpcRoute, parse_grpc_route)];

/// A route that is mostly good.
fn likely_route(kind: Kind, choices: &mut Choices<'_>) -> Value {
    let mut route = Map::new();
    if choices.number(2) == 1 {
        route.insert("hostnames".into(), json!([choices.one(&["a.com", "b.a.com", "*.a.com", "*.com"])]));
    }
    if choices.number(4) == 1 {
        route.insert("listeners".into(), json!([choices.one(&["public", "inner"])]));
    }
    let rules: Vec<Value> = (0..=choices.number(2)).map(|_| likely_rule(kind, choices)).collect();
    route.insert("rules".into(), json!(rules));
    if choices.seldom() {
        route.insert(choices.one(&FIELDS).into(), any_value(choices, 4));
    }
    Value::Object(route)
}

fn likely_rule(kind: Kind, choices: &mut Choices<'_>) -> Value {
    let of_kind = if kind == Kind::GrpcRoute { likely_call } else { likely_match };
    let matches: Vec<Value> = (0..choices.number(3)).map(|_| of_kind(choices)).collect();
    let mut rule = json!({"matches": matches, "backendRefs": [{"name": "s", "weight": choices.number(3)}]});
    match choices.number(8) {
        0 => {
            rule["filters"] =
                json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "1"}]}}])
        }
        1 if kind == Kind::Route => {
            let path = json!({"type": "ReplaceFullPath", "replaceFullPath": choices.text(&["/", "a", "{id}", "{", "%2e"])});
            rule["filters"] = json!([{"type": "URLRewrite", "urlRewrite": {"path": path}}]);
        }
        2 if kind == Kind::Route => rule["timeouts"] = json!({"request": choices.one(&["1s", "0s", "1h30m", "s"])}),
        _ => {}
    }
    if choices.seldom() {
        rule[choices.one(&FIELDS)] = any_value(choices, 3);
    }
    rule
}

fn likely_match(choices: &mut Choices<'_>) -> Value {
    let literal = ["/", "/", "a", "b", "%2e", "%7e"];
    let path = match choices.number(4) {
        0 => json!({"type": "Exact", "value": format!("/{}", choices.text(&literal))}),
        1 => json!({"value": format!("/{}", choices.text(&literal))}),
        2 => json!({"type": "PathTemplate", "value": choices.text(&["/a", "/b", "/{id}", "/{x}", "/{*rest}"])}),
        _ => json!({"type": "RegularExpression", "value": choices.text(&["/", "a", "b", ".*", "(a|b)", "[ab]+", "?", "("])}),
    };
    let mut found = json!({"path": path});
    if choices.number(3) == 1 {
        found["method"] = json!(choices.one(&["GET", "POST"]));
    }
    if choices.number(3) == 1 {
        let kind = choices.one(&["Exact", "RegularExpression"]);
        found["headers"] = json!([{"type": kind, "name": "x", "value": choices.one(&["1", "1,2", "[12]", ".*"])}]);
    }
    if choices.number(3) == 1 {
        found["queryParams"] = json!([{"name": "q", "value": choices.one(&["1", "%31"])}]);
    }
    found
}

fn likely_call(choices: &mut Choices<'_>) -> Value {
    let (service, method) = (choices.text(&["a", "b", "a.b", ".a", "_1"]), choices.text(&["a", "b", "B", "_"]));
    let mut found = match choices.number(5) {
        0 => json!({"method": {"service": service, "method": method}}),
        4 => json!({"method": {"type": "RegularExpression", "service": choices.text(&["a", "b", ".*", "[ab]", "|", "(", "/"])}}),
        1 => json!({"method": {"service": service}}),
        2 => json!({"method": {"method": method}}),
        _ => json!({}),
    };
    if choices.number(3) == 1 {
        found["headers"] = json!([{"name": "x", "value": choices.one(&["1", "1,2"])}]);
    }
    found
}

#[test]
fn specs() {
    check!().with_test_time(time()).with_max_len(1024).with_generator((produce::<bool>(), bytes(512))).for_each(
        |(is_wild, bytes)| {
            let mut choices = Choices(bytes);
            let (kind, parse) = choices.one(&KINDS);
            let document = if *is_wild { any_value(&mut choices, 7) } else { likely_route(kind, &mut choices) };
            match parse(&document) {
                Err(errors) => {
                    assert!((1..=64).contains(&errors.len()), "{document}");
                    assert!(
                        errors.iter().all(|e| (e.path.is_empty()
                            || document.pointer(&e.path).is_some()
                            || e.message.contains("required"))
                            && !e.message.is_empty()),
                        "{document} {errors:?}"
                    );
                }
                Ok(parsed) => {
                    let bytes = canonical(&document).unwrap();
                    let again: Value = serde_json::from_slice(&bytes).unwrap();
                    assert_eq!(parse(&again).unwrap(), parsed, "{document}");
                    assert_eq!(canonical(&again).unwrap(), bytes);
                }
            }
        },
    );
}

fn state_of(documents: &[(Kind, Value)]) -> State {
    let mut state = State::default();
    let puts = documents.iter().enumerate().map(|(index, (kind, document))| Operation::Put {
        key: ResourceKey::new(*kind, Name::new(&format!("r{index}")).unwrap()),
        spec: canonical(document).unwrap_or_else(|_| Bytes::from_static(b"{}")),
    });
    let transaction = Transaction { operations: puts.collect(), ..Transaction::default() };
    let body = CommandBody::Transaction(transaction);
    state.apply(&Command { proposed_at: Timestamp(1), actor: "fuzz".to_owned(), body });
    state
}

#[test]
fn matching() {
    check!().with_test_time(time()).with_max_len(1024).with_generator(bytes(512)).for_each(|bytes| {
        let mut choices = Choices(bytes);
        let mut documents = Vec::new();
        for _ in 0..=choices.number(5) {
            let kind = choices.one(&[Kind::Route, Kind::Route, Kind::GrpcRoute]);
            documents.push((kind, likely_route(kind, &mut choices)));
        }
        let snapshot = Arc::new(Snapshot::build(&state_of(&documents)));
        for _ in 0..4 {
            let sent = format!("/{}", choices.text(&PATH_PARTS));
            let Ok(path) = normalize(&sent, EscapedSlashes::Keep) else { continue };
            let mut headers = HeaderMap::new();
            for _ in 0..choices.number(3) {
                headers.append(HeaderName::from_static("x"), HeaderValue::from_static(choices.one(&["1", "2", "12"])));
            }
            if choices.number(3) == 1 {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(choices.one(&["application/grpc", "application/grpc+x"])));
            }
            let view = RequestView {
                listener: choices.one(&["public", "inner", "other"]),
                host: choices.one(&["a.com", "b.a.com", "c.b.a.com", "com", "", ".", "10.0.0.1"]),
                path: &path,
                query: choices.one(&[None, Some(""), Some("q=1"), Some("q=%31&q=2"), Some("&&=&q")]),
                method: &choices.one(&[&Method::GET, &Method::POST, &Method::OPTIONS]).clone(),
                headers: &headers,
            };
            let found = snapshot.find(&view);
            let told = snapshot.explain(&view).outcome;
            let place = found
                .as_ref()
                .map(|m| (m.rule.kind().as_str(), m.rule.route.as_str(), m.rule.rule_index as usize, m.match_index));
            let told = told.as_ref().map(|c| (c.kind, c.route.as_str(), c.rule, c.match_index));
            assert_eq!(place, told, "{documents:#?} {path}");
        }
    });
}
