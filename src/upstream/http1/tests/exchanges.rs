//! Odd and malformed answers of a raw backend: what is seen of each, and whether its connection is used again.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::super::super::body::RequestBody;
use super::super::super::error::SendFailure;
use super::super::super::pool::{Endpoint, IdleBudget};
use super::super::super::tap::{Tap, tap};
use crate::model::spec::Protocol;

const PATIENCE: Duration = Duration::from_secs(10);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a backend does with the first request of its first connection. All others are answered with [`OK`].
#[derive(Clone)]
pub(super) struct Script {
    pub(super) answer: Vec<u8>,
    pub(super) is_byte_by_byte: bool,
    pub(super) closes: bool,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    pub(super) fn start(script: Script) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let first = (count.fetch_add(1, Ordering::SeqCst) == 0).then(|| script.clone());
                std::thread::spawn(move || serve(stream.unwrap(), first));
            }
        });
        Backend { address, connections }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads heads, and no bodies: no head of the table's requests stands in one.
fn serve(mut stream: TcpStream, mut script: Option<Script>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        bytes.drain(..end + 4);
        let Some(script) = script.take() else {
            stream.write_all(OK.as_bytes()).unwrap();
            continue;
        };
        let length = if script.is_byte_by_byte { 1 } else { script.answer.len().max(1) };
        if script.answer.chunks(length).any(|piece| stream.write_all(piece).is_err()) || script.closes {
            return;
        }
    }
}

/// A request whose body is there so far as `body` says: its length, what of it came, and whether that is the end.
fn request(method: &Method, body: Option<(Option<u64>, &str)>) -> (Request<RequestBody>, Option<Tap>) {
    let (body, tap) = match body {
        None => (RequestBody::Empty, None),
        Some((length, came)) => {
            let (tap, copy, _) = tap(length.map_or(SizeHint::new(), SizeHint::with_exact));
            tap.fill(&Frame::data(Bytes::copy_from_slice(came.as_bytes())));
            if length == Some(came.len() as u64) {
                tap.complete();
            }
            (RequestBody::Copy(Box::new(copy)), Some(tap))
        }
    };
    let request = Request::builder().method(method).uri("/").header("host", "a").body(body).unwrap();
    (request, tap)
}

/// What is seen of one exchange: `STATUS BODY`, with `!` where the body broke off, or the kind of failure.
async fn exchange(endpoint: &Rc<Endpoint>, method: &Method, body: Option<(Option<u64>, &str)>) -> String {
    let (request, _tap) = request(method, body);
    let connection = endpoint.connection(PATIENCE, false).await.unwrap();
    match connection.send(endpoint, request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            let mut body = response.into_body();
            let (mut text, mut length) = (String::new(), body.size_hint().exact());
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return format!("{status} {text}!") };
                if let (Some(length), Some(data)) = (length, frame.data_ref()) {
                    assert_eq!(length, data.len() as u64 + body.size_hint().exact().unwrap());
                }
                length = body.size_hint().exact();
                match frame.into_data() {
                    Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(frame) => text.push_str(&format!("{:?}", frame.into_trailers().unwrap())),
                }
                if body.is_end_stream() {
                    assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_none(), "more after the end");
                    break;
                }
            }
            format!("{status} {text}")
        }
        Err(error) => match *error.failure {
            SendFailure::Terminated { .. } => "terminated".to_owned(),
            SendFailure::Protocol { .. } => "protocol".to_owned(),
            other => panic!("{other}"),
        },
    }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, future).await.unwrap() })
}

/// Runs a row; what is seen, and whether the connection serves the next request.
fn run(method: &Method, body: Option<(Option<u64>, &str)>, script: Script) -> (String, bool) {
    let backend = Backend::start(script);
    block_on(async {
        let budget = Rc::<IdleBudget>::default();
        let endpoint = Endpoint::new(&backend.address.to_string(), Protocol::Http1, None, &budget);
        let seen = tokio::time::timeout(PATIENCE, exchange(&endpoint, method, body)).await.unwrap();
        assert_eq!(exchange(&endpoint, &Method::GET, None).await, "200 ok");
        (seen, backend.connections() == 1)
    })
}

/// Whether the connection of an answer serves the next request, too.
const AGAIN: bool = true;
const NOT_AGAIN: bool = false;

#[test]
fn what_is_seen_of_an_answer_and_whether_its_connection_is_used_again() {
    let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    let said = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let long = "x".repeat(300_000);
    // The answer, whether the backend closes after it, what is seen, and the connection's fate.
    let table: Vec<(String, bool, String, bool)> = [
        // Lengths.
        (said("Content-Length: 5\r\n", "hello"), false, "200 hello", AGAIN),
        (said("Content-Length: 0\r\n", ""), false, "200 ", AGAIN),
        (said("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), false, "200 hello", AGAIN),
        (said("Content-Length: 5, 5\r\n", "hello"), false, "200 hello", AGAIN),
        (said("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 5, 6\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: +5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: -5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 0x5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 5 5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length:\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 5,\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 9223372036854775808\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 18446744073709551621\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Content-Length: 5\r\n", "hell"), true, "200 hell!", NOT_AGAIN),
        // Bytes beyond the answer are nobody's.
        (said("Content-Length: 5\r\n", "hello!"), false, "200 hello", NOT_AGAIN),
        (said("Content-Length: 2\r\n", &format!("ok{}", said("Content-Length: 8\r\n", "smuggled"))), false, "200 ok", NOT_AGAIN),
        (chunked(&format!("2\r\nok\r\n0\r\n\r\n{OK}")), false, "200 ok", NOT_AGAIN),
        (format!("HTTP/1.1 204 No\r\n\r\n{OK}"), false, "204 ", NOT_AGAIN),
        (format!("HTTP/1.1 304 No\r\n\r\n{OK}"), false, "304 ", NOT_AGAIN),
        // Answers without a body.
        ("HTTP/1.1 204 No\r\n\r\n".to_owned(), false, "204 ", AGAIN),
        ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n".to_owned(), false, "304 ", AGAIN),
        ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n".to_owned(), false, "204 ", NOT_AGAIN),
        ("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), false, "204 ", NOT_AGAIN),
        // Chunks.
        (chunked("5\r\nhello\r\n0\r\n\r\n"), false, "200 hello", AGAIN),
        (chunked("5;a=\"b\" \r\nhello\r\n0;c\r\n\r\n"), false, "200 hello", AGAIN),
        (chunked("2\r\nhe\r\n003\r\nllo\r\n000\r\nX-Sum: 7\r\n\r\n"), false, "200 hello{\"x-sum\": \"7\"}", AGAIN),
        (chunked("5\r\nhello\r\n0\r\nX-Sum : 7\r\n\r\n"), false, "200 hello!", NOT_AGAIN),
        (chunked("5\r\nhello\r\n0\r\nX: 7\n\r\n"), false, "200 hello!", NOT_AGAIN),
        (chunked("5\r\nhello\r\n0\r\nX-Sum: 7"), true, "200 hello!", NOT_AGAIN),
        (chunked("5\r\nhello\r\n"), true, "200 hello!", NOT_AGAIN),
        (chunked("5\r\nhel"), true, "200 hel!", NOT_AGAIN),
        (chunked(""), true, "200 !", NOT_AGAIN),
        (chunked("5\r\nhelloworld\r\n0\r\n\r\n"), false, "200 hello!", NOT_AGAIN),
        (chunked("5\r\nhello\n0\r\n\r\n"), false, "200 hello!", NOT_AGAIN),
        (chunked("5\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("5;\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("-5\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked(" 5\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("\r\n5\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), false, "200 !", NOT_AGAIN),
        (chunked(&format!("5;{long}\r\nhello\r\n0\r\n\r\n")), false, "200 !", NOT_AGAIN),
        (chunked(&format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n")), false, "200 hello!", NOT_AGAIN),
        (chunked(&format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(101))), false, "200 hello!", NOT_AGAIN),
        // Two ways to read one answer.
        (said("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), false, "200 hello", NOT_AGAIN),
        (said("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", "5\r\nhello\r\n0\r\n\r\n"), false, "200 hello", NOT_AGAIN),
        (said("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: chunked, gzip\r\n", "hello"), true, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding:\r\nContent-Length: 5\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        (said("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"), false, "protocol", NOT_AGAIN),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), false, "protocol", NOT_AGAIN),
        // Until the end, and connections that are said to close.
        (said("", "hello"), true, "200 hello", NOT_AGAIN),
        (said("", ""), true, "200 ", NOT_AGAIN),
        ("HTTP/1.0 200 OK\r\n\r\nhello".to_owned(), true, "200 hello", NOT_AGAIN),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(), false, "200 hello", NOT_AGAIN),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".to_owned(), false, "200 hello", AGAIN),
        (said("Connection: close\r\nContent-Length: 5\r\n", "hello"), false, "200 hello", NOT_AGAIN),
        (said("Connection: x, CLOSE\r\nConnection: keep-alive\r\nContent-Length: 5\r\n", "hello"), false, "200 hello", NOT_AGAIN),
        // Interim answers.
        (format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n{OK}"), false, "200 ok", AGAIN),
        (format!("HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n{OK}"), false, "200 ok", AGAIN),
        (
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n".to_owned(),
            false,
            "protocol",
            NOT_AGAIN,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), true, "terminated", NOT_AGAIN),
        // Heads.
        (String::new(), true, "terminated", NOT_AGAIN),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), true, "protocol", NOT_AGAIN),
        ("nonsense\r\n\r\n".to_owned(), false, "protocol", NOT_AGAIN),
        ("HTTP/2 200 OK\r\n\r\n".to_owned(), false, "protocol", NOT_AGAIN),
        ("HTTP/1.1 2000 OK\r\n\r\n".to_owned(), false, "protocol", NOT_AGAIN),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), false, "protocol", NOT_AGAIN),
        (said("X: a\r\n folded\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said(" X: a\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("X: a\rb\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("X: a\0b\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said("X\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said(": a\r\n", "hello"), false, "protocol", NOT_AGAIN),
        (said(&"X: y\r\n".repeat(101), ""), false, "protocol", NOT_AGAIN),
        (said(&format!("X: {long}\r\n"), ""), false, "protocol", NOT_AGAIN),
        (said(&format!("Content-Length: 2\r\n{}", "X: y\r\n".repeat(99)), "ok"), false, "200 ok", AGAIN),
    ]
    .into_iter()
    .map(|(answer, closes, seen, fate)| (answer, closes, seen.to_owned(), fate))
    .chain([(said("Content-Length: 300000\r\n", &long), false, format!("200 {long}"), AGAIN)])
    .chain([(chunked(&format!("493e0\r\n{long}\r\n0\r\n\r\n")), false, format!("200 {long}"), AGAIN)])
    .collect();
    assert!(table.len() >= 80, "{} rows", table.len());
    for (answer, closes, seen, fate) in table {
        for is_byte_by_byte in [false, true] {
            if is_byte_by_byte && answer.len() > 1000 {
                continue;
            }
            // Byte by byte what is beyond the answer may come once the next request is out: then nobody can tell.
            let is_told_apart = !is_byte_by_byte || fate == AGAIN || !answer.contains("HTTP/1.1 200 OK\r\n") || closes;
            let script = Script { answer: answer.clone().into_bytes(), is_byte_by_byte, closes };
            if is_told_apart || seen == "protocol" || seen.ends_with('!') {
                let found = run(&Method::GET, None, script);
                assert_eq!(found, (seen.clone(), fate), "{answer:.200} byte by byte: {is_byte_by_byte}");
            }
        }
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_says() {
    for (fields, fate) in [("Content-Length: 5\r\n", AGAIN), ("Transfer-Encoding: chunked\r\n", AGAIN), ("", AGAIN)] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        let script = Script { answer, is_byte_by_byte: false, closes: false };
        assert_eq!(run(&Method::HEAD, None, script), ("200 ".to_owned(), fate), "{fields}");
    }
    let script =
        Script { answer: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), is_byte_by_byte: false, closes: false };
    assert_eq!(run(&Method::HEAD, None, script), ("200 ".to_owned(), NOT_AGAIN));
}

#[test]
fn an_answer_before_the_end_of_the_body_is_passed_on_and_the_last_of_its_connection() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let empty = "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";
    for (answer, seen) in [(OK, "200 ok"), (chunked, "200 ok"), (empty, "401 ")] {
        for (length, came, fate) in [(Some(5), "hel", NOT_AGAIN), (None, "hel", NOT_AGAIN), (Some(5), "hello", AGAIN)] {
            let script = Script { answer: answer.as_bytes().to_vec(), is_byte_by_byte: false, closes: false };
            let found = run(&Method::POST, Some((length, came)), script);
            assert_eq!(found, (seen.to_owned(), fate), "{answer} {came} of {length:?}");
        }
    }
}

#[test]
fn a_connection_that_stands_idle_is_not_used_once_something_came() {
    for unasked in ["", "x", OK] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let backend = std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            assert!(first.read(&mut [0; 4096]).unwrap() > 0);
            first.write_all(OK.as_bytes()).unwrap();
            wait.recv().unwrap();
            // Nothing, and the end; or something that is no answer to anything.
            first.write_all(unasked.as_bytes()).unwrap();
            let kept = (!unasked.is_empty()).then_some(first);
            let (mut second, _) = listener.accept().unwrap();
            assert!(second.read(&mut [0; 4096]).unwrap() > 0);
            second.write_all(OK.as_bytes()).unwrap();
            drop(kept);
        });
        block_on(async {
            let budget = Rc::<IdleBudget>::default();
            let endpoint = Endpoint::new(&address.to_string(), Protocol::Http1, None, &budget);
            assert_eq!(exchange(&endpoint, &Method::GET, None).await, "200 ok");
            assert_eq!(endpoint.idle_count(), 1);
            go.send(()).unwrap();
            // The look of the worker's clock finds it too.
            while endpoint.idle_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                endpoint.sweep(std::time::Instant::now());
            }
            assert_eq!(exchange(&endpoint, &Method::GET, None).await, "200 ok");
        });
        backend.join().unwrap();
    }
}

#[test]
fn less_is_read_at_once_as_long_as_nobody_takes_what_was_read() {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n{}", "x".repeat(8_000_000)).into_bytes();
    let backend = Backend::start(Script { answer, is_byte_by_byte: false, closes: false });
    block_on(async {
        let endpoint = Endpoint::new(&backend.address.to_string(), Protocol::Http1, None, &Rc::default());
        let connection = endpoint.connection(PATIENCE, false).await.unwrap();
        let mut body = connection.send(&endpoint, request(&Method::GET, None).0).await.unwrap().into_body();
        let mut held = Vec::new();
        while held.len() < 50 {
            held.push(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        // The first came with the head. The room after it was made when nothing was held that was asked for; it may fill in several reads.
        let large: usize = held[1..].iter().map(Bytes::len).filter(|length| *length > 16 * 1024).sum();
        assert!(large <= 80 * 1024, "{:?}", held.iter().map(Bytes::len).collect::<Vec<_>>());
        let mut bytes: usize = held.iter().map(Bytes::len).sum();
        drop(held);
        let mut largest = 0;
        while let Some(frame) = body.frame().await {
            let length = frame.unwrap().into_data().unwrap().len();
            assert!(length <= 80 * 1024, "{length}");
            (bytes, largest) = (bytes + length, largest.max(length));
        }
        assert!(bytes == 8_000_000 && largest > 16 * 1024, "{bytes} bytes, {largest} at once");
    });
}
