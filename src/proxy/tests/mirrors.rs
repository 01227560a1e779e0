//! Copies of requests.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, OK, field, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;
use crate::proxy::mirror::MIRRORS_OF_SERVICE_MAX;

const POST: &str = "POST /a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

fn mirror_to(name: &str) -> Value {
    json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name}}})
}

/// A gateway with services `s` and `copies`, and one rule with these fields.
fn gateway(backend: &Backend, copies: &Backend, fields: Value) -> Gateway {
    let mut rule = json!({"matches": [{"path": {"value": "/"}}], "backendRefs": [{"name": "s"}]});
    rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Service, "copies", service(&[copies.address])),
        (Route, "r", json!({"rules": [rule]})),
    ];
    Gateway::start(ListenerOptions::default(), &documents)
}

fn count(gateway: &Gateway, service: &str, result: &str) -> u64 {
    gateway.metrics.mirrors.with_label_values(&[service, result]).get()
}

/// Accepts, and never reads or answers.
fn hanging() -> Backend {
    Backend::raw(|_stream| std::thread::park_timeout(Duration::from_secs(20)))
}

#[test]
fn a_copy_is_what_the_rules_filters_made_and_its_answer_is_dropped() {
    let (backend, copies) =
        (Backend::answering(OK), Backend::answering("HTTP/1.1 500 No\r\nX-Copy: 1\r\nContent-Length: 3\r\n\r\nbad"));
    let rewrite = |prefix: &str| json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix}}});
    let set = |value: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Env", "value": value}]}});
    let fields = json!({
        "filters": [rewrite("/rule"), set("rule"), mirror_to("copies")],
        "backendRefs": [{"name": "s", "filters": [rewrite("/own"), set("own")]}]
    });
    let gateway = gateway(&backend, &copies, fields);
    for round in 1..=3 {
        let answer = gateway.ask(POST);
        assert!(status(&answer) == 200 && field(&answer, "x-copy").is_none() && answer.ends_with("ok"), "{answer}");
        wait_for("the copy's answer", || count(&gateway, "copies", "sent") == round);
    }
    let (original, copy) = (&backend.seen()[0].bytes, &copies.seen()[0].bytes);
    assert!(original.starts_with("POST /own/a/x ") && field(original, "x-env") == Some("own"), "{original}");
    assert!(copy.starts_with("POST /rule/a/x ") && field(copy, "x-env") == Some("rule"), "{copy}");
    assert!(copy.ends_with("\r\n\r\nhello") && original.ends_with("\r\n\r\nhello"), "{copy}");
    assert_eq!(field(copy, "x-request-id"), field(original, "x-request-id"));
    assert_eq!((copies.seen().len(), copies.connections()), (3, 1), "connections of copies are kept");
}

#[test]
fn a_mirror_sees_what_the_filters_before_it_made() {
    let (backend, copies) = (Backend::answering(OK), Backend::answering(OK));
    let add = |value: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "X-Env", "value": value}]}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "other.example", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/rule"}}});
    let fields = json!({"filters": [mirror_to("copies"), add("first"), mirror_to("copies"), rewrite, mirror_to("copies")]});
    let gateway = gateway(&backend, &copies, fields);
    let answer = gateway.ask("GET /a/%2e/x?q=1 HTTP/1.1\r\nHost: a\r\nConnection: x-drop\r\nX-Drop: 1\r\nX-Env: sent\r\n\r\n");
    assert_eq!(status(&answer), 200);
    wait_for("the copies", || count(&gateway, "copies", "sent") == 3);
    let told = |message: &str| {
        let values = message.lines().filter_map(|line| line.strip_prefix("x-env: ")).collect::<Vec<_>>().join(",");
        let target = message.split(' ').nth(1).unwrap_or_default();
        format!("{target} {} {values} {}", field(message, "host").unwrap_or_default(), message.contains("x-drop"))
    };
    let mut seen: Vec<String> = copies.seen().iter().map(|copy| told(&copy.bytes)).collect();
    seen.sort();
    let expected = ["/a/x?q=1 a sent false", "/a/x?q=1 a sent,first false", "/rule/a/x?q=1 other.example sent,first false"];
    assert_eq!(seen, expected);
    assert_eq!(told(&backend.seen()[0].bytes), "/rule/a/x?q=1 other.example sent,first false");
}

#[test]
pub(super) fn a_chunked_body_is_copied_with_its_trailers() {
    let (backend, copies) = (Backend::answering(OK), Backend::answering(OK));
    let gateway = gateway(&backend, &copies, json!({"filters": [mirror_to("copies")]}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfirst\r\n");
    wait_for("the copy's head", || copies.connections() == 1);
    client.send("6\r\nsecond\r\n0\r\nX-Sum: 7\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
    wait_for("the copy", || count(&gateway, "copies", "sent") == 1);
    let copy = &copies.seen()[0];
    assert!(copy.is_whole && copy.bytes.contains("first") && copy.bytes.contains("second"), "{copy:?}");
    assert!(copy.bytes.contains("x-sum: 7"), "{copy:?}");
}

#[test]
fn a_mirror_that_hangs_delays_nobody() {
    let (backend, copies) = (Backend::answering(OK), hanging());
    let gateway = gateway(&backend, &copies, json!({"filters": [mirror_to("copies")], "timeouts": {"backendRequest": "300ms"}}));
    let started = Instant::now();
    for _ in 0..10 {
        assert_eq!(status(&gateway.ask(POST)), 200);
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    wait_for("the copies to be given up", || count(&gateway, "copies", "late") == 10);
}

#[test]
fn a_service_that_hangs_takes_a_bounded_number_of_copies_and_leaves_others_their_places() {
    let (backend, copies) = (Backend::answering(OK), hanging());
    let gateway = gateway(&backend, &copies, json!({"filters": [mirror_to("copies"), mirror_to("s")]}));
    let mut client = gateway.connect();
    for _ in 0..MIRRORS_OF_SERVICE_MAX + 7 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&client.answer()), 200);
    }
    assert_eq!(count(&gateway, "copies", "busy"), 7);
    assert_eq!(count(&gateway, "s", "busy"), 0);
}

#[test]
pub(super) fn a_mirror_that_lags_is_dropped_and_the_request_goes_on() {
    let length: usize = 16 * 1024 * 1024;
    let backend = Backend::raw(move |mut stream| {
        let (mut chunk, mut left) = (vec![0; 64 * 1024], length);
        while left > 0 {
            match stream.read(&mut chunk) {
                Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
                _ => return,
            }
        }
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let copies = hanging();
    let gateway = gateway(&backend, &copies, json!({"filters": [mirror_to("copies")]}));
    let body = "x".repeat(length);
    let answer = gateway.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"));
    assert_eq!(status(&answer), 200);
    wait_for("the copy to be dropped", || count(&gateway, "copies", "lagged") == 1);
}

#[test]
fn shares_say_which_requests_are_copied() {
    let share = |name: &str, field: &str, share: Value| json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name}, field: share}});
    let (backend, copies) = (Backend::answering(OK), Backend::answering(OK));
    let fields = json!({"filters": [
        share("copies", "percent", json!(0)),
        share("half", "fraction", json!({"numerator": 1, "denominator": 2})),
        share("all", "percent", json!(100)),
    ]});
    let gateway = gateway(&backend, &copies, fields);
    let mut client = gateway.connect();
    for _ in 0..200 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&client.answer()), 200);
    }
    // Nothing is sent to a service that is missing, and that is counted.
    assert_eq!(count(&gateway, "all", "no_service"), 200);
    assert!((50..=150).contains(&count(&gateway, "half", "no_service")), "{}", count(&gateway, "half", "no_service"));
    assert_eq!(copies.connections(), 0);
}

#[test]
fn a_copy_is_made_once_a_request_and_not_a_try() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let backend = Backend::with(move |_, _, stream| {
        let is_first = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let answer = if is_first { "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" } else { OK };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let copies = Backend::answering(OK);
    let fields = json!({"filters": [mirror_to("copies")], "retry": {"codes": [503], "backoff": "1ms"}});
    let gateway = gateway(&backend, &copies, fields);
    assert_eq!(status(&gateway.ask(POST)), 200);
    wait_for("the copy", || count(&gateway, "copies", "sent") == 1);
    assert_eq!((backend.seen().len(), copies.seen().len()), (2, 1));
    assert!(copies.seen()[0].bytes.ends_with("\r\n\r\nhello"));
}

#[test]
pub(super) fn a_copy_of_a_request_that_breaks_off_breaks_off() {
    let (backend, copies) = (Backend::answering(OK), Backend::answering(OK));
    let gateway = gateway(&backend, &copies, json!({"filters": [mirror_to("copies")]}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    wait_for("the copy's head", || copies.connections() == 1);
    drop(client);
    wait_for("the copy to be given up", || count(&gateway, "copies", "failed") == 1);
    assert!(copies.seen().iter().all(|seen| !seen.is_whole), "{:?}", copies.seen());
}
