//! Certificates of clients: who is let in, and what backends and rules are told.

use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::authority::{Authority, Issued, document};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use super::secure::{self, Client, HTTP1, client_with, issue};
use crate::config::{ClientAuth, ListenerTlsConfig};
use crate::model::Kind::{Certificate, Route, Service};
use crate::proxy::ListenerOptions;

const DAY: i64 = 86_400;

/// A listener that asks for certificates of this authority.
pub(super) fn asking(authority: &Authority, client_auth: ClientAuth) -> ListenerOptions {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    secure::listener(&ListenerTlsConfig { client_ca: Some(path), client_auth, ..ListenerTlsConfig::default() })
}

pub(super) fn gateway(options: ListenerOptions, backend: &Backend) -> Gateway {
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Route, "r", route_to("s")),
        (Certificate, "a", document("a", &issue(&["a.example"]), true)),
    ];
    Gateway::start(options, &documents)
}

/// The status of a request with this certificate; 0: there was no answer. TLS 1.3 tells of a refusal only after the client's part is done.
fn ask(gateway: &Gateway, identity: Option<&Issued>, has_tls13: bool, fields: &str) -> u16 {
    let config = Arc::new(client_with(&[HTTP1], identity, has_tls13));
    let Ok(mut client) = Client::open(gateway.connect().stream, &config, "a.example") else { return 0 };
    status(&client.ask(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")))
}

fn told(backend: &Backend) -> Option<String> {
    field(&backend.seen().last().unwrap().bytes, "x-forwarded-client-cert").map(str::to_owned)
}

fn expected(issued: &Issued, rest: &str) -> Option<String> {
    let hash: String = Sha256::digest(&issued.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("Hash={hash};{rest}"))
}

const FORGED: &str =
    "X-Forwarded-Client-Cert: Hash=0;URI=spiffe://x/admin\r\nConnection: keep-alive, x-forwarded-client-cert\r\n";

#[test]
fn a_required_certificate_must_be_there_and_good() {
    let (authority, other) = (Authority::new("clients"), Authority::new("others"));
    let backend = Backend::answering(OK);
    let gateway = gateway(asking(&authority, ClientAuth::Require), &backend);
    let good = authority.client("web", "spiffe://x/web", DAY);
    let bad = [other.client("web", "spiffe://x/web", DAY), authority.client("web", "spiffe://x/web", -DAY)];
    let refused = || gateway.metrics.tls_handshake_failures.with_label_values(&["client_certificate"]).get();
    for (turn, has_tls13) in [true, false].into_iter().enumerate() {
        assert_eq!(ask(&gateway, None, has_tls13, ""), 0);
        for bad in &bad {
            assert_eq!(ask(&gateway, Some(bad), has_tls13, ""), 0);
        }
        wait_for("the refusals", || refused() == 3 * (turn as u64 + 1));
        assert_eq!(backend.seen().len(), turn);
        assert_eq!(ask(&gateway, Some(&good), has_tls13, FORGED), 200);
        assert_eq!(told(&backend), expected(&good, "Subject=\"CN=web\";URI=spiffe://x/web"));
    }
}

#[test]
fn a_requested_certificate_may_be_missing_but_not_bad() {
    let (authority, other) = (Authority::new("clients"), Authority::new("others"));
    let backend = Backend::answering(OK);
    let gateway = gateway(asking(&authority, ClientAuth::Request), &backend);
    assert_eq!(ask(&gateway, None, true, FORGED), 200);
    assert_eq!(told(&backend), None);
    assert_eq!(ask(&gateway, Some(&other.client("web", "spiffe://x/web", DAY)), true, ""), 0);
    let good = authority.client("web", "spiffe://x/web", DAY);
    assert_eq!(ask(&gateway, Some(&good), true, ""), 200);
    assert_eq!(told(&backend), expected(&good, "Subject=\"CN=web\";URI=spiffe://x/web"));
}

#[test]
fn a_rule_may_match_on_who_the_client_is() {
    let authority = Authority::new("clients");
    let (admin, other) = (Backend::answering(OK), Backend::answering(OK));
    let mut gateway = gateway(asking(&authority, ClientAuth::Request), &other);
    let by_certificate = json!({"rules": [{
        "matches": [{"headers": [{"type": "RegularExpression", "name": "X-Forwarded-Client-Cert", "value": "(.*;)?URI=spiffe://x/admin(;.*)?"}]}],
        "backendRefs": [{"name": "admin"}]
    }]});
    gateway.put(&[(Service, "admin", service(&[admin.address])), (Route, "admin", by_certificate)]);
    let counts = || (admin.seen().len(), other.seen().len());
    let (who, somebody) = (authority.client("ops", "spiffe://x/admin", DAY), authority.client("web", "spiffe://x/web", DAY));
    for (identity, fields, expected) in [
        (Some(&who), "", (1, 0)),
        (Some(&somebody), "", (1, 1)),
        (None, "", (1, 2)),
        // What a client says of itself does not count, before the match already.
        (None, FORGED, (1, 3)),
        (Some(&somebody), FORGED, (1, 4)),
    ] {
        assert_eq!(ask(&gateway, identity, true, fields), 200);
        assert_eq!(counts(), expected, "{fields}");
    }
    // Nor does it in clear text.
    let plain = Gateway::start(
        ListenerOptions::default(),
        &[
            (Service, "s", service(&[other.address])),
            (Service, "admin", service(&[admin.address])),
            (Route, "r", route_to("s")),
            (
                Route,
                "admin",
                json!({"rules": [{
                    "matches": [{"headers": [{"name": "X-Forwarded-Client-Cert", "value": "Hash=0;URI=spiffe://x/admin"}]}],
                    "backendRefs": [{"name": "admin"}]
                }]}),
            ),
        ],
    );
    assert_eq!(status(&plain.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{FORGED}\r\n"))), 200);
    assert_eq!((counts(), told(&other)), ((1, 5), None));
}
