//! CORS: preflights, and what answers say to pages of other origins.

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, OK, field, service, status};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

/// A gateway whose rules at `/` and, for a service that is missing, at `/missing` have this filter.
fn gateway(backend: &Backend, cors: Value) -> Gateway {
    let rule = |path: &str, service: &str| json!({"matches": [{"path": {"value": path}}], "filters": [{"type": "CORS", "cors": cors}], "backendRefs": [{"name": service}]});
    let documents =
        [(Service, "s", service(&[backend.address])), (Route, "r", json!({"rules": [rule("/", "s"), rule("/missing", "none")]}))];
    Gateway::start(ListenerOptions::default(), &documents)
}

fn preflight(gateway: &Gateway, origin: &str) -> String {
    gateway.ask(&format!(
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
         Access-Control-Request-Headers: x-one,x-two\r\n\r\n"
    ))
}

fn actual(gateway: &Gateway, path: &str, origin: &str) -> String {
    gateway.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n"))
}

/// The CORS fields of an answer, without their common prefix, and `vary`.
fn fields(answer: &str) -> Vec<(String, String)> {
    let lines = answer.split("\r\n\r\n").next().unwrap().lines().filter_map(|line| line.split_once(": "));
    let named = lines.filter(|(name, _)| name.starts_with("access-control-") || *name == "vary");
    let mut fields: Vec<_> =
        named.map(|(name, value)| (name.trim_start_matches("access-control-").to_owned(), value.to_owned())).collect();
    fields.sort();
    fields
}

#[track_caller]
fn assert_fields(answer: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(fields(answer), expected, "{answer}");
}

#[test]
fn a_preflight_is_answered_by_the_gateway() {
    let backend = Backend::answering(OK);
    let listed = json!({
        "allowOrigins": ["https://*.example.com", "http://localhost:3000"], "allowMethods": ["GET", "PUT"],
        "allowHeaders": ["X-One"], "exposeHeaders": ["X-Seen"], "maxAge": 60
    });
    let gateway = gateway(&backend, listed);
    let answer = preflight(&gateway, "https://app.example.com");
    assert_eq!(status(&answer), 204);
    assert_fields(
        &answer,
        &[
            ("allow-headers", "x-one"),
            ("allow-methods", "GET, PUT"),
            ("allow-origin", "https://app.example.com"),
            ("max-age", "60"),
            ("vary", "Origin"),
        ],
    );
    for denied in ["https://example.com", "http://app.example.com", "null", "http://localhost"] {
        let answer = preflight(&gateway, denied);
        assert_eq!(status(&answer), 204, "{denied}");
        assert_fields(&answer, &[("vary", "Origin")]);
    }
    assert!(backend.seen().is_empty(), "a preflight went on");
    // Not a preflight: no method is asked for, or no origin is given.
    for rest in ["Origin: https://app.example.com\r\n", "Access-Control-Request-Method: PUT\r\n", ""] {
        assert_eq!(status(&gateway.ask(&format!("OPTIONS / HTTP/1.1\r\nHost: a\r\n{rest}\r\n"))), 200, "{rest}");
    }
    assert_eq!(backend.seen().len(), 3);
}

#[test]
fn wildcards_stand_where_no_credentials_go() {
    let backend = Backend::answering(OK);
    let all = json!({"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"], "exposeHeaders": ["*"]});
    let gateway = gateway(&backend, all);
    assert_fields(
        &preflight(&gateway, "https://a.example"),
        &[("allow-headers", "*"), ("allow-methods", "*"), ("allow-origin", "*"), ("max-age", "5")],
    );
    assert_fields(&actual(&gateway, "/", "https://a.example"), &[("allow-origin", "*"), ("expose-headers", "*")]);
    assert_fields(&gateway.get("/"), &[]);
}

#[test]
fn with_credentials_the_fields_repeat_the_request() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nX-Seen: 1\r\nSet-Cookie: a\r\nContent-Length: 2\r\n\r\nok");
    let all = json!({
        "allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"], "exposeHeaders": ["*"], "allowCredentials": true
    });
    let gateway = gateway(&backend, all);
    assert_fields(
        &preflight(&gateway, "https://a.example"),
        &[
            ("allow-credentials", "true"),
            ("allow-headers", "x-one,x-two"),
            ("allow-methods", "PUT"),
            ("allow-origin", "https://a.example"),
            ("max-age", "5"),
            ("vary", "Origin"),
        ],
    );
    assert_fields(
        &actual(&gateway, "/", "https://a.example"),
        &[
            ("allow-credentials", "true"),
            ("allow-origin", "https://a.example"),
            ("expose-headers", "x-seen, content-length, vary"),
            ("vary", "Origin"),
        ],
    );
    let two = "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nOrigin: https://b.example\r\n\r\n";
    assert_fields(&gateway.ask(two), &[("vary", "Origin")]);
}

#[test]
fn what_a_backend_says_is_replaced() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Expose-Headers: x-secret\r\nVary: Accept\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = gateway(&backend, json!({"allowOrigins": ["https://a.example"], "exposeHeaders": ["X-Seen"]}));
    assert_fields(
        &actual(&gateway, "/", "https://a.example"),
        &[("allow-origin", "https://a.example"), ("expose-headers", "x-seen"), ("vary", "Accept"), ("vary", "Origin")],
    );
    assert_fields(&actual(&gateway, "/", "https://b.example"), &[("vary", "Accept"), ("vary", "Origin")]);
    // A cache must not give the answer to no origin to some origin.
    assert_fields(&gateway.get("/"), &[("vary", "Accept"), ("vary", "Origin")]);
}

#[test]
fn a_vary_that_names_the_origin_stays_as_it_is() {
    for vary in ["*", "Accept, origin"] {
        let backend = Backend::answering(&format!("HTTP/1.1 200 OK\r\nVary: {vary}\r\nContent-Length: 2\r\n\r\nok"));
        let gateway = gateway(&backend, json!({"allowOrigins": ["https://a.example"]}));
        assert_fields(&gateway.get("/"), &[("vary", vary)]);
    }
}

#[test]
fn the_gateways_own_answers_are_shared_too() {
    let gateway = gateway(&Backend::answering(OK), json!({"allowOrigins": ["https://a.example"]}));
    let answer = actual(&gateway, "/missing", "https://a.example");
    assert_eq!(status(&answer), 500);
    assert_fields(&answer, &[("allow-origin", "https://a.example"), ("vary", "Origin")]);
    assert!(field(&answer, "proxy-status").is_some());
}
