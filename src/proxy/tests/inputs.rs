//! Requests that cannot be understood in one way only: what counts is how many reach a backend, not the status alone.

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, OK, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

#[test]
fn bad_requests_never_reach_a_backend() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(120));
    let wide = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let table = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@b/c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ("GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: y\r\n\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(Z: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        (&long, 414),
        (&many, 431),
        (&wide, 431),
    ];
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    for (request, expected) in table {
        let answer = gateway.ask(request);
        assert_eq!(status(&answer), expected, "{:?}: {answer}", &request[..request.len().min(90)]);
    }
    assert_eq!(backend.seen(), []);
    // The table itself is not what refuses everything.
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(status(&gateway.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].bytes.starts_with("OPTIONS * HTTP/1.1\r\n"), "{seen:?}");
}

#[test]
fn a_kept_escaped_slash_is_one_element() {
    let backend = Backend::answering(OK);
    let escaped_slashes = crate::model::path::EscapedSlashes::Keep;
    let gateway = Gateway::with(ListenerOptions { escaped_slashes, ..ListenerOptions::default() }, &backend);
    assert_eq!(status(&gateway.get("/a%2fb")), 200);
    assert!(backend.seen()[0].bytes.starts_with("GET /a%2Fb HTTP/1.1\r\n"));
}

#[test]
fn a_rules_own_limit_of_a_body_counts_instead_of_the_listeners() {
    let backend = Backend::answering(OK);
    let rule = |path: &str, limits: Value| json!({"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "s"}], "limits": limits});
    let rules =
        [rule("/small", json!({"maxRequestBody": 2})), rule("/large", json!({"maxRequestBody": "1KiB"})), rule("/", json!({}))];
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", json!({"rules": rules}))];
    let options = ListenerOptions { body_bytes_max: Some(4), ..ListenerOptions::default() };
    let gateway = Gateway::start(options, &documents);
    for (path, bytes, expected) in [
        ("/small", 2, 200),
        ("/small", 3, 413),
        ("/large", 1024, 200),
        ("/large", 1025, 413),
        ("/other", 4, 200),
        ("/other", 5, 413),
        ("/small", 0, 200),
    ] {
        let body = "x".repeat(bytes);
        let known = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}");
        assert_eq!(status(&gateway.ask(&known)), expected, "{path} {bytes}");
        let chunk = if bytes == 0 { String::new() } else { format!("{bytes:x}\r\n{body}\r\n") };
        let chunked = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
        assert_eq!(status(&gateway.ask(&chunked)), expected, "{path} {bytes} in chunks");
    }
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::with(ListenerOptions { body_bytes_max: Some(4), ..ListenerOptions::default() }, &backend);
    let fits = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    assert_eq!(status(&gateway.ask(fits)), 200);
    let known = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde";
    assert_eq!(status(&gateway.ask(known)), 413);
    assert_eq!(backend.seen().len(), 1);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(status(&gateway.ask(chunked)), 413);
    wait_for("the upstream request to be aborted", || backend.connections() == 1 || backend.seen().len() == 2);
    assert!(backend.seen().iter().skip(1).all(|seen| !seen.is_whole), "{:?}", backend.seen());
}
