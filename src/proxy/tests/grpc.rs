//! What gRPC clients are told.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use crate::model::Kind::{GrpcRoute, Route, Service};
use crate::observe::{AccessLog, Metrics};
use crate::proxy::ListenerOptions;

fn call(gateway: &Gateway, host: &str, path: &str, content_type: &str) -> String {
    let fields = format!("Host: {host}\r\nContent-Type: {content_type}\r\nContent-Length: 0\r\n");
    gateway.ask(&format!("POST {path} HTTP/1.1\r\n{fields}\r\n"))
}

/// Code and message of an answer without a body, whose status is 200.
fn outcome(answer: &str) -> (&str, &str) {
    assert_eq!((status(answer), field(answer, "content-type")), (200, Some("application/grpc")), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "a body in {answer}");
    assert!(field(answer, "proxy-status").is_some() && field(answer, "x-request-id").is_some(), "{answer}");
    (field(answer, "grpc-status").unwrap(), field(answer, "grpc-message").unwrap())
}

fn grpc_route(host: &str, service: &str, backends: &Value) -> Value {
    json!({"hostnames": [host], "rules": [{"matches": [{"method": {"service": service}}], "backendRefs": backends}]})
}

#[test]
fn a_grpc_route_is_answered_with_codes_of_grpc() {
    let backend = Backend::answering(OK);
    let to = |name: &str| json!([{"name": name}]);
    let documents = [
        (Service, "http", service(&[backend.address])),
        (GrpcRoute, "to-http", grpc_route("a.example", "a.Http", &to("http"))),
        (GrpcRoute, "dangling", grpc_route("a.example", "a.Missing", &to("missing"))),
        (GrpcRoute, "bare", grpc_route("a.example", "a.Bare", &json!([]))),
        (Route, "web", json!({"hostnames": ["b.example"], "rules": [{"backendRefs": [{"name": "http"}]}]})),
    ];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let table = [
        ("/a.Http/M", "14", "service http speaks HTTP/1.1, which carries no gRPC"),
        ("/a.Missing/M", "14", "service missing does not exist"),
        ("/a.Bare/M", "14", "route bare: the rule has no backends"),
        ("/a.Else/M", "12", "no route matches the request"),
        ("/", "12", "no route matches the request"),
    ];
    for (path, code, message) in table {
        for content_type in ["application/grpc", "application/grpc+proto"] {
            let answer = call(&gateway, "a.example", path, content_type);
            assert_eq!(outcome(&answer), (code, message), "{path}");
        }
    }
    assert_eq!(backend.seen().len(), 0, "a call reached a backend that cannot speak gRPC");

    // A request that is none of gRPC is no concern of these routes, and is told in HTTP's form.
    for content_type in ["application/json", "application/grpc-web"] {
        let answer = call(&gateway, "a.example", "/a.Http/M", content_type);
        assert_eq!((status(&answer), field(&answer, "grpc-status")), (404, None), "{answer}");
    }
    // One of gRPC is told in gRPC's form wherever nobody has the host, and goes where only HTTP routes have it.
    assert_eq!(outcome(&call(&gateway, "c.example", "/a.Http/M", "application/grpc")), ("12", "no route matches the request"));
    assert_eq!(status(&call(&gateway, "b.example", "/a.Http/M", "application/grpc")), 200);
    assert_eq!(backend.seen().len(), 1);
    // And what was hardly a request.
    let answer = gateway.ask("POST /a.Http/M HTTP/1.1\r\nHost: a.example\r\nHost: b\r\nContent-Type: application/grpc\r\n\r\n");
    assert_eq!((status(&answer), field(&answer, "grpc-status")), (400, None), "{answer}");
}

#[test]
fn routes_of_one_name_are_told_apart_by_kind() {
    let backend = Backend::answering(OK);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let documents = [
        (Service, "s", service(&[backend.address])),
        (GrpcRoute, "same", grpc_route("a.example", "a.B", &json!([{"name": "s"}]))),
        (Route, "same", json!({"hostnames": ["b.example"], "rules": [{"backendRefs": [{"name": "s"}]}]})),
    ];
    let gateway = Gateway::logging(ListenerOptions::default(), &documents, Some(log));
    for host in ["a.example", "b.example", "c.example"] {
        call(&gateway, host, "/a.B/M", "application/grpc");
    }
    let text = gateway.metrics.render();
    for (kind, route, code) in [("GRPCRoute", "same", 200), ("Route", "same", 200), ("", "", 200)] {
        let series =
            format!("raftgate_requests_total{{code=\"{code}\",kind=\"{kind}\",method=\"POST\",route=\"{route}\",service=");
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with(&series)).collect();
        assert!(matches!(found[..], [line] if line.ends_with(" 1")), "{kind}: {text}");
    }
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_for("the lines", || read().lines().count() == 3 && read().ends_with('\n'));
    let lines = read();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // What a gRPC method was is in the path: the template behind it is not the operator's.
    let told: Vec<Value> = lines.map(|line| json!([line["kind"], line["route"], line["captures"]])).collect();
    assert_eq!(told, [json!(["GRPCRoute", "same", null]), json!(["Route", "same", null]), json!(["", "", null])]);
}

#[test]
fn a_call_that_an_http_route_answers_is_told_in_grpc_too() {
    let slow = Backend::with(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(2));
        false
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let timed = json!({"hostnames": ["slow.example"],
        "rules": [{"backendRefs": [{"name": "slow"}], "timeouts": {"backendRequest": "200ms"}}]});
    let mut none = route_to("none");
    none["hostnames"] = json!(["none.example"]);
    let mut refused = route_to("refused");
    refused["hostnames"] = json!(["refused.example"]);
    let documents = [
        (Service, "slow", service(&[slow.address])),
        (Service, "none", json!({"endpoints": []})),
        (Service, "refused", service(&[nobody])),
        (Route, "slow", timed),
        (Route, "none", none),
        (Route, "refused", refused),
    ];
    let options = ListenerOptions { body_bytes_max: Some(10), ..ListenerOptions::default() };
    let gateway = Gateway::start(options, &documents);
    let table = [
        ("slow.example", "4", "service slow did not answer in time"),
        ("none.example", "14", "service none has no endpoint"),
        ("refused.example", "14", "service refused: the connection was refused"),
    ];
    for (host, code, message) in table {
        let answer = call(&gateway, host, "/s/M", "application/grpc");
        assert_eq!(outcome(&answer), (code, message), "{host}");
        let answer = call(&gateway, host, "/s/M", "application/json");
        assert!(status(&answer) >= 500 && field(&answer, "grpc-status").is_none(), "{host}: {answer}");
    }
    let large =
        "POST /s/M HTTP/1.1\r\nHost: none.example\r\nContent-Type: application/grpc\r\nContent-Length: 11\r\n\r\n12345678901";
    let answer = gateway.ask(large);
    assert_eq!(outcome(&answer).0, "8");
    assert_eq!(field(&answer, "connection"), Some("close"));
}
