//! What a listener's configuration says of TLS, loaded and checked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ResolvesServerCertUsingSni, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use thiserror::Error;

use crate::config::{ClientAuth, ListenerTlsConfig, TlsVersion};
use crate::table::Live;

/// The protocol of ALPN (RFC 7301) that means HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
/// The one that means HTTP/1.1.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why a listener cannot speak TLS as it is told.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No suite has this name.
    #[error("`{name}` is not a cipher suite that is spoken: {known}")]
    Suite {
        /// As it was written.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The suites are of versions that are not spoken.
    #[error("none of these is of TLS {0} or later")]
    NoSuite(&'static str),
    /// The file of the clients' CAs cannot be read.
    #[error("cannot read PEM from {path}: {source}")]
    ClientCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// There is no CA in it.
    #[error("{0} holds no certificate in PEM")]
    NoClientCa(PathBuf),
    /// A certificate in it is not one.
    #[error("{path} holds a certificate that cannot be a CA: {source}")]
    ClientCaContent {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The CAs cannot be used.
    #[error("clients cannot be verified by {path}: {source}")]
    Verifier {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// The system gives no random key for tickets.
    #[error("no key for session tickets: {0}")]
    Tickets(#[source] rustls::Error),
}

impl TlsError {
    /// Which key of the listener's `tls` section is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            TlsError::Suite { .. } | TlsError::NoSuite(_) => "cipher_suites",
            TlsError::ClientCa { .. }
            | TlsError::NoClientCa(_)
            | TlsError::ClientCaContent { .. }
            | TlsError::Verifier { .. } => "client_ca",
            TlsError::Tickets(_) => "session_tickets",
        }
    }
}

/// How one listener speaks TLS. All its clones share the key of the tickets, which no other listener has: a session of one cannot be resumed
/// at another, which may ask more of its clients.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Option<Clients>,
    origin: Arc<Origin>,
}

/// What a [`Tls`] was made of.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    config: ListenerTlsConfig,
    http2: bool,
    /// What the file of the clients' CAs held.
    authorities: Vec<CertificateDer<'static>>,
}

/// Two are equal where the same was read for both; each has ticket keys of its own even so.
impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.origin == other.origin
    }
}

impl Eq for Tls {}

/// Who verifies certificates of clients.
#[derive(Debug, Clone)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    is_required: bool,
}

impl Tls {
    /// Loads what `config` names. `http2`: whether ALPN offers it.
    ///
    /// # Errors
    ///
    /// A name that is unknown, or a file that is not what it should be.
    pub fn new(config: &ListenerTlsConfig, http2: bool) -> Result<Tls, TlsError> {
        let mut provider = crypto::ring::default_provider();
        if !config.cipher_suites.is_empty() {
            provider.cipher_suites = config.cipher_suites.iter().map(|name| suite(&provider, name)).collect::<Result<_, _>>()?;
        }
        let provider = Arc::new(provider);
        let (versions, least): (&[&SupportedProtocolVersion], _) = match config.min_version {
            TlsVersion::Tls12 => (&[&TLS12, &TLS13], "1.2"),
            TlsVersion::Tls13 => (&[&TLS13], "1.3"),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        // The provider is sound otherwise: a version without a suite is all that can be wrong.
        let builder = builder.map_err(|_| TlsError::NoSuite(least))?;
        let mut authorities = Vec::new();
        let clients = match &config.client_ca {
            None => None,
            Some(path) => {
                authorities = read(path)?;
                Some(Clients {
                    verifier: verifier(&provider, path, &authorities, config.client_auth)?,
                    is_required: config.client_auth == ClientAuth::Require,
                })
            }
        };
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        };
        let mut made = builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        made.alpn_protocols = match http2 {
            true => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
            false => vec![ALPN_HTTP1.to_vec()],
        };
        // Tickets hold all that is needed, and are sealed: nothing is kept for clients that never come back.
        made.session_storage = Arc::new(NoServerSessionStorage {});
        match config.session_tickets {
            true => made.ticketer = crypto::ring::Ticketer::new().map_err(TlsError::Tickets)?,
            false => made.send_tls13_tickets = 0,
        }
        let origin = Arc::new(Origin { config: config.clone(), http2, authorities });
        Ok(Tls { config: Arc::new(made), clients, origin })
    }

    /// The same, with the certificates of the live table; without them there is none to show.
    pub(in crate::proxy) fn with_certificates_of(self, live: &Arc<Live>) -> Tls {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.cert_resolver = Arc::new(LiveCertificates(Arc::clone(live)));
        Tls { config: Arc::new(config), ..self }
    }

    /// What handshakes are made with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Verifies once more what a resumed session brought along: its certificate may have expired since.
    ///
    /// # Errors
    ///
    /// It does not hold any more, or there is none and there must be.
    pub(super) fn verify_again(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), rustls::Error> {
        match (&self.clients, chain) {
            (Some(clients), Some([first, rest @ ..])) => {
                clients.verifier.verify_client_cert(first, rest, UnixTime::now()).map(|_| ())
            }
            (Some(clients), _) if clients.is_required => Err(rustls::Error::NoCertificatesPresented),
            _ => Ok(()),
        }
    }
}

/// The suite with this IANA name.
fn suite(provider: &CryptoProvider, name: &str) -> Result<SupportedCipherSuite, TlsError> {
    let found = provider.cipher_suites.iter().find(|suite| iana_name(suite) == name);
    found.copied().ok_or_else(|| {
        let known: Vec<String> = provider.cipher_suites.iter().map(iana_name).collect();
        TlsError::Suite { name: name.to_owned(), known: known.join(", ") }
    })
}

/// The library marks suites of TLS 1.3 where IANA does not.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.strip_prefix("TLS13_").map_or_else(|| name.to_owned(), |rest| format!("TLS_{rest}"))
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::ClientCa { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(unreadable)?.map(|read| read.map_err(unreadable)).collect()
}

/// `path` is where the authorities come from.
fn verifier(
    provider: &Arc<CryptoProvider>,
    path: &Path,
    authorities: &[CertificateDer<'static>],
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path_of = || path.to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|source| TlsError::ClientCaContent { path: path_of(), source })?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoClientCa(path_of()));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if auth == ClientAuth::Request { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|source| TlsError::Verifier { path: path_of(), source })
}

/// The certificates of the live table.
struct LiveCertificates(Arc<Live>);

impl fmt::Debug for LiveCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The table may be large.
        f.write_str("LiveCertificates")
    }
}

impl ResolvesServerCert for LiveCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.0.load();
        snapshot.certificate_for(hello.server_name()).map(|certificate| Arc::clone(&certificate.key))
    }
}
