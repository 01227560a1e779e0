//! Clients that are never idle and never done.

use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::frames::{DATA, END_HEADERS, HEADERS, Outcome, PREFACE, SETTINGS, WINDOW_UPDATE, Wire, block, frame, get};
use super::gateway::{Backend, Gateway, OK, field, status, wait_for};
use crate::proxy::ListenerOptions;

/// At least 100 KiB a second, a third of a second behind at most.
fn hurried() -> ListenerOptions {
    let body_rate_window = Duration::from_millis(300);
    ListenerOptions { body_rate_min: Some(100 * 1024), body_rate_window, ..ListenerOptions::default() }
}

/// A backend that takes all of a request that never ends, and says when its connection ended.
fn takes_all() -> (Backend, std::sync::mpsc::Receiver<()>) {
    let (end, ended) = channel();
    let end = Mutex::new(end);
    let backend = Backend::raw(move |mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let _ = end.lock().unwrap().send(());
    });
    (backend, ended)
}

#[test]
fn a_body_that_trickles_is_given_up_and_its_backend_let_go() {
    let (backend, ended) = takes_all();
    let gateway = Gateway::with(hurried(), &backend);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut answer = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "the client may go on for ever");
        let _ = client.stream.write_all(b"x");
        match client.stream.read_to_end(&mut answer) {
            Ok(_) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!((status(&answer), field(&answer, "connection")), (408, Some("close")), "{answer}");
    assert!(answer.contains("the request's body did not come in time"), "{answer}");
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(gateway.metrics.slow_clients.get(), 1);
    wait_for("the end of the exchange", || gateway.metrics.requests_active.get() == 0);
}

#[test]
fn a_stream_that_trickles_is_given_up_and_the_others_go_on() {
    let (backend, ended) = takes_all();
    let gateway = Gateway::with(hurried(), &backend);
    let mut wire = Wire::open(gateway.address);
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    wire.send(&frame(HEADERS, END_HEADERS, 1, &block(&post)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.metrics.slow_clients.get() == 0 {
        assert!(Instant::now() < deadline, "the client may go on for ever");
        wire.send(&frame(DATA, 0, 1, b"x"));
        std::thread::yield_now();
        wire.stream.flush().unwrap();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(wire.outcome(1), Outcome::Status(408));
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
    wire.send(&get(3, "/"));
    wait_for("another stream of the connection upstream", || gateway.metrics.requests_active.get() == 1);
}

/// A backend whose answer does not end.
fn endless() -> (Backend, std::sync::mpsc::Receiver<()>) {
    let (end, ended) = channel();
    let end = Mutex::new(end);
    let backend = Backend::with(move |_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        let _ = end.lock().unwrap().send(());
        false
    });
    (backend, ended)
}

#[test]
fn a_reader_that_trickles_is_given_up_and_its_backend_let_go() {
    let (backend, ended) = endless();
    let gateway = Gateway::with(hurried(), &backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.metrics.slow_clients.get() == 0 {
        assert!(Instant::now() < deadline, "the client may go on for ever");
        client.stream.read_exact(&mut [0; 10]).unwrap();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
    wait_for("the end of the exchange", || gateway.metrics.requests_active.get() == 0);
}

#[test]
fn a_stream_that_is_opened_byte_by_byte_is_given_up() {
    let (backend, ended) = endless();
    let gateway = Gateway::with(hurried(), &backend);
    let mut wire = Wire::bare(gateway.address);
    // No window at first, then a byte at a time.
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    wire.send(&get(1, "/"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.metrics.slow_clients.get() == 0 {
        assert!(Instant::now() < deadline, "the client may go on for ever");
        wire.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(wire.outcome(1), Outcome::Status(200));
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn who_waits_for_the_backend_owes_nothing() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::with(move |_, seen, stream| {
        if seen.bytes.starts_with("GET /events") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
            wait.lock().unwrap().recv().unwrap();
            return stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok();
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::with(hurried(), &backend);
    let (mut events, mut slow) = (gateway.connect(), gateway.connect());
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(events.until("first").ends_with("first"));
    // Another client shows how long that is.
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    assert_eq!(status(&slow.answer()), 408);
    assert_eq!(gateway.metrics.slow_clients.get(), 1);
    go.send(()).unwrap();
    assert!(events.until("0\r\n\r\n").ends_with("6\r\nsecond\r\n0\r\n\r\n"));
    // The connection goes on, also after a body in time.
    events.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(status(&events.answer()), 200);
}

#[test]
fn who_takes_nothing_of_an_answer_is_let_go_once_it_stood_still() {
    let (backend, ended) = endless();
    let limit = Duration::from_secs(4);
    let gateway = Gateway::with(ListenerOptions { stream_idle_timeout: limit, ..ListenerOptions::default() }, &backend);
    let mut client = gateway.connect();
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    ended.recv_timeout(Duration::from_secs(20)).unwrap();
    // Not only when it stood still for a second time.
    assert!((limit..2 * limit).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(gateway.metrics.connections_ended.with_label_values(&["stream_idle_timeout"]).get(), 1);
}
