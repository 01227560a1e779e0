//! How a connection ends when what comes over it is refused: in order, with an answer that arrives, and in bounded time.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;

use super::gateway::{Backend, Gateway, OK, field, read_until, route_to, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::observe::{AccessLog, Metrics};
use crate::proxy::ListenerOptions;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BAD: &str = "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n";

#[test]
pub(super) fn a_refusal_waits_for_the_answers_before_it() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::with(move |_, seen, stream| {
        if seen.bytes.starts_with("GET /slow") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl").unwrap();
            wait.lock().unwrap().recv().unwrap();
            return stream.write_all(b"ow").is_ok();
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::to(&backend);
    // The flaw comes in the same write, in the next, and in the second half of a head.
    let slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    for pieces in [&[&(slow.to_owned() + BAD)[..]][..], &[slow, BAD], &[slow, &BAD[..20], &BAD[20..]]] {
        let mut client = gateway.connect();
        for piece in pieces {
            client.send(piece);
            wait_for("the slow request", || gateway.metrics.requests_active.get() == 1);
        }
        client.until("\r\n\r\nsl");
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(client.until("\r\n\r\n"), "", "an answer before its turn");
        client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        go.send(()).unwrap();
        assert_eq!(client.until("ow"), "ow");
        let refusal = client.answer();
        assert_eq!((status(&refusal), field(&refusal, "connection")), (400, Some("close")), "{pieces:?}: {refusal}");
        assert!(refusal.contains("a field's name is not a token followed by a colon"), "{refusal}");
        assert!(client.is_closed());
        drop(client);
        wait_for("the end", || gateway.metrics.downstream_connections.get() == 0);
    }
    assert_eq!(backend.seen().len(), 3);
}

#[test]
pub(super) fn an_answer_arrives_though_the_client_is_still_sending() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::with(ListenerOptions { body_bytes_max: Some(4), ..ListenerOptions::default() }, &backend);
    let too_large = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    for (begin, expected) in [(too_large, 413), (BAD, 400)] {
        let mut client = gateway.connect();
        client.send(begin);
        // The answer is on the client's side, unread, when the rest is sent: a reset would take it away.
        wait_for("the answer", || client.stream.peek(&mut [0; 64]).unwrap() == 64);
        for _ in 0..50 {
            client.stream.write_all(&[b'x'; 4000]).unwrap();
        }
        let answer = client.answer();
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(field(&answer, "content-type"), Some("application/problem+json"), "{answer}");
        assert!(client.is_closed());
    }
    assert_eq!(backend.seen(), []);
}

#[test]
pub(super) fn nobody_is_waited_for_for_ever() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    // One sends nothing more and keeps its end open, one sends without an end.
    let mut silent = gateway.connect();
    silent.send(BAD);
    assert_eq!(status(&silent.answer()), 400);
    let mut endless = gateway.connect();
    endless.send(BAD);
    let sent = (0..100_000).take_while(|_| endless.stream.write_all(&[b'x'; 4096]).is_ok()).count();
    assert!(sent < 100_000, "everything was read");
    wait_for("both to be closed", || gateway.metrics.downstream_connections.get() == 0);
}

#[test]
pub(super) fn a_flaw_within_a_body_breaks_it_off() {
    let (end, ended) = channel();
    let end = Mutex::new(end);
    let backend = Backend::raw(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        end.lock().unwrap().send(String::from_utf8(bytes).unwrap()).unwrap();
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    wait_for("the connection upstream", || gateway.metrics.upstream_connects.with_label_values(&["s", "opened"]).get() == 1);
    client.send("3\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "connection")), (400, Some("close")), "{answer}");
    assert!(client.is_closed());
    let got = ended.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(!got.contains("0\r\n\r\n") && !got.contains("smuggled"), "{got}");
    assert_eq!((backend.connections(), gateway.metrics.requests_refused.with_label_values(&["line_end"]).get()), (1, 1));
}

#[test]
pub(super) fn a_refusal_is_counted_and_logged() {
    let backend = Backend::answering(OK);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", route_to("s"))];
    let options = ListenerOptions { debug_headers: true, ..ListenerOptions::default() };
    let gateway = Gateway::logging(options, &documents, Some(log));
    let answer = gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(field(&answer, "raftgate-revision"), Some("1"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let detail = "Content-Length stands beside Transfer-Encoding";
    assert_eq!(problem, json!({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail}));
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_for("the line", || read().ends_with('\n'));
    let mut line: serde_json::Value = serde_json::from_str(&read()).unwrap();
    assert!(line.as_object_mut().unwrap().remove("time").is_some());
    let expected = json!({
        "requestId": field(&answer, "x-request-id").unwrap(), "traceId": null, "client": "127.0.0.1", "method": "", "host": "", "path": "",
        "kind": "", "route": "", "revision": 1, "service": "", "endpoint": "", "status": 400, "bytes": problem.to_string().len(), "duration": 0.0,
        "attempts": 0, "error": "http_request_error"
    });
    assert_eq!(line, expected);
    let metrics = &gateway.metrics;
    assert_eq!(metrics.requests.with_label_values(&["", "", "", "other", "400"]).get(), 1);
    assert_eq!(metrics.proxy_errors.with_label_values(&["http_request_error"]).get(), 1);
    assert_eq!(metrics.requests_refused.with_label_values(&["length_and_coding"]).get(), 1);
}

#[test]
pub(super) fn what_follows_the_last_request_is_nobodys_concern() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send(&GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    client.send(BAD);
    assert_eq!(status(&client.answer()), 200);
    let mut rest = Vec::new();
    assert_eq!(read_until(&mut client.stream, &mut rest, "never"), "");
    assert_eq!(gateway.metrics.requests_refused.with_label_values(&["field"]).get(), 0);
}
