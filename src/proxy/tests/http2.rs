//! HTTP/2 on either side, by hyper's client and server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::frames::{DATA, END, END_HEADERS, HEADERS, Outcome, Wire, block, frame, head};
use super::gateway::{Backend, Gateway, OK, field, read_until, route_to, service, status, wait_for};
use super::tls_front;
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

pub(super) type Sent = BoxBody<Bytes, Infallible>;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

pub(super) async fn connect(address: SocketAddr) -> SendRequest<Sent> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn body(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).boxed()
}

pub(super) fn get(path: &str) -> Request<Sent> {
    Request::get(format!("http://a.example{path}")).version(Version::HTTP_2).body(body("")).unwrap()
}

/// A service whose endpoints speak HTTP/2.
pub(super) fn h2c(addresses: &[SocketAddr]) -> serde_json::Value {
    let mut spec = service(addresses);
    spec["protocol"] = json!("h2c");
    spec
}

/// What a backend saw of a request, once it was through.
#[derive(Debug)]
struct Seen {
    head: http::request::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// A backend that speaks HTTP/2 and answers with the body that it got, and trailers.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    runtime: tokio::runtime::Runtime,
}

impl Echo {
    pub(super) fn start() -> Echo {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections): (Arc<Mutex<Vec<Seen>>>, Arc<Mutex<usize>>) = Default::default();
        let (sink, count) = (Arc::clone(&seen), Arc::clone(&connections));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let sink = Arc::clone(&sink);
                let service = service_fn(move |request| echo(request, Arc::clone(&sink)));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Echo { address, seen, connections, runtime }
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().pop().expect("the backend saw nothing")
    }
}

async fn echo(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Sent>, Infallible> {
    let (head, incoming) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/never" {
        std::future::pending::<()>().await;
    }
    let Ok(collected) = incoming.collect().await else {
        return Ok(Response::new(body("")));
    };
    let (trailers, bytes) = (collected.trailers().cloned(), collected.to_bytes());
    seen.lock().unwrap().push(Seen { head, body: bytes.clone(), trailers });
    let frames = [
        Ok(Frame::data(bytes)),
        Ok(Frame::trailers(HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]))),
    ];
    let stream = StreamBody::new(tokio_stream::iter(frames));
    Ok(Response::builder().header("trailer", "x-sum").body(BodyExt::boxed(stream)).unwrap())
}

#[test]
pub(super) fn many_streams_of_one_connection_are_answered() {
    let backend = Backend::with(|_, request, stream| {
        use std::io::Write;
        let path = request.bytes.split(' ').nth(1).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{path}", path.len()).is_ok()
    });
    let gateway = Gateway::with(ListenerOptions { debug_headers: true, ..ListenerOptions::default() }, &backend);
    block_on(async {
        let sender = connect(gateway.address).await;
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..300 {
            let mut sender = sender.clone();
            asked.spawn(async move {
                let path = format!("/{number}");
                let answer = sender.send_request(get(&path)).await.unwrap();
                let told = (answer.status(), answer.version(), answer.headers().get("connection").cloned());
                assert_eq!(told, (StatusCode::OK, Version::HTTP_2, None));
                assert!(answer.headers().contains_key("raftgate-revision"));
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), path);
            });
        }
        assert_eq!(asked.join_all().await.len(), 300);
    });
    wait_for("the end of the connection", || gateway.metrics.downstream_connections.get() == 0);
    wait_for("the end of all exchanges", || gateway.metrics.requests_active.get() == 0);
}

#[test]
fn a_backend_of_http1_gets_what_http2_said() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    block_on(async {
        let mut sender = connect(gateway.address).await;
        let request = Request::post("http://a.example:81/x?y=1")
            .version(Version::HTTP_2)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(body("hello"))
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    });
    let seen = backend.seen().remove(0).bytes;
    assert!(seen.starts_with("POST /x?y=1 HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    let fields = [("host", "a.example:81"), ("cookie", "a=1; b=2"), ("content-length", "5"), ("x-forwarded-proto", "http")];
    for (name, value) in fields {
        assert_eq!(field(&seen, name), Some(value), "{seen}");
    }
    assert_eq!((field(&seen, "te"), field(&seen, "transfer-encoding")), (None, None), "{seen}");
}

#[test]
pub(super) fn refusals_are_told_over_http2_too() {
    let backend = Backend::answering(OK);
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Route, "r", json!({"hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "s"}]}]})),
    ];
    let gateway = Gateway::start(ListenerOptions { body_bytes_max: Some(3), ..ListenerOptions::default() }, &documents);
    let request = |method: &str, target: &str, fields: &[(&str, &str)], content: &'static str| {
        let built = Request::builder().method(method).uri(target).version(Version::HTTP_2);
        fields.iter().fold(built, |built, (name, value)| built.header(*name, *value)).body(body(content)).unwrap()
    };
    let table = [
        (request("GET", "http://a.example/", &[], ""), 200),
        (request("GET", "http://b.example/", &[], ""), 404),
        (request("GET", "http://a.example/%2fx", &[], ""), 400),
        (request("GET", "http://a.example/", &[("host", "b.example")], ""), 400),
        (request("GET", "http://a.example/", &[("host", "a.example")], ""), 200),
        (request("BREW", "http://a.example/", &[], ""), 501),
        (request("GET", "http://a.example/", &[("expect", "y")], ""), 417),
        (request("POST", "http://a.example/", &[], "four"), 413),
        (request("POST", "http://a.example/", &[], "abc"), 200),
    ];
    block_on(async {
        let mut sender = connect(gateway.address).await;
        for (request, expected) in table {
            let asked = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), expected, "{asked}");
            if expected != 200 {
                assert_eq!(answer.headers()["content-type"], "application/problem+json", "{asked}");
                assert!(answer.headers().contains_key("proxy-status"), "{asked}");
            }
        }
    });
    assert_eq!(backend.seen().len(), 3);
}

/// A POST whose client waits to be asked for its three bytes.
pub(super) const EXPECTANT: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.example"),
    ("expect", "100-continue"),
    ("content-length", "3"),
];

/// The status of the next head, and whether it is all of the answer.
pub(super) fn next_head(wire: &mut Wire) -> (u16, bool) {
    loop {
        let frame = wire.frame().expect("no head came");
        if frame.kind == HEADERS {
            return (frame.status(), frame.flags & END != 0);
        }
    }
}

#[test]
pub(super) fn a_client_is_asked_for_its_body_once_the_backend_asks() {
    let (told, events) = std::sync::mpsc::channel();
    let backend = Backend::asking(told.clone());
    let gateway = Gateway::to(&backend);
    let mut wire = Wire::open(gateway.address);
    wire.send(&head(1, false, &EXPECTANT));
    assert_eq!(next_head(&mut wire), (100, false));
    told.send("client is asked").unwrap();
    wire.send(&frame(DATA, END, 1, b"abc"));
    assert_eq!(next_head(&mut wire), (200, false));
    assert_eq!(events.try_iter().collect::<Vec<_>>(), ["backend has the head", "client is asked", "backend has the body"]);
}

#[test]
fn a_client_is_asked_for_its_body_where_the_backend_says_nothing_and_not_where_it_answers() {
    let echo = Echo::start();
    let silent = Backend::answering(OK);
    let refusing = Backend::raw(|mut stream| {
        read_until(&mut stream, &mut Vec::new(), "\r\n\r\n");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    for (service, is_asked) in
        [(h2c(&[echo.address]), true), (service(&[silent.address]), true), (service(&[refusing.address]), false)]
    {
        let gateway = Gateway::start(ListenerOptions::default(), &[(Service, "s", service), (Route, "r", route_to("s"))]);
        let mut wire = Wire::open(gateway.address);
        wire.send(&head(1, false, &EXPECTANT));
        if is_asked {
            assert_eq!(next_head(&mut wire), (100, false));
            wire.send(&frame(DATA, END, 1, b"abc"));
            assert_eq!(next_head(&mut wire), (200, false));
        } else {
            assert_eq!(next_head(&mut wire), (401, true));
        }
    }
    assert_eq!(&echo.last().body[..], b"abc");
}

#[test]
fn the_gateways_own_answer_to_head_has_no_body() {
    let gateway = Gateway::start(ListenerOptions::default(), &[]);
    let mut wire = Wire::open(gateway.address);
    let fields = [(":method", "HEAD"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    wire.send(&head(1, true, &fields));
    assert_eq!(next_head(&mut wire), (404, true));
}

#[test]
pub(super) fn a_service_may_speak_http2() {
    let backend = Echo::start();
    let gateway =
        Gateway::start(ListenerOptions::default(), &[(Service, "s", h2c(&[backend.address])), (Route, "r", route_to("s"))]);
    // From HTTP/1.1: the length, the fields and the trailers are carried over.
    let answer = gateway.ask(
        "POST /x?y=1 HTTP/1.1\r\nHost: A.example:81\r\nTE: trailers\r\nConnection: TE, keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n"), "{answer}");
    let seen = backend.last();
    let target = format!("{}://A.example:81/x?y=1", tls_front::scheme());
    assert_eq!((seen.head.method, seen.head.uri.to_string()), (Method::POST, target));
    assert_eq!((seen.head.version, &seen.body[..], seen.trailers), (Version::HTTP_2, &b"hello"[..], None));
    assert_eq!((seen.head.headers.get("host"), &seen.head.headers["te"]), (None, &HeaderValue::from_static("trailers")));

    // From HTTP/2, both ways, one connection for all.
    block_on(async {
        let sender = connect(gateway.address).await;
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..50 {
            let mut sender = sender.clone();
            asked.spawn(async move {
                let sent = vec![number; 100_000];
                let request = Request::post("http://a.example/").version(Version::HTTP_2).body(body(sent.clone())).unwrap();
                let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(answer.trailers().unwrap()["x-sum"], "7");
                assert_eq!(answer.to_bytes(), sent);
            });
        }
        assert_eq!(asked.join_all().await.len(), 50);
    });
    assert_eq!(*backend.connections.lock().unwrap(), 1);
}

#[test]
fn of_a_requests_trailers_those_pass_that_are_announced() {
    let backend = Echo::start();
    let gateway =
        Gateway::start(ListenerOptions::default(), &[(Service, "s", h2c(&[backend.address])), (Route, "r", route_to("s"))]);
    let mut wire = Wire::open(gateway.address);
    let post =
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("trailer", "x-t, content-length")];
    let trailers = block(&[("x-t", "1"), ("content-length", "5"), ("x-un", "2")]);
    wire.send(&[head(1, false, &post), frame(DATA, 0, 1, b"abc"), frame(HEADERS, END_HEADERS | END, 1, &trailers)].concat());
    assert_eq!(wire.outcome(1), Outcome::Status(200));
    let names = || backend.last().trailers.unwrap_or_default().keys().map(ToString::to_string).collect::<Vec<String>>();
    assert_eq!(names(), ["x-t"]);
    // What concerns a connection, or is the gateway's to say, is none, though the client announces it; h2 would not send the first.
    for (name, content_type) in
        [("Keep-Alive", "text/plain"), ("X-Forwarded-For", "text/plain"), ("X-Forwarded-Client-Cert", "application/grpc")]
    {
        let answer = gateway.ask(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n3\r\nabc\r\n0\r\n{name}: forged\r\n\r\n"
        ));
        assert_eq!((status(&answer), names()), (200, vec![]), "{name}: {answer}");
    }
}

#[test]
pub(super) fn a_connection_that_ended_is_replaced() {
    let backend = Echo::start();
    let gateway =
        Gateway::start(ListenerOptions::default(), &[(Service, "s", h2c(&[backend.address])), (Route, "r", route_to("s"))]);
    assert_eq!(status(&gateway.get("/")), 200);
    let address = backend.address;
    // Its connections end, and its port is free for another.
    drop(backend.runtime);
    assert_eq!(status(&gateway.get("/")), 502);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(body("again"))) });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    assert!(gateway.get("/").contains("again"));
}

#[test]
pub(super) fn streams_past_the_limit_of_the_backend_get_another_connection() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let hold = Arc::clone(&release);
    runtime.spawn(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (arrived, hold) = (arrived.clone(), Arc::clone(&hold));
            let service = service_fn(move |request: Request<Incoming>| {
                let (arrived, hold) = (arrived.clone(), Arc::clone(&hold));
                async move {
                    if request.uri().path() == "/held" {
                        arrived.send(connection).unwrap();
                        hold.notified().await;
                    }
                    Ok::<_, Infallible>(Response::new(body("done")))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(2);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let gateway = Gateway::start(ListenerOptions::default(), &[(Service, "s", h2c(&[address])), (Route, "r", route_to("s"))]);
    block_on(async {
        let sender = connect(gateway.address).await;
        // The settings of the first connection are known once something was answered.
        sender.clone().send_request(get("/")).await.unwrap();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let mut sender = sender.clone();
            asked.spawn(async move { sender.send_request(get("/held")).await.unwrap().status() });
        }
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(arrivals.recv().await.unwrap());
        }
        let used: std::collections::BTreeSet<i32> = held.iter().copied().collect();
        assert!(used.len() >= 3, "at most two streams each: {held:?}");
        for _ in 0..5 {
            release.notify_one();
        }
        let answers = asked.join_all().await;
        assert!(answers.len() == 5 && answers.iter().all(|status| *status == StatusCode::OK));
    });
}

#[test]
pub(super) fn a_stream_that_is_reset_resets_the_request_to_the_backend() {
    let backend = Backend::raw(|stream| {
        // Reads until the gateway gives up, and answers nothing.
        let mut stream = stream;
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let gateway = Gateway::to(&backend);
    block_on(async {
        let mut sender = connect(gateway.address).await;
        let asked = tokio::time::timeout(Duration::from_millis(200), sender.send_request(get("/")));
        assert!(asked.await.is_err(), "there is nobody to answer");
        while gateway.metrics.requests_active.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
pub(super) fn a_stream_that_stands_still_is_told_and_the_others_go_on() {
    let echo = Echo::start();
    let backend = Backend::answering(OK);
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Service, "stuck", h2c(&[echo.address])),
        (Route, "r", route_to("s")),
        (
            Route,
            "never",
            json!({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/never"}}], "backendRefs": [{"name": "stuck"}]}]}),
        ),
    ];
    let options = ListenerOptions { stream_idle_timeout: Duration::from_millis(300), ..ListenerOptions::default() };
    let gateway = Gateway::start(options, &documents);
    block_on(async {
        let sender = connect(gateway.address).await;
        let mut stuck = sender.clone();
        let waiting = tokio::spawn(async move { stuck.send_request(get("/never")).await.unwrap().status() });
        let mut others = sender.clone();
        while !waiting.is_finished() {
            assert_eq!(others.send_request(get("/")).await.unwrap().status(), StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(waiting.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    });
}

#[test]
pub(super) fn an_idle_connection_is_told_to_go() {
    let backend = Backend::answering(OK);
    let gateway =
        Gateway::with(ListenerOptions { idle_timeout: Duration::from_millis(300), ..ListenerOptions::default() }, &backend);
    block_on(async {
        let mut sender = connect(gateway.address).await;
        assert_eq!(sender.send_request(get("/")).await.unwrap().status(), StatusCode::OK);
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
pub(super) fn a_drain_answers_what_is_under_way_and_takes_nothing_else() {
    let backend = Backend::answering(OK);
    let release = Arc::new(std::sync::Barrier::new(2));
    let hold = Arc::clone(&release);
    let slow = Backend::with(move |_, _, stream| {
        hold.wait();
        std::io::Write::write_all(stream, OK.as_bytes()).is_ok()
    });
    let exact =
        json!({"rules": [{"matches": [{"path": {"type": "Exact", "value": "/slow"}}], "backendRefs": [{"name": "slow"}]}]});
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Service, "slow", service(&[slow.address])),
        (Route, "r", route_to("s")),
        (Route, "x", exact),
    ];
    let mut gateway = Gateway::start(ListenerOptions::default(), &documents);
    block_on(async {
        let mut sender = connect(gateway.address).await;
        let mut asking = sender.clone();
        let asked = tokio::spawn(async move { asking.send_request(get("/slow")).await.unwrap().status() });
        while slow.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let draining = tokio::spawn(gateway.handle.take().unwrap().drain());
        while sender.send_request(get("/")).await.is_ok() {}
        tokio::task::spawn_blocking(move || release.wait()).await.unwrap();
        assert_eq!(asked.await.unwrap(), StatusCode::OK);
        draining.await.unwrap();
    });
}

#[test]
fn the_preface_may_come_in_pieces_and_http2_may_be_off() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    // What begins like it and is none is HTTP/1.1's to judge.
    let mut client = gateway.connect();
    client.send("PR");
    client.send("OPFIND / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&client.answer()), 501);
    let mut client = gateway.connect();
    for piece in ["PRI * HT", "TP/2.0\r\n\r\nSM\r", "\n\r\n", "\0\0\0\u{4}\0\0\0\0\0"] {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut frame = [0; 9];
    std::io::Read::read_exact(&mut client.stream, &mut frame).unwrap();
    assert_eq!(frame[3], 4, "the answer to a preface begins with SETTINGS: {frame:?}");

    let off = Gateway::with(ListenerOptions { http2: false, ..ListenerOptions::default() }, &backend);
    let answer = off.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(!answer.starts_with('\0') && backend.seen().is_empty(), "{answer}");
}
