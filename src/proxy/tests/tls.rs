//! Listeners that speak TLS: protocols, certificates and hosts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio_rustls::TlsConnector;

use super::authority::{document, document_with};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use super::secure::{self, Client, HTTP1, HTTP2, client, client_with, credulous_client, issue, issue_for};
use crate::config::{ListenerTlsConfig, TlsVersion};
use crate::model::Kind::{Certificate, Route, Service};
use crate::proxy::{ListenerOptions, Tls};

fn defaults() -> ListenerOptions {
    secure::listener(&ListenerTlsConfig::default())
}

/// A gateway with a certificate for `a.example`, which is the default, and a route for everything to `backend`.
fn gateway(options: ListenerOptions, backend: &Backend) -> Gateway {
    let documents = [
        (Service, "s", service(&[backend.address])),
        (Route, "r", route_to("s")),
        (Certificate, "a", document("a", &issue(&["a.example"]), true)),
    ];
    Gateway::start(options, &documents)
}

/// A connection to the gateway as `name`.
fn open(gateway: &Gateway, config: ClientConfig, name: &str) -> std::io::Result<Client> {
    Client::open(gateway.connect().stream, &Arc::new(config), name)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), future).await.expect("it hangs") })
}

async fn http2(gateway: &Gateway, config: ClientConfig, name: &str) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(HTTP2));
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn https(host: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://{host}/")).version(Version::HTTP_2).body(Empty::new()).unwrap()
}

fn failures(gateway: &Gateway, reason: &str) -> u64 {
    gateway.metrics.tls_handshake_failures.with_label_values(&[reason]).get()
}

#[test]
fn alpn_chooses_the_protocol() {
    let backend = Backend::answering(OK);
    let gateway = gateway(defaults(), &backend);
    for (offered, agreed) in [(&[HTTP1][..], Some(HTTP1)), (&[], None), (&[b"http/1.0", HTTP1], Some(HTTP1))] {
        let mut client = open(&gateway, client(offered), "a.example").unwrap();
        assert_eq!(client.stream.conn.alpn_protocol(), agreed);
        assert_eq!((status(&client.get("a.example")), status(&client.get("a.example"))), (200, 200));
    }
    block_on(async {
        let mut sender = http2(&gateway, client(&[HTTP1, HTTP2]), "a.example").await;
        let answer = sender.send_request(https("a.example")).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    });
    for seen in backend.seen() {
        assert_eq!(field(&seen.bytes, "x-forwarded-proto"), Some("https"), "{seen:?}");
    }
    assert_eq!((backend.seen().len(), gateway.metrics.tls_handshakes.with_label_values(&["full"]).get()), (7, 4));
    // Nothing in common.
    assert!(open(&gateway, client(&[b"smtp"]), "a.example").is_err());
    wait_for("the failure", || failures(&gateway, "incompatible") == 1);
    let off = ListenerOptions { tls: Some(Tls::new(&ListenerTlsConfig::default(), false).unwrap()), http2: false, ..defaults() };
    let off = super::tls::gateway(off, &backend);
    let client = open(&off, client(&[HTTP2, HTTP1]), "a.example").unwrap();
    assert_eq!(client.stream.conn.alpn_protocol(), Some(HTTP1));
}

#[test]
fn targets_and_redirects_are_of_https() {
    let backend = Backend::answering(OK);
    let mut gateway = gateway(defaults(), &backend);
    let redirect = |name: &str, fields: serde_json::Value| json!({"matches": [{"path": {"value": format!("/{name}")}}], "filters": [{"type": "RequestRedirect", "requestRedirect": fields}]});
    let port = gateway.address.port();
    let rules = json!({"rules": [
        redirect("path", json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}})),
        redirect("plain", json!({"scheme": "http"})),
        redirect("secure", json!({"scheme": "https"})),
        redirect("default", json!({"port": 443})),
    ]});
    gateway.put(&[(Route, "redirects", rules)]);
    let mut client = open(&gateway, client(&[]), "a.example").unwrap();
    for (path, expected) in [
        ("path", format!("https://a.example:{port}/new")),
        ("plain", "http://a.example/plain".to_owned()),
        ("secure", "https://a.example/secure".to_owned()),
        ("default", "https://a.example/default".to_owned()),
    ] {
        let answer = client.ask(&format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        assert_eq!((status(&answer), field(&answer, "location")), (302, Some(expected.as_str())), "{answer}");
    }
    assert_eq!(status(&client.ask("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")), 200);
    assert_eq!(status(&client.ask("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")), 400);
}

#[test]
fn the_name_chooses_the_certificate() {
    let backend = Backend::answering(OK);
    let certificates = [issue(&["exact.example"]), issue(&["*.example"]), issue(&["default.test"])];
    let mut gateway = Gateway::with(defaults(), &backend);
    // Without any certificate there is nothing to shake hands with.
    let error = open(&gateway, credulous_client(&[HTTP1]), "exact.example").err().unwrap().to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
    gateway.put(&[
        (Certificate, "exact", document("exact", &certificates[0], false)),
        (Certificate, "wild", document("wild", &certificates[1], false)),
    ]);
    let shown = |gateway: &Gateway, name: &str| {
        let mut client = open(gateway, credulous_client(&[HTTP1]), name).ok()?;
        assert_eq!(status(&client.get(name)), 200);
        certificates.iter().position(|issued| issued.certificate == *client.server())
    };
    for (name, expected) in
        [("exact.example", Some(0)), ("other.example", Some(1)), ("two.labels.example", None), ("127.0.0.1", None)]
    {
        assert_eq!(shown(&gateway, name), expected, "{name}");
    }
    wait_for("the refused", || failures(&gateway, "no_certificate") == 3);
    gateway.put(&[(Certificate, "default", document("default", &certificates[2], true))]);
    for (name, expected) in [("exact.example", Some(0)), ("two.labels.example", Some(2)), ("127.0.0.1", Some(2))] {
        assert_eq!(shown(&gateway, name), expected, "{name}");
    }
}

#[test]
fn a_connection_serves_the_hosts_of_the_listener_it_was_made_to() {
    let listener = |name: &str, hostname: Option<&str>| ListenerOptions {
        name: name.into(),
        hostname: hostname.map(str::to_owned),
        ..defaults()
    };
    let all = || listener("all", None);
    let (wild, exact) = (|| listener("wild", Some("*.example.com")), || listener("exact", Some("a.example.com")));
    // The name of the handshake, "" for none, and for each host what is answered.
    type Row<'a> = (&'a str, &'a [(&'a str, u16)]);
    let three: &[Row<'_>] = &[
        ("a.example.com", &[("a.example.com", 200), ("A.example.com:443", 200), ("b.example.com", 421), ("other.test", 421)]),
        ("b.example.com", &[("b.example.com", 200), ("c.example.com", 200), ("a.example.com", 421), ("other.test", 421)]),
        ("other.test", &[("other.test", 200), ("third.test", 200), ("a.example.com", 421), ("b.example.com", 421)]),
        ("", &[("other.test", 200), ("127.0.0.1", 200), ("a.example.com", 421)]),
    ];
    let two: &[Row<'_>] = &[
        ("a.example.com", &[("a.example.com", 200), ("b.example.com", 421), ("other.test", 404)]),
        ("B.example.com", &[("b.example.com", 200), ("a.example.com", 421), ("example.com", 404)]),
        ("other.test", &[("a.example.com", 421), ("b.example.com", 421), ("other.test", 404)]),
        ("", &[("a.example.com", 421), ("other.test", 404)]),
    ];
    for (listeners, table) in [(vec![all(), wild(), exact()], three), (vec![exact(), wild()], two)] {
        let backend = Backend::answering(OK);
        let documents = [
            (Service, "s", service(&[backend.address])),
            (Route, "r", route_to("s")),
            (Certificate, "c", document("c", &issue(&["a.example.com"]), true)),
        ];
        let mut listeners = listeners.into_iter();
        let gateway = Gateway::shared(listeners.next().unwrap(), listeners.collect(), &documents);
        let mut served = 0;
        for (name, hosts) in table {
            let name = if name.is_empty() { "127.0.0.1" } else { name };
            let mut client = open(&gateway, credulous_client(&[HTTP1]), name).unwrap();
            let over_http2 = async {
                let mut sender = http2(&gateway, credulous_client(&[HTTP2]), name).await;
                for (host, expected) in *hosts {
                    let answer = sender.send_request(https(host)).await.unwrap();
                    assert_eq!(answer.status(), *expected, "{name}, {host}, over HTTP/2");
                }
            };
            block_on(over_http2);
            for (host, expected) in *hosts {
                let answer = client.get(host);
                assert_eq!(status(&answer), *expected, "{name}, {host}: {answer}");
                served += 2 * usize::from(*expected == 200);
            }
        }
        // A refusal ends no connection, and goes no further.
        assert_eq!(backend.seen().len(), served);
    }
}

#[test]
fn a_certificate_changes_under_a_thousand_connections() {
    const CONNECTIONS: usize = 1000;
    let backend = Backend::answering(OK);
    let (old, new) = (issue(&["a.example"]), issue(&["a.example"]));
    let documents = |issued| [(Certificate, "a", document("a", issued, true))];
    let mut gateway = Gateway::with(defaults(), &backend);
    gateway.put(&documents(&old));
    let config = Arc::new(client(&[HTTP1]));
    let connect = |gateway: &Gateway| Client::open(gateway.connect().stream, &config, "a.example").unwrap();
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = connect(&gateway);
            assert_eq!(status(&client.get("a.example")), 200);
            client
        })
        .collect();
    assert_eq!(clients[0].server(), &old.certificate);
    gateway.put(&documents(&new));
    // At once, for whoever comes now; even where a session could be resumed.
    let fresh = open(&gateway, client(&[HTTP1]), "a.example").unwrap();
    assert_eq!(fresh.server(), &new.certificate);
    assert_eq!(gateway.metrics.downstream_connections.get(), CONNECTIONS as i64 + 1);
    for client in &mut clients {
        assert_eq!(status(&client.get("a.example")), 200);
    }
    assert_eq!(backend.seen().len(), 2 * CONNECTIONS);
}

/// One key of RSA with 2048 bits, in PKCS#8 and in PKCS#1.
const RSA: [&str; 2] = [include_str!("rsa_pkcs8.pem"), include_str!("rsa_pkcs1.pem")];

#[test]
fn a_key_of_rsa_serves_both_versions_in_either_form() {
    let backend = Backend::answering(OK);
    let mut gateway = gateway(defaults(), &backend);
    for key in RSA {
        let issued = issue_for(RSA[0], "a.example");
        gateway.put(&[(Certificate, "a", document_with("a", &issued, key, true))]);
        for config in [client(&[HTTP1]), client_with(&[HTTP1], None, false)] {
            let mut client = open(&gateway, config, "a.example").unwrap();
            assert_eq!(client.server(), &issued.certificate);
            assert_eq!(status(&client.get("a.example")), 200);
        }
    }
}

#[test]
fn versions_and_suites_are_those_that_are_told() {
    let backend = Backend::answering(OK);
    let tls12 = || client_with(&[HTTP1], None, false);
    let strict = gateway(
        secure::listener(&ListenerTlsConfig { min_version: TlsVersion::Tls13, ..ListenerTlsConfig::default() }),
        &backend,
    );
    let error = open(&strict, tls12(), "a.example").err().unwrap().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    wait_for("the failure", || failures(&strict, "incompatible") == 1);
    assert_eq!(status(&open(&strict, client(&[HTTP1]), "a.example").unwrap().get("a.example")), 200);

    let suites = ["TLS_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    let cipher_suites = suites.map(str::to_owned).to_vec();
    let chosen = gateway(secure::listener(&ListenerTlsConfig { cipher_suites, ..ListenerTlsConfig::default() }), &backend);
    for (config, expected) in [(client(&[HTTP1]), "TLS13_CHACHA20_POLY1305_SHA256"), (tls12(), suites[1])] {
        let mut client = open(&chosen, config, "a.example").unwrap();
        assert_eq!(client.stream.conn.negotiated_cipher_suite().unwrap().suite().as_str(), Some(expected));
        assert_eq!(status(&client.get("a.example")), 200);
    }
}

#[test]
fn what_cannot_be_loaded_is_told_by_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        Some(path)
    };
    let suites = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let all = ListenerTlsConfig::default;
    let table = [
        (ListenerTlsConfig { cipher_suites: suites(&["RC4"]), ..all() }, "cipher_suites", "`RC4` is not a cipher suite"),
        (
            ListenerTlsConfig {
                cipher_suites: suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
                min_version: TlsVersion::Tls13,
                ..all()
            },
            "cipher_suites",
            "none of these is of TLS 1.3",
        ),
        (ListenerTlsConfig { client_ca: Some("/nowhere/ca.pem".into()), ..all() }, "client_ca", "/nowhere/ca.pem"),
        (ListenerTlsConfig { client_ca: file("empty", ""), ..all() }, "client_ca", "holds no certificate"),
        (
            ListenerTlsConfig {
                client_ca: file("wrong", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                ..all()
            },
            "client_ca",
            "holds a certificate that cannot be a CA",
        ),
    ];
    for (config, key, message) in table {
        let error = Tls::new(&config, true).unwrap_err();
        assert_eq!(error.key(), key, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn what_is_not_tls_is_told_so_or_closed() {
    let backend = Backend::answering(OK);
    let gateway = gateway(defaults(), &backend);
    let answer = gateway.get("/");
    assert_eq!((status(&answer), field(&answer, "content-type")), (400, Some("application/problem+json")), "{answer}");
    assert!(answer.contains("this port speaks HTTPS"), "{answer}");
    let refused = gateway.metrics.requests_refused.with_label_values(&["plain_http"]).get();
    assert_eq!((refused, failures(&gateway, "plain_http")), (1, 1));
    let hello = [22, 3, 1];
    let table: [(Vec<u8>, &str); 6] = [
        (vec![0; 64], "not_tls"),
        (b"\x80\x2e\x01\x03\x01".to_vec(), "not_tls"),
        ([&hello[..], &[0, 4, 20, 0, 0, 0]].concat(), "misbehaved"),
        ([&hello[..], &[0, 6, 1, 0, 0, 2, 3, 3]].concat(), "malformed"),
        ([&hello[..], &[255, 255], &[7; 70_000]].concat(), "malformed"),
        ([&hello[..], &[0, 100, 1]].concat(), "closed"),
    ];
    for (bytes, reason) in table {
        let before = failures(&gateway, reason);
        let mut client = gateway.connect();
        // A gateway that has seen enough may have closed already.
        let _ = client.stream.write_all(&bytes);
        client.stream.shutdown(std::net::Shutdown::Write).ok();
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 21, "{reason}: an alert or nothing: {rest:?}");
        wait_for(&format!("{reason} for {:?}", &bytes[..5]), || failures(&gateway, reason) == before + 1);
    }
    assert_eq!(status(&open(&gateway, client(&[]), "a.example").unwrap().get("a.example")), 200);
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn a_slow_handshake_is_closed_and_holds_its_place_until_then() {
    let backend = Backend::answering(OK);
    let short = ListenerOptions { header_read_timeout: Duration::from_millis(500), ..defaults() };
    let bounded = gateway(ListenerOptions { connections_max: 2, ..short.clone() }, &backend);
    let mut slow: Vec<_> = (0..2).map(|_| bounded.connect()).collect();
    slow[1].stream.write_all(&[22, 3, 1, 0, 100]).unwrap();
    wait_for("both handshakes", || bounded.metrics.downstream_connections.get() == 2);
    let mut client = open(&bounded, client(&[]), "a.example").unwrap();
    assert!(failures(&bounded, "timeout") >= 1, "three connections were open at once");
    assert_eq!(status(&client.get("a.example")), 200);
    for client in &mut slow {
        assert!(client.is_closed());
    }
    let apart = gateway(ListenerOptions { connections_per_address_max: Some(1), ..short }, &backend);
    let _slow = apart.connect();
    wait_for("the handshake", || apart.metrics.downstream_connections.get() == 1);
    assert!(apart.connect().is_closed());
    assert_eq!(apart.metrics.connections_refused.with_label_values(&["per_address"]).get(), 1);
}

#[test]
fn a_drain_lets_a_handshake_end() {
    let backend = Backend::answering(OK);
    let mut gateway = gateway(defaults(), &backend);
    let stream = gateway.connect().stream;
    wait_for("the handshake", || gateway.metrics.downstream_connections.get() == 1);
    let handle = gateway.handle.take().unwrap();
    let draining = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(handle.drain());
    });
    wait_for("the listener to close", || TcpStream::connect(gateway.address).is_err());
    let mut client = Client::open(stream, &Arc::new(client(&[])), "a.example").unwrap();
    let answer = client.get("a.example");
    assert_eq!((status(&answer), field(&answer, "connection")), (200, Some("close")));
    draining.join().unwrap();
}

#[test]
fn the_proxy_header_comes_before_the_handshake() {
    let backend = Backend::answering(OK);
    let gateway = gateway(ListenerOptions { proxy_protocol: true, ..defaults() }, &backend);
    let mut stream = gateway.connect().stream;
    stream.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.2 80 443\r\n").unwrap();
    let mut client = Client::open(stream, &Arc::new(secure::client(&[])), "a.example").unwrap();
    assert_eq!(status(&client.get("a.example")), 200);
    assert_eq!(field(&backend.seen()[0].bytes, "x-forwarded-for"), Some("203.0.113.7"));
    // Without it nobody shakes hands.
    assert!(open(&gateway, secure::client(&[]), "a.example").is_err());
}

#[test]
fn the_end_of_a_connection_is_told() {
    let backend = Backend::answering(OK);
    let gateway = gateway(defaults(), &backend);
    let mut client = open(&gateway, client(&[HTTP1]), "a.example").unwrap();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&answer), 200);
    // close_notify: an end without it would be an error here.
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    let short = super::tls::gateway(ListenerOptions { idle_timeout: Duration::from_millis(300), ..defaults() }, &backend);
    for requests in [0, 1] {
        let mut client = open(&short, secure::client(&[HTTP1]), "a.example").unwrap();
        for _ in 0..requests {
            assert_eq!(status(&client.get("a.example")), 200);
        }
        assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    }
    // One that is at rest tells it too.
    let resting = super::tls::gateway(ListenerOptions { idle_timeout: Duration::from_millis(1500), ..defaults() }, &backend);
    let mut client = open(&resting, secure::client(&[HTTP1]), "a.example").unwrap();
    assert_eq!(status(&client.get("a.example")), 200);
    assert_eq!((client.stream.read(&mut [0; 1]).unwrap(), resting.metrics.connections_rested.get()), (0, 1));
    // What is cut off is not told to be whole.
    let cut = Backend::with(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
        false
    });
    let cut = super::tls::gateway(defaults(), &cut);
    let mut client = open(&cut, secure::client(&[HTTP1]), "a.example").unwrap();
    client.stream.write_all(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let end = client.stream.read_to_end(&mut bytes);
    assert!(bytes.ends_with(b"first") && end.is_err(), "{end:?}: {}", String::from_utf8_lossy(&bytes));
}
