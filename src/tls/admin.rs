//! TLS of the admin API.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::failure::HandshakeError;
use super::files::{FileError, Problem, Reader, identity};
use super::names::{CallerName, Validity, caller_of};
use super::provider;
use super::renewal::Renewing;

/// Where the admin API's certificate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminFiles {
    /// The certificate, its chain after it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs of callers. `None`: callers are not asked for certificates.
    pub client_ca: Option<PathBuf>,
}

struct Current {
    server: Arc<ServerConfig>,
    validity: Validity,
}

/// The admin API's certificate, and the CAs of its callers.
pub struct AdminTls {
    renewing: Renewing<Current>,
}

impl fmt::Debug for AdminTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminTls").field("validity", &self.validity()).finish_non_exhaustive()
    }
}

impl AdminTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, by its key.
    pub fn load(files: AdminFiles) -> Result<AdminTls, FileError> {
        let paths = [&files.cert, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        Ok(AdminTls { renewing: Renewing::load(paths, move || Current::read(&files))? })
    }

    /// How long the certificate holds.
    pub fn validity(&self) -> Validity {
        self.renewing.current().validity
    }

    /// Takes changed files into use for new connections; true where there were any. Reads the disk.
    ///
    /// # Errors
    ///
    /// The changed files cannot be used; everything is as it was.
    pub fn renew(&self) -> Result<bool, FileError> {
        self.renewing.renew()
    }

    /// The handshake with a caller. Gives who that is, where it showed a certificate of `client_ca` that names somebody.
    ///
    /// # Errors
    ///
    /// It speaks something else, shows a certificate of another CA, or was not done within `limit`.
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<(TlsStream<TcpStream>, Option<CallerName>), HandshakeError> {
        let handshake = TlsAcceptor::from(Arc::clone(&self.renewing.current().server)).accept(stream);
        let stream = timeout(limit, handshake).await.map_err(|_| HandshakeError::Deadline(limit))?.map_err(HandshakeError::of)?;
        let caller = stream.get_ref().1.peer_certificates().and_then(|chain| caller_of(chain.first()?));
        Ok((stream, caller))
    }
}

impl Current {
    fn read(files: &AdminFiles) -> Result<Current, FileError> {
        let provider = provider();
        let cert = Reader::new("cert", &files.cert);
        let identity = identity(&files.cert, &files.key, &provider)?;
        let leaf = identity.cert.first().ok_or_else(|| cert.error(Problem::NoCertificate))?;
        let validity =
            Validity::of(leaf).map_err(|problem| cert.error(Problem::Unsuitable(format!("its certificate {problem}"))))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let server = server.map_err(|error| cert.error(Problem::Unsuitable(error.to_string())))?;
        let server = match &files.client_ca {
            None => server.with_no_client_auth(),
            Some(path) => {
                let ca = Reader::new("client_ca", path);
                let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots()?, provider).allow_unauthenticated().build();
                server.with_client_cert_verifier(verifier.map_err(|error| ca.error(Problem::Unsuitable(error.to_string())))?)
            }
        };
        let mut server = server.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Current { server: Arc::new(server), validity })
    }
}
