//! Tables: documents, and the faults or the specs that they give.

mod backends;
mod cors;
mod limits;
mod mirror;
mod retry;
mod tls;

use std::time::Duration;

use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::report::ERRORS_MAX;
use super::{FieldError, canonical, parse_route, parse_service};
use crate::model::spec::*;

/// Checks that `errors` are exactly `expected`: pairs of a pointer and a part of the message.
fn assert_errors(document: &Value, errors: &[FieldError], expected: &[(&str, &str)]) {
    let found: Vec<_> = errors.iter().map(|error| (error.path.as_str(), error.message.as_str())).collect();
    let agrees = found.len() == expected.len()
        && found.iter().zip(expected).all(|((path, message), (at, part))| path == at && message.contains(part));
    assert!(agrees, "{document}\nfound {found:#?}\nexpected {expected:#?}");
}

fn assert_bad_route(document: &Value, expected: &[(&str, &str)]) {
    assert_errors(document, &parse_route(document).expect_err(&document.to_string()), expected);
}

fn assert_bad_service(document: &Value, expected: &[(&str, &str)]) {
    assert_errors(document, &parse_service(document).expect_err(&document.to_string()), expected);
}

/// A route with one rule that has these fields and a backend.
fn with_rule(fields: Value) -> Value {
    let mut rule = json!({"backendRefs": [{"name": "a"}]});
    let (Value::Object(rule_fields), Value::Object(fields)) = (&mut rule, fields) else { panic!("objects only") };
    rule_fields.extend(fields);
    json!({"rules": [rule]})
}

fn with_match(route_match: Value) -> Value {
    with_rule(json!({"matches": [route_match]}))
}

fn with_path(match_type: &str, value: &str) -> Value {
    with_match(json!({"path": {"type": match_type, "value": value}}))
}

fn with_filter(filter: Value) -> Value {
    with_rule(json!({"filters": [filter]}))
}

fn with_modifier(modifier: Value) -> Value {
    with_filter(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}))
}

fn with_redirect(redirect: Value) -> Value {
    json!({"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}]})
}

fn with_rewrite(template: &str, path: Value) -> Value {
    with_rule(json!({
        "matches": [{"path": {"type": "PathTemplate", "value": template}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": {"path": path}}],
    }))
}

fn good_route(document: &Value) -> Parsed<RouteSpec> {
    parse_route(document).unwrap_or_else(|errors| panic!("{document}\n{errors:#?}"))
}

fn path_of(document: &Value) -> PathMatch {
    good_route(document).spec.rules[0].matches[0].path.clone()
}

#[test]
fn faults_of_the_frame_are_named() {
    let backend = json!([{"name": "a"}]);
    let seventeen: Vec<String> = (0..17).map(|n| format!("a{n}.b")).collect();
    let table: Vec<(Value, Vec<(&str, &str)>)> = vec![
        (json!(null), vec![("", "expected an object, found null")]),
        (json!([]), vec![("", "expected an object, found an array")]),
        (json!({"rules": []}), vec![("/rules", "at least one rule")]),
        (json!({"rules": {}}), vec![("/rules", "expected an array, found an object")]),
        (json!({"rules": [1]}), vec![("/rules/0", "expected an object, found a number")]),
        (json!({"rules": [{}], "hostname": "a"}), vec![("/hostname", "did you mean \"hostnames\"?")]),
        (json!({"rules": [{"matchs": [], "backendRefs": backend}]}), vec![("/rules/0/matchs", "did you mean \"matches\"?")]),
        (json!({"rules": [{"a/b~c": 1}]}), vec![("/rules/0/a~1b~0c", "unknown field \"a/b~c\"")]),
        (with_rule(json!({"sessionPersistence": {}})), vec![("/rules/0/sessionPersistence", "not supported yet")]),
        (with_rule(json!({"name": "A"})), vec![("/rules/0/name", "a-z 0-9")]),
        (with_rule(json!({"name": ""})), vec![("/rules/0/name", "empty")]),
        (
            json!({"rules": [{"name": "x"}, {"name": "x", "matches": [{"method": "GET"}]}]}),
            vec![("/rules/1/name", "/rules/0/name has this name")],
        ),
        (json!({"rules": [{}], "hostnames": "a"}), vec![("/hostnames", "expected an array, found a string")]),
        (json!({"rules": [{}], "hostnames": seventeen}), vec![("/hostnames", "at most 16 elements, found 17")]),
        (json!({"rules": [{}], "listeners": ["a", "B"]}), vec![("/listeners/1", "a-z 0-9")]),
        (json!({"rules": [{}], "listeners": [true]}), vec![("/listeners/0", "expected a string, found a boolean")]),
    ];
    for (document, expected) in table {
        assert_bad_route(&document, &expected);
    }
}

#[test]
fn host_names_are_checked() {
    let table = [
        ("", "must not be empty"),
        ("10.0.0.1", "not an IP address"),
        ("[::1]", "not an IP address"),
        ("a.example:80", "without a port"),
        ("*", "wildcard"),
        ("a.*.com", "wildcard"),
        ("*a.com", "wildcard"),
        ("*.*.com", "wildcard"),
        ("*.10.0.0.1", "not an IP address"),
        ("a..b", "RFC 1123"),
        (".a", "RFC 1123"),
        ("a.", "RFC 1123"),
        ("-a.b", "RFC 1123"),
        ("a_b.c", "RFC 1123"),
        ("bücher.example", "RFC 1123"),
        ("1.2.3", "must not be a number"),
    ];
    for (name, part) in table {
        assert_bad_route(&json!({"rules": [{}], "hostnames": [name]}), &[("/hostnames/0", part)]);
    }
    let long_label = format!("{}.com", "a".repeat(64));
    assert_bad_route(&json!({"rules": [{}], "hostnames": [long_label]}), &[("/hostnames/0", "1 to 63")]);
    let long = ["a"; 128].join(".");
    assert_bad_route(&json!({"rules": [{}], "hostnames": [long]}), &[("/hostnames/0", "1 to 253")]);
    let parsed = good_route(&json!({"rules": [{}], "hostnames": ["a.example.com", "*.b.c", "localhost"]}));
    assert_eq!(parsed.spec.hostnames, ["a.example.com", "*.b.c", "localhost"]);
    assert_bad_route(
        &json!({"rules": [{}], "hostnames": ["A.Example.com", "a.b", "*.B.c", "a.b", "*.c", "*.c"]}),
        &[("/hostnames/0", "lower case: \"a.example.com\""), ("/hostnames/2", "lower case: \"*.b.c\"")],
    );
}

#[test]
fn what_occurs_twice_has_no_meaning_and_is_told() {
    let matches = json!([{"path": {"value": "/a"}}, {"path": {"value": "/a/"}}]);
    let parsed = good_route(&json!({
        "hostnames": ["a.b", "*.c", "a.b"], "listeners": ["a", "b", "a"],
        "rules": [{"matches": matches, "retry": {"codes": [503, 500, 503]}, "backendRefs": [{"name": "s"}]}],
    }));
    assert_eq!((parsed.spec.hostnames, parsed.spec.listeners), (vec!["a.b".into(), "*.c".into()], vec!["a".into(), "b".into()]));
    assert_eq!(parsed.spec.rules[0].retry.as_ref().unwrap().codes.len(), 2);
    let expected = [
        "/hostnames/2: \"a.b\" occurs twice in the list",
        "/listeners/2: \"a\" occurs twice in the list",
        "/rules/0/matches/1: matches exactly what /rules/0/matches/0 matches, and never answers",
        "/rules/0/retry/codes/2: 503 occurs twice in the list",
    ];
    assert_eq!(parsed.warnings, expected);
    let parsed = good_route(&json!({"rules": [{"backendRefs": [{"name": "s"}]}, {"backendRefs": [{"name": "s"}]}]}));
    assert_eq!(parsed.warnings, ["/rules/1: matches exactly what /rules/0 matches, and never answers"]);
    // Names of parameters and the order of headers tell nothing apart.
    let matches = [("{a}", ["X", "y"]), ("{b}", ["Y", "x"])].map(|(name, [first, second])| {
        let headers = [first, second].map(|name| json!({"name": name, "value": "1"}));
        json!({"path": {"type": "PathTemplate", "value": format!("/{name}")}, "headers": headers})
    });
    let parsed = good_route(&with_rule(json!({"matches": matches, "backendRefs": [{"name": "s"}]})));
    assert_eq!(parsed.warnings, ["/rules/0/matches/1: matches exactly what /rules/0/matches/0 matches, and never answers"]);
}

#[test]
fn a_route_without_rules_has_one_that_matches_every_path() {
    let parsed = good_route(&json!({"hostnames": ["a.b"]}));
    assert_eq!(parsed.spec.rules, good_route(&json!({"hostnames": ["a.b"], "rules": [{}]})).spec.rules);
    assert_bad_route(&json!({"rules": []}), &[("/rules", "at least one rule")]);
}

#[test]
fn faults_of_matches_are_named() {
    let header = |name: &str, value: &str| with_match(json!({"headers": [{"name": name, "value": value}]}));
    let seventeen = vec![json!({"name": "a", "value": "b"}); 17];
    let table: Vec<(Value, Vec<(&str, &str)>)> = vec![
        (with_path("RegularExpression", "/a(.*"), vec![("/rules/0/matches/0/path/value", "unclosed group at byte 2")]),
        (with_path("RegularExpression", ""), vec![("/rules/0/matches/0/path/value", "must not be empty")]),
        (with_path("RegularExpression", &"a".repeat(1025)), vec![("/rules/0/matches/0/path/value", "at most 1024 bytes")]),
        (with_path("RegularExpression", r"[\w]{1000}{100}"), vec![("/rules/0/matches/0/path/value", "compiles to more than")]),
        (with_match(json!({"path": {"type": "RegularExpression"}})), vec![("/rules/0/matches/0/path/value", "is required")]),
        (with_path("Prefix", "/a"), vec![("/rules/0/matches/0/path/type", "known are Exact, PathPrefix, PathTemplate")]),
        (with_match(json!({"path": "/a"})), vec![("/rules/0/matches/0/path", "expected an object")]),
        (with_match(json!({"path": {"val": "/a"}})), vec![("/rules/0/matches/0/path/val", "did you mean \"value\"?")]),
        (with_match(json!({"method": "get"})), vec![("/rules/0/matches/0/method", "known are GET, HEAD")]),
        (with_match(json!({"headers": {}})), vec![("/rules/0/matches/0/headers", "expected an array")]),
        (with_match(json!({"headers": seventeen})), vec![("/rules/0/matches/0/headers", "at most 16")]),
        (with_match(json!({"queryParams": seventeen})), vec![("/rules/0/matches/0/queryParams", "at most 16")]),
        (
            with_match(json!({"headers": [{}]})),
            vec![("/rules/0/matches/0/headers/0/name", "is required"), ("/rules/0/matches/0/headers/0/value", "is required")],
        ),
        (header("a b", "c"), vec![("/rules/0/matches/0/headers/0/name", "RFC 9110")]),
        (header(":path", "c"), vec![("/rules/0/matches/0/headers/0/name", "RFC 9110")]),
        (header("a", ""), vec![("/rules/0/matches/0/headers/0/value", "must not be empty")]),
        (header("a", &"v".repeat(4097)), vec![("/rules/0/matches/0/headers/0/value", "at most 4096 bytes, found 4097")]),
        (
            with_match(json!({"headers": [{"type": "RegularExpression", "name": "a", "value": "[b"}]})),
            vec![("/rules/0/matches/0/headers/0/value", "unclosed character class")],
        ),
        (
            with_match(json!({"queryParams": [{"type": "RegularExpression", "name": "a", "value": "(?=b)"}]})),
            vec![("/rules/0/matches/0/queryParams/0/value", "look-around")],
        ),
        (
            with_match(json!({"queryParams": [{"type": "Regex", "name": "a", "value": "b"}]})),
            vec![("/rules/0/matches/0/queryParams/0/type", "known are Exact, RegularExpression")],
        ),
    ];
    for (document, expected) in table {
        assert_bad_route(&document, &expected);
    }
}

#[test]
fn path_values_are_checked_and_normalised() {
    let bad = [
        ("Exact", "", "must not be empty"),
        ("Exact", "a", "start with `/`"),
        ("PathPrefix", "/a//b", "`//`"),
        ("PathPrefix", "/a/./b", "`/./`"),
        ("PathPrefix", "/a/../b", "`/../`"),
        ("Exact", "/a/%2e%2E/b", "`/../`"),
        ("Exact", "/a%2fb", "`%2f`"),
        ("Exact", "/a%2Fb", "`%2f`"),
        ("Exact", "/a#b", "`#`"),
        ("Exact", "/a?b", "`?`"),
        ("Exact", "/a/..", "end in `/..`"),
        ("Exact", "/a/.", "end in `/.`"),
        ("Exact", "/a/%2e", "end in `/.`"),
        ("Exact", "/a b", "percent-encoded"),
        ("Exact", "/é", "percent-encoded"),
        ("Exact", "/%zz", "hexadecimal"),
        ("Exact", "/%00", "%00"),
        ("PathTemplate", "/{a}/{a}", "twice"),
        ("PathTemplate", "/{*a}/b", "last"),
        ("PathTemplate", "/x{a}", "whole element"),
    ];
    for (match_type, value, part) in bad {
        assert_bad_route(&with_path(match_type, value), &[("/rules/0/matches/0/path/value", part)]);
    }
    let long = format!("/{}", "a".repeat(1024));
    assert_bad_route(&with_path("Exact", &long), &[("/rules/0/matches/0/path/value", "at most 1024 bytes")]);
    let good = [
        ("Exact", "/", "/"),
        ("Exact", "/a/", "/a/"),
        ("Exact", "/%61%c3", "/a%C3"),
        ("PathPrefix", "/", "/"),
        ("PathPrefix", "/a/", "/a"),
        ("PathPrefix", "/a/.b", "/a/.b"),
        ("PathTemplate", "/%61/{x}/{*y}", "/a/{x}/{*y}"),
    ];
    for (match_type, value, normal) in good {
        assert_eq!(path_of(&with_path(match_type, value)).value, normal, "{match_type} {value}");
    }
}

#[test]
fn matches_are_counted_over_all_rules() {
    let matches = |rule: usize, count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"path": {"type": "Exact", "value": format!("/{rule}/{n}")}})).collect()
    };
    let rules = |counts: &[usize]| -> Value {
        let rules: Vec<_> = counts.iter().enumerate().map(|(rule, count)| json!({"matches": matches(rule, *count)})).collect();
        json!({"rules": rules})
    };
    good_route(&rules(&[64, 64]));
    assert_bad_route(&rules(&[64, 64, 1]), &[("/rules", "at most 128 matches in all rules together, found 129")]);
    assert_bad_route(&rules(&[65]), &[("/rules/0/matches", "at most 64 elements, found 65")]);
    good_route(&rules(&[1; 16]));
    assert_bad_route(&rules(&[1; 17]), &[("/rules", "at most 16 elements, found 17")]);
}

#[test]
fn faults_of_filters_are_named() {
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}});
    let at = "/rules/0/filters/0";
    let under = |rest: &str| format!("{at}{rest}");
    let mut table: Vec<(Value, Vec<(String, &str)>)> = vec![
        (with_filter(json!({})), vec![(under("/type"), "is required")]),
        (with_filter(json!({"type": "Redirect"})), vec![(under("/type"), "known are RequestHeaderModifier")]),
        (with_filter(json!({"type": "URLRewrite"})), vec![(under("/urlRewrite"), "is required")]),
        (
            with_filter(json!({"type": "URLRewrite", "urlRewrite": {}, "requestRedirect": {}})),
            vec![(under("/requestRedirect"), "does not belong to type URLRewrite")],
        ),
        (
            with_rule(json!({"filters": [rewrite, rewrite]})),
            vec![("/rules/0/filters/1".into(), "once; /rules/0/filters/0 is the other")],
        ),
        (json!({"rules": [{"filters": [redirect, rewrite]}]}), vec![("/rules/0/filters/1".into(), "exclude each other")]),
        (with_filter(redirect.clone()), vec![("/rules/0/backendRefs".into(), "has no backendRefs")]),
        (with_modifier(json!({"replace": []})), vec![(under("/requestHeaderModifier/replace"), "unknown field")]),
    ];
    for (filter_type, field) in [("Policy", "policy"), ("ExternalAuth", "externalAuth"), ("ExtensionRef", "extensionRef")] {
        let expected = vec![(under(&format!("/{field}")), "not supported yet"), (under("/type"), "not supported yet")];
        table.push((with_filter(json!({"type": filter_type, field: {}})), expected));
    }
    for (document, expected) in table {
        let expected: Vec<_> = expected.iter().map(|(path, part)| (path.as_str(), *part)).collect();
        assert_bad_route(&document, &expected);
    }
}

#[test]
fn faults_of_header_modifiers_are_named() {
    let set = |name: &str, value: &str| json!({"set": [{"name": name, "value": value}]});
    let table = [
        (set("Connection", "close"), "/set/0/name", "gateway's own"),
        (set("transfer-encoding", "x"), "/set/0/name", "gateway's own"),
        (set("Content-Length", "1"), "/set/0/name", "gateway's own"),
        (set("Raftgate-Revision", "1"), "/set/0/name", "gateway's own"),
        (json!({"remove": ["Upgrade"]}), "/remove/0", "gateway's own"),
        (json!({"remove": ["TE"]}), "/remove/0", "gateway's own"),
        (json!({"remove": ["Host"]}), "/remove/0", "exactly one `host`"),
        (json!({"add": [{"name": "Host", "value": "a"}]}), "/add/0/name", "exactly one `host`"),
        (set("a b", "c"), "/set/0/name", "RFC 9110"),
        (set("", "c"), "/set/0/name", "must not be empty"),
        (set("a", "x\r\ny: z"), "/set/0/value", "control characters"),
        (set("a", "\u{0}"), "/set/0/value", "control characters"),
        (set("a", " b"), "/set/0/value", "white space"),
        (set("a", ""), "/set/0/value", "must not be empty"),
        (json!({"set": [{"name": "a"}]}), "/set/0/value", "is required"),
        (json!({"set": [{"name": "a", "value": "1"}], "remove": ["A"]}), "/remove/0", "occurs twice"),
        (json!({"add": [{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]}), "/add/1/name", "occurs twice"),
        (json!({"remove": (0..17).map(|n| format!("x-{n}")).collect::<Vec<_>>()}), "/remove", "at most 16"),
    ];
    for (modifier, path, part) in table {
        let path = format!("/rules/0/filters/0/requestHeaderModifier{path}");
        assert_bad_route(&with_modifier(modifier), &[(&path, part)]);
    }
    for host in ["a.example", "a.example:8080", "[::1]:80", "10.0.0.1"] {
        good_route(&with_modifier(set("Host", host)));
    }
    for host in ["a b/c", "@", "x/y", "[::1", "x.org:99999", "u@a.example"] {
        let path = "/rules/0/filters/0/requestHeaderModifier/set/0/value";
        assert_bad_route(&with_modifier(set("Host", host)), &[(path, "a `host` is a name or an address")]);
    }
}

#[test]
fn faults_of_redirects_and_rewrites_are_named() {
    let table = [
        (json!({"scheme": "ftp"}), "/scheme", "known are http, https"),
        (json!({"hostname": "*.a"}), "/hostname", "wildcard"),
        (json!({"hostname": ""}), "/hostname", "must not be empty"),
        (json!({"hostname": "10.1.1.1"}), "/hostname", "IP address"),
        (json!({"hostname": "B.example"}), "/hostname", "lower case: \"b.example\""),
        (json!({"port": 0}), "/port", "from 1 to 65535, found 0"),
        (json!({"port": 65536}), "/port", "from 1 to 65535"),
        (json!({"port": "80"}), "/port", "expected an integer, found a string"),
        (json!({"port": 80.5}), "/port", "found 80.5"),
        (json!({"port": -1}), "/port", "found -1"),
        (json!({"statusCode": 304}), "/statusCode", "must be 301, 302, 303, 307 or 308, found 304"),
        (json!({"path": {}}), "/path/type", "is required"),
        (json!({"path": {"type": "Replace"}}), "/path/type", "known are ReplaceFullPath, ReplacePrefixMatch"),
        (json!({"path": {"type": "ReplaceFullPath"}}), "/path/replaceFullPath", "is required"),
        (json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "x"}}), "/path/replaceFullPath", "start with `/`"),
        (json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a?b"}}), "/path/replaceFullPath", "encoded"),
        (json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/{id}"}}), "/path/replaceFullPath", "`{id}` is not"),
        (
            json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/", "replaceFullPath": "/"}}),
            "/path/replaceFullPath",
            "does not belong",
        ),
    ];
    for (redirect, path, part) in table {
        let path = format!("/rules/0/filters/0/requestRedirect{path}");
        assert_bad_route(&with_redirect(redirect), &[(&path, part)]);
    }
    let at = "/rules/0/filters/0/urlRewrite/path";
    let full = |path: &str| json!({"type": "ReplaceFullPath", "replaceFullPath": path});
    let table = [
        ("/a/{id}", "/{other}", "`{other}` is not a parameter"),
        ("/a/{id}", "/{id", "%7B"),
        ("/a/{id}", "/id}", "%7B"),
        ("/a/{id}", "/{*id}", "letters, digits"),
        ("/a/{id}", "/../{id}", "`.` or `..`"),
        ("/a/{id}", "/%2e/{id}", "`.` or `..`"),
    ];
    for (template, path, part) in table {
        assert_bad_route(&with_rewrite(template, full(path)), &[(&format!("{at}/replaceFullPath"), part)]);
    }
    let prefix = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"});
    assert_bad_route(&with_rewrite("/a/{id}", prefix), &[(at, "exactly one match")]);
}

#[test]
fn faults_of_backends_and_timeouts_are_named() {
    let at = "/rules/0/backendRefs/0";
    let table = [
        (json!({}), format!("{at}/name"), "is required"),
        (json!({"name": "A"}), format!("{at}/name"), "a-z 0-9"),
        (json!({"name": "a", "weight": 1_000_001}), format!("{at}/weight"), "from 0 to 1000000"),
        (json!({"name": "a", "weight": -1}), format!("{at}/weight"), "found -1"),
        (json!({"name": "a", "weight": 1.5}), format!("{at}/weight"), "found 1.5"),
        (json!({"name": "a", "wieght": 1}), format!("{at}/wieght"), "did you mean \"weight\"?"),
    ];
    for (backend, path, part) in table {
        assert_bad_route(&json!({"rules": [{"backendRefs": [backend]}]}), &[(&path, part)]);
    }
    let many = vec![json!({"name": "a"}); 17];
    assert_bad_route(&json!({"rules": [{"backendRefs": many}]}), &[("/rules/0/backendRefs", "at most 16")]);
    let table = [
        (json!({"request": "1"}), "/request", "duration"),
        (json!({"request": 1}), "/request", "expected a string"),
        (json!({"request": "1.5s"}), "/request", "duration"),
        (json!({"request": "1s", "backendRequest": "1001ms"}), "/backendRequest", "longer than `request`"),
        (json!({"backend": "1s"}), "/backend", "unknown field"),
    ];
    for (timeouts, path, part) in table {
        assert_bad_route(&with_rule(json!({"timeouts": timeouts})), &[(&format!("/rules/0/timeouts{path}"), part)]);
    }
    let parsed = good_route(&with_rule(json!({"timeouts": {"request": "0s", "backendRequest": "2s"}})));
    assert_eq!(parsed.spec.rules[0].timeouts(), Timeouts { request: None, backend_request: Some(Duration::from_secs(2)) });
}

#[test]
fn faults_of_services_are_named() {
    let endpoint = |address: &str| json!({"endpoints": [{"address": address}]});
    let table = [
        (json!("x"), "", "expected an object"),
        (json!({"endpoint": []}), "/endpoint", "did you mean \"endpoints\"?"),
        (json!({"discovery": {}}), "/discovery", "not supported yet"),
        (json!({"healthCheck": {}}), "/healthCheck", "not supported yet"),
        (json!({"limits": {}}), "/limits", "not supported yet"),
        (json!({"protocol": "HTTP1"}), "/protocol", "known are http1, h2c, https, h2"),
        (json!({"loadBalancing": {"policy": "Random"}}), "/loadBalancing/policy", "not supported yet"),
        (json!({"loadBalancing": {"policy": "Best"}}), "/loadBalancing/policy", "known are RoundRobin"),
        (json!({"loadBalancing": {"hashOn": {}}}), "/loadBalancing/hashOn", "not supported yet"),
        (json!({"connectTimeout": "0s"}), "/connectTimeout", "from 1ms to 10m"),
        (json!({"connectTimeout": "11m"}), "/connectTimeout", "from 1ms to 10m"),
        (json!({"endpoints": [{"address": "a:1", "zone": "z"}]}), "/endpoints/0/zone", "not supported yet"),
        (json!({"endpoints": [{}]}), "/endpoints/0/address", "is required"),
        (json!({"endpoints": [{"address": "a:1", "weight": "1"}]}), "/endpoints/0/weight", "expected an integer"),
        (
            json!({"endpoints": [{"address": "A:1"}, {"address": "a:01"}]}),
            "/endpoints/1/address",
            "/endpoints/0/address has this one",
        ),
        (endpoint(""), "/endpoints/0/address", "must not be empty"),
        (endpoint("a"), "/endpoints/0/address", "host:port"),
        (endpoint("a:"), "/endpoints/0/address", "1 to 65535"),
        (endpoint("a:0"), "/endpoints/0/address", "1 to 65535"),
        (endpoint("a:65536"), "/endpoints/0/address", "1 to 65535"),
        (endpoint("a:+80"), "/endpoints/0/address", "1 to 65535"),
        (endpoint("::1:80"), "/endpoints/0/address", "brackets"),
        (endpoint("[::1]"), "/endpoints/0/address", "1 to 65535"),
        (endpoint("[::g]:80"), "/endpoints/0/address", "host:port"),
        (endpoint("[fe80::1%eth0]:80"), "/endpoints/0/address", "host:port"),
        (endpoint(":80"), "/endpoints/0/address", "1 to 253"),
        (endpoint("10.0.0.300:80"), "/endpoints/0/address", "must not be a number"),
        (endpoint("http://a:80"), "/endpoints/0/address", "host:port, ip:port or [ip6]:port, without the scheme \"http://\""),
        (endpoint("https://[::1]:80/"), "/endpoints/0/address", "without the scheme \"https://\""),
        (endpoint("a_b:80"), "/endpoints/0/address", "RFC 1123"),
    ];
    for (document, path, part) in table {
        assert_bad_service(&document, &[(path, part)]);
    }
}

#[test]
fn good_services_are_resolved() {
    let empty = parse_service(&json!({})).expect("a service may be empty").spec;
    let (protocol, connect_timeout) = (Protocol::Http1, Duration::from_secs(1));
    assert_eq!(empty, ServiceSpec { endpoints: vec![], protocol, tls: None, connect_timeout });
    let document = json!({
        "endpoints": [
            {"address": "127.0.0.1:9001"}, {"address": "Backend.Local:080", "weight": 0}, {"address": "[0:0::1]:80", "weight": 5}
        ],
        "protocol": "http1", "loadBalancing": {"policy": "RoundRobin"}, "connectTimeout": "250ms",
    });
    let spec = parse_service(&document).expect("a good service").spec;
    let endpoints: Vec<_> = spec.endpoints.iter().map(|endpoint| (endpoint.address.as_str(), endpoint.weight)).collect();
    assert_eq!(endpoints, [("127.0.0.1:9001", 1), ("backend.local:80", 0), ("[::1]:80", 5)]);
    assert_eq!(spec.connect_timeout, Duration::from_millis(250));
}

#[test]
fn a_good_route_is_resolved() {
    let document = json!({
        "hostnames": ["shop.example.com", "*.shop.example.com"],
        "listeners": ["public"],
        "rules": [{
            "name": "checkout",
            "matches": [{
                "path": {"type": "PathTemplate", "value": "/orders/{id}/{*rest}"},
                "method": "GET",
                "headers": [{"type": "Exact", "name": "X-Env", "value": "canary"}, {"name": "x-env", "value": "other"}],
                "queryParams": [{"name": "debug", "value": "1"}]
            }],
            "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "b c"}], "remove": ["X-B"]}},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "c", "value": "d"}]}},
                {"type": "URLRewrite", "urlRewrite": {"hostname": "in.ternal", "path":
                    {"type": "ReplaceFullPath", "replaceFullPath": "/v%32/{id}.x/{rest}"}}}
            ],
            "backendRefs": [{"name": "orders-v1", "weight": 9}, {"name": "orders-v2"}],
            "timeouts": {"request": "10s", "backendRequest": "2s"}
        }]
    });
    let parsed = good_route(&document);
    assert_eq!(parsed.warnings.len(), 1, "{:?}", parsed.warnings);
    assert!(parsed.warnings[0].starts_with("/rules/0/matches/0/headers/1: "), "{:?}", parsed.warnings);
    assert_eq!(parsed.spec.listeners, ["public"]);
    let rule = &parsed.spec.rules[0];
    assert_eq!(rule.name.as_deref(), Some("checkout"));
    let found = &rule.matches[0];
    assert_eq!(found.method, Some(Method::GET));
    assert_eq!(
        *found.headers,
        [HeaderMatch { name: http::HeaderName::from_static("x-env"), value: ValueMatch::Exact("canary".into()) }]
    );
    assert_eq!(*found.query_params, [QueryMatch { name: "debug".into(), value: ValueMatch::Exact("1".into()) }]);
    let Filter::UrlRewrite(rewrite) = &rule.filters[2] else { panic!("{:?}", rule.filters) };
    assert_eq!(rewrite.hostname.as_deref(), Some("in.ternal"));
    assert_eq!(rewrite.path, Some(PathModifier::ReplaceFullPath("/v2/{id}.x/{rest}".into())));
    assert_eq!(rule.backend_refs.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [9, 1]);
    assert_eq!(rule.timeouts().request, Some(Duration::from_secs(10)));
}

#[test]
fn redirects_are_resolved_and_vain_rules_warned_of() {
    let redirect =
        good_route(&with_redirect(json!({"scheme": "https", "port": 8443, "statusCode": 308, "hostname": "b.example",
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/%6eew/"}})));
    assert_eq!(redirect.warnings, Vec::<String>::new());
    let expected = RequestRedirect {
        scheme: Some(RedirectScheme::Https),
        hostname: Some("b.example".into()),
        path: Some(PathModifier::ReplacePrefixMatch("/new/".into())),
        port: Some(8443),
        status_code: StatusCode::PERMANENT_REDIRECT,
    };
    assert_eq!(*redirect.spec.rules[0].filters, [Filter::RequestRedirect(expected)]);
    let table = [
        (json!({"rules": [{}]}), "neither backendRefs nor a redirect"),
        (json!({"rules": [{"backendRefs": [{"name": "a", "weight": 0}]}]}), "weight 0"),
        (with_redirect(json!({})), "changes nothing"),
    ];
    for (document, part) in table {
        let parsed = good_route(&document);
        assert!(parsed.warnings.len() == 1 && parsed.warnings[0].contains(part), "{document} {:?}", parsed.warnings);
        let expected = PathMatch { match_type: PathMatchType::PathPrefix, value: "/".into(), pattern: None };
        assert_eq!(parsed.spec.rules[0].matches[0].path, expected);
    }
}

#[test]
fn expressions_are_counted_and_compiled() {
    let header = |index: usize| json!({"headers": [{"type": "RegularExpression", "name": "x", "value": format!("v{index}.*")}]});
    let matches: Vec<Value> = (0..64).map(header).collect();
    let mut document = with_rule(json!({"matches": matches}));
    let found = good_route(&document).spec.rules.remove(0).matches[7].clone();
    assert!(found.headers[0].value.matches(b"v7-beta") && !found.headers[0].value.matches(b"v6"));
    document["rules"][0]["matches"][63]["path"] = json!({"type": "RegularExpression", "value": "/a"});
    assert_bad_route(&document, &[("/rules/0/matches/63/headers/0/value", "at most 64 regular expressions")]);

    let parsed = good_route(&with_path("RegularExpression", "orders/.*"));
    assert!(parsed.warnings.iter().any(|warning| warning.contains("matches nothing")), "{:?}", parsed.warnings);
    let path = path_of(&with_path("RegularExpression", "/a//b%2f[^/]+"));
    assert_eq!(path.value, "/a//b%2f[^/]+");
    assert!(path.pattern.is_some_and(|pattern| pattern.matches(b"/a//b%2fc")));
}

#[test]
fn all_faults_are_collected_up_to_a_bound() {
    let document = json!({"hostnames": ["a_b"], "rules": [{"matches": [{"method": "X"}], "timeouts": {"request": "x"}, "backendRefs": [{}]}]});
    let paths: Vec<_> = parse_route(&document).expect_err("four faults").into_iter().map(|error| error.path).collect();
    assert_eq!(paths, ["/hostnames/0", "/rules/0/matches/0/method", "/rules/0/backendRefs/0/name", "/rules/0/timeouts/request"]);
    let many: serde_json::Map<String, Value> = (0..10_000).map(|n| (format!("field{n}"), Value::Null)).collect();
    assert_eq!(parse_route(&Value::Object(many)).expect_err("unknown fields").len(), ERRORS_MAX);
    let long = "x".repeat(100_000);
    let errors = parse_service(&json!({"protocol": long})).expect_err("unknown protocol");
    assert!(errors[0].message.len() < 200, "{}", errors[0].message.len());
}

#[test]
fn documents_have_one_canonical_form() {
    let document = json!({"rules": [{"name": "é", "backendRefs": [{"weight": 10, "name": "a"}]}], "hostnames": []});
    let bytes = canonical(&document).expect("canonical");
    let expected = r#"{"hostnames":[],"rules":[{"backendRefs":[{"name":"a","weight":10}],"name":"é"}]}"#;
    assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
    let again: Value = serde_json::from_slice(&bytes).expect("canonical JSON is JSON");
    assert_eq!(canonical(&again).expect("canonical"), bytes);
}

fn any_json() -> impl Strategy<Value = Value> {
    let names =
        ["rules", "matches", "path", "type", "value", "filters", "backendRefs", "name", "urlRewrite", "endpoints", "address"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "/[a{}*%./]{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["PathTemplate", "URLRewrite", "ReplaceFullPath", "Exact"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_panics_and_refusals_name_a_fault(document in any_json()) {
        prop_assert!(parse_route(&document).map_or_else(|errors| !errors.is_empty(), |_| true), "{}", document);
        prop_assert!(parse_service(&document).map_or_else(|errors| !errors.is_empty(), |_| true), "{}", document);
    }

    #[test]
    fn canonical_documents_mean_the_same(value in "/[a-c%2eE.]{0,6}", weight in 0u32..=1_000_000) {
        let document = json!({"rules": [{"matches": [{"path": {"value": value}}], "backendRefs": [{"name": "a", "weight": weight}]}]});
        let again: Value = serde_json::from_slice(&canonical(&document).expect("canonical")).expect("JSON");
        prop_assert_eq!(parse_route(&again), parse_route(&document));
    }
}
