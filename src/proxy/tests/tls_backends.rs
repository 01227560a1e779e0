//! Services over TLS: who is trusted, what is said where nobody is, and what a change of it does to connections.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::authority::{Authority, Issued};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use super::tls_front::{Front, NAME, Terms};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

const HTTP1: &[&str] = &["http/1.1"];
const OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn gateway(spec: Value) -> Gateway {
    Gateway::start(ListenerOptions::default(), &[(Service, "s", spec), (Route, "r", route_to("s"))])
}

/// The type of the error that the gateway tells, with its detail.
fn error(answer: &str) -> (&str, &str) {
    let told = field(answer, "proxy-status").unwrap_or_default();
    let (kind, details) = told.split_once("; details=").unwrap_or((told, ""));
    (kind.trim_start_matches("raftgate; error="), details)
}

#[test]
fn requests_go_to_a_verified_endpoint_over_kept_connections() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let front = Front::before(backend.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let gateway = gateway(front.service("https", &authority));
    for _ in 0..3 {
        let answer = gateway.ask("POST /a?b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello");
        assert!(status(&answer) == 200 && answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(front.noted.counts(), (1, 0, 0));
    assert_eq!(front.noted.last_client(), (Some(NAME.to_owned()), None));
    let seen = &backend.seen()[2].bytes;
    assert!(seen.starts_with("POST /a?b HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert_eq!((field(seen, "host"), field(seen, "x-forwarded-proto")), (Some("a.example"), Some("http")), "{seen}");
}

/// One way to be no endpoint of a service, and what is told of it.
struct Refusal {
    /// What is wrong.
    what: &'static str,
    issuer: fn(&Authority, &Authority) -> Issued,
    terms: fn(&mut Terms<'_>),
    protocol: &'static str,
    tls: Value,
    error: &'static str,
    detail: &'static str,
}

impl Refusal {
    fn of(what: &'static str, error: &'static str, detail: &'static str) -> Refusal {
        let issuer = |authority: &Authority, _: &Authority| authority.issue_as(NAME, |_| ());
        Refusal { what, issuer, terms: |_| (), protocol: "https", tls: json!({}), error, detail }
    }
}

#[test]
fn what_cannot_be_trusted_gets_no_request() {
    const CERTIFICATE: &str = "tls_certificate_error";
    let table = [
        Refusal {
            issuer: |authority, _| authority.issue_as("other.internal", |_| ()),
            ..Refusal::of("another name", CERTIFICATE, "is not for the name")
        },
        Refusal {
            issuer: |_, other| other.issue_as(NAME, |_| ()),
            ..Refusal::of("another CA", CERTIFICATE, "is of no CA that the service trusts")
        },
        Refusal {
            issuer: |authority, _| authority.issue_as(NAME, |params| params.not_after = date_time_ymd(2020, 1, 1)),
            ..Refusal::of("an old certificate", CERTIFICATE, "has expired")
        },
        Refusal {
            issuer: |authority, _| authority.issue_as(NAME, |params| params.not_before = date_time_ymd(3000, 1, 1)),
            ..Refusal::of("a certificate of the future", CERTIFICATE, "is not valid yet")
        },
        Refusal {
            issuer: |authority, _| {
                authority.issue_as(NAME, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
            },
            ..Refusal::of("a client's certificate", CERTIFICATE, "is not for servers")
        },
        Refusal {
            terms: |terms| terms.versions = &OLD,
            tls: json!({"minVersion": "1.3"}),
            ..Refusal::of("a version too old", "tls_alert_received", "alert 70")
        },
        Refusal {
            terms: |terms| terms.alpn = &["h2"],
            ..Refusal::of("another protocol", "tls_alert_received", "does not speak the service's protocol")
        },
        Refusal {
            protocol: "h2",
            ..Refusal::of("another protocol than HTTP/2", "tls_alert_received", "does not speak the service's protocol")
        },
        Refusal {
            protocol: "h2",
            terms: |terms| terms.alpn = &[],
            ..Refusal::of("no word of HTTP/2", "tls_protocol_error", "did not agree on HTTP/2 (ALPN h2)")
        },
    ];
    let (authority, other, backend) = (Authority::another(), Authority::another(), Backend::answering(OK));
    for refusal in table {
        let issued = (refusal.issuer)(&authority, &other);
        let mut terms = Terms::new(&issued, HTTP1);
        (refusal.terms)(&mut terms);
        let mut tls = json!({"hostname": NAME, "caCertificates": authority.pem()});
        tls.as_object_mut().unwrap().extend(refusal.tls.as_object().unwrap().clone());
        let front = Front::before(backend.address, &terms);
        let answer = gateway(front.service_with(refusal.protocol, tls)).get("/");
        let (kind, detail) = error(&answer);
        assert_eq!((status(&answer), kind), (502, refusal.error), "{}: {answer}", refusal.what);
        assert!(detail.contains(refusal.detail), "{}: {detail}", refusal.what);
    }
    assert_eq!(backend.seen(), []);
}

#[test]
fn a_client_certificate_that_is_demanded_and_missing_is_named() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let issued = authority.issue_as(NAME, |_| ());
    for (protocol, alpn) in [("https", HTTP1), ("h2", &["h2"])] {
        for versions in [[&TLS12], [&TLS13]] {
            let terms = Terms { clients: Some(&authority), versions: &versions, ..Terms::new(&issued, alpn) };
            let front = Front::before(backend.address, &terms);
            let answer = gateway(front.service(protocol, &authority)).get("/");
            assert_eq!((status(&answer), error(&answer).0), (502, "tls_alert_received"), "{protocol} {versions:?}: {answer}");
        }
    }
    assert_eq!(backend.seen(), []);
}

#[test]
fn endpoints_that_speak_no_tls_are_told_apart() {
    let authority = Authority::another();
    let at = |address: SocketAddr, timeout: &str| {
        json!({
            "endpoints": [{"address": address.to_string()}], "protocol": "https", "connectTimeout": timeout,
            "tls": {"hostname": NAME, "caCertificates": authority.pem()},
        })
    };
    let plain = Backend::raw(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").ok();
        while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
    });
    let closing = Backend::raw(drop);
    let silent = Backend::raw(|mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {});
    let table = [
        (at(plain.address, "5s"), 502, "tls_protocol_error", "does not speak TLS"),
        (at(closing.address, "5s"), 502, "destination_unavailable", ""),
        // The time to connect is that of the handshake too.
        (at(silent.address, "200ms"), 504, "connection_timeout", "in time"),
    ];
    for (spec, code, kind, detail) in table {
        let answer = gateway(spec).get("/");
        assert_eq!((status(&answer), error(&answer).0), (code, kind), "{answer}");
        assert!(error(&answer).1.contains(detail), "{answer}");
    }
}

#[test]
fn the_name_is_the_endpoints_own_where_the_service_has_none() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let by_ip = Front::before(backend.address, &Terms::new(&authority.issue_as("127.0.0.1", |_| ()), HTTP1));
    let tls = || json!({"caCertificates": authority.pem()});
    // By address: no SNI (RFC 6066 3), and the certificate must carry it.
    assert_eq!(status(&gateway(by_ip.service_with("https", tls())).get("/")), 200);
    assert_eq!(by_ip.noted.last_client().0, None);
    let by_name = Front::before(backend.address, &Terms::new(&authority.issue_as("localhost", |_| ()), HTTP1));
    let answer = gateway(by_name.service_with("https", tls())).get("/");
    assert_eq!(error(&answer).0, "tls_certificate_error", "{answer}");
    let mut spec = by_name.service_with("https", tls());
    spec["endpoints"][0]["address"] = json!(format!("localhost:{}", by_name.address.port()));
    assert_eq!(status(&gateway(spec).get("/")), 200);
    assert_eq!(by_name.noted.last_client().0.as_deref(), Some("localhost"));
}

#[test]
fn without_cas_of_its_own_a_service_trusts_the_machines() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let front = Front::before(backend.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let answer = gateway(front.service_with("https", json!({"hostname": NAME}))).get("/");
    // The machine has other CAs than the test's, or none.
    let expected = [(502, "tls_certificate_error"), (500, "proxy_configuration_error")];
    assert!(expected.contains(&(status(&answer), error(&answer).0)), "{answer}");
    let answer = gateway(front.service_with("https", json!({"hostname": NAME, "insecureSkipVerify": true}))).get("/");
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn sessions_are_resumed() {
    let (authority, backend) = (Authority::another(), Backend::answering(CLOSING));
    let issued = authority.issue_as(NAME, |_| ());
    for versions in [[&TLS12], [&TLS13]] {
        let front = Front::before(backend.address, &Terms { versions: &versions, ..Terms::new(&issued, HTTP1) });
        let gateway = gateway(front.service("https", &authority));
        for _ in 0..3 {
            assert_eq!(status(&gateway.get("/")), 200);
            wait_for("the end of the connection", || front.noted.open.load(Ordering::SeqCst) == 0);
        }
        assert_eq!(front.noted.counts(), (3, 2, 0), "{versions:?}");
    }
}

#[test]
fn an_endpoint_without_tls_is_passed_over() {
    let (authority, other, backend) = (Authority::another(), Authority::another(), Backend::answering(OK));
    let good = Front::before(backend.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let bad = Front::before(backend.address, &Terms::new(&other.issue_as(NAME, |_| ()), HTTP1));
    let mut spec = good.service("https", &authority);
    spec["endpoints"] = json!([{"address": bad.address.to_string()}, {"address": good.address.to_string()}]);
    let gateway = gateway(spec);
    // Nothing of the request went out: it may be sent again, whatever its method.
    for _ in 0..4 {
        assert_eq!(status(&gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")), 200);
    }
    assert!(bad.noted.failed.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_not_an_error() {
    let (authority, backend) = (
        Authority::another(),
        Backend::with(|_, _, stream| {
            stream.write_all(OK.as_bytes()).unwrap();
            false
        }),
    );
    let issued = authority.issue_as(NAME, |_| ());
    for truncates in [false, true] {
        let front = Front::before(backend.address, &Terms { truncates, ..Terms::new(&issued, HTTP1) });
        let gateway = gateway(front.service("https", &authority));
        for round in 0..20 {
            let answer = gateway.get("/");
            assert_eq!(status(&answer), 200, "round {round}, cut off: {truncates}: {answer}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_does_not_pass_as_whole() {
    let endless = "HTTP/1.1 200 OK\r\n\r\nall that there is";
    let backend = Backend::with(move |_, _, stream| {
        stream.write_all(endless.as_bytes()).unwrap();
        false
    });
    let authority = Authority::another();
    let issued = authority.issue_as(NAME, |_| ());
    let answer = |truncates| {
        let front = Front::before(backend.address, &Terms { truncates, ..Terms::new(&issued, HTTP1) });
        let gateway = gateway(front.service("https", &authority));
        let answer = gateway.get("/");
        wait_for("the end of the exchange", || gateway.metrics.requests_active.get() == 0);
        answer
    };
    let whole = answer(false);
    assert!(whole.contains("all that there is") && whole.ends_with("\r\n0\r\n\r\n"), "{whole}");
    let broken = answer(true);
    assert!(status(&broken) == 200 && !broken.ends_with("\r\n0\r\n\r\n"), "{broken}");
}

#[test]
fn a_change_of_the_ca_drains_the_connections_of_before() {
    let (old, new) = (Authority::another(), Authority::another());
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let backend = Backend::with(move |_, request, stream| {
        if request.bytes.starts_with("GET /slow ") {
            released.lock().unwrap().recv().unwrap();
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let front = Front::before(backend.address, &Terms::new(&old.issue_as(NAME, |_| ()), HTTP1));
    let mut gateway = gateway(front.service("https", &old));
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the slow request", || backend.seen().len() == 1);
    // One connection is busy, and one is kept.
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!((front.noted.counts(), front.noted.open.load(Ordering::SeqCst)), ((2, 1, 0), 2));

    // Both CAs, as in a rotation: the endpoint is as good as before, and is judged again.
    gateway.put(&[(
        Service,
        "s",
        front.service_with("https", json!({"hostname": NAME, "caCertificates": old.pem() + &new.pem()})),
    )]);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.counts(), (3, 1, 0), "neither a connection nor a session of before is used");
    wait_for("the end of the idle connection", || front.noted.open.load(Ordering::SeqCst) == 2);
    release.send(()).unwrap();
    assert!(slow.answer().ends_with("ok"));
    wait_for("the end of the busy connection", || front.noted.open.load(Ordering::SeqCst) == 1);

    // A CA that does not vouch for it: no connection of before helps.
    gateway.put(&[(Service, "s", front.service("https", &new))]);
    assert_eq!(error(&gateway.get("/")).0, "tls_certificate_error");
    wait_for("the end of all connections", || front.noted.open.load(Ordering::SeqCst) == 0);
    assert_eq!(front.noted.cut_off.load(Ordering::SeqCst), 0, "each was ended with a word");

    // What does not concern TLS leaves connections alone.
    gateway.put(&[(Service, "s", front.service("https", &old))]);
    assert_eq!(status(&gateway.get("/")), 200);
    let mut other = front.service("https", &old);
    other["connectTimeout"] = json!("2s");
    gateway.put(&[(Service, "s", other)]);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.counts().0, 4);
}

#[test]
fn no_request_fails_while_settings_change() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let issued = authority.issue_as(NAME, |_| ());
    let front = Front::before(backend.address, &Terms::new(&issued, HTTP1));
    let mut gateway = gateway(front.service("https", &authority));
    let (address, done) = (gateway.address, mpsc::channel::<()>());
    let (stop, stopped) = done;
    let client = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut count = 0;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                let mut chunk = [0; 1024];
                let length = stream.read(&mut chunk).unwrap();
                assert!(length > 0, "closed after {}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&chunk[..length]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            count += 1;
        }
        count
    });
    for round in 1..=20 {
        // Another bundle each time, clear text in between.
        let spec = match round % 3 {
            0 => service(&[backend.address]),
            _ => front.service_with("https", json!({"hostname": NAME, "caCertificates": authority.pem().repeat(round + 1)})),
        };
        let seen = backend.seen().len();
        gateway.put(&[(Service, "s", spec)]);
        wait_for("requests", || backend.seen().len() > seen + 5);
    }
    stop.send(()).unwrap();
    assert!(client.join().unwrap() > 100);
}

#[test]
fn a_request_that_breaks_off_does_not_pass_as_whole() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let front = Front::before(backend.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let gateway = gateway(front.service("https", &authority));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    wait_for("the connection", || front.noted.open.load(Ordering::SeqCst) == 1);
    drop(client);
    wait_for("the end of the connection", || front.noted.open.load(Ordering::SeqCst) == 0);
    assert_eq!(front.noted.cut_off.load(Ordering::SeqCst), 1);
}

#[test]
fn copies_go_over_tls_too() {
    let (authority, backend, copies) = (Authority::another(), Backend::answering(OK), Backend::answering(OK));
    let front = Front::before(copies.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copies"}}});
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Service, "copies", front.service("https", &authority)),
        (Route, "r", json!({"rules": [{"filters": [mirror], "backendRefs": [{"name": "s"}]}]})),
    ];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    assert_eq!(status(&gateway.ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")), 200);
    wait_for("the copy", || gateway.metrics.mirrors.with_label_values(&["copies", "sent"]).get() == 1);
    assert!(copies.seen()[0].bytes.ends_with("\r\n\r\nhi") && front.noted.counts() == (1, 0, 0));
}
