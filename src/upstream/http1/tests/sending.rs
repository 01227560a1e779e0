//! What a backend gets: the exact bytes of requests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::super::super::body::RequestBody;
use super::super::super::error::SendFailure;
use super::super::super::pool::{Endpoint, IdleBudget};
use super::super::super::tap::tap;
use super::exchanges::block_on;
use crate::model::spec::Protocol;

const PATIENCE: Duration = Duration::from_secs(10);

/// A backend that reads until `end` stands there and answers; what it got comes out of the channel.
fn backend(end: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (got, gets) = channel();
    std::thread::spawn(move || serve(listener.accept().unwrap().0, end, &got));
    (address, gets)
}

fn serve(mut stream: TcpStream, end: &str, got: &Sender<String>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    while !bytes.ends_with(end.as_bytes()) {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    got.send(String::from_utf8(bytes).unwrap()).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
}

/// Sends `request`; the failure where there is no answer.
async fn send(address: &str, request: Request<RequestBody>) -> Result<u16, (SendFailure, bool)> {
    let budget = Rc::<IdleBudget>::default();
    let endpoint = Endpoint::new(address, Protocol::Http1, None, &budget);
    let connection = endpoint.connection(PATIENCE, false).await.unwrap();
    match connection.send(&endpoint, request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            Ok(status)
        }
        Err(error) => Err((*error.failure, error.is_unsent)),
    }
}

/// A body of these pieces, all of them at hand. Without a length it is sent in chunks.
fn body(length: Option<u64>, pieces: &[&str], trailers: Option<HeaderMap>) -> RequestBody {
    let (tap, copy, _) = tap(length.map_or(SizeHint::new(), SizeHint::with_exact));
    pieces.iter().for_each(|piece| tap.fill(&Frame::data(Bytes::copy_from_slice(piece.as_bytes()))));
    if let Some(trailers) = trailers {
        tap.fill(&Frame::trailers(trailers));
    }
    tap.complete();
    RequestBody::Copy(Box::new(copy))
}

type Fields = &'static [(&'static str, &'static str)];

#[test]
fn a_request_goes_out_as_its_body_says() {
    let trailers = || {
        let pairs = [("x-sum", "7"), ("x-other", "8"), ("content-length", "9")];
        pairs.into_iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect::<HeaderMap>()
    };
    let large = "x".repeat(60_000);
    let post = "POST /a?b HTTP/1.1\r\nhost: a\r\n";
    // Method, further fields, body, what the backend gets.
    let table: [(&str, Fields, RequestBody, String); 18] = [
        ("GET", &[], RequestBody::Empty, "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("POST", &[], RequestBody::Empty, format!("{post}\r\n")),
        ("POST", &[("content-length", "0")], RequestBody::Empty, format!("{post}content-length: 0\r\n\r\n")),
        ("POST", &[], body(Some(5), &["hel", "lo"], None), format!("{post}content-length: 5\r\n\r\nhello")),
        (
            "POST",
            &[("content-length", "5"), ("x", "y")],
            body(Some(5), &["hello"], None),
            format!("{post}content-length: 5\r\nx: y\r\n\r\nhello"),
        ),
        // As the client says it.
        (
            "POST",
            &[("content-length", "0005")],
            body(Some(5), &["hello"], None),
            format!("{post}content-length: 0005\r\n\r\nhello"),
        ),
        // What the body says counts, whatever the fields say.
        (
            "POST",
            &[("content-length", "9"), ("content-length", "8")],
            body(Some(5), &["hello"], None),
            format!("{post}content-length: 5\r\n\r\nhello"),
        ),
        (
            "POST",
            &[("transfer-encoding", "gzip")],
            body(Some(5), &["hello"], None),
            format!("{post}content-length: 5\r\n\r\nhello"),
        ),
        ("POST", &[("content-length", "9")], RequestBody::Empty, format!("{post}\r\n")),
        (
            "POST",
            &[("content-length", "9")],
            body(None, &["hello"], None),
            format!("{post}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("POST", &[], body(None, &[], None), format!("{post}\r\n")),
        ("GET", &[], body(None, &[], None), "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        (
            "GET",
            &[],
            body(None, &["a"], None),
            "GET /a?b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".into(),
        ),
        ("POST", &[], body(Some(60_000), &[&large], None), format!("{post}content-length: 60000\r\n\r\n{large}")),
        (
            "POST",
            &[],
            body(None, &[&large], None),
            format!("{post}transfer-encoding: chunked\r\n\r\nEA60\r\n{large}\r\n0\r\n\r\n"),
        ),
        // Trailers that are announced, and may be.
        (
            "POST",
            &[],
            body(None, &["a"], Some(trailers())),
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        ),
        (
            "POST",
            &[("trailer", "X-Sum, Content-Length")],
            body(None, &["a"], Some(trailers())),
            format!("{post}trailer: X-Sum, Content-Length\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"),
        ),
        (
            "POST",
            &[("trailer", "x-sum")],
            body(None, &[&large], Some(trailers())),
            format!("{post}trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\nEA60\r\n{large}\r\n0\r\nx-sum: 7\r\n\r\n"),
        ),
    ];
    for (method, fields, body, expected) in table {
        let end: &'static str = String::leak(expected[expected.len().saturating_sub(20)..].to_owned());
        let (address, gets) = backend(end);
        let mut request = Request::builder().method(method).uri("/a?b").header("host", "a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let answered = block_on(send(&address, request.body(body).unwrap()));
        let got = gets.recv_timeout(PATIENCE).unwrap();
        assert!(got == expected, "{method} {fields:?}: {got:.300}");
        assert!(matches!(answered, Ok(200)), "{answered:?}");
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_is_not_made_whole() {
    for (length, pieces) in [(5, ["hell", ""]), (5, ["hello!", ""]), (0, ["a", "b"])] {
        let (address, gets) = backend("never");
        let request = Request::builder().method(Method::POST).uri("/").body(body(Some(length), &pieces, None)).unwrap();
        let failure = block_on(send(&address, request)).unwrap_err();
        assert!(matches!(failure, (SendFailure::Terminated { .. }, _)), "{failure:?}");
        let got = gets.recv_timeout(PATIENCE).unwrap();
        assert!(!got.ends_with("hello") && !got.ends_with("ab"), "{got}");
    }
}

#[test]
fn a_request_of_which_nothing_went_out_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    block_on(async {
        let budget = Rc::<IdleBudget>::default();
        let endpoint = Endpoint::new(&address, Protocol::Http1, None, &budget);
        for body_of in [|| RequestBody::Empty, || body(Some(5), &["hello"], None)] {
            let mut connection = endpoint.connection(PATIENCE, true).await.unwrap();
            // The other side goes away with a reset, which is seen before the request is written.
            let (stream, _) = listener.accept().unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            connection.gone().await;
            let request = Request::builder().method(Method::POST).uri("/kept").body(body_of()).unwrap();
            let error = connection.send(&endpoint, request).await.unwrap_err();
            assert!(matches!(*error.failure, SendFailure::Terminated { .. }), "{}", error.failure);
            assert!(error.is_unsent);
            let request = error.request.map(|request| request.uri().path().to_owned());
            // A body that was asked for is not there from its first byte any more.
            assert_eq!(request.as_deref(), matches!(body_of(), RequestBody::Empty).then_some("/kept"));
        }
    });
}

#[test]
fn the_protocol_changes_only_once_the_backend_has_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").unwrap();
        // The head is more than the sockets hold, and nobody reads it.
        std::thread::park_timeout(PATIENCE);
    });
    let large = HeaderValue::try_from("x".repeat(16 * 1024 * 1024)).unwrap();
    let request = Request::builder().uri("/").header("x", large).body(RequestBody::Empty).unwrap();
    let failure = block_on(send(&address, request)).unwrap_err();
    assert!(matches!(failure, (SendFailure::Protocol { .. }, false)), "{failure:?}");
}
