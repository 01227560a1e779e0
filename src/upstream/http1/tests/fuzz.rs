//! Fuzz target: an answer is never read in another way than hyper's client reads it, which is what this client took the place of. It may be
//! refused here and not there.
//!
//! `cargo test` runs it with random input for a few seconds, `RAFTGATE_FUZZ_SECONDS=600 cargo test --lib http1::tests::fuzz` longer, and
//! `cargo bolero test upstream::http1::tests::fuzz::answers` under libFuzzer.

use std::time::Duration;

use bolero::{check, produce};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::read;

const SECONDS_VARIABLE: &str = "RAFTGATE_FUZZ_SECONDS";
/// The sound ones stand first; the others are there to be refused, and seldom, or nothing would come behind them.
const LINES: [&str; 12] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.1 404 Not Found\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 \r\n",
    "HTTP/1.1 204 No\r\n",
    "HTTP/1.1 304 No\r\n",
    "HTTP/1.1 999 x\r\n",
    "HTTP/1.2 200 OK\r\n",
    "HTTP/1.1 099 OK\r\n",
    "HTTP/1.1  200 OK\r\n",
    "ICY 200 OK\r\n",
];
const FIELDS: [&str; 26] = [
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: a, Close\r\n",
    "X: y\r\n",
    "X:\t y \r\n",
    "X: \u{e9}\r\n",
    "X:\r\n",
    "Trailer: X-Sum\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5, 6\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: \r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "X: y\n",
    "X\r\n",
    " X: y\r\n",
    ": y\r\n",
    "X: a\rb\r\n",
    "X: \0\r\n",
];
const BODIES: [&str; 18] = [
    "hello",
    "hell",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "005;a=b\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0\r\nX-Sum: 7\r\n\r\n",
    "1\r\na\r\n1\r\nb\r\n0;x\r\n\r\n",
    "5\r\nhello\r\n",
    "5\r\nhelloX",
    "5\nhello\n0\n\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "10000000000000000\r\nx",
    "ffffffffffffffff\r\nx",
    "5;\nhello\r\n0\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
];

/// Choices, made by bytes; zero for ever once they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn number(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % below
    }

    /// One of `list`, of whose first `sound` ones most are.
    fn one<'a>(&mut self, list: &[&'a str], sound: usize) -> &'a str {
        let among = if self.number(8) == 1 { list.len() } else { sound };
        list[self.number(among)]
    }
}

fn input(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut input = choices.one(&LINES, 8).as_bytes().to_vec();
    for _ in 0..choices.number(5) {
        input.extend_from_slice(choices.one(&FIELDS, 12).as_bytes());
    }
    input.extend_from_slice(b"\r\n");
    for _ in 0..choices.number(3) {
        input.extend_from_slice(choices.one(&BODIES, 8).as_bytes());
    }
    input
}

/// What hyper's client makes of the same bytes: status, fields, body, trailers. `None`: nothing, or a body that broke off.
async fn read_by_hyper(bytes: &[u8], method: &str) -> Option<(u16, HeaderMap, Bytes, Option<HeaderMap>)> {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    let request = Request::builder().method(method).uri("/").body(Empty::<Bytes>::new()).unwrap();
    let serve = async {
        let mut head = vec![0; 1024];
        let count = far.read(&mut head).await.unwrap();
        assert!(head[..count].ends_with(b"\r\n\r\n"));
        far.write_all(bytes).await.unwrap();
        drop(far);
    };
    let ask = async {
        let response = sender.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await.ok()?;
        let trailers = collected.trailers().cloned();
        Some((head.status.as_u16(), head.headers, collected.to_bytes(), trailers))
    };
    let (answer, _, ()) = tokio::join!(ask, connection, serve);
    answer
}

#[test]
fn answers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seconds = std::env::var(SECONDS_VARIABLE).map_or(3, |text| text.parse().unwrap());
    let generator = (produce::<bool>(), produce::<Vec<u8>>().with().len(0..=64));
    check!().with_test_time(Duration::from_secs(seconds)).with_generator(generator).for_each(|(is_to_head, choices)| {
        let bytes = input(&mut Choices(choices));
        let text = bytes.escape_ascii();
        let Ok(ours) = read([&bytes[..]], *is_to_head) else { return };
        assert_eq!(read(bytes.chunks(3), *is_to_head).as_ref(), Ok(&ours), "{text}");
        if !ours.is_whole {
            return;
        }
        let theirs = runtime.block_on(read_by_hyper(&bytes, if *is_to_head { "HEAD" } else { "GET" }));
        let Some((status, mut headers, body, trailers)) = theirs else { panic!("only read here: {text}") };
        if headers.contains_key("transfer-encoding") || headers.get_all("content-length").iter().count() > 1 {
            headers.remove("content-length");
        }
        let mut found = ours.headers.clone();
        if !headers.contains_key("content-length") || headers["content-length"].as_bytes().contains(&b',') {
            headers.remove("content-length");
            found.remove("content-length");
        }
        assert_eq!((ours.status, &found, &ours.body[..]), (status, &headers, &body[..]), "{text}");
        assert_eq!(ours.trailers, trailers, "{text}");
    });
}
