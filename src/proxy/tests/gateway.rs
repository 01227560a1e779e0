//! A gateway, its clients and its backends, for the tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::authority;
use super::secure::{self, Relay};
use super::tls_front;
use crate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, State, Timestamp, Transaction};
use crate::observe::{AccessLog, Metrics, RequestSinks};
use crate::proxy::{BoundListener, ListenerOptions, Proxy, ProxyHandle, ProxyOptions, bind};
use crate::table::Live;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a backend answers where a test does not care.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Waits for `condition`, and fails with `what` if it never holds.
pub(super) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Puts documents into a State as one transaction.
pub(super) fn put(state: &mut State, documents: &[(Kind, &str, Value)]) {
    let operations = documents.iter().map(|(kind, name, spec)| Operation::Put {
        key: ResourceKey::new(*kind, Name::new(name).unwrap()),
        spec: Bytes::from(spec.to_string()),
    });
    let transaction = Transaction { operations: operations.collect(), ..Transaction::default() };
    let body = CommandBody::Transaction(transaction);
    let before = state.revision();
    state.apply(&Command { proposed_at: Timestamp(1), actor: "test".into(), body });
    assert!(state.revision() > before, "the documents changed nothing");
}

/// A service with these endpoints.
pub(super) fn service(addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"address": address.to_string()})).collect();
    json!({"endpoints": endpoints})
}

/// A route with one rule that sends everything to `service`.
pub(super) fn route_to(service: &str) -> Value {
    json!({"rules": [{"backendRefs": [{"name": service}]}]})
}

pub(super) struct Gateway {
    pub(super) state: State,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Metrics,
    pub(super) address: SocketAddr,
    pub(super) handle: Option<ProxyHandle>,
    /// Speaks TLS for clients that do not, where the test runs over TLS.
    _relay: Option<Relay>,
}

impl Gateway {
    pub(super) fn start(options: ListenerOptions, documents: &[(Kind, &str, Value)]) -> Gateway {
        Gateway::logging(options, documents, None)
    }

    /// Several listeners of one address.
    pub(super) fn shared(first: ListenerOptions, others: Vec<ListenerOptions>, documents: &[(Kind, &str, Value)]) -> Gateway {
        let mut bound = bind(first, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
        others.into_iter().for_each(|options| bound.share(options));
        Gateway::serving(bound, documents, RequestSinks::default())
    }

    pub(super) fn logging(options: ListenerOptions, documents: &[(Kind, &str, Value)], access_log: Option<AccessLog>) -> Gateway {
        Gateway::telling(options, documents, RequestSinks { access_log, traces: None })
    }

    pub(super) fn telling(options: ListenerOptions, documents: &[(Kind, &str, Value)], sinks: RequestSinks) -> Gateway {
        Gateway::serving(bind(options, "127.0.0.1:0".parse().unwrap(), 1).unwrap(), documents, sinks)
    }

    /// By as many workers as it was bound for.
    pub(super) fn serving(mut bound: BoundListener, documents: &[(Kind, &str, Value)], sinks: RequestSinks) -> Gateway {
        let workers = bound.sockets.len();
        let mut documents = documents.to_vec();
        let relay = secure::is_over_tls().then(|| {
            secure::take_over(&mut bound);
            documents.push((
                Kind::Certificate,
                "over-tls",
                authority::document("over-tls", &secure::issue(&["a.example"]), true),
            ));
            Relay::to(bound.address())
        });
        let address = relay.as_ref().map_or(bound.address(), |relay| relay.address);
        let (live, metrics) = (Arc::new(Live::with_keyring(authority::keyring())), Metrics::new());
        let options = ProxyOptions { listeners: vec![bound], live: Arc::clone(&live), metrics: metrics.clone(), sinks, workers };
        let handle = Some(Proxy::start(options).unwrap());
        let mut gateway = Gateway { state: State::default(), live, metrics, address, handle, _relay: relay };
        if !documents.is_empty() {
            gateway.put(&documents);
        }
        gateway
    }

    /// With one route for everything to `backend`.
    pub(super) fn to(backend: &Backend) -> Gateway {
        Gateway::with(ListenerOptions::default(), backend)
    }

    pub(super) fn with(options: ListenerOptions, backend: &Backend) -> Gateway {
        let documents = [(Kind::Service, "s", service(&[backend.address])), (Kind::Route, "r", route_to("s"))];
        Gateway::start(options, &documents)
    }

    pub(super) fn put(&mut self, documents: &[(Kind, &str, Value)]) {
        put(&mut self.state, &tls_front::secured(documents));
        let snapshot = self.live.load().rebuilt(&self.state);
        assert_eq!(snapshot.not_compiled().collect::<Vec<_>>(), []);
        self.live.store(Arc::new(snapshot));
    }

    pub(super) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// Sends `request` on a connection of its own and gives all of the answer.
    pub(super) fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// A GET of `target` at host `a.example`.
    pub(super) fn get(&self, target: &str) -> String {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
    }
}

/// A raw connection to the gateway.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn send(&mut self, bytes: &str) {
        // A gateway that has refused already may have closed: then the answer tells.
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// One answer by its framing; what came so far, if the connection ends.
    pub(super) fn answer(&mut self) -> String {
        read_message(&mut self.stream, &mut self.buffer).0
    }

    /// Reads until `text` came.
    pub(super) fn until(&mut self, text: &str) -> String {
        read_until(&mut self.stream, &mut self.buffer, text)
    }

    /// Whether the other side closes, with nothing more.
    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0)) || self.stream.take_error().is_ok_and(|e| e.is_some())
    }
}

/// Reads until `text` stands in what came; gives everything up to and with it.
pub(super) fn read_until(stream: &mut impl Read, buffer: &mut Vec<u8>, text: &str) -> String {
    let mut chunk = [0; 4096];
    loop {
        let end = buffer.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(end) = end {
            return String::from_utf8(buffer.drain(..end + text.len()).collect()).unwrap();
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            _ => return String::from_utf8(std::mem::take(buffer)).unwrap(),
        }
    }
}

/// One message as it stands on the wire, and whether it came to its end.
pub(super) fn read_message(stream: &mut impl Read, buffer: &mut Vec<u8>) -> (String, bool) {
    let head = read_until(stream, buffer, "\r\n\r\n");
    let lower = head.to_ascii_lowercase();
    if !head.ends_with("\r\n\r\n") {
        return (head, false);
    }
    if lower.contains("transfer-encoding: chunked") {
        let body = match buffer.starts_with(b"0\r\n") {
            true => read_until(stream, buffer, "\r\n\r\n"),
            false => read_until(stream, buffer, "\r\n0\r\n") + &read_until(stream, buffer, "\r\n"),
        };
        let is_whole = body.starts_with("0\r\n") || body.contains("\r\n0\r\n");
        return (head + &body, is_whole);
    }
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok()).unwrap_or(0);
    let mut chunk = [0; 4096];
    while buffer.len() < length {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    let is_whole = buffer.len() >= length;
    let body: Vec<u8> = buffer.drain(..length.min(buffer.len())).collect();
    (head + &String::from_utf8_lossy(&body), is_whole)
}

/// What a backend saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which of its connections, from 0.
    pub(super) connection: usize,
    /// The exact bytes.
    pub(super) bytes: String,
    /// Whether the message came to its end.
    pub(super) is_whole: bool,
}

/// A backend on raw sockets.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    /// Answers every request with the same bytes, over connections that stay open.
    pub(super) fn answering(answer: &str) -> Backend {
        let answer = answer.to_owned();
        Backend::with(move |_, _, stream| stream.write_all(answer.as_bytes()).is_ok())
    }

    /// `respond` gets the connection's number, the request, and the socket; the connection closes where it gives false.
    pub(super) fn with(respond: impl Fn(usize, &Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Backend {
        let (seen, sink) = shared();
        let respond = Arc::new(respond);
        let (address, connections) = listen(move |connection, mut stream| {
            let mut buffer = Vec::new();
            loop {
                let (bytes, is_whole) = read_message(&mut stream, &mut buffer);
                if bytes.is_empty() {
                    return;
                }
                let request = Seen { connection, bytes, is_whole };
                sink.lock().unwrap().push(request.clone());
                if !is_whole || !respond(connection, &request, &mut stream) {
                    return;
                }
            }
        });
        Backend { address, seen, connections }
    }

    /// Reads a head, asks for the body of three bytes that follows it, and answers once it is there. A byte that comes unasked is a failure.
    /// Tells what it has, in order.
    pub(super) fn asking(told: Sender<&'static str>) -> Backend {
        Backend::raw(move |mut stream| {
            let head = read_until(&mut stream, &mut Vec::new(), "\r\n\r\n");
            assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
            told.send("backend has the head").unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(stream.read(&mut [0; 1]).is_err(), "a byte of the body came unasked");
            stream.set_read_timeout(None).unwrap();
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let mut body = [0; 3];
            stream.read_exact(&mut body).unwrap();
            assert_eq!(&body, b"abc");
            told.send("backend has the body").unwrap();
            stream.write_all(OK.as_bytes()).unwrap();
        })
    }

    /// Hands each accepted connection to `serve` as it is.
    pub(super) fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
        let (address, connections) = listen(move |_, stream| serve(stream));
        Backend { address, seen: shared().0, connections }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

type Sink = Arc<Mutex<Vec<Seen>>>;

fn shared() -> (Sink, Sink) {
    let sink = Sink::default();
    (Arc::clone(&sink), sink)
}

fn listen(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, serve) = (Arc::clone(&connections), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (serve, index) = (Arc::clone(&serve), count.fetch_add(1, Ordering::SeqCst));
            std::thread::spawn(move || serve(index, stream));
        }
    });
    (address, connections)
}

/// The status of a raw answer.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The first value of a field of a raw message.
pub(super) fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}
