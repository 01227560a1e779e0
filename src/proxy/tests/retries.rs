//! Requests that are sent again.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, OK, Seen, read_until, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::observe::{AccessLog, Metrics};
use crate::proxy::ListenerOptions;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

/// A gateway whose one rule has these timeouts and this stanza.
fn gateway(backend: &Backend, timeouts: Value, retry: Value) -> Gateway {
    let rules = json!({"rules": [{"backendRefs": [{"name": "s"}], "timeouts": timeouts, "retry": retry}]});
    Gateway::start(ListenerOptions::default(), &[(Service, "s", service(&[backend.address])), (Route, "r", rules)])
}

/// A backend that gives these answers in turn, and the last one from then on. An empty one closes the connection.
fn in_turn(answers: &'static [&'static str]) -> Backend {
    let count = Mutex::new(0);
    Backend::with(move |_, _, stream| {
        let mut count = count.lock().unwrap();
        let answer = answers[(*count).min(answers.len() - 1)];
        *count += 1;
        !answer.is_empty() && stream.write_all(answer.as_bytes()).is_ok()
    })
}

fn body_of(seen: &Seen) -> &str {
    seen.bytes.split_once("\r\n\r\n").unwrap().1
}

#[test]
pub(super) fn a_code_is_retried_whatever_the_method_and_others_are_not() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "PATCH / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n";
    for (request, expected) in [(GET, ""), (post, "hello"), (chunked, "abcdex-sum: 7")] {
        let backend = in_turn(&[BUSY, BUSY, OK]);
        let gateway = gateway(&backend, json!({}), json!({"codes": [503], "attempts": 2, "backoff": "1ms"}));
        assert_eq!(status(&gateway.ask(request)), 200, "{request}");
        let seen: Vec<Seen> = backend.seen().into_iter().filter(|seen| seen.is_whole).collect();
        assert_eq!(seen.len(), 3, "{request}");
        for again in &seen {
            let whole: String = body_of(again).split("\r\n").filter(|line| !["3", "2", "5", "0"].contains(line)).collect();
            assert_eq!(whole.to_lowercase(), expected, "{again:?}");
        }
    }
    let backend = in_turn(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", OK]);
    let gateway = gateway(&backend, json!({}), json!({"codes": [503]}));
    assert_eq!((status(&gateway.ask(GET)), backend.seen().len()), (500, 1));
}

#[test]
fn the_last_answer_stands_once_attempts_are_used_up() {
    let backend = in_turn(&[BUSY]);
    let gateway = gateway(&backend, json!({}), json!({"codes": [503], "attempts": 3, "backoff": "0s"}));
    let answer = gateway.ask(GET);
    assert!(status(&answer) == 503 && answer.ends_with("busy"), "{answer}");
    assert_eq!(backend.seen().len(), 4, "one try and three re-tries");
}

#[test]
pub(super) fn a_connection_that_breaks_is_retried_for_idempotent_methods_alone() {
    let cases = [
        (GET, 200, 2),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, 2),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 502, 1),
    ];
    for (request, expected, tries) in cases {
        let backend = in_turn(&["", OK]);
        let gateway = gateway(&backend, json!({}), json!({"codes": [503], "attempts": 1, "backoff": "1ms"}));
        assert_eq!((status(&gateway.ask(request)), backend.seen().len()), (expected, tries), "{request}");
    }
    // Without a stanza as well, once.
    for (request, expected, tries) in cases {
        let backend = in_turn(&["", OK]);
        assert_eq!((status(&Gateway::to(&backend).ask(request)), backend.seen().len()), (expected, tries), "{request}");
    }
    let backend = in_turn(&["", "", OK]);
    assert_eq!((status(&Gateway::to(&backend).ask(GET)), backend.seen().len()), (502, 2));
}

#[test]
fn a_connection_that_ends_after_an_interim_answer_is_retried_too() {
    let backend = Backend::with(|connection, _, stream| {
        let answer = if connection == 0 { "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" } else { OK };
        stream.write_all(answer.as_bytes()).is_ok() && connection > 0
    });
    let gateway = Gateway::to(&backend);
    assert_eq!(status(&gateway.ask("PUT /a HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 3\r\n\r\nabc")), 200);
    let seen = backend.seen();
    assert_eq!((seen.len(), &seen[0].bytes), (2, &seen[1].bytes));
}

#[test]
fn a_try_that_takes_too_long_is_retried_for_idempotent_methods_alone() {
    for (request, expected) in [(GET, 200), ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 504)] {
        let count = Mutex::new(0);
        let backend = Backend::with(move |_, _, stream| {
            let is_first = std::mem::replace(&mut *count.lock().unwrap(), 1) == 0;
            if is_first {
                std::thread::park_timeout(Duration::from_secs(3));
            }
            !is_first && stream.write_all(OK.as_bytes()).is_ok()
        });
        let gateway = gateway(&backend, json!({"backendRequest": "200ms"}), json!({"backoff": "1ms"}));
        assert_eq!(status(&gateway.ask(request)), expected, "{request}");
    }
}

#[test]
fn waits_keep_to_the_backoff_and_to_the_requests_deadline() {
    let backend = in_turn(&[BUSY, BUSY, OK]);
    let retry = json!({"codes": [503], "attempts": 2, "backoff": "100ms"});
    let started = Instant::now();
    assert_eq!(status(&gateway(&backend, json!({}), retry).ask(GET)), 200);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    // No wait that would go on after the deadline: the answer stands at once.
    let backend = in_turn(&[BUSY]);
    let started = Instant::now();
    let gateway = gateway(&backend, json!({"request": "5s"}), json!({"codes": [503], "attempts": 9, "backoff": "30s"}));
    assert_eq!((status(&gateway.ask(GET)), backend.seen().len()), (503, 1));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn tries_end_with_the_requests_deadline() {
    let backend = Backend::with(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(3));
        false
    });
    let timeouts = json!({"request": "500ms", "backendRequest": "200ms"});
    let gateway = gateway(&backend, timeouts, json!({"attempts": 100, "backoff": "1ms"}));
    let started = Instant::now();
    assert_eq!(status(&gateway.ask(GET)), 504);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!((2..=3).contains(&backend.seen().len()), "{:?}", backend.seen());
}

#[test]
fn a_body_is_replayed_up_to_64_kib() {
    let answer = |length: usize, head: &str, chunk: bool| {
        let backend = in_turn(&[BUSY, OK]);
        let gateway = gateway(&backend, json!({}), json!({"codes": [503], "backoff": "0s"}));
        let body = "x".repeat(length);
        let body = if chunk { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") } else { body };
        let code = status(&gateway.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}")));
        let lengths: Vec<usize> = backend.seen().iter().map(|seen| body_of(seen).matches('x').count()).collect();
        (code, lengths)
    };
    let limit = 64 * 1024;
    assert_eq!(answer(limit, &format!("Content-Length: {limit}"), false), (200, vec![limit, limit]));
    assert_eq!(answer(limit, "Transfer-Encoding: chunked", true), (200, vec![limit, limit]));
    let more = limit + 1;
    assert_eq!(answer(more, &format!("Content-Length: {more}"), false), (503, vec![more]));
    assert_eq!(answer(more, "Transfer-Encoding: chunked", true), (503, vec![more]));
}

#[test]
fn a_body_that_has_not_begun_is_whole_whatever_its_length() {
    let backend = Backend::raw({
        let count = Mutex::new(0);
        move |mut stream| {
            let mut buffer = Vec::new();
            read_until(&mut stream, &mut buffer, "\r\n\r\n");
            let is_first = std::mem::replace(&mut *count.lock().unwrap(), 1) == 0;
            if !is_first {
                read_until(&mut stream, &mut buffer, "end");
            }
            stream.write_all(if is_first { BUSY } else { OK }.as_bytes()).unwrap();
        }
    });
    let gateway = gateway(&backend, json!({}), json!({"codes": [503], "backoff": "0s"}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70003\r\n\r\n");
    wait_for("the second try", || backend.connections() == 2);
    client.send(&format!("{}end", "x".repeat(70_000)));
    assert_eq!(status(&client.answer()), 200);
}

#[test]
pub(super) fn a_body_that_has_only_begun_goes_on_with_the_next_try() {
    let (tell, told) = channel();
    let count = Mutex::new((0, tell));
    // The first connection is answered before the body is through, and closes.
    let backend = Backend::raw(move |mut stream| {
        let mut count = count.lock().unwrap();
        count.0 += 1;
        let mut buffer = Vec::new();
        read_until(&mut stream, &mut buffer, "first");
        if count.0 == 1 {
            return stream.write_all(BUSY.as_bytes()).unwrap();
        }
        count.1.send(()).unwrap();
        let rest = read_until(&mut stream, &mut buffer, "0\r\n\r\n");
        assert_eq!(rest, "\r\n6\r\nsecond\r\n0\r\n\r\n");
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let gateway = gateway(&backend, json!({}), json!({"codes": [503], "backoff": "0s"}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    told.recv_timeout(Duration::from_secs(10)).unwrap();
    client.send("6\r\nsecond\r\n0\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
}

#[test]
fn the_access_log_counts_the_tries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let backend = in_turn(&[BUSY, "", OK]);
    let rules = json!({"rules": [{"backendRefs": [{"name": "s"}], "retry": {"codes": [503], "attempts": 5, "backoff": "1ms"}}]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::logging(ListenerOptions::default(), &documents, Some(log));
    assert_eq!(status(&gateway.ask(GET)), 200);
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_for("the line", || read().ends_with('\n'));
    let line: Value = serde_json::from_str(&read()).unwrap();
    assert_eq!((&line["attempts"], &line["status"]), (&json!(3), &json!(200)));
}

#[test]
fn each_backend_is_given_time_to_ask_for_a_body() {
    // The first takes most of the second that the gateway waits, and refuses; the one after it has one of its own.
    let tries = Mutex::new(0);
    let (told, came_unasked) = channel();
    let backend = Backend::raw(move |mut stream| {
        let head = read_until(&mut stream, &mut Vec::new(), "\r\n\r\n");
        if head.is_empty() {
            return;
        }
        let number = {
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            *tries
        };
        if number == 1 {
            std::thread::sleep(Duration::from_millis(800));
            stream.write_all(BUSY.as_bytes()).unwrap();
            return;
        }
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        told.send(stream.read(&mut [0; 1]).is_ok()).unwrap();
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let gateway = gateway(&backend, json!({}), json!({"codes": [503], "attempts": 1, "backoff": "1ms"}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(status(&client.answer()), 200, "the client was asked");
    assert!(!came_unasked.recv_timeout(Duration::from_secs(10)).unwrap());
}
