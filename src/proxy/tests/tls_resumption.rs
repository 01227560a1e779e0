//! Sessions that are resumed, and what they do not get around.

use std::fmt;
use std::sync::Arc;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup};

use super::authority::{Authority, document};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use super::secure::{self, Client, HTTP1, client_with, issue};
use super::tls_clients::{asking, gateway};
use crate::config::{ClientAuth, ListenerTlsConfig};
use crate::model::Kind::{Certificate, Route, Service};
use crate::proxy::ListenerOptions;

/// How a handshake went, and the answer to a request after it: nothing, where the server refused.
fn ask(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> (Option<HandshakeKind>, String) {
    let Ok(mut client) = Client::open(gateway.connect().stream, config, name) else { return (None, String::new()) };
    let answer = client.get(name);
    (client.stream.conn.handshake_kind(), answer)
}

#[test]
fn a_second_handshake_resumes() {
    let authority = Authority::new("clients");
    let backend = Backend::answering(OK);
    let gateway = gateway(asking(&authority, ClientAuth::Require), &backend);
    let identity = authority.client("web", "spiffe://x/web", 86_400);
    for has_tls13 in [true, false] {
        let config = Arc::new(client_with(&[HTTP1], Some(&identity), has_tls13));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (kind, answer) = ask(&gateway, &config, "a.example");
            assert_eq!((kind, status(&answer)), (Some(expected), 200), "TLS 1.3: {has_tls13}");
        }
    }
    // Who the client is stays known.
    let seen = backend.seen();
    let told = |index: usize| field(&seen[index].bytes, "x-forwarded-client-cert");
    assert!(told(0).is_some() && (1..6).all(|index| told(index) == told(0)), "{seen:?}");
    assert_eq!(gateway.metrics.tls_handshakes.with_label_values(&["resumed"]).get(), 4);
}

#[test]
fn without_tickets_every_handshake_is_whole() {
    let backend = Backend::answering(OK);
    let options = secure::listener(&ListenerTlsConfig { session_tickets: false, ..ListenerTlsConfig::default() });
    let gateway = gateway(options, &backend);
    for has_tls13 in [true, false] {
        let config = Arc::new(client_with(&[HTTP1], None, has_tls13));
        for _ in 0..3 {
            let (kind, answer) = ask(&gateway, &config, "a.example");
            assert_eq!((kind, status(&answer)), (Some(HandshakeKind::Full), 200), "TLS 1.3: {has_tls13}");
        }
    }
}

/// Shows what it got from any server to every other.
struct Careless(ClientSessionMemoryCache);

impl Careless {
    fn everybody() -> ServerName<'static> {
        ServerName::try_from("everybody.test").unwrap()
    }
}

impl fmt::Debug for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Careless")
    }
}

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(name)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Careless::everybody(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Careless::everybody())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Careless::everybody());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Careless::everybody(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Careless::everybody())
    }
}

#[test]
fn a_ticket_of_one_listener_opens_no_other() {
    let authority = Authority::new("clients");
    let backend = Backend::answering(OK);
    let open = ListenerOptions { name: "open".into(), ..secure::listener(&ListenerTlsConfig::default()) };
    let closed = ListenerOptions {
        name: "closed".into(),
        hostname: Some("closed.example".into()),
        ..asking(&authority, ClientAuth::Require)
    };
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Route, "r", route_to("s")),
        (Certificate, "a", document("a", &issue(&["open.example", "closed.example"]), true)),
    ];
    let gateway = Gateway::shared(open, vec![closed], &documents);
    for has_tls13 in [true, false] {
        let mut config = client_with(&[HTTP1], None, has_tls13);
        config.resumption = Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(32))));
        let config = Arc::new(config);
        assert_eq!(status(&ask(&gateway, &config, "open.example").1), 200);
        let (kind, answer) = ask(&gateway, &config, "closed.example");
        assert!(kind != Some(HandshakeKind::Resumed) && answer.is_empty(), "TLS 1.3: {has_tls13}: {kind:?} {answer}");
    }
    assert_eq!(backend.seen().len(), 2);
    let refused = || gateway.metrics.tls_handshake_failures.with_label_values(&["client_certificate"]).get();
    wait_for("the refusals", || refused() == 2);
}

#[test]
fn a_ticket_ends_with_the_certificate_that_it_was_given_for() {
    let authority = Authority::new("clients");
    let backend = Backend::answering(OK);
    let gateway = gateway(asking(&authority, ClientAuth::Require), &backend);
    let refused = || gateway.metrics.tls_handshake_failures.with_label_values(&["client_certificate"]).get();
    for has_tls13 in [true, false] {
        let before = refused();
        let config = Arc::new(client_with(&[HTTP1], Some(&authority.client("web", "spiffe://x/web", 5)), has_tls13));
        assert_eq!(status(&ask(&gateway, &config, "a.example").1), 200);
        let mut resumed = 0;
        wait_for("the end of the certificate", || {
            let (kind, answer) = ask(&gateway, &config, "a.example");
            resumed += usize::from(kind == Some(HandshakeKind::Resumed) && status(&answer) == 200);
            answer.is_empty()
        });
        assert!(resumed > 0, "TLS 1.3: {has_tls13}");
        wait_for("the refusal", || refused() > before);
    }
}
