//! What is sent, to a small server in this process.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::ctl::arguments::Connection;
use crate::ctl::documents::read_file;

const DEADLINE: Duration = Duration::from_secs(60);

/// Answers `GET` with `{}`, and each write with what `write` makes of it; nothing, and the connection is closed.
async fn serve<A>(write: impl Fn(String, Incoming) -> A + Clone + Send + 'static) -> String
where
    A: Future<Output = Option<(StatusCode, Value)>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let write = write.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let target = format!("{} {}", request.method(), request.uri());
                let written = (request.method() != Method::GET).then(|| write(target, request.into_body()));
                async move {
                    let (status, body) = match written {
                        Some(written) => written.await.ok_or_else(|| io::Error::other("no answer"))?,
                        None => (StatusCode::OK, json!({})),
                    };
                    let body = Full::new(Bytes::from(body.to_string()));
                    Ok::<_, io::Error>(Response::builder().status(status).body(body).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

async fn whole(body: Incoming) -> Option<Bytes> {
    body.collect().await.ok().map(http_body_util::Collected::to_bytes)
}

fn client(servers: &[&str]) -> Client {
    let server = servers.iter().map(|server| (*server).to_owned()).collect();
    let (token, ca, cert, key) = (None, None, None, None);
    Client::new(&Connection { server, token, ca, cert, key, timeout: Duration::from_secs(5) }).unwrap()
}

fn arguments() -> ApplyArguments {
    ApplyArguments { files: Vec::new(), dry_run: false, prune: false, wait: false, verbose: false }
}

/// A text that is made while it is read.
struct Made<I> {
    parts: I,
    part: Cursor<String>,
    given: Arc<AtomicUsize>,
}

impl<I: Iterator<Item = String>> Read for Made<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.given.fetch_add(count, Ordering::Relaxed);
                return Ok(count);
            }
            let Some(part) = self.parts.next() else { return Ok(0) };
            self.part = Cursor::new(part);
        }
    }
}

/// A file of `count` services and `end`, and how much of it was read.
fn file(count: usize, pad: usize, end: &'static str) -> (Reading, Arc<AtomicUsize>) {
    let item = move |n| {
        let separator = if n == 0 { r#"{"items":["# } else { "," };
        format!(r#"{separator}{{"kind":"Service","name":"s{n}","spec":{{"endpoints":[],"pad":"{}"}}}}"#, "x".repeat(pad))
    };
    let given = Arc::new(AtomicUsize::new(0));
    let parts = (0..count).map(item).chain([end.to_owned()]);
    let text = Made { parts, part: Cursor::new(String::new()), given: Arc::clone(&given) };
    (Reading::by(move |batches| read_file("pipe", text, batches)), given)
}

/// Waits until nothing more is read.
async fn at_rest(given: &AtomicUsize) -> usize {
    let end = Instant::now() + DEADLINE;
    let (mut before, mut polls) = (0, 0);
    while polls < 50 {
        assert!(Instant::now() < end, "it does not come to rest");
        sleep(Duration::from_millis(10)).await;
        let now = given.load(Ordering::Relaxed);
        polls = if now == before && now > 0 { polls + 1 } else { 0 };
        before = now;
    }
    before
}

#[tokio::test]
async fn what_fits_into_one_transaction_is_one() {
    let (seen, mut calls) = mpsc::unbounded_channel();
    let address = serve(move |target, body| {
        let seen = seen.clone();
        async move {
            let body: Value = serde_json::from_slice(&whole(body).await?).unwrap();
            seen.send((target, body)).unwrap();
            Some((StatusCode::OK, json!({"revision": 7})))
        }
    })
    .await;
    let spec = json!({"endpoints": [], "pad": ""});
    let prune = ApplyArguments { prune: true, dry_run: true, ..arguments() };
    for (arguments, target, body) in [
        (
            arguments(),
            "POST /v1/transactions",
            json!({"operations": [{"op": "put", "kind": "Service", "name": "s0", "spec": spec},
                {"op": "put", "kind": "Service", "name": "s1", "spec": spec}]}),
        ),
        (
            prune,
            "PUT /v1/config?prune=true&dryRun=true",
            json!({"items": [{"kind": "Service", "name": "s0", "spec": spec}, {"kind": "Service", "name": "s1", "spec": spec}]}),
        ),
    ] {
        let answer = send(&client(&[&address]), &arguments, file(2, 0, "]}").0).await.unwrap();
        assert_eq!(answer["revision"], 7);
        assert_eq!(calls.recv().await.unwrap(), (target.to_owned(), body));
    }
    let (limit, _) = file(TRANSACTION_OPERATIONS_MAX, 0, "]}");
    send(&client(&[&address]), &arguments(), limit).await.unwrap();
    let (target, body) = calls.recv().await.unwrap();
    assert_eq!((target.as_str(), body["operations"].as_array().unwrap().len()), ("POST /v1/transactions", 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_one_is_read_no_faster_than_it_is_taken() {
    const COUNT: usize = 60_000;
    // A transaction's worth, batches on their way, and what the sockets of this machine hold.
    const AHEAD_BYTES_MAX: usize = 18 * 1024 * 1024;
    let (seen, mut calls) = mpsc::unbounded_channel();
    let (open, gate) = watch::channel(false);
    let address = serve(move |target, body| {
        let (seen, mut gate) = (seen.clone(), gate.clone());
        async move {
            gate.wait_for(|is_open| *is_open).await.unwrap();
            let body: Value = serde_json::from_slice(&whole(body).await?).unwrap();
            seen.send((target, body)).unwrap();
            Some((StatusCode::OK, json!({"revision": 8, "results": [], "operations": {"put": COUNT, "delete": 0}})))
        }
    })
    .await;
    let (reading, given) = file(COUNT, 600, "]}");
    let arguments = ApplyArguments { prune: true, ..arguments() };
    let applied = tokio::spawn(async move { send(&client(&["127.0.0.1:1", &address]), &arguments, reading).await });
    let ahead = at_rest(&given).await;
    assert!(ahead < AHEAD_BYTES_MAX, "{ahead} bytes were read");
    open.send(true).unwrap();
    assert_eq!(timeout(DEADLINE, applied).await.unwrap().unwrap().unwrap()["operations"]["put"], COUNT);
    let (target, body) = calls.recv().await.unwrap();
    assert_eq!(target, "PUT /v1/config?prune=true");
    let items = body["items"].as_array().unwrap();
    assert!(items.iter().enumerate().all(|(n, item)| item["name"] == format!("s{n}")) && items.len() == COUNT);
    assert!(given.load(Ordering::Relaxed) > 2 * AHEAD_BYTES_MAX);
}

#[tokio::test]
async fn a_bad_document_breaks_the_upload_off() {
    let (seen, mut calls) = mpsc::unbounded_channel();
    let address = serve(move |_, body| {
        let seen = seen.clone();
        async move {
            seen.send(whole(body).await).unwrap();
            None
        }
    })
    .await;
    let ends = [
        (
            r#",{"kind":"Route"}]}"#,
            "pipe: document 1, /items/12000: `name` is missing\n  the upload was broken off, and nothing was applied",
        ),
        (r#"],"kind":"x"}"#, "pipe: document 1: unknown field `kind` beside `items`\n  the upload was broken off"),
        ("", "pipe: document 1: EOF while parsing a list"),
    ];
    for (end, expected) in ends {
        let error = send(&client(&[&address]), &arguments(), file(12_000, 0, end).0).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(timeout(DEADLINE, calls.recv()).await.unwrap(), Some(None), "the body looks whole");
    }
}

#[tokio::test]
async fn a_reader_that_dies_is_no_end_of_the_files() {
    let address = serve(|_, body| async move { whole(body).await.map(|_| (StatusCode::OK, json!({}))) }).await;
    let (parts, given) = (
        (0..60_000).map(|n| {
            assert!(n < 40_000, "this reader dies");
            format!("--- {{kind: Service, name: s{n}, spec: {{}}}}\n")
        }),
        Arc::new(AtomicUsize::new(0)),
    );
    let text = Made { parts, part: Cursor::new(String::new()), given };
    let reading = Reading::by(move |batches| read_file("pipe", text, batches));
    let error = send(&client(&[&address]), &arguments(), reading).await.unwrap_err().to_string();
    assert_eq!(error, "the files were not read to their end\n  the upload was broken off, and nothing was applied");
}

#[tokio::test]
async fn a_refusal_ends_the_upload_and_is_told_in_the_words_of_the_files() {
    let address = serve(|_, mut body| async move {
        body.frame().await?.ok()?;
        tokio::spawn(whole(body));
        let errors = json!([{"path": "/items/11000/spec/pad", "message": "unknown field"}]);
        let problem = json!({"title": "The content is invalid", "detail": "d", "outcome": "notApplied", "errors": errors});
        Some((StatusCode::UNPROCESSABLE_ENTITY, problem))
    })
    .await;
    let (reading, given) = file(usize::MAX, 600, "");
    let error = timeout(DEADLINE, send(&client(&[&address]), &arguments(), reading)).await.unwrap().unwrap_err().to_string();
    let expected =
        "The content is invalid (422)\n  pipe: document 1, /items/11000: /spec/pad: unknown field\n  nothing was applied";
    // It may not have been read as far as that.
    assert!(error == expected || error == expected.replace("pipe: document 1, /items/11000: ", "/items/11000"), "{error}");
    at_rest(&given).await;
}

#[tokio::test]
async fn an_upload_without_an_answer_may_have_been_applied() {
    let address = serve(|_, body| async move {
        whole(body).await?;
        None
    })
    .await;
    let error = send(&client(&[&address]), &arguments(), file(12_000, 0, "]}").0).await.unwrap_err().to_string();
    assert!(error.contains("it may have been applied all the same; the same command can be run again"), "{error}");
    let address = serve(|_, body| async move {
        whole(body).await?;
        Some((StatusCode::GATEWAY_TIMEOUT, json!({"title": "Timed out", "detail": "d", "outcome": "unknown"})))
    })
    .await;
    let error = send(&client(&[&address]), &arguments(), file(12_000, 0, "]}").0).await.unwrap_err().to_string();
    let expected = "Timed out (504): d; the same command can be run again: what is so already is not changed\n  it may have";
    assert!(error.starts_with(expected), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_before_anything_is_sent() {
    let error = send(&client(&["127.0.0.1:1"]), &arguments(), file(12_000, 0, "]}").0).await.unwrap_err().to_string();
    assert!(error.starts_with("no server answered:"), "{error}");
}
