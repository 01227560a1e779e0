//! Floods and stalls over HTTP/2, each bounded in count and time: the connection ends or costs no more, and others are served meanwhile.

use std::time::{Duration, Instant};

use super::frames::{
    CONTINUATION, DATA, END, END_HEADERS, GOAWAY, HEADERS, Outcome, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire,
    block, frame, get, head,
};
use super::gateway::{Backend, Gateway, OK, status, wait_for};
use crate::proxy::ListenerOptions;

const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/flood"), (":authority", "a.example")];

/// Streams that a client opens, by number.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// Sends until the gateway ends the connection, at most `count` times, with another client served every hundred times. Gives how often
/// it was sent, and the code of GOAWAY where one came.
fn flood(gateway: &Gateway, wire: &mut Wire, count: u32, bytes: impl Fn(u32) -> Vec<u8>) -> (u32, Option<u32>) {
    let mut sent = 0;
    while sent < count && wire.send(&bytes(sent)) {
        sent += 1;
        if sent % 100 == 0 {
            assert_eq!(status(&gateway.get("/other")), 200, "another client waits");
        }
    }
    // What a reset of the socket swallows cannot be read; the end can.
    let mut code = None;
    let deadline = Instant::now() + Duration::from_secs(4);
    while let Some(frame) = wire.frame().filter(|_| Instant::now() < deadline) {
        if frame.kind == GOAWAY && frame.number(4) != 0 {
            code = Some(frame.number(4));
        }
    }
    (sent, code)
}

fn ends(gateway: &Gateway) {
    wait_for("the end of the connections", || gateway.metrics.downstream_connections.get() == 0);
    wait_for("the end of the exchanges", || gateway.metrics.requests_active.get() == 0);
}

#[test]
pub(super) fn what_is_refused_by_a_limit_is_counted() {
    let backend = Backend::raw(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let gateway = Gateway::with(ListenerOptions { header_bytes_max: 4096, ..ListenerOptions::default() }, &backend);
    let refused = |reason| gateway.metrics.requests_refused.with_label_values(&[reason]).get();
    let reset = |reason| gateway.metrics.streams_reset.with_label_values(&[reason]).get();
    let answered = |code: &str| gateway.metrics.render().contains(&format!("raftgate_requests_total{{code=\"{code}\""));
    let mut wire = Wire::open(gateway.address);
    let get_with = |stream, name: &str, value: &str| {
        let base = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
        head(stream, true, &[&base[..], &[(name, value)]].concat())
    };
    wire.send(&get_with(1, "x", &"y".repeat(5000)));
    assert_eq!(wire.outcome(1), Outcome::Status(431));
    assert_eq!((refused("head_size"), answered("431")), (1, true));
    // Far over the listener's bound the library answers.
    let mut other = Wire::open(gateway.address);
    other.send(&get_with(1, "x", &"y".repeat(9000)));
    assert_eq!((other.outcome(1), refused("head_size")), (Outcome::Status(431), 2));
    let wide = Gateway::to(&backend);
    let mut other = Wire::open(wide.address);
    other.send(&get(1, &format!("/{}", "y".repeat(9000))));
    assert_eq!(other.outcome(1), Outcome::Status(414));
    assert_eq!(wide.metrics.requests_refused.with_label_values(&["target_size"]).get(), 1);
    wire.send(&get_with(5, "connection", "close"));
    assert_eq!(wire.outcome(5), Outcome::Reset(1));
    wait_for("the reset's count", || reset("protocol_error") == 1);
    assert_eq!(reset("refused_stream"), 0);
    let streams: Vec<u32> = (10..140).map(stream).collect();
    wire.send(&streams.iter().flat_map(|stream| get(*stream, "/held")).collect::<Vec<u8>>());
    assert_eq!(wire.outcome(stream(139)), Outcome::Reset(7));
    wait_for("the count of both resets", || reset("refused_stream") == 2);
}

#[test]
pub(super) fn rapid_resets_end_the_connection() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    // In one write each ten, so that they are read before any is served.
    let (_, code) = flood(&gateway, &mut wire, 500, |turn| {
        let streams = (turn * 10..turn * 10 + 10).map(stream);
        streams.flat_map(|stream| [get(stream, "/flood"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()).collect()
    });
    drop(wire);
    ends(&gateway);
    assert_eq!(gateway.metrics.connections_ended.with_label_values(&["enhance_your_calm"]).get(), 1);
    let reached = backend.seen().iter().filter(|seen| seen.bytes.starts_with("GET /flood")).count();
    assert!(reached <= 5000 && (code == Some(11) || code.is_none()), "{code:?}, {reached}");
    assert_eq!(status(&gateway.get("/after")), 200);
}

#[test]
fn resets_for_the_clients_own_errors_end_the_connection() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    let (_, code) = flood(&gateway, &mut wire, 2000, |number| {
        [get(stream(number), "/flood"), frame(WINDOW_UPDATE, 0, stream(number), &0x7fff_ffff_u32.to_be_bytes())].concat()
    });
    assert!(matches!(code, Some(11) | None), "{code:?}");
    drop(wire);
    ends(&gateway);
    let reached = backend.seen().iter().filter(|seen| seen.bytes.starts_with("GET /flood")).count();
    assert!(reached < 2000, "{reached} requests reached the backend");
}

/// What is asked for and made to be reset in one go is known to be over once it is looked at: no backend is asked for the most of it.
#[test]
fn streams_that_are_over_when_they_come_are_not_begun() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    let streams = (0..100).map(stream);
    let bytes = streams.flat_map(|stream| [get(stream, "/flood"), frame(WINDOW_UPDATE, 0, stream, &overflow)].concat());
    wire.send(&bytes.collect::<Vec<u8>>());
    assert_eq!(wire.outcome(stream(99)), Outcome::Reset(3));
    // The connection itself is good.
    wire.send(&get(stream(100), "/after"));
    assert_eq!(wire.outcome(stream(100)), Outcome::Status(200));
    let opened = backend.connections();
    assert!(opened <= 20, "{opened} connections to the backend");
}

#[test]
fn a_block_without_end_ends_the_connection() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    wire.send(&frame(HEADERS, END, 1, &block(&POST)));
    let piece = block(&[("x", &"y".repeat(8000))]);
    let (sent, _) = flood(&gateway, &mut wire, 5000, |_| frame(CONTINUATION, 0, 1, &piece));
    assert!(sent < 5000, "40 MB of fields were taken");
    drop(wire);
    ends(&gateway);
    assert!(backend.seen().iter().all(|seen| seen.bytes.starts_with("GET /other")));
}

/// Frames that ask for an answer, from a client that reads none: what waits for it is bounded, for the gateway stops reading.
#[test]
pub(super) fn answers_that_nobody_reads_are_bounded() {
    let ask = [("PING", frame(PING, 0, 0, &[7; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))];
    for (name, bytes) in ask {
        let backend = Backend::answering(OK);
        let options = ListenerOptions { idle_timeout: Duration::from_millis(500), ..ListenerOptions::default() };
        let gateway = Gateway::with(options, &backend);
        let mut wire = Wire::open(gateway.address);
        let many = bytes.repeat(2000);
        let started = Instant::now();
        let mut sent = 0;
        while sent < 20_000 && wire.send(&many) {
            sent += 1;
            if sent % 100 == 0 {
                assert_eq!(status(&gateway.get("/other")), 200, "another client waits");
            }
        }
        assert!(sent < 20_000 && started.elapsed() < Duration::from_secs(30), "{name}: {sent} times 2000");
        drop(wire);
        ends(&gateway);
    }
}

#[test]
fn a_connection_of_pings_alone_does_not_live_past_its_idle_time() {
    let backend = Backend::answering(OK);
    let idle_timeout = Duration::from_millis(500);
    let gateway = Gateway::with(ListenerOptions { idle_timeout, ..ListenerOptions::default() }, &backend);
    let mut wire = Wire::open(gateway.address);
    let started = Instant::now();
    let mut is_told = false;
    while wire.send(&frame(PING, 0, 0, &[7; 8])) {
        let Some(frame) = wire.frame() else { break };
        is_told |= frame.kind == GOAWAY;
        assert!(started.elapsed() < 6 * idle_timeout, "it lives");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_told && started.elapsed() >= idle_timeout);
    ends(&gateway);
}

#[test]
fn empty_data_costs_no_more_than_its_stream() {
    let backend = Backend::raw(|mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let options = ListenerOptions { stream_idle_timeout: Duration::from_millis(500), ..ListenerOptions::default() };
    let gateway = Gateway::with(options, &backend);
    let mut wire = Wire::open(gateway.address);
    wire.send(&head(1, false, &POST));
    let many = frame(DATA, 0, 1, &[]).repeat(50);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) && gateway.metrics.requests_active.get() < 1 {}
    while started.elapsed() < Duration::from_secs(4) && gateway.metrics.requests_active.get() > 0 {
        wire.send(&many);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gateway.metrics.requests_active.get(), 0, "frames without a byte keep the exchange alive");
    drop(wire);
    ends(&gateway);
}

#[test]
pub(super) fn streams_without_a_window_are_ended_and_their_backends_let_go() {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let backend = Backend::answering(&large);
    let options = ListenerOptions { stream_idle_timeout: Duration::from_millis(500), ..ListenerOptions::default() };
    let gateway = Gateway::with(options, &backend);
    let mut wire = Wire::bare(gateway.address);
    // No window for any stream.
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    for number in 0..128 {
        wire.send(&get(stream(number), "/stalled"));
    }
    wait_for("the requests", || backend.seen().len() == 128);
    wait_for("the end of the exchanges", || gateway.metrics.requests_active.get() == 0);
    // The connection itself is as good as before.
    wire.send(&head(1001, true, &[&[(":method", "HEAD")], &POST[1..]].concat()));
    assert_eq!(wire.outcome(1001), Outcome::Status(200));
    drop(wire);
    ends(&gateway);
}

#[test]
fn streams_past_the_limit_are_refused() {
    let backend = Backend::raw(|mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    // The limit binds once the gateway's settings are acknowledged.
    wire.send(&frame(SETTINGS, END, 0, &[]));
    for number in 0..129 {
        wire.send(&frame(HEADERS, END_HEADERS | END, stream(number), &block(&POST)));
    }
    assert_eq!(wire.outcome(stream(128)), Outcome::Reset(7));
    assert!(backend.connections() <= 128);
}
