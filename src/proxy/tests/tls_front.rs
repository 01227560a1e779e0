//! TLS in front of the tests' backends: a server that ends TLS and passes the bytes on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Authority, Issued};
use crate::model::Kind;

/// The name that the tests' certificates are for.
pub(super) const NAME: &str = "orders.internal";

/// How a front speaks.
pub(super) struct Terms<'a> {
    pub(super) issued: &'a Issued,
    pub(super) alpn: &'a [&'a str],
    pub(super) versions: &'a [&'static SupportedProtocolVersion],
    /// The CA of client certificates, where they are demanded.
    pub(super) clients: Option<&'a Authority>,
    /// Ends connections without saying so (no `close_notify`).
    pub(super) truncates: bool,
}

impl<'a> Terms<'a> {
    pub(super) fn new(issued: &'a Issued, alpn: &'a [&'a str]) -> Terms<'a> {
        Terms { issued, alpn, versions: rustls::ALL_VERSIONS, clients: None, truncates: false }
    }

    fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(self.versions).unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut authorities = RootCertStore::empty();
                authorities.add(clients.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.issued.key.serialize_der()));
        let mut config = builder.with_single_cert(vec![self.issued.certificate.clone()], key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.session_storage = ServerSessionMemoryCache::new(64);
        config
    }
}

/// What a front saw.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Handshakes that came to their end.
    pub(super) handshakes: AtomicUsize,
    /// Those of them that went on with a session of before.
    pub(super) resumed: AtomicUsize,
    /// Handshakes that did not.
    pub(super) failed: AtomicUsize,
    /// Connections that the client ended without a word (`close_notify`).
    pub(super) cut_off: AtomicUsize,
    /// Connections that are open.
    pub(super) open: AtomicUsize,
    /// Of each connection the SNI and the client's certificate.
    pub(super) clients: Mutex<Vec<(Option<String>, Option<CertificateDer<'static>>)>>,
}

impl Noted {
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.handshakes), count(&self.resumed), count(&self.failed))
    }

    pub(super) fn last_client(&self) -> (Option<String>, Option<CertificateDer<'static>>) {
        self.clients.lock().unwrap().last().cloned().unwrap()
    }
}

thread_local! {
    /// The fronts of this thread's test, where all of its backends stand behind one.
    static FRONTS: RefCell<Option<Fronts>> = const { RefCell::new(None) };
}

struct Fronts {
    authority: Authority,
    issued: Issued,
    by_backend: HashMap<(String, &'static str), Front>,
}

/// Runs a test that knows nothing of it with TLS between the gateway and its backends.
pub(super) fn with_tls_to_backends(test: impl FnOnce()) {
    let authority = Authority::another();
    let issued = authority.issue_as(NAME, |_| ());
    FRONTS.set(Some(Fronts { authority, issued, by_backend: HashMap::new() }));
    test();
    let fronts = FRONTS.take().unwrap();
    let handshakes: usize = fronts.by_backend.values().map(|front| front.noted.counts().0).sum();
    assert!(handshakes > 0, "the test did not go over TLS");
}

/// What `:scheme` tells a backend in this thread's test.
pub(super) fn scheme() -> &'static str {
    FRONTS.with_borrow(|fronts| if fronts.is_some() { "https" } else { "http" })
}

/// The documents, with fronts in place of endpoints where the test is to go over TLS.
pub(super) fn secured<'a>(documents: &[(Kind, &'a str, Value)]) -> Vec<(Kind, &'a str, Value)> {
    FRONTS.with_borrow_mut(|fronts| {
        let mut documents = documents.to_vec();
        let services = documents.iter_mut().filter(|(kind, ..)| *kind == Kind::Service).map(|(.., spec)| spec);
        if let Some(fronts) = fronts {
            services.for_each(|spec| fronts.secure(spec));
        }
        documents
    })
}

impl Fronts {
    fn secure(&mut self, spec: &mut Value) {
        let protocol = match spec["protocol"].as_str() {
            None | Some("http1") => "https",
            Some("h2c") => "h2",
            Some(other) => panic!("{other} is over TLS already"),
        };
        spec["protocol"] = json!(protocol);
        spec["tls"] = json!({"hostname": NAME, "caCertificates": self.authority.pem()});
        let alpn = if protocol == "h2" { "h2" } else { "http/1.1" };
        for endpoint in spec["endpoints"].as_array_mut().unwrap() {
            let address = endpoint["address"].as_str().unwrap().to_owned();
            let make = || Front::before(address.parse().unwrap(), &Terms::new(&self.issued, &[alpn]));
            let front = self.by_backend.entry((address.clone(), protocol)).or_insert_with(make);
            endpoint["address"] = json!(front.address.to_string());
        }
    }
}

/// A server that ends TLS before a backend in clear text. It ends with the process.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) noted: Arc<Noted>,
}

impl Front {
    pub(super) fn before(backend: SocketAddr, terms: &Terms<'_>) -> Front {
        let (acceptor, truncates) = (TlsAcceptor::from(Arc::new(terms.config())), terms.truncates);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let front = Front { address: listener.local_addr().unwrap(), noted: Arc::default() };
        let noted = Arc::clone(&front.noted);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(serve(stream, backend, acceptor.clone(), truncates, Arc::clone(&noted)));
                }
            });
        });
        front
    }

    /// A service with this endpoint, which trusts `authority` to vouch for [`NAME`].
    pub(super) fn service(&self, protocol: &str, authority: &Authority) -> Value {
        self.service_with(protocol, json!({"hostname": NAME, "caCertificates": authority.pem()}))
    }

    pub(super) fn service_with(&self, protocol: &str, tls: Value) -> Value {
        json!({"endpoints": [{"address": self.address.to_string()}], "protocol": protocol, "tls": tls})
    }
}

async fn serve(stream: tokio::net::TcpStream, backend: SocketAddr, acceptor: TlsAcceptor, truncates: bool, noted: Arc<Noted>) {
    let mut tls = match acceptor.accept(stream).into_fallible().await {
        Ok(tls) => tls,
        Err((_, mut stream)) => {
            noted.failed.fetch_add(1, Ordering::SeqCst);
            // The alert would be lost with a connection that is reset for what it did not read.
            stream.shutdown().await.ok();
            while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
            return;
        }
    };
    note(&tls, &noted);
    noted.open.fetch_add(1, Ordering::SeqCst);
    if let Ok(mut plain) = tokio::net::TcpStream::connect(backend).await {
        plain.set_nodelay(true).unwrap();
        if truncates {
            cut_off(&mut tls, &mut plain).await;
        } else {
            let copied = copy_bidirectional(&mut tls, &mut plain).await;
            noted.cut_off.fetch_add(usize::from(copied.is_err()), Ordering::SeqCst);
        }
    }
    noted.open.fetch_sub(1, Ordering::SeqCst);
}

fn note(tls: &TlsStream<tokio::net::TcpStream>, noted: &Noted) {
    let session = tls.get_ref().1;
    noted.handshakes.fetch_add(1, Ordering::SeqCst);
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        noted.resumed.fetch_add(1, Ordering::SeqCst);
    }
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
    noted.clients.lock().unwrap().push((session.server_name().map(str::to_owned), certificate));
}

/// Passes bytes until the backend ends, and says nothing of that end.
async fn cut_off(tls: &mut TlsStream<tokio::net::TcpStream>, plain: &mut tokio::net::TcpStream) {
    let (mut from_client, mut to_client) = tokio::io::split(tls);
    let (mut from_backend, mut to_backend) = plain.split();
    let answer = async {
        copy(&mut from_backend, &mut to_client).await.ok();
        to_client.flush().await.ok();
    };
    tokio::select! {
        () = answer => {}
        _ = copy(&mut from_client, &mut to_backend) => {}
    }
}
