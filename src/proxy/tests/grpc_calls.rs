//! Calls of a real gRPC client to a real gRPC server, through the gateway.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::gateway::Gateway;
use crate::model::Kind::{GrpcRoute, Service};
use crate::proxy::ListenerOptions;

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 4 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
}

type Codec = ProstCodec<Text, Text>;
type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

fn text(value: impl Into<Bytes>) -> Text {
    Text { value: value.into() }
}

/// What the server counts.
#[derive(Debug, Default)]
struct Counts {
    /// Calls that were given up before they were done.
    cancelled: AtomicUsize,
    /// Messages of the endless stream.
    streamed: AtomicUsize,
    connections: AtomicUsize,
}

/// Counts a call as cancelled where it is dropped before its end.
struct UntilDone<'a>(&'a Counts);

impl Drop for UntilDone<'_> {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

async fn unary(request: Request<Text>, counts: Arc<Counts>) -> Result<Response<Text>, Status> {
    let metadata = request.metadata().clone();
    let value = request.into_inner().value;
    match &value[..] {
        b"fail" => Err(Status::with_details(Code::FailedPrecondition, "not \u{e9} 100%", Bytes::from_static(b"\0\x01details"))),
        b"late" => {
            let _guard = UntilDone(&counts);
            std::future::pending().await
        }
        _ => {
            let mut response = Response::new(text(value));
            if let Some(asked) = metadata.get("x-asked") {
                response.metadata_mut().insert("x-answered", asked.clone());
            }
            if let Some(asked) = metadata.get_bin("x-asked-bin") {
                response.metadata_mut().insert_bin("x-answered-bin", asked.clone());
            }
            Ok(response)
        }
    }
}

async fn server_streaming(request: Request<Text>, counts: Arc<Counts>) -> Result<Response<Texts>, Status> {
    if &request.get_ref().value[..] == b"endless" {
        let endless = tokio_stream::iter(0..).map(move |_| {
            counts.streamed.fetch_add(1, Ordering::SeqCst);
            Ok(text(vec![7; 16 * 1024]))
        });
        return Ok(Response::new(Box::pin(endless)));
    }
    Ok(Response::new(Box::pin(tokio_stream::iter((0..10_u8).map(|number| Ok(text(vec![number])))))))
}

async fn client_streaming(request: Request<tonic::Streaming<Text>>) -> Result<Response<Text>, Status> {
    let mut sent = request.into_inner();
    let mut all = Vec::new();
    while let Some(message) = sent.message().await? {
        all.extend_from_slice(&message.value);
    }
    Ok(Response::new(text(all)))
}

async fn streaming(request: Request<tonic::Streaming<Text>>) -> Result<Response<Texts>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}

type Answer = http::Response<tonic::body::Body>;

async fn serve(request: http::Request<Incoming>, counts: Arc<Counts>) -> Result<Answer, std::convert::Infallible> {
    let mut grpc = tonic::server::Grpc::new(Codec::default()).max_decoding_message_size(2 * LARGE);
    Ok(match request.uri().path() {
        "/t.Echo/Unary" => grpc.unary(tower::service_fn(|request| unary(request, Arc::clone(&counts))), request).await,
        "/t.Echo/ServerStreaming" => {
            grpc.server_streaming(tower::service_fn(|request| server_streaming(request, Arc::clone(&counts))), request).await
        }
        "/t.Echo/ClientStreaming" => grpc.client_streaming(tower::service_fn(client_streaming), request).await,
        "/t.Echo/Streaming" => grpc.streaming(tower::service_fn(streaming), request).await,
        _ => Status::unimplemented("no such method of the backend").into_http(),
    })
}

/// Starts the server in the present runtime.
async fn start() -> (SocketAddr, Arc<Counts>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| serve(request, Arc::clone(&shared)));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, counts)
}

fn route(service: &str, backend: &str) -> Value {
    json!({"rules": [{"matches": [{"method": {"service": service}}], "backendRefs": [{"name": backend}]}]})
}

type Client = tonic::client::Grpc<Channel>;

async fn client(gateway: &Gateway) -> Client {
    let channel = Channel::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap();
    let mut client =
        tonic::client::Grpc::with_origin(channel, "http://a.example".parse().unwrap()).max_decoding_message_size(2 * LARGE);
    client.ready().await.unwrap();
    client
}

async fn call(client: &mut Client, path: &'static str, request: Request<Text>) -> Result<Response<Text>, Status> {
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    client.unary(request, PathAndQuery::from_static(path), Codec::default()).await
}

const UNARY: &str = "/t.Echo/Unary";

fn through_gateway<F: Future<Output = ()>>(test: impl FnOnce(Rc<Gateway>, Client, Arc<Counts>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (address, counts) = start().await;
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = |address: SocketAddr| json!({"protocol": "h2c", "endpoints": [{"address": address.to_string()}]});
        let documents = [
            (Service, "echo", at(address)),
            (Service, "gone", at(gone)),
            (Service, "empty", json!({"protocol": "h2c", "endpoints": []})),
            (GrpcRoute, "echo", route("t.Echo", "echo")),
            (GrpcRoute, "gone", route("t.Gone", "gone")),
            (GrpcRoute, "empty", route("t.Empty", "empty")),
        ];
        // Lives until the test is over, whether the test asks it something or not.
        let gateway = Rc::new(Gateway::start(ListenerOptions::default(), &documents));
        let client = client(&gateway).await;
        tokio::time::timeout(PATIENCE, test(Rc::clone(&gateway), client, counts)).await.expect("it hangs");
    });
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waited).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}

#[test]
pub(super) fn unary_calls_carry_metadata_both_ways() {
    through_gateway(|_gateway, mut client, _| async move {
        let mut request = Request::new(text("hello"));
        request.metadata_mut().insert("x-asked", "7".parse().unwrap());
        request.metadata_mut().insert_bin("x-asked-bin", MetadataValue::from_bytes(b"\0\xff"));
        let answer = call(&mut client, UNARY, request).await.unwrap();
        assert_eq!(answer.metadata().get("x-answered").unwrap(), "7");
        assert_eq!(answer.metadata().get_bin("x-answered-bin").unwrap().to_bytes().unwrap(), &b"\0\xff"[..]);
        assert_eq!(answer.into_inner(), text("hello"));
    });
}

#[test]
pub(super) fn calls_are_mirrored_to_services_that_carry_them() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let ((address, _), (shadow, shadowed)) = (start().await, start().await);
        let at = |address: SocketAddr| json!({"protocol": "h2c", "endpoints": [{"address": address.to_string()}]});
        let mirror = |service: &str| json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": service}}});
        let mut mirrored = route("t.Echo", "echo");
        mirrored["rules"][0]["filters"] = json!([mirror("shadow"), mirror("plain")]);
        let plain = json!({"endpoints": [{"address": shadow.to_string()}]});
        let documents = [
            (Service, "echo", at(address)),
            (Service, "shadow", at(shadow)),
            (Service, "plain", plain),
            (GrpcRoute, "r", mirrored),
        ];
        let gateway = Gateway::start(ListenerOptions::default(), &documents);
        let mut client = client(&gateway).await;
        assert_eq!(call(&mut client, UNARY, Request::new(text("hello"))).await.unwrap().into_inner(), text("hello"));
        let results = |service: &str, result: &str| gateway.metrics.mirrors.with_label_values(&[service, result]).get();
        until("the copy", || results("shadow", "sent") == 1).await;
        assert_eq!((shadowed.connections.load(Ordering::SeqCst), results("plain", "no_grpc")), (1, 1));
    });
}

#[test]
pub(super) fn messages_may_be_large() {
    through_gateway(|_gateway, mut client, _| async move {
        let large: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
        let answer = call(&mut client, UNARY, Request::new(text(large.clone()))).await.unwrap();
        assert!(answer.into_inner().value == large, "the message changed");
    });
}

#[test]
pub(super) fn a_hundred_calls_share_a_connection() {
    through_gateway(|_gateway, client, counts| async move {
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..100_u8 {
            let mut client = client.clone();
            calls.spawn(async move {
                let answer = call(&mut client, UNARY, Request::new(text(vec![number; 1000]))).await.unwrap();
                assert_eq!(answer.into_inner(), text(vec![number; 1000]));
            });
        }
        assert_eq!(calls.join_all().await.len(), 100);
        assert_eq!(counts.connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
pub(super) fn streams_flow_each_way_and_both_at_once() {
    through_gateway(|_gateway, mut client, _| async move {
        let path = PathAndQuery::from_static("/t.Echo/ServerStreaming");
        let answer = client.server_streaming(Request::new(text("ten")), path, Codec::default()).await.unwrap();
        let all: Vec<Text> = answer.into_inner().map(Result::unwrap).collect().await;
        assert_eq!(all, (0..10_u8).map(|number| text(vec![number])).collect::<Vec<_>>());

        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/t.Echo/ClientStreaming");
        let sent = tokio_stream::iter(["a", "b", "c"].map(text));
        let answer = client.client_streaming(Request::new(sent), path, Codec::default()).await.unwrap();
        assert_eq!(answer.into_inner(), text("abc"));

        // Each is answered before the next is sent.
        client.ready().await.unwrap();
        let (send, sent) = mpsc::channel(1);
        let path = PathAndQuery::from_static("/t.Echo/Streaming");
        send.send(text("0")).await.unwrap();
        let answer = client.streaming(Request::new(ReceiverStream::new(sent)), path, Codec::default()).await.unwrap();
        let mut answers = answer.into_inner();
        for number in 1..20 {
            assert_eq!(answers.message().await.unwrap(), Some(text((number - 1).to_string())));
            send.send(text(number.to_string())).await.unwrap();
        }
        drop(send);
        assert_eq!(answers.message().await.unwrap(), Some(text("19")));
        assert_eq!(answers.message().await.unwrap(), None);
    });
}

#[test]
pub(super) fn errors_arrive_with_their_details() {
    through_gateway(|_gateway, mut client, _| async move {
        let error = call(&mut client, UNARY, Request::new(text("fail"))).await.unwrap_err();
        let told = (error.code(), error.message(), error.details());
        assert_eq!(told, (Code::FailedPrecondition, "not \u{e9} 100%", &b"\0\x01details"[..]));
        let table = [
            ("/t.Echo/Missing", Code::Unimplemented, "no such method of the backend"),
            ("/t.Nowhere/M", Code::Unimplemented, "no route matches the request"),
            ("/t.Gone/M", Code::Unavailable, "service gone"),
            ("/t.Empty/M", Code::Unavailable, "service empty"),
        ];
        for (path, code, part) in table {
            let error = call(&mut client, path, Request::new(text("x"))).await.unwrap_err();
            assert!(error.code() == code && error.message().contains(part), "{path}: {error:?}");
        }
    });
}

#[test]
pub(super) fn a_deadline_ends_the_call_at_the_gateway() {
    through_gateway(|gateway, _client, counts| async move {
        // By hand, for tonic's client has a clock of its own for the field.
        let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let message = [&[0, 0, 0, 0, 6, 0x0a, 4], &b"late"[..]].concat();
        let request = http::Request::post(format!("http://a.example{UNARY}"))
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "200m")
            .body(http_body_util::Full::new(bytes::Bytes::from(message)))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let told = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((answer.status().as_u16(), told("grpc-status").as_deref()), (200, Some("4")), "{answer:?}");
        assert!(told("proxy-status").is_some(), "not of the gateway: {answer:?}");
        until("the end of the backend's call", || counts.cancelled.load(Ordering::SeqCst) == 1).await;
        until("the end of the exchange", || gateway.metrics.requests_active.get() == 0).await;
    });
}

#[test]
pub(super) fn the_backend_sees_that_the_client_cancels() {
    through_gateway(|gateway, mut client, counts| async move {
        let calling = call(&mut client, UNARY, Request::new(text("late")));
        assert!(tokio::time::timeout(Duration::from_millis(300), calling).await.is_err());
        until("the end of the backend's call", || counts.cancelled.load(Ordering::SeqCst) == 1).await;
        until("the end of the exchange", || gateway.metrics.requests_active.get() == 0).await;
        assert!(call(&mut client, UNARY, Request::new(text("x"))).await.is_ok());
    });
}

#[test]
pub(super) fn an_endless_stream_waits_for_its_reader() {
    through_gateway(|gateway, mut client, counts| async move {
        let path = PathAndQuery::from_static("/t.Echo/ServerStreaming");
        let answer = client.server_streaming(Request::new(text("endless")), path, Codec::default()).await.unwrap();
        let mut answers = answer.into_inner();
        answers.message().await.unwrap().unwrap();
        let streamed = || counts.streamed.load(Ordering::SeqCst);
        let mut waiting = 0;
        while waiting != streamed() {
            waiting = streamed();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // The windows and buffers of client, gateway and server: each is some hundred KiB at most, but for the server's own (hyper: 400 KiB).
        assert!(waiting * 16 * 1024 <= 8 << 20, "{waiting} messages wait");
        drop(answers);
        until("the end of the exchange", || gateway.metrics.requests_active.get() == 0).await;
    });
}
