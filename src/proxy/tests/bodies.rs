//! Bodies stream both ways, and a body that breaks off leaves nothing behind.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;

use super::gateway::{Backend, Gateway, OK, field, read_until, status, wait_for};
use crate::model::Kind::Route;

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
pub(super) fn a_chunk_passes_before_the_next_is_made() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::with(move |_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok()
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.until("first").ends_with("first"));
    go.send(()).unwrap();
    assert!(client.until("0\r\n\r\n").ends_with("6\r\nsecond\r\n0\r\n\r\n"));
}

#[test]
pub(super) fn a_request_chunk_passes_before_the_next_is_sent() {
    let (first, came) = channel();
    let first = Mutex::new(first);
    let backend = Backend::raw(move |mut stream| {
        let mut buffer = Vec::new();
        read_until(&mut stream, &mut buffer, "first");
        first.lock().unwrap().send(()).unwrap();
        read_until(&mut stream, &mut buffer, "0\r\n\r\n");
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send(CHUNKED);
    client.send("5\r\nfirst\r\n");
    came.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    client.send("0\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
}

#[test]
pub(super) fn a_broken_request_body_aborts_the_upstream_request() {
    for rest in ["5\r\nfirst\r\n", "5\r\nfirst\r\nzz\r\n", "5\r\nfirst\r\n;\n\r\n", "5\r\nfirst\r\n-1\r\n"] {
        let (end, ended) = channel();
        let end = Mutex::new(end);
        let backend = Backend::raw(move |mut stream| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            end.lock().unwrap().send(String::from_utf8(bytes).unwrap()).unwrap();
        });
        let gateway = Gateway::to(&backend);
        let mut client = gateway.connect();
        client.send(CHUNKED);
        // What is malformed as a whole does not go there at all.
        wait_for("the request upstream", || backend.connections() == 1);
        client.send(rest);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let bytes = ended.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert!(!bytes.ends_with("0\r\n\r\n"), "the last chunk was written for {rest:?}: {bytes}");
        assert!(bytes.starts_with("POST / HTTP/1.1\r\n") || bytes.is_empty(), "{bytes}");
    }
}

#[test]
pub(super) fn a_client_that_leaves_closes_the_upstream_connection() {
    let (end, ended) = channel();
    let end = Mutex::new(end);
    let backend = Backend::raw(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        end.lock().unwrap().send(()).unwrap();
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the request upstream", || backend.connections() == 1);
    drop(client);
    ended.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
}

#[test]
pub(super) fn an_early_answer_leaves_no_dirty_connection() {
    let backend = Backend::raw(|mut stream| {
        let mut buffer = Vec::new();
        read_until(&mut stream, &mut buffer, "\r\n\r\n");
        stream.write_all(OK.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut buffer);
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart");
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "connection")), (200, Some("close")), "{answer}");
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(backend.connections(), 2, "the connection with half a body was used again");
}

#[test]
pub(super) fn an_answer_that_ends_with_the_connection_says_so_to_http_1_0() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for (answer, expected) in [(chunked, "close"), (OK, "keep-alive")] {
        let gateway = Gateway::to(&Backend::answering(answer));
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.until("ok");
        assert_eq!((status(&answer), field(&answer, "connection")), (200, Some(expected)), "{answer}");
        if expected == "close" {
            assert!(client.is_closed());
        }
    }
}

#[test]
pub(super) fn an_answer_says_whether_the_connection_outlives_it() {
    let backend = Backend::answering(OK);
    let mut gateway = Gateway::to(&backend);
    gateway.put(&[(Route, "r", json!({"rules": [{"matches": [{"path": {"value": "/ok"}}], "backendRefs": [{"name": "s"}]}]}))]);
    let table = [
        ("/ok", "Content-Length: 4\r\n\r\nbody", 200, false),
        ("/ok", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n2\r\nof\r\n0\r\n\r\n", 200, false),
        ("/none", "Content-Length: 4\r\n\r\nbody", 404, false),
        ("/none", "Content-Length: 5\r\n\r\nbody", 404, true),
        ("/none", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n2\r\nof\r\n0\r\n\r\n", 404, true),
        ("/none", "Transfer-Encoding: chunked\r\n\r\n4\r\nbo", 404, true),
    ];
    for (path, rest, expected, is_last) in table {
        let mut client = gateway.connect();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}"));
        let answer = client.answer();
        let told = (status(&answer), field(&answer, "connection"));
        assert_eq!(told, (expected, is_last.then_some("close")), "{rest:?}: {answer}");
        if !is_last {
            client.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(status(&client.answer()), 200, "{rest:?}");
        }
    }
}

#[test]
pub(super) fn a_body_goes_on_after_the_answer_began() {
    const LENGTH: usize = 4_000_000;
    let backend = Backend::raw(|mut stream| {
        let mut buffer = Vec::new();
        while read_until(&mut stream, &mut buffer, "\r\n\r\n").ends_with("\r\n\r\n") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
            let mut chunk = [0; 64 * 1024];
            while buffer.len() < LENGTH {
                let count = stream.read(&mut chunk).unwrap();
                assert!(count > 0, "the body ended after {} bytes", buffer.len());
                buffer.extend_from_slice(&chunk[..count]);
            }
            assert_eq!(buffer.len(), LENGTH);
            buffer.clear();
            stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
        }
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\npart"));
        assert!(client.until("first").ends_with("first"));
        client.send(&"x".repeat(LENGTH - 4));
        assert!(client.until("0\r\n\r\n").ends_with("4\r\nlast\r\n0\r\n\r\n"));
    }
    assert_eq!(backend.connections(), 1, "both bodies were through");
}

#[test]
pub(super) fn an_answer_that_breaks_off_is_not_made_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst",
    ] {
        let answer = answer.to_owned();
        let backend = Backend::with(move |_, _, stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            false
        });
        let gateway = Gateway::to(&backend);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = client.until("\r\n0\r\n");
        assert!(text.contains("first") && !text.contains("\r\n0\r\n"), "{text}");
        assert!(client.is_closed());
    }
}

#[test]
pub(super) fn lengths_and_heads_without_bodies_pass_as_they_are() {
    let backend = Backend::with(|_, seen, stream| {
        let answer = match seen.bytes.split(' ').nth(1) {
            Some("/304") => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            _ if seen.bytes.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n",
            _ => OK,
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert_eq!(field(&head, "content-length"), Some("42"));
    for (path, code) in [("/304", 304), ("/204", 204), ("/", 200)] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(status(&client.answer()), code);
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(status(&client.answer()), 200);
    let seen = backend.seen();
    assert!(seen[4].bytes.ends_with("\r\n\r\nabc") && field(&seen[4].bytes, "content-length") == Some("3"), "{:?}", seen[4]);
    assert_eq!(backend.connections(), 1);
}

#[test]
pub(super) fn trailers_pass_where_they_are_announced() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
    let seen = &backend.seen()[0].bytes;
    assert_eq!(field(seen, "trailer"), Some("X-Sum"));
    assert!(!seen.to_ascii_lowercase().contains("content-length"), "{seen}");
}

#[test]
pub(super) fn a_connection_is_kept_after_trailers() {
    let backend = Backend::raw(|mut stream| {
        let mut buffer = Vec::new();
        while read_until(&mut stream, &mut buffer, "x-sum: 7\r\n\r\n").ends_with("7\r\n\r\n") {
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send(CHUNKED.trim_end());
        client.send("\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n");
        assert_eq!(status(&client.answer()), 200);
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
pub(super) fn a_client_that_expects_100_gets_it_where_the_backend_does_not_know_it_too() {
    // It answers once it has all of the request.
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 100"));
    client.send("abc");
    assert_eq!(status(&client.answer()), 200);
    assert_eq!(field(&backend.seen()[0].bytes, "expect"), Some("100-continue"));
}

#[test]
pub(super) fn trailers_are_announced_only_where_they_can_follow() {
    let known = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nok";
    let chunked = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    for (answer, te, expected) in
        [(known, "TE: trailers\r\n", None), (chunked, "", None), (chunked, "TE: trailers\r\n", Some("X-Sum"))]
    {
        let gateway = Gateway::to(&Backend::answering(answer));
        let mut client = gateway.connect();
        client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{te}\r\n"));
        let answer = client.until("never");
        assert_eq!(field(&answer, "trailer"), expected, "{answer}");
        assert_eq!(answer.to_ascii_lowercase().contains("x-sum: 7"), expected.is_some(), "{answer}");
    }
}

#[test]
pub(super) fn interim_answers_are_dropped_and_the_final_one_passes() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let backend = Backend::answering(&format!("{interim}{OK}"));
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert_eq!(field(&answer, "link"), None, "{answer}");
    }
    assert_eq!(backend.connections(), 1);
    let count = |status| gateway.metrics.upstream_informational.with_label_values(&[status]).get();
    assert_eq!((count("102"), count("103"), count("other")), (3, 3, 0));
}

#[test]
fn interim_answers_without_an_end_are_not_waited_for() {
    for (count, expected) in [(100_usize, 200), (101, 502)] {
        let backend = Backend::answering(&format!("{}{OK}", "HTTP/1.1 110 Working\r\n\r\n".repeat(count)));
        let gateway = Gateway::to(&backend);
        assert_eq!(status(&gateway.get("/")), expected, "{count}");
        let counted = gateway.metrics.upstream_informational.with_label_values(&["other"]).get();
        assert_eq!(counted, count as u64);
    }
}

#[test]
pub(super) fn the_backend_decides_whether_a_body_is_asked_for() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    // It asks, and only then it gets.
    let (order, events) = std::sync::mpsc::channel();
    let asking = Backend::asking(order.clone());
    let gateway = Gateway::to(&asking);
    let mut client = gateway.connect();
    client.send(request);
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 100"));
    order.send("client is asked").unwrap();
    client.send("abc");
    assert!(client.answer().ends_with("ok"));
    let events: Vec<&str> = events.try_iter().collect();
    assert_eq!(events, ["backend has the head", "client is asked", "backend has the body"]);

    // It refuses: the client is never asked, and nothing is sent.
    let (bytes, rest) = std::sync::mpsc::channel();
    let refusing = Backend::raw(move |mut stream| {
        let head = read_until(&mut stream, &mut Vec::new(), "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).ok();
        bytes.send((head.is_empty(), more)).unwrap();
    });
    let gateway = Gateway::to(&refusing);
    let mut client = gateway.connect();
    client.send(request);
    assert_eq!(status(&client.answer()), 401);
    assert_eq!(rest.recv_timeout(Duration::from_secs(10)).unwrap(), (false, vec![]));
}
