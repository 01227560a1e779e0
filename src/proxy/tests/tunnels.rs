//! WebSockets and other protocols that follow HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use super::frames::{Outcome, Wire, head};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

const PATIENCE: Duration = Duration::from_secs(30);
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20))
}

/// A WebSocket server that answers each message with the same. It ends with the thread's listener.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut socket) = accept_async_with_config(stream, Some(config())).await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    address
}

/// Text, fragments' worth of bytes, a ping, 16 MiB, and an end with a code: all of it comes back.
async fn converse<S>(mut socket: WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    for (part, opcode, is_final) in [("a", Data::Text, false), ("b", Data::Continue, false), ("c", Data::Continue, true)] {
        let frame = Frame::message(part.as_bytes().to_vec(), OpCode::Data(opcode), is_final);
        socket.send(Message::Frame(frame)).await.unwrap();
    }
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("abc"));
    let large: Vec<u8> = (0..16 << 20).map(|index: u32| (index % 251) as u8).collect();
    let (mut sink, mut stream) = socket.split();
    let sending = sink.send(Message::binary(large.clone()));
    let (sent, received) = tokio::join!(sending, stream.next());
    sent.unwrap();
    assert!(received.unwrap().unwrap().into_data() == large, "16 MiB came back changed");
    let mut socket = sink.reunite(stream).unwrap();
    let frame = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
}

fn gateway_to(address: SocketAddr, options: ListenerOptions) -> Gateway {
    Gateway::start(options, &[(Service, "s", service(&[address])), (Route, "r", route_to("s"))])
}

#[test]
pub(super) fn a_websocket_passes_and_outlives_the_table() {
    let mut gateway = gateway_to(echo_server(), ListenerOptions::default());
    block_on(async {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (mut socket, answer) = client_async_with_config("ws://a.example/chat", stream, Some(config())).await.unwrap();
        assert_eq!(answer.status(), 101);
        // The route goes, and the conversation goes on.
        socket.send(Message::text("before")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("before"));
        gateway.put(&[(Route, "r", json!({"hostnames": ["other.example"], "rules": [{"backendRefs": [{"name": "s"}]}]}))]);
        assert_eq!(gateway.metrics.requests_active.get(), 1);
        converse(socket).await;
    });
    wait_for("the end of the exchange", || gateway.metrics.requests_active.get() == 0);
    assert_eq!(status(&gateway.get("/chat")), 404);
}

#[test]
pub(super) fn a_websocket_passes_over_a_stream_of_http2() {
    let gateway = gateway_to(echo_server(), ListenerOptions::default());
    block_on(async {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let connect = |protocol: &'static str| {
            let mut request = Request::connect("http://a.example/chat").version(Version::HTTP_2);
            request = request.header("sec-websocket-version", "13");
            request.extension(hyper::ext::Protocol::from_static(protocol)).body(Empty::<&[u8]>::new()).unwrap()
        };
        // The server's settings have to be there before CONNECT may carry a protocol.
        let plain = Request::get("http://a.example/x").version(Version::HTTP_2).body(Empty::new()).unwrap();
        assert_ne!(sender.send_request(plain).await.unwrap().status(), 101);
        assert_eq!(sender.send_request(connect("other")).await.unwrap().status(), 501);
        let mut answer = sender.send_request(connect("websocket")).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("sec-websocket-accept")), (200, None));
        let upgraded = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
        converse(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config())).await).await;
    });
    wait_for("the end of all exchanges", || gateway.metrics.requests_active.get() == 0);
}

#[test]
pub(super) fn a_tunnel_opens_only_after_the_right_101() {
    let right = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let table = [
        // Taken up: the client is told so, and bytes pass.
        (right.clone(), 101),
        // A refusal is an answer as any other.
        (OK.to_owned(), 200),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(), 403),
        // Another key's answer, another protocol, none at all.
        (right.replace("s3p", "S3P"), 502),
        (right.replace("Upgrade: websocket", "Upgrade: other"), 502),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), 502),
    ];
    for (answer, expected) in table {
        let backend = Backend::answering(&answer);
        let gateway = Gateway::to(&backend);
        let mut client = gateway.connect();
        client.send(HANDSHAKE);
        let told = client.until("\r\n\r\n");
        assert_eq!(status(&told), expected, "{answer}: {told}");
        let seen = backend.seen().remove(0).bytes;
        assert_eq!((field(&seen, "upgrade"), field(&seen, "connection")), (Some("websocket"), Some("upgrade")), "{seen}");
        if expected == 101 {
            assert_eq!(field(&told, "sec-websocket-accept"), Some(ACCEPT), "{told}");
            assert_eq!(field(&told, "connection"), Some("upgrade"), "{told}");
        }
    }
}

/// Extended CONNECT to a WebSocket (RFC 8441 4), with these fields after its own.
fn extended_connect(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.example"),
        ("sec-websocket-version", "13"),
    ];
    head(stream, false, &[&own, more].concat())
}

#[test]
fn a_websocket_of_another_version_is_told_which_is_known() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let answer = gateway.ask(&HANDSHAKE.replace("Version: 13", "Version: 8"));
    assert_eq!((status(&answer), field(&answer, "sec-websocket-version")), (400, Some("13")));
    assert_eq!(backend.seen(), []);
}

#[test]
fn connect_is_not_told_of_a_tunnel_that_the_backend_did_not_open() {
    let table = [
        (OK, 502),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", 502),
        ("HTTP/1.1 204 No Content\r\n\r\n", 502),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", 500),
    ];
    for (answer, expected) in table {
        let backend = Backend::with(move |_, _, stream| stream.write_all(answer.as_bytes()).is_ok() && !answer.contains("until"));
        let gateway = Gateway::to(&backend);
        let mut wire = Wire::open(gateway.address);
        wire.send(&extended_connect(1, &[]));
        assert_eq!(wire.outcome(1), Outcome::Status(expected), "{answer}");
        let failed = gateway.metrics.proxy_errors.with_label_values(&["http_upgrade_failed"]).get();
        assert_eq!(failed, u64::from(expected == 502), "{answer}");
    }
}

#[test]
pub(super) fn bytes_that_came_before_the_101_reach_nobody() {
    let (told, gets) = std::sync::mpsc::channel();
    let backend = Backend::raw(move |mut stream| {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while !bytes.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..count]);
        }
        // Time for the early bytes to arrive.
        std::thread::sleep(Duration::from_millis(100));
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
        told.send(String::from_utf8_lossy(&rest).into_owned()).unwrap();
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send(&format!("{HANDSHAKE}GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    assert_eq!(status(&client.answer()), 400);
    assert!(client.is_closed());
    assert_eq!(gets.recv_timeout(Duration::from_secs(10)).unwrap(), "");
}

#[test]
pub(super) fn other_protocols_pass_and_end_with_either_side() {
    let backend = Backend::raw(|mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: custom/1\r\n\r\n").unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
    });
    let gateway = Gateway::to(&backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: custom/1\r\n\r\n");
    assert_eq!(status(&client.until("\r\n\r\n")), 101);
    client.send("ping");
    assert_eq!(client.until("ping"), "ping");
    assert!(client.is_closed());
    // The client may say more, until it ends its side too.
    drop(client);
    wait_for("the end of the exchange", || gateway.metrics.requests_active.get() == 0);
}

#[test]
pub(super) fn a_silent_tunnel_ends() {
    let options = ListenerOptions { stream_idle_timeout: Duration::from_millis(300), ..ListenerOptions::default() };
    let gateway = gateway_to(echo_server(), options);
    let mut client = gateway.connect();
    client.send(HANDSHAKE);
    assert_eq!(status(&client.until("\r\n\r\n")), 101);
    assert!(client.is_closed());
}
