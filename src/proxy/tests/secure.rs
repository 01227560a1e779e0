//! TLS for the tests: what their authority issues, clients, and a relay that speaks TLS for clients that do not.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::authority::{Authority, Issued};
use super::gateway::read_message;
use crate::config::ListenerTlsConfig;
use crate::proxy::{BoundListener, ListenerOptions, Tls};

/// What ALPN calls HTTP/2 and HTTP/1.1.
pub(super) const HTTP2: &[u8] = b"h2";
pub(super) const HTTP1: &[u8] = b"http/1.1";

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("tests"));

/// A server's certificate of the authority that [`client`] trusts.
pub(super) fn issue(hosts: &[&str]) -> Issued {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    AUTHORITY.issue(&CertificateParams::new(hosts).unwrap())
}

/// The same for a key in PKCS#8.
pub(super) fn issue_for(key: &str, host: &str) -> Issued {
    AUTHORITY.issue_for(KeyPair::from_pem(key).unwrap(), &CertificateParams::new([host.to_owned()]).unwrap())
}

/// A listener that speaks TLS.
pub(super) fn listener(config: &ListenerTlsConfig) -> ListenerOptions {
    ListenerOptions { tls: Some(Tls::new(config, true).unwrap()), ..ListenerOptions::default() }
}

// ---- clients

/// A client that knows the authority and offers these protocols.
pub(super) fn client(protocols: &[&[u8]]) -> ClientConfig {
    client_with(protocols, None, true)
}

/// One that may show a certificate, and may be of TLS 1.2 alone.
pub(super) fn client_with(protocols: &[&[u8]], identity: Option<&Issued>, has_tls13: bool) -> ClientConfig {
    let versions = if has_tls13 { vec![&TLS13, &TLS12] } else { vec![&TLS12] };
    let mut roots = RootCertStore::empty();
    roots.add(AUTHORITY.der()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![issued.certificate.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A client that takes any certificate: for tests of which it is.
pub(super) fn credulous_client(protocols: &[&[u8]]) -> ClientConfig {
    let mut config = client(protocols);
    config.dangerous().set_certificate_verifier(Arc::new(Credulous(provider())));
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

struct Credulous(Arc<CryptoProvider>);

impl fmt::Debug for Credulous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credulous")
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection after its handshake.
pub(super) struct Client {
    pub(super) stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Shakes hands with the server as `name`; an IP address goes without SNI.
    pub(super) fn open(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<Client> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client { stream, buffer: Vec::new() })
    }

    /// Sends a request and gives the answer, as far as it comes.
    pub(super) fn ask(&mut self, request: &str) -> String {
        // Where the server has ended the connection, the answer tells.
        let _ = io::Write::write_all(&mut self.stream, request.as_bytes());
        read_message(&mut self.stream, &mut self.buffer).0
    }

    /// A GET at `host`.
    pub(super) fn get(&mut self, host: &str) -> String {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// The server's certificate.
    pub(super) fn server(&self) -> &CertificateDer<'static> {
        &self.stream.conn.peer_certificates().unwrap()[0]
    }
}

// ---- tests that know nothing of TLS

thread_local! {
    static IS_OVER_TLS: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test whose gateways speak TLS.
pub(super) fn over_tls(test: fn()) {
    IS_OVER_TLS.set(true);
    test();
}

/// Whether gateways of this thread speak TLS.
pub(super) fn is_over_tls() -> bool {
    IS_OVER_TLS.get()
}

/// Makes listeners speak TLS.
pub(super) fn take_over(bound: &mut BoundListener) {
    for options in std::iter::once(&mut bound.options).chain(&mut bound.sharing) {
        options.tls = Some(Tls::new(&ListenerTlsConfig::default(), options.http2).unwrap());
    }
}

/// Takes connections in clear text and passes them on over TLS, with ALPN by their first bytes. It ends when it is dropped.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Relay {
    pub(super) fn to(gateway: SocketAddr) -> Relay {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let relaying = async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    // What becomes of it, the client sees.
                    tokio::spawn(async move { relay(stream, gateway).await.ok() });
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = relaying => {}
                    _ = stopped => {}
                }
            });
        });
        Relay { address, _stop: stop }
    }
}

async fn relay(mut client: tokio::net::TcpStream, gateway: SocketAddr) -> io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    client.set_nodelay(true)?;
    let mut first = Vec::with_capacity(4096);
    let protocol = loop {
        let common = first.len().min(PREFACE.len());
        if first[..common] != PREFACE[..common] {
            break HTTP1;
        }
        if common == PREFACE.len() {
            break HTTP2;
        }
        if client.read_buf(&mut first).await? == 0 {
            break HTTP1;
        }
    };
    let stream = tokio::net::TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(self::client(&[protocol])));
    let mut server = connector.connect(ServerName::try_from("a.example").unwrap(), stream).await?;
    server.write_all(&first).await?;
    server.flush().await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
