//! What backends say over HTTP/2, frame by frame, and what of it reaches a client.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;

use super::frames::{
    ACK, DATA, END, END_HEADERS, HEADERS, Outcome, PREFACE, RST_STREAM, SETTINGS, Wire, block, frame, get as get_head, head,
};
use super::gateway::{Backend, Gateway, field, route_to, service, status};
use super::http2::{block_on, connect, get, h2c};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

/// A backend that answers the request of each stream with these frames.
fn backend(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let backend = Backend::raw(move |stream| {
        let Some(mut wire) = begin(stream) else { return };
        while let Some(found) = wire.frame() {
            if found.kind == HEADERS {
                wire.send(&answer(found.stream));
            }
        }
    });
    backend.address
}

/// A connection of the gateway's, after its preface. `None` where it does not come.
pub(super) fn begin(mut stream: TcpStream) -> Option<Wire> {
    stream.read_exact(&mut [0; PREFACE.len()]).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut wire = Wire { stream };
    wire.send(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat());
    Some(wire)
}

pub(super) fn gateway_to(backend: serde_json::Value) -> Gateway {
    Gateway::start(ListenerOptions::default(), &[(Service, "s", backend), (Route, "r", route_to("s"))])
}

/// HEADERS that end a stream after its body.
fn trailers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END, stream, &block(fields))
}

#[test]
fn what_a_backend_says_before_its_answer_is_not_taken_for_it() {
    for (hints, expected) in [(1, 200), (100, 200), (101, 502)] {
        let gateway = gateway_to(h2c(&[backend(move |stream| {
            let hint = head(stream, false, &[(":status", "103"), ("link", "</style.css>; rel=preload")]);
            [hint.repeat(hints), head(stream, true, &[(":status", "200"), ("x-last", "yes")])].concat()
        })]));
        let last = (expected == 200).then_some("yes");
        let answer = gateway.get("/");
        assert_eq!((status(&answer), field(&answer, "x-last"), field(&answer, "link")), (expected, last, None), "{answer}");
        block_on(async {
            let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
            let has = |name: &str| answer.headers().contains_key(name);
            assert_eq!((answer.status().as_u16(), has("x-last"), has("link")), (expected, expected == 200, false));
        });
        let counted = gateway.metrics.upstream_informational.with_label_values(&["103"]).get();
        assert_eq!(counted, 2 * hints as u64);
    }
}

#[test]
fn another_protocol_cannot_begin_over_http2() {
    let gateway = gateway_to(h2c(&[backend(|stream| {
        [head(stream, false, &[(":status", "101")]), head(stream, true, &[(":status", "200")])].concat()
    })]));
    assert_eq!(status(&gateway.get("/")), 502);
}

#[test]
fn the_head_of_an_answer_that_breaks_off_at_once_reaches_the_client() {
    let gateway = gateway_to(h2c(&[backend(|stream| {
        [head(stream, false, &[(":status", "200"), ("x-head", "yes")]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 2])].concat()
    })]));
    for _ in 0..20 {
        let answer = gateway.get("/");
        assert_eq!((status(&answer), field(&answer, "x-head")), (200, Some("yes")), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "made whole: {answer}");
        block_on(async {
            let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            answer.into_body().collect().await.unwrap_err();
        });
    }
}

/// Status of the head, a field's value, DATA after it.
type Said = (&'static str, &'static str, &'static [u8]);

#[test]
fn a_malformed_answer_is_none() {
    let table: [(Said, u16); 8] = [
        (("200", "a b", b"ok"), 200),
        (("200", " a", b"ok"), 502),
        (("200", "a\t", b"ok"), 502),
        (("200", "a\r\nb", b"ok"), 502),
        (("204", "a", b"body"), 502),
        (("304", "a", b"body"), 502),
        (("204", "a", b""), 204),
        (("304", "a", b""), 304),
    ];
    for ((code, value, content), expected) in table {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let gateway = gateway_to(h2c(&[backend(move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            [head(stream, false, &[(":status", code), ("x", value)]), frame(DATA, END, stream, content)].concat()
        })]));
        let answer = gateway.get("/");
        assert_eq!(status(&answer), expected, "{code} {value:?} {content:?}: {answer}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "an answer came, and the request was sent again");
        let told =
            (expected == 502).then_some("raftgate; error=http_protocol_error; details=\"service s: the answer is not HTTP\"");
        assert_eq!(field(&answer, "proxy-status"), told, "{answer}");
        let mut wire = Wire::open(gateway.address);
        wire.send(&get_head(1, "/"));
        assert_eq!(wire.outcome(1), Outcome::Status(expected), "{code} {value:?} {content:?}");
        let failed = gateway.metrics.proxy_errors.with_label_values(&["http_protocol_error"]).get();
        assert_eq!(failed, 2 * u64::from(expected == 502), "{code} {value:?} {content:?}");
    }
}

#[test]
fn an_answer_says_one_length_or_none() {
    type Lengths = &'static [&'static str];
    let table: [(Lengths, u16); 6] =
        [(&[], 200), (&["2"], 200), (&[""], 502), (&["2", "2"], 200), (&["2", "3"], 502), (&["+2"], 502)];
    for (lengths, expected) in table {
        let gateway = gateway_to(h2c(&[backend(move |stream| {
            let lengths = lengths.iter().map(|length| ("content-length", *length));
            let fields: Vec<_> = std::iter::once((":status", "200")).chain(lengths).collect();
            [head(stream, false, &fields), frame(DATA, END, stream, b"ok")].concat()
        })]));
        let answer = gateway.get("/");
        assert_eq!(status(&answer), expected, "{lengths:?}: {answer}");
        assert_eq!(answer.matches("content-length: ").count(), usize::from(!lengths.is_empty() || expected != 200), "{answer}");
    }
}

#[test]
fn an_answer_that_is_broken_off_without_an_error_is_not_whole() {
    const GOAWAY: u8 = 7;
    let gateway = gateway_to(h2c(&[backend(|stream| {
        let head = head(stream, false, &[(":status", "200")]);
        // Of streams up to 0, and so not of this one.
        [head, frame(DATA, 0, stream, b"part"), frame(GOAWAY, 0, 0, &[0; 8])].concat()
    })]));
    let mut wire = Wire::open(gateway.address);
    wire.send(&get_head(1, "/"));
    let reset = loop {
        let frame = wire.frame().expect("it does not end");
        assert!(frame.stream != 1 || frame.flags & END == 0 || frame.kind == RST_STREAM, "made whole");
        if frame.kind == RST_STREAM {
            break frame.number(0);
        }
    };
    assert_eq!(reset, 2, "INTERNAL_ERROR");
}

#[test]
fn an_answer_with_a_name_that_is_none_is_refused() {
    let gateway = gateway_to(h2c(&[backend(|stream| head(stream, true, &[(":status", "200"), ("x\"y", "1")]))]));
    assert_eq!(status(&gateway.get("/")), 502);
}

#[test]
fn malformed_trailers_break_the_answer_off() {
    let gateway = gateway_to(h2c(&[backend(|stream| {
        let head = head(stream, false, &[(":status", "200"), ("trailer", "x-t")]);
        [head, frame(DATA, 0, stream, b"ok"), trailers(stream, &[("x-t", " 1")])].concat()
    })]));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let answer = client.until("never");
    assert!(status(&answer) == 200 && !answer.contains("\r\n0\r\n"), "{answer}");
    block_on(async {
        let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
        assert!(answer.into_body().collect().await.is_err(), "the answer came to its end");
    });
}

#[test]
fn an_answer_that_is_reset_is_whole_only_if_it_was() {
    for (is_whole, code) in [(false, 0), (false, 8), (true, 0)] {
        let gateway = gateway_to(h2c(&[backend(move |stream| {
            let head = head(stream, false, &[(":status", "200")]);
            let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
            [head, frame(DATA, 0, stream, b"partial"), frame(DATA, u8::from(is_whole), stream, b"!"), reset].concat()
        })]));
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = client.until("never");
        assert_eq!(answer.ends_with("0\r\n\r\n"), is_whole, "{code}: {answer}");
        block_on(async {
            let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
            let body = answer.into_body().collect().await;
            assert_eq!(body.ok().map(|body| body.to_bytes()).as_deref(), is_whole.then_some(&b"partial!"[..]), "{code}");
        });
    }
}

#[test]
fn the_trailers_of_grpc_reach_a_client_of_http1_that_takes_them() {
    let gateway = gateway_to(h2c(&[backend(|stream| {
        let head = head(stream, false, &[(":status", "200"), ("content-type", "application/grpc")]);
        [head, frame(DATA, 0, stream, b"ok"), trailers(stream, &[("grpc-status", "5"), ("grpc-message", "no"), ("x-un", "1")])]
            .concat()
    })]));
    let ask = |more: &str| {
        let mut client = gateway.connect();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n{more}\r\n"));
        client.until("\r\n0\r\n") + &client.until("\r\n\r\n")
    };
    let answer = ask("TE: trailers\r\nConnection: TE\r\n");
    assert!(answer.contains("\r\ngrpc-status: 5\r\n") && answer.contains("\r\ngrpc-message: no\r\n"), "{answer}");
    assert_eq!(field(&answer, "trailer"), Some("grpc-status, grpc-message, grpc-status-details-bin"));
    let answer = ask("");
    assert!(!answer.contains("grpc-status") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn a_call_that_takes_too_long_after_its_answer_began_is_told_so() {
    let backend = backend(|stream| {
        let head = head(stream, false, &[(":status", "200"), ("content-type", "application/grpc")]);
        [head, frame(DATA, 0, stream, b"\0\0\0\0\x01x")].concat()
    });
    let mut route = route_to("s");
    route["rules"][0]["timeouts"] = serde_json::json!({"request": "300ms"});
    let gateway = Gateway::start(ListenerOptions::default(), &[(Service, "s", h2c(&[backend])), (Route, "r", route)]);
    block_on(async {
        let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!((status.unwrap().to_str().unwrap(), &collected.to_bytes()[..]), ("4", &b"\0\0\0\0\x01x"[..]));
    });
    assert_eq!(gateway.metrics.proxy_errors.with_label_values(&["http_response_timeout"]).get(), 1);
    // Over HTTP/1.1 trailers are not for everybody: it breaks off.
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!client.until("never").ends_with("0\r\n\r\n"));
}

/// The names of the trailers that reach a client of HTTP/2.
fn passed(gateway: &Gateway) -> Vec<String> {
    block_on(async {
        let answer = connect(gateway.address).await.send_request(get("/")).await.unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        let names = |trailers: &HeaderMap| trailers.keys().map(ToString::to_string).collect();
        let mut trailers: Vec<String> = collected.trailers().map(names).unwrap_or_default();
        trailers.sort();
        assert_eq!(collected.to_bytes(), "ok");
        trailers
    })
}

#[test]
fn of_an_answers_trailers_those_pass_that_are_announced_or_of_grpc() {
    type Heads = &'static [(&'static str, &'static str)];
    const SENT: Heads =
        &[("x-t", "1"), ("content-length", "5"), ("x-un", "2"), ("grpc-status", "0"), ("grpc-status-details-bin", "AA")];
    let table: [(Heads, &[&str]); 3] = [
        (&[("trailer", "X-T, Content-Length")], &["grpc-status", "grpc-status-details-bin", "x-t"]),
        (&[("content-type", "application/grpc+proto")], &["grpc-status", "grpc-status-details-bin", "x-t", "x-un"]),
        (&[("content-type", "text/plain")], &["grpc-status", "grpc-status-details-bin"]),
    ];
    for (fields, expected) in table {
        let of_http2 = gateway_to(h2c(&[backend(move |stream| {
            let head = head(stream, false, &[&[(":status", "200")], fields].concat());
            [head, frame(DATA, 0, stream, b"ok"), trailers(stream, SENT)].concat()
        })]));
        assert_eq!(passed(&of_http2), expected, "{fields:?}");
        let lines = |fields: Heads| fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        let chunks = format!("2\r\nok\r\n0\r\n{}\r\n", lines(SENT));
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{}\r\n{chunks}", lines(fields));
        let of_http1 = Backend::answering(&answer);
        assert_eq!(passed(&gateway_to(service(&[of_http1.address]))), expected, "{fields:?}");
    }
    // None is left: the answer ends all the same.
    let bare = gateway_to(h2c(&[backend(|stream| {
        let head = head(stream, false, &[(":status", "200")]);
        [head, frame(DATA, 0, stream, b"ok"), trailers(stream, &[("x-un", "1")])].concat()
    })]));
    assert_eq!(passed(&bare), [""; 0]);
}
