//! Listeners that change while the proxy runs, and connections that are spread over its workers.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::frames::{GOAWAY, Outcome, Wire, get};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::observe::RequestSinks;
use crate::proxy::{ListenerOptions, bind};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// `debug_headers` shows by which options a request is answered.
fn telling() -> ListenerOptions {
    ListenerOptions { debug_headers: true, ..ListenerOptions::default() }
}

fn tells(answer: &str) -> bool {
    field(answer, "raftgate-revision").is_some()
}

#[test]
pub(super) fn connections_are_spread_over_the_workers() {
    let backend = Backend::answering(OK);
    let bound = bind(ListenerOptions::default(), "127.0.0.1:0".parse().unwrap(), 4).unwrap();
    let loads = bound.loads.clone();
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", route_to("s"))];
    let gateway = Gateway::serving(bound, &documents, RequestSinks::default());
    let mut open = Vec::new();
    for number in 1..=64 {
        let mut wire = Wire::open(gateway.address);
        wire.send(&get(1, "/"));
        assert_eq!(wire.outcome(1), Outcome::Status(200));
        open.push(wire);
        let counts: Vec<usize> = (0..4).map(|worker| loads.of(worker)).collect();
        assert_eq!(counts.iter().sum::<usize>(), number);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1 + least / 8, "{counts:?}");
    }
    drop(open);
    wait_for("the end of all", || (0..4).all(|worker| loads.of(worker) == 0));
}

#[test]
fn the_bound_of_connections_is_that_of_all_workers_together() {
    let backend = Backend::answering(OK);
    let options = ListenerOptions { connections_max: 10, ..ListenerOptions::default() };
    let bound = bind(options, "127.0.0.1:0".parse().unwrap(), 4).unwrap();
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", route_to("s"))];
    let gateway = Gateway::serving(bound, &documents, RequestSinks::default());
    let connect = || {
        let mut client = gateway.connect();
        client.send(GET);
        client
    };
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut client = connect();
        assert_eq!(status(&client.answer()), 200);
        open.push(client);
    }
    // As many as there are workers, and more, wait, and each is served once there is room, whichever worker has it.
    let mut waiting: Vec<_> = (0..8).map(|_| connect()).collect();
    wait_for("one that waits", || gateway.metrics.connections_held_back.get() > 0);
    assert_eq!(gateway.metrics.downstream_connections.get(), 10);
    drop(open);
    waiting.iter_mut().for_each(|client| assert_eq!(status(&client.answer()), 200));
}

#[test]
fn new_options_are_for_new_connections_and_open_ones_end_in_peace() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::with(move |_, seen, stream| {
        if seen.bytes.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let mut gateway = Gateway::with(telling(), &backend);
    let (mut client, mut wire) = (gateway.connect(), Wire::open(gateway.address));
    client.send(GET);
    assert!(tells(&client.answer()));
    wire.send(&get(1, "/slow"));
    wait_for("the slow request upstream", || backend.seen().len() == 2);
    let address = gateway.address;
    gateway.handle.as_mut().unwrap().set(address, &ListenerOptions::default(), &[]);
    wait_for("the new options", || !tells(&gateway.get("/")));
    client.send(GET);
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "connection"), tells(&answer)), (200, Some("close"), true));
    assert!(client.is_closed());
    // GOAWAY without an error, and the stream that is under way is answered.
    let told = std::iter::from_fn(|| wire.frame()).find(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(told.number(4), 0);
    go.send(()).unwrap();
    assert_eq!(wire.outcome(1), Outcome::Status(200));
}

#[test]
fn a_tunnel_outlives_a_change_of_its_listener() {
    let backend = Backend::raw(|mut stream| {
        let mut buffer = Vec::new();
        super::gateway::read_until(&mut stream, &mut buffer, "\r\n\r\n");
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: custom/1\r\n\r\n").unwrap();
        while !super::gateway::read_until(&mut stream, &mut buffer, "?").is_empty() {
            stream.write_all(b"!").unwrap();
        }
    });
    let mut gateway = Gateway::with(telling(), &backend);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: custom/1\r\n\r\n");
    assert_eq!(status(&client.until("\r\n\r\n")), 101);
    let (address, before) = (gateway.address, gateway.metrics.requests_active.get());
    gateway.handle.as_mut().unwrap().set(address, &ListenerOptions::default(), &[]);
    // A connection after it shows that the change is there.
    wait_for("the new options", || {
        let mut other = gateway.connect();
        other.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\n\r\n");
        !tells(&other.answer())
    });
    assert_eq!(gateway.metrics.requests_active.get(), before);
    client.send("?");
    assert_eq!(client.until("!"), "!");
}

#[test]
fn a_listener_is_closed_beside_others_and_its_port_is_free_at_once() {
    let backend = Backend::answering(OK);
    let mut gateway = Gateway::to(&backend);
    let handle = gateway.handle.as_mut().unwrap();
    let second = bind(telling(), "127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = second.address();
    handle.listen(second);
    let ask = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    assert!(tells(&ask()));
    for _ in 0..3 {
        block_on(handle.close(address));
        assert!(TcpStream::connect(address).is_err());
        handle.listen(bind(telling(), address, 1).unwrap());
        assert!(tells(&ask()));
    }
    // What is not there is closed at once, and the first was served all the while.
    block_on(handle.close("127.0.0.1:1".parse().unwrap()));
    assert_eq!(status(&gateway.get("/")), 200);
}
