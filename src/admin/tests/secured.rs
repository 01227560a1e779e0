//! The admin API over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::api::{Api, service};
use crate::admin::{Callers, Secured, serve};
use crate::model::Revision;
use crate::observe::Metrics;
use crate::tls::tests::Pki;
use crate::tls::{AdminTls, client_config};

/// The API of a node, on loopback over TLS.
struct Served {
    api: Api,
    pki: Pki,
    address: SocketAddr,
    metrics: Metrics,
    _stop: oneshot::Sender<()>,
}

impl Served {
    async fn start(callers: Callers) -> Served {
        let (api, pki, metrics) = (Api::new(callers), Pki::new(), Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(AdminTls::load(pki.admin()).unwrap());
        let secured = Secured { tls, failures: metrics.node_tls_failures.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve(listener, Some(secured), api.router.clone(), async move { drop(stopped.await) }));
        Served { api, pki, address, metrics, _stop: stop }
    }

    fn client(&self, name: Option<&str>) -> reqwest::Client {
        let config = client_config(&self.pki.client(name)).unwrap();
        reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn failures(&self, reason: &str) -> u64 {
        self.metrics.node_tls_failures.with_label_values(&["admin", reason]).get()
    }
}

#[tokio::test]
async fn a_certificate_or_a_token_says_who_calls() {
    let served = Served::start(Callers::new([("ci".to_owned(), "s3cret".to_owned())], true)).await;
    let (alice, nobody) = (served.client(Some("alice")), served.client(None));
    let put = |client: &reqwest::Client, token: Option<&str>| {
        let request = client.put(served.url("/v1/services/a"));
        let number = 9000 + u16::try_from(served.api.revision()).unwrap();
        let request = request.header(header::CONTENT_TYPE, "application/json").body(service(number).to_string());
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(put(&alice, None).await, 201);
    assert_eq!(put(&nobody, Some("s3cret")).await, 200);
    assert_eq!(put(&alice, Some("s3cret")).await, 200);
    assert_eq!(put(&nobody, None).await, 401);
    assert_eq!(put(&alice, Some("wrong")).await, 401);
    let state = crate::admin::Cluster::state(&*served.api.cluster);
    let actors: Vec<_> = (1..=3).filter_map(|n| state.history_at(Revision(n)).map(|entry| entry.actor.to_string())).collect();
    assert_eq!(actors, ["alice", "ci", "ci"]);
    assert_eq!(nobody.get(served.url("/livez")).send().await.unwrap().status(), 200, "probes have neither");

    // A certificate of another CA ends in the handshake.
    let other = Pki::new();
    let mut files = other.client(Some("alice"));
    files.ca = Some(served.pki.path("ca.pem"));
    let stranger =
        reqwest::Client::builder().tls_backend_preconfigured(client_config(&files).unwrap()).no_proxy().build().unwrap();
    assert!(stranger.get(served.url("/livez")).send().await.is_err());
    assert_eq!(served.failures("certificate"), 1);
}

#[tokio::test]
async fn http_1_and_2_are_agreed_on_and_clear_text_is_closed() {
    let served = Served::start(Callers::new([], true)).await;
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let mut config = client_config(&served.pki.client(Some("alice"))).unwrap();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(served.address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
        let request =
            Request::get("https://localhost/v1/table").header(header::HOST, "localhost").body(Empty::<bytes::Bytes>::new());
        let answer = if agreed == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.unwrap()).await.unwrap()
        };
        assert_eq!(answer.status(), 200, "{agreed}");
        assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    // One that says nothing holds up nobody.
    let silent = TcpStream::connect(served.address).await.unwrap();
    let mut clear = TcpStream::connect(served.address).await.unwrap();
    clear.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may come as a reset, for bytes of the request were not read.
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(served.failures("clear_text"), 1);
    drop(silent);
}
