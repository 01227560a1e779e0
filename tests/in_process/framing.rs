//! What the follower of client connections takes for a request, the HTTP library takes for the same one, byte by byte.
//!
//! Each input is followed as a whole, byte by byte, and in pieces: the verdict must not depend on that. Whatever was passed then goes
//! through the library's own server: as a whole, and each message for itself. Both must give the same requests, as many as were followed,
//! and the library must find nothing wrong with any.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bolero::{check, produce};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use raftgate::proxy::{Flaw, Follower};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::fuzz::{Choices, bytes, time};

const HEAD_BYTES_MAX: usize = 1024;
/// Messages that both sides read.
static COMPARED: AtomicUsize = AtomicUsize::new(0);
const LINES: [&str; 14] = [
    "GET / HTTP/1.1\r\n",
    "POST /a?b=c HTTP/1.1\r\n",
    "PUT http://a.example:80/x HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://[::1]:80?q HTTP/1.1\r\n",
    "CONNECT a:80 HTTP/1.1\r\n",
    "GET a HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "\r\nGET / HTTP/1.1\r\n",
    "GET /\r\n",
    "GET / HTTP/1.2\r\n",
    "GET / HTTP/1.1\n",
    "GET  / HTTP/1.1\r\n",
];
const FIELDS: [&str; 22] = [
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "X:\r\n",
    "X: \t a \u{e9} b \t\r\n",
    "Expect: 100-continue\r\n",
    "content-length:0005 \r\n",
    "TRANSFER-ENCODING:\tChunked\t\r\n",
    "TE: trailers\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Host: b\r\n",
    " folded\r\n",
    "X : y\r\n",
    "X\r\n",
    ": y\r\n",
    "X: y\n",
    "X: a\rb\r\n",
    "X: \0\r\n",
];
const BODIES: [&str; 22] = [
    "abc",
    "abcde",
    "0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n",
    "00a;x=\"y\"\r\n0123456789\r\n",
    "1 ; x\r\na\r\n",
    "0\r\nX: y\r\n\r\n",
    "0\r\nX: y\r\nContent-Length: 3\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\n\r\n",
    "3\nabc\r\n",
    "3;\nabc\r\n",
    "3\r\nabcd\r\n",
    "-3\r\nabc\r\n",
    "0x3\r\nabc\r\n",
    "3 \r\nabc\r\n",
    "ffffffffffffffff\r\nabc",
    "10000000000000000\r\nabc",
    "\r\n",
    "0;\rx\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// A request as the library gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    line: String,
    fields: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
    is_kept: bool,
}

fn input(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..=choices.number(3) {
        // The sound ones stand first; the others are there to be refused, and seldom, or nothing would come behind them.
        let line = if choices.seldom() { choices.one(&LINES) } else { choices.one(&LINES[..8]) };
        input.extend_from_slice(line.as_bytes());
        if !choices.seldom() {
            input.extend_from_slice(b"Host: a\r\n");
        }
        for _ in 0..choices.number(3) {
            let field = if choices.seldom() { choices.one(&FIELDS) } else { choices.one(&FIELDS[..9]) };
            input.extend_from_slice(field.as_bytes());
        }
        input.extend_from_slice(b"\r\n");
        for _ in 0..choices.number(3) {
            let body = if choices.seldom() { choices.one(&BODIES) } else { choices.one(&BODIES[..9]) };
            input.extend_from_slice(body.as_bytes());
        }
        if choices.seldom() {
            let place = choices.number(input.len().min(256));
            let end = input.len() - 1 - place;
            input[end] = choices.one(b"\r\n\0 \t:;,/0a\x7f\xff");
        }
    }
    input
}

/// How much was passed, and why no more.
#[derive(Debug, PartialEq, Eq)]
struct Followed {
    passed: usize,
    flaw: Option<Flaw>,
    heads: u64,
}

/// The verdict over pieces of `sizes` bytes, again and again. What a refusal takes back of a piece counts as passed no more.
fn follow(input: &[u8], sizes: &[usize]) -> Followed {
    let mut follower = Follower::new(HEAD_BYTES_MAX);
    let mut sizes = sizes.iter().copied().cycle();
    let mut at = 0;
    while at < input.len() {
        let end = input.len().min(at + sizes.next().unwrap_or(1).max(1));
        if let Err(refusal) = follower.follow(&input[at..end]) {
            assert!(refusal.passed <= end - at);
            let again = follower.follow(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err();
            assert_eq!((again.passed, again.flaw), (0, refusal.flaw), "a refusal is not the end");
            let passed = at + refusal.passed;
            let flaw = Some(refusal.flaw);
            return Followed { passed, flaw, heads: follower.heads() };
        }
        at = end;
    }
    Followed { passed: at, flaw: None, heads: follower.heads() }
}

/// Where each message that came to its end does so.
fn ends(input: &[u8]) -> Vec<usize> {
    let mut follower = Follower::new(HEAD_BYTES_MAX);
    let mut ends = Vec::new();
    for (index, byte) in input.iter().enumerate() {
        if follower.follow(std::slice::from_ref(byte)).is_err() {
            break;
        }
        if follower.is_between_messages() {
            ends.push(index + 1);
        }
    }
    ends
}

/// What the library takes `input` for, and whether it answered anything by itself.
async fn read(input: &[u8]) -> (Vec<Seen>, bool) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let sink = Arc::clone(&sink);
        async move {
            let (head, body) = request.into_parts();
            let line = format!("{} {} {:?}", head.method, head.uri, head.version);
            let is_kept = head.version == http::Version::HTTP_11 && head.method != http::Method::CONNECT;
            // A body that breaks off is none: the message has not come to its end.
            if let Ok(body) = body.collect().await {
                let trailers = body.trailers().cloned();
                sink.lock().unwrap().push(Seen { line, fields: head.headers, body: body.to_bytes(), trailers, is_kept });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let (mut client, server) = duplex(1 << 20);
    client.write_all(input).await.unwrap();
    client.shutdown().await.unwrap();
    let mut builder = http1::Builder::new();
    builder.half_close(true).header_read_timeout(None).max_headers(100).max_header_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(server), service).await;
    let refused = served.is_err_and(|error| error.is_parse() || error.is_parse_too_large());
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, refused)
}

fn compare(input: &[u8], sizes: &[usize]) {
    let whole = follow(input, &[input.len().max(1)]);
    let single = follow(input, &[1]);
    let pieces = follow(input, sizes);
    for other in [&single, &pieces] {
        assert_eq!(whole.flaw, other.flaw, "{} in pieces of {sizes:?}", input.escape_ascii());
        // Of a message that is there as a whole nothing passes.
        assert!(other.passed >= whole.passed && other.heads - whole.heads <= 1, "less is passed of pieces");
    }
    // All of what was passed byte by byte is sound, and a message that had begun is not completed.
    let passed = &input[..single.passed];
    let ends = ends(passed);
    let sound = &input[..ends.last().copied().unwrap_or(0)];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut expected = Vec::new();
        let mut start = 0;
        for end in &ends {
            let text = input[start..*end].escape_ascii().to_string();
            // Empty lines before a head belong to its message.
            let (mut one, refused) = read(&input[start..*end]).await;
            assert!(!refused, "the library refuses {text}");
            assert_eq!(one.len(), 1, "not one request: {text}");
            expected.append(&mut one);
            start = *end;
        }
        let under_way = single.heads - expected.len() as u64;
        assert!(under_way <= 1, "{under_way} messages have a head and no end");
        COMPARED.fetch_add(expected.len(), Ordering::Relaxed);
        if let Some(last) = expected.iter().position(|seen| !seen.is_kept) {
            expected.truncate(last + 1);
        }
        for bytes in [sound, passed] {
            let (all, refused) = read(bytes).await;
            assert!(!refused, "the library refuses {}", bytes.escape_ascii());
            assert_eq!(all, expected, "{}", bytes.escape_ascii());
        }
    });
}

#[test]
fn the_library_reads_what_was_followed() {
    check!().with_test_time(time()).with_max_len(1024).with_generator((produce::<bool>(), bytes(512), bytes(8))).for_each(
        |(is_wild, bytes, sizes)| {
            let sizes: Vec<usize> = std::iter::once(3).chain(sizes.iter().map(|size| usize::from(*size) / 4)).collect();
            match is_wild {
                true => compare(bytes, &sizes),
                false => compare(&input(&mut Choices(bytes)), &sizes),
            }
        },
    );
    let compared = COMPARED.load(Ordering::Relaxed);
    assert!(compared >= 100, "only {compared} messages were compared");
}
