//! What a service shows of the gateway to its endpoints.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::authority::{Authority, document};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use super::http2::Echo;
use super::tls_front::{Front, NAME, Terms};
use crate::model::Kind::{Certificate, Route, Service};
use crate::proxy::ListenerOptions;

const HTTP1: &[&str] = &["http/1.1"];

/// A service before `front` that shows the certificate `gateway`.
fn showing(front: &Front, protocol: &str, authority: &Authority) -> Value {
    let tls = json!({"hostname": NAME, "caCertificates": authority.pem(), "clientCertificate": "gateway"});
    front.service_with(protocol, tls)
}

#[test]
fn a_certificate_is_shown_where_it_is_demanded() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let (issued, shown, other) =
        (authority.issue_as(NAME, |_| ()), authority.issue_as(NAME, |_| ()), Authority::another().issue_as(NAME, |_| ()));
    for versions in [[&TLS12], [&TLS13]] {
        let terms = Terms { clients: Some(&authority), versions: &versions, ..Terms::new(&issued, HTTP1) };
        let front = Front::before(backend.address, &terms);
        let documents = |certificate: Value| {
            let spec = showing(&front, "https", &authority);
            [(Service, "s", spec), (Route, "r", route_to("s")), (Certificate, "gateway", certificate)]
        };
        let gateway = Gateway::start(ListenerOptions::default(), &documents(document("gateway", &shown, false)));
        for _ in 0..2 {
            let answer = gateway.get("/");
            assert_eq!(status(&answer), 200, "{versions:?}: {answer}");
        }
        assert_eq!(front.noted.last_client(), (Some(NAME.to_owned()), Some(shown.certificate.clone())));
        assert_eq!(front.noted.counts(), (1, 0, 0));
        // That of a CA which the endpoint does not trust.
        let gateway = Gateway::start(ListenerOptions::default(), &documents(document("gateway", &other, false)));
        let answer = gateway.get("/");
        let told = field(&answer, "proxy-status").unwrap_or_default();
        assert!(status(&answer) == 502 && told.contains("error=tls_alert_received"), "{versions:?}: {answer}");
    }
}

#[test]
fn a_changed_certificate_drains_the_connections_of_before() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let backend = Backend::with(move |_, request, stream| {
        if request.bytes.starts_with("GET /slow ") {
            released.lock().unwrap().recv().unwrap();
        }
        std::io::Write::write_all(stream, OK.as_bytes()).is_ok()
    });
    let authority = Authority::another();
    let (issued, first, second) =
        (authority.issue_as(NAME, |_| ()), authority.issue_as(NAME, |_| ()), authority.issue_as(NAME, |_| ()));
    let front = Front::before(backend.address, &Terms { clients: Some(&authority), ..Terms::new(&issued, HTTP1) });
    let documents = [
        (Service, "s", showing(&front, "https", &authority)),
        (Route, "r", route_to("s")),
        (Certificate, "gateway", document("gateway", &first, false)),
    ];
    let mut gateway = Gateway::start(ListenerOptions::default(), &documents);
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the slow request", || backend.seen().len() == 1);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.last_client().1.as_ref(), Some(&first.certificate));

    gateway.put(&[(Certificate, "gateway", document("gateway", &second, false))]);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.last_client().1.as_ref(), Some(&second.certificate));
    // Two with the first certificate, of which the second could resume; none with the second could.
    assert_eq!(front.noted.counts(), (3, 1, 0));
    wait_for("the end of the idle connection", || front.noted.open.load(Ordering::SeqCst) == 2);
    release.send(()).unwrap();
    assert!(slow.answer().ends_with("ok"));
    wait_for("the end of the busy connection", || front.noted.open.load(Ordering::SeqCst) == 1);

    // Another certificate is nothing to this service.
    gateway.put(&[(Certificate, "other", document("other", &first, false))]);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.counts().0, 3);
}

#[test]
fn streams_end_over_the_connection_that_they_began_on() {
    let (authority, backend) = (Authority::another(), Echo::start());
    let (issued, certificates) =
        (authority.issue_as(NAME, |_| ()), [authority.issue_as(NAME, |_| ()), authority.issue_as(NAME, |_| ())]);
    let front = Front::before(backend.address, &Terms { clients: Some(&authority), ..Terms::new(&issued, &["h2"]) });
    let documents = [
        (Service, "s", showing(&front, "h2", &authority)),
        (Route, "r", route_to("s")),
        (Certificate, "gateway", document("gateway", &certificates[0], false)),
    ];
    let mut gateway = Gateway::start(ListenerOptions::default(), &documents);
    let open = || front.noted.open.load(Ordering::SeqCst);
    let mut slow = gateway.connect();
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    wait_for("the slow request's connection", || open() == 1);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(front.noted.counts(), (1, 0, 0), "streams share it");

    gateway.put(&[(Certificate, "gateway", document("gateway", &certificates[1], false))]);
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!((front.noted.counts(), open()), ((2, 0, 0), 2));
    assert_eq!(front.noted.last_client().1.as_ref(), Some(&certificates[1].certificate));
    slow.send("llo");
    assert!(slow.answer().contains("hello"));
    wait_for("the end of the first connection", || open() == 1);

    gateway.put(&[(Certificate, "gateway", document("gateway", &certificates[0], false))]);
    assert_eq!(status(&gateway.get("/")), 200);
    wait_for("the end of the second connection, which is idle", || open() == 1);
    assert_eq!(front.noted.counts().0, 3);
}

#[test]
fn without_its_certificate_a_service_gets_no_request() {
    let (authority, backend) = (Authority::another(), Backend::answering(OK));
    let front = Front::before(backend.address, &Terms::new(&authority.issue_as(NAME, |_| ()), HTTP1));
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s"}}});
    let mirrored = json!({
        "hostnames": ["mirrored.example"], "rules": [{"filters": [mirror], "backendRefs": [{"name": "plain"}]}]
    });
    let documents = [
        (Service, "s", showing(&front, "https", &authority)),
        (Service, "plain", service(&[Backend::answering(OK).address])),
        (Route, "r", route_to("s")),
        (Route, "mirrored", mirrored),
    ];
    let mut gateway = Gateway::start(ListenerOptions::default(), &documents);
    let answer = gateway.get("/");
    let told = field(&answer, "proxy-status").unwrap_or_default();
    assert!(status(&answer) == 500 && told.contains("error=proxy_configuration_error"), "{answer}");
    assert!(told.contains("service s: its client certificate gateway does not exist"), "{answer}");
    let call = "POST /t.Echo/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let answer = gateway.ask(call);
    assert_eq!(field(&answer, "grpc-status"), Some("14"), "{answer}");
    assert_eq!(status(&gateway.ask("GET / HTTP/1.1\r\nHost: mirrored.example\r\n\r\n")), 200);
    assert_eq!(gateway.metrics.mirrors.with_label_values(&["s", "no_certificate"]).get(), 1);
    assert_eq!((front.noted.counts(), backend.seen()), ((0, 0, 0), vec![]));

    gateway.put(&[(Certificate, "gateway", document("gateway", &authority.issue_as(NAME, |_| ()), false))]);
    assert_eq!(status(&gateway.get("/")), 200);
}
