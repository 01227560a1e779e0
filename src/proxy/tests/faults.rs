//! Answers that the gateway makes of its own.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use super::frames::{DATA, Outcome, Wire, frame, get, head};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;
use crate::proxy::park::PARKED_MAX;

/// An address where nobody listens.
fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
pub(super) fn every_fault_says_what_failed() {
    let garbage = Backend::answering("nonsense\r\n\r\n");
    let wide = Backend::answering(&format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(100)));
    let silent = Backend::raw(drop);
    let broken = Backend::with(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConten").unwrap();
        false
    });
    let unasked = Backend::answering("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let slow = Backend::with(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(2));
        false
    });
    let rule = |path: &str, backends: serde_json::Value| {
        json!({"matches": [{"path": {"type": "Exact", "value": path}}], "backendRefs": backends,
               "timeouts": {"backendRequest": "200ms"}})
    };
    let to = |name: &str| json!([{"name": name}]);
    let rules = json!({"rules": [
        rule("/dangling", to("nowhere")), rule("/weightless", json!([{"name": "none", "weight": 0}])), rule("/none", to("none")), rule("/empty", json!([])),
        rule("/refused", to("refused")), rule("/garbage", to("garbage")), rule("/wide", to("wide")), rule("/silent", to("silent")), rule("/broken", to("broken")),
        rule("/unasked", to("unasked")), rule("/slow", to("slow")), rule("/unresolved", to("unresolved")),
    ]});
    let documents = [
        (Service, "none", json!({"endpoints": []})),
        (Service, "refused", service(&[nobody()])),
        (Service, "garbage", service(&[garbage.address])),
        (Service, "wide", service(&[wide.address])),
        (Service, "silent", service(&[silent.address])),
        (Service, "broken", service(&[broken.address])),
        (Service, "unasked", service(&[unasked.address])),
        (Service, "slow", service(&[slow.address])),
        (Service, "unresolved", json!({"endpoints": [{"address": "does-not-exist.invalid:80"}], "connectTimeout": "5s"})),
        (Route, "r", rules),
    ];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let table = [
        ("/else", 404, "destination_not_found", "no route matches the request"),
        ("/dangling", 500, "proxy_configuration_error", "service nowhere does not exist"),
        ("/weightless", 500, "proxy_configuration_error", "route r: no backend has a weight"),
        ("/empty", 500, "proxy_configuration_error", "route r: the rule has no backends"),
        ("/none", 503, "destination_unavailable", "service none has no endpoint"),
        ("/refused", 502, "connection_refused", "service refused: the connection was refused"),
        ("/garbage", 502, "http_protocol_error", "service garbage: the answer is not HTTP"),
        ("/wide", 502, "http_response_header_section_size", "service wide: the answer's head is over 80 KiB or 100 fields"),
        ("/silent", 502, "connection_terminated", "service silent: closed before an answer"),
        ("/broken", 502, "http_response_incomplete", "service broken: closed within an answer's head"),
        ("/unasked", 502, "http_protocol_error", "service unasked answered 101 unasked"),
        ("/slow", 504, "http_response_timeout", "service slow did not answer in time"),
    ];
    for (path, code, error, detail) in table {
        let answer = gateway.get(path);
        assert_eq!(status(&answer), code, "{path}: {answer}");
        let expected = format!("raftgate; error={error}; details=\"{detail}\"");
        assert_eq!(field(&answer, "proxy-status"), Some(expected.as_str()), "{path}");
        assert_eq!(field(&answer, "content-type"), Some("application/problem+json"), "{path}");
        let problem: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((problem["status"].as_u64(), problem["detail"].as_str()), (Some(code.into()), Some(detail)));
    }
    assert_eq!(broken.seen().len(), 1, "a request was sent again though an answer had begun");
    let unresolved = status(&gateway.get("/unresolved"));
    assert!([502, 504].contains(&unresolved), "{unresolved}: a resolver may also not answer in time");
    let text = gateway.metrics.render();
    assert!(text.contains("raftgate_proxy_errors_total{error=\"connection_refused\"} 1"), "{text}");
    assert!(text.contains("raftgate_requests_total{code=\"404\",kind=\"\",method=\"GET\",route=\"\",service=\"\"} 1"), "{text}");
    assert!(
        text.contains("raftgate_requests_total{code=\"503\",kind=\"Route\",method=\"GET\",route=\"r\",service=\"none\"} 1"),
        "{text}"
    );
}

#[test]
fn a_rule_timeout_cuts_an_answer_that_trickles() {
    let backend = Backend::with(|_, _, stream| {
        let sent = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").is_ok();
        std::thread::park_timeout(Duration::from_secs(3));
        sent
    });
    let rules = json!({"rules": [{"backendRefs": [{"name": "s"}], "timeouts": {"request": "300ms"}}]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let answer = gateway.get("/");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.contains("\r\n0\r\n"), "{answer}");
}

#[test]
pub(super) fn an_exchange_that_stands_still_is_answered_with_504() {
    let backend = Backend::with(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(5));
        false
    });
    let stream_idle_timeout = Duration::from_millis(300);
    let gateway = Gateway::with(ListenerOptions { stream_idle_timeout, ..ListenerOptions::default() }, &backend);
    assert_eq!(status(&gateway.get("/")), 504);
}

#[test]
fn another_endpoint_takes_over_where_one_refuses() {
    let backend = Backend::answering(OK);
    let documents = [(Service, "s", service(&[nobody(), backend.address])), (Route, "r", route_to("s"))];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    for _ in 0..4 {
        assert_eq!(status(&gateway.get("/")), 200);
    }
}

#[test]
fn answers_before_the_match_carry_the_live_revision() {
    let options = ListenerOptions { min_revision: true, debug_headers: true, ..ListenerOptions::default() };
    let gateway = Gateway::with(options, &Backend::answering(OK));
    let table = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: y\r\n\r\n", 417),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nRaftgate-Min-Revision: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nRaftgate-Min-Revision: 9\r\nRaftgate-Timeout: 50ms\r\n\r\n", 503),
    ];
    for (request, code) in table {
        let answer = gateway.ask(request);
        assert_eq!((status(&answer), field(&answer, "raftgate-revision")), (code, Some("1")), "{request:?}");
    }
}

#[test]
fn a_least_revision_is_waited_for() {
    let backend = Backend::answering(OK);
    let options = ListenerOptions { min_revision: true, debug_headers: true, ..ListenerOptions::default() };
    let mut gateway = Gateway::with(options, &backend);
    let ask = |least: &str, timeout: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nRaftgate-Min-Revision: {least}\r\nRaftgate-Timeout: {timeout}\r\n\r\n")
    };
    assert_eq!(status(&gateway.ask(&ask("1", "1s"))), 200);
    assert_eq!(status(&gateway.ask(&ask("2", "50ms"))), 503);
    assert_eq!(status(&gateway.ask(&ask("x", "1s"))), 400);
    let mut parked = gateway.connect();
    parked.send(&ask("2", "30s"));
    gateway.put(&[(Route, "other", route_to("s"))]);
    let answer = parked.answer();
    assert_eq!((status(&answer), field(&answer, "raftgate-revision")), (200, Some("2")));
    assert!(backend.seen().iter().all(|seen| !seen.bytes.contains("raftgate-")));
}

#[test]
fn no_more_requests_wait_for_a_revision_than_there_are_places() {
    let backend = Backend::answering(OK);
    let options = ListenerOptions { min_revision: true, ..ListenerOptions::default() };
    let mut gateway = Gateway::with(options, &backend);
    let ask =
        |timeout: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nRaftgate-Min-Revision: 2\r\nRaftgate-Timeout: {timeout}\r\n\r\n");
    let mut parked: Vec<_> = (0..PARKED_MAX).map(|_| gateway.connect()).collect();
    parked.iter_mut().for_each(|client| client.send(&ask("30s")));
    wait_for("all places to be taken", || gateway.metrics.requests_active.get() == PARKED_MAX as i64);
    // One more is refused, though it would wait for longer than its client here does.
    let refused = gateway.ask(&ask("30s"));
    assert_eq!(status(&refused), 503, "{refused}");
    // A client that goes away leaves its place.
    drop(parked.pop());
    wait_for("a place", || gateway.metrics.requests_active.get() == PARKED_MAX as i64 - 1);
    let mut late = gateway.connect();
    late.send(&ask("30s"));
    wait_for("the place to be taken", || gateway.metrics.requests_active.get() == PARKED_MAX as i64);
    gateway.put(&[(Route, "other", route_to("s"))]);
    for client in parked.iter_mut().chain([&mut late]) {
        assert_eq!(status(&client.answer()), 200);
    }
}

#[test]
pub(super) fn a_client_that_stalls_is_not_the_services_fault() {
    let backend = Backend::answering(OK);
    let rules = json!({"rules": [{"backendRefs": [{"name": "s"}], "timeouts": {"request": "300ms"}}]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let answer = gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    assert_eq!(status(&answer), 504);
    assert!(answer.contains("\"detail\":\"the request did not complete within timeouts.request\""), "{answer}");

    // Without a time of the rule's own, it is the client's.
    let stream_idle_timeout = Duration::from_millis(300);
    let gateway = Gateway::with(ListenerOptions { stream_idle_timeout, ..ListenerOptions::default() }, &backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "connection")), (408, Some("close")), "{answer}");
    assert!(answer.contains("error=http_request_error") && client.is_closed(), "{answer}");
    let mut wire = Wire::open(gateway.address);
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    wire.send(&[head(1, false, &fields), frame(DATA, 0, 1, b"part")].concat());
    assert_eq!(wire.outcome(1), Outcome::Status(408));
    // The others of its connection go on.
    wire.send(&get(3, "/"));
    assert_eq!(wire.outcome(3), Outcome::Status(200));
}
