//! Connections on both sides: kept, repeated, timed out, drained.

use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use super::gateway::{Backend, Gateway, OK, field, status, wait_for};
use crate::proxy::ListenerOptions;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
pub(super) fn connections_are_kept_on_both_sides() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(status(&client.answer()), 200);
    }
    assert_eq!((backend.seen().len(), backend.connections()), (20, 1));
    // Pipelined requests are answered in order.
    client.send(&GET.repeat(3));
    for _ in 0..3 {
        assert_eq!(status(&client.answer()), 200);
    }
}

/// A backend whose first connection answers once and closes when the second request comes.
fn closes_on_second_request() -> Backend {
    let served = Mutex::new(0);
    Backend::with(move |connection, _, stream| {
        let mut served = served.lock().unwrap();
        *served += 1;
        if connection == 0 && *served == 2 {
            return false;
        }
        stream.write_all(OK.as_bytes()).is_ok()
    })
}

#[test]
pub(super) fn a_stale_connection_is_repeated_where_that_is_safe() {
    for (request, expected) in [
        (GET, 200),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 502),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 200),
    ] {
        let backend = closes_on_second_request();
        let gateway = Gateway::to(&backend);
        let mut client = gateway.connect();
        client.send(GET);
        assert_eq!(status(&client.answer()), 200);
        client.send(request);
        assert_eq!(status(&client.answer()), expected, "{request}");
        assert_eq!(backend.seen().len(), if expected == 200 { 3 } else { 2 }, "{request}");
    }
}

#[test]
pub(super) fn a_backend_that_closes_after_each_answer_loses_no_idempotent_request() {
    // It promises to keep the connection, and the request may be on its way when it closes.
    let backend = Backend::with(|_, _, stream| {
        let _ = stream.write_all(OK.as_bytes());
        false
    });
    let gateway = Gateway::to(&backend);
    let mut clients: Vec<_> = (0..4).map(|_| gateway.connect()).collect();
    for _ in 0..100 {
        clients.iter_mut().for_each(|client| client.send(GET));
        for client in &mut clients {
            assert_eq!(status(&client.answer()), 200);
        }
    }
    let whole = backend.seen().iter().filter(|seen| seen.is_whole).count();
    assert_eq!(whole, 400, "a request was answered twice or not at all");
}

#[test]
pub(super) fn a_head_that_trickles_is_cut() {
    let backend = Backend::answering(OK);
    let header_read_timeout = Duration::from_millis(300);
    let gateway = Gateway::with(ListenerOptions { header_read_timeout, ..ListenerOptions::default() }, &backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\n");
    let started = Instant::now();
    assert!(client.is_closed());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(gateway.metrics.connections_ended.with_label_values(&["header_read_timeout"]).get(), 1);
}

#[test]
pub(super) fn a_connection_that_was_at_rest_serves_on() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let (mut resting, mut waking) = (gateway.connect(), gateway.connect());
    // One has sent the beginning of its next request already.
    for (client, more) in [(&mut resting, ""), (&mut waking, "GE")] {
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc{more}"));
        assert_eq!(status(&client.answer()), 200);
    }
    wait_for("a rest", || gateway.metrics.connections_rested.get() == 1);
    for _ in 0..2 {
        resting.send(GET);
        assert_eq!(status(&resting.answer()), 200);
    }
    waking.send("T / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&waking.answer()), 200);
    assert_eq!(gateway.metrics.downstream_connections.get(), 2);
    // Both rest now, and end in peace.
    wait_for("their rest", || gateway.metrics.connections_rested.get() >= 3);
    resting.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(resting.is_closed());
    drop(waking);
    wait_for("the end of both", || gateway.metrics.downstream_connections.get() == 0);
}

#[test]
pub(super) fn a_client_that_does_not_read_keeps_its_answer_however_long_that_takes() {
    // More than the sockets take, so that the last of it waits in the gateway for longer than a connection is idle before it rests.
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n{}", "x".repeat(16_000_000));
    let gateway = Gateway::to(&Backend::answering(&large));
    let (mut slow, mut other) = (gateway.connect(), gateway.connect());
    slow.send(GET);
    other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(other.answer().ends_with("xxxx"));
    wait_for("a rest of the other", || gateway.metrics.connections_rested.get() == 1);
    assert!(slow.answer().ends_with("xxxx"));
    slow.send(GET);
    assert!(slow.answer().ends_with("xxxx"));
}

#[test]
pub(super) fn an_idle_connection_is_closed() {
    let backend = Backend::answering(OK);
    let idle_timeout = Duration::from_millis(200);
    let gateway = Gateway::with(ListenerOptions { idle_timeout, ..ListenerOptions::default() }, &backend);
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(status(&client.answer()), 200);
    assert!(client.is_closed());
    wait_for("the gauge to fall", || gateway.metrics.downstream_connections.get() == 0);
}

#[test]
fn of_the_connections_to_an_endpoint_64_are_kept() {
    const AT_ONCE: usize = 70;
    // All are under way at once, or none is answered.
    let all_came = Barrier::new(AT_ONCE);
    let backend = Backend::with(move |_, _, stream| {
        all_came.wait();
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::to(&backend);
    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| gateway.connect()).collect();
    for opened in [AT_ONCE, AT_ONCE + (AT_ONCE - 64)] {
        clients.iter_mut().for_each(|client| client.send(GET));
        for client in &mut clients {
            assert_eq!(status(&client.answer()), 200);
        }
        assert_eq!(backend.connections(), opened);
    }
}

#[test]
fn connections_over_the_limit_wait_their_turn() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::with(ListenerOptions { connections_max: 1, ..ListenerOptions::default() }, &backend);
    let mut first = gateway.connect();
    first.send(GET);
    assert_eq!(status(&first.answer()), 200);
    let mut second = gateway.connect();
    second.send(GET);
    second.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(second.answer(), "", "served beside the first");
    assert_eq!(gateway.metrics.connections_held_back.get(), 1);
    second.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    drop(first);
    assert_eq!(status(&second.answer()), 200);
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::with(move |_, seen, stream| {
        if seen.bytes.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let mut gateway = Gateway::to(&backend);
    let (mut busy, mut idle) = (gateway.connect(), gateway.connect());
    idle.send(GET);
    assert_eq!(status(&idle.answer()), 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the slow request upstream", || backend.seen().len() == 2);
    let handle = gateway.handle.take().unwrap();
    let draining = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(handle.drain());
    });
    wait_for("the listener to close", || std::net::TcpStream::connect(gateway.address).is_err());
    // A request that comes within the grace is still answered, and told that it is the last.
    idle.send(GET);
    let answer = idle.answer();
    assert_eq!((status(&answer), field(&answer, "connection")), (200, Some("close")));
    assert!(idle.is_closed());
    assert!(!draining.is_finished());
    go.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!((status(&answer), field(&answer, "connection")), (200, Some("close")));
    draining.join().unwrap();
}

#[test]
pub(super) fn a_drain_gives_up_in_time() {
    let backend = Backend::with(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(8));
        false
    });
    let options = ListenerOptions { drain_timeout: Duration::from_millis(300), ..ListenerOptions::default() };
    let mut gateway = Gateway::with(options, &backend);
    let mut client = gateway.connect();
    client.send(GET);
    wait_for("the request upstream", || backend.seen().len() == 1);
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(gateway.handle.take().unwrap().drain());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(client.is_closed());
}

#[test]
fn a_listener_behind_a_load_balancer_knows_the_client() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::with(ListenerOptions { proxy_protocol: true, ..ListenerOptions::default() }, &backend);
    let answer = gateway.ask("PROXY TCP4 203.0.113.7 10.0.0.2 80 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field(&backend.seen()[0].bytes, "x-forwarded-for"), Some("203.0.113.7"));
    // Who leaves it out is not answered at all.
    assert_eq!(gateway.get("/"), "");
    assert_eq!(backend.seen().len(), 1);
}

#[test]
pub(super) fn one_address_has_no_more_connections_than_it_may() {
    let backend = Backend::answering(OK);
    let options = ListenerOptions { connections_per_address_max: Some(2), ..ListenerOptions::default() };
    let gateway = Gateway::with(options, &backend);
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut held {
        client.send(request);
        assert_eq!(status(&client.answer()), 200);
    }
    assert_eq!(gateway.get("/"), "");
    assert_eq!(gateway.metrics.connections_refused.with_label_values(&["per_address"]).get(), 1);
    held.pop();
    wait_for("room for another", || status(&gateway.get("/")) == 200);
}
