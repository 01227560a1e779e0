//! One service's side of TLS.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authorities::SystemAuthorities;
use super::problem::TlsProblem;
use crate::model::spec::{Authorities, Protocol, ServiceTls, TlsVersion};
use crate::table::{Certificate, ServiceId};

/// What is offered by ALPN (RFC 7301 6).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// What a client is made of. A change of any of it makes another one.
#[derive(Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) service: ServiceId,
    pub(super) protocol: Protocol,
    pub(super) tls: Arc<ServiceTls>,
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// TLS under one service's settings; sessions are resumed among its connections.
#[derive(Debug)]
pub(in crate::upstream) struct TlsClient {
    pub(super) identity: Identity,
    provider: Arc<CryptoProvider>,
    system: SystemAuthorities,
    config: OnceCell<Arc<ClientConfig>>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub(in crate::upstream) enum TlsError {
    /// TLS itself failed, with what was behind it.
    Tls(TlsProblem, Option<io::Error>),
    /// The connection failed.
    Io(io::Error),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        match TlsProblem::behind(&error) {
            Some(problem) => TlsError::Tls(problem, Some(error)),
            None => TlsError::Io(error),
        }
    }
}

impl TlsClient {
    pub(super) fn new(identity: Identity, provider: Arc<CryptoProvider>, system: SystemAuthorities) -> TlsClient {
        TlsClient { identity, provider, system, config: OnceCell::new() }
    }

    async fn config(&self) -> Result<&Arc<ClientConfig>, TlsError> {
        self.config
            .get_or_try_init(|| async {
                let config = match &self.identity.tls.authorities {
                    Authorities::Unverified => self.builder()?.dangerous().with_custom_certificate_verifier(self.unverified()),
                    Authorities::Bundle(anchors) => {
                        self.builder()?.with_root_certificates(RootCertStore { roots: anchors.to_vec() })
                    }
                    Authorities::System => {
                        let authorities = self.system.get().await.ok_or(TlsError::Tls(TlsProblem::NoAuthorities, None))?;
                        self.builder()?.with_root_certificates(authorities)
                    }
                };
                let mut config = match &self.identity.certificate {
                    None => config.with_no_client_auth(),
                    Some(certificate) => {
                        config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.key))))
                    }
                };
                let offered = if self.identity.protocol.carries_grpc() { HTTP2 } else { HTTP1 };
                config.alpn_protocols = vec![offered.to_vec()];
                Ok(Arc::new(config))
            })
            .await
    }

    fn builder(&self) -> io::Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
        let versions: &[_] = match self.identity.tls.version_min {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        builder.with_protocol_versions(versions).map_err(io::Error::other)
    }

    fn unverified(&self) -> Arc<Unverified> {
        Arc::new(Unverified(Arc::clone(&self.provider)))
    }
}

/// TLS to one endpoint.
#[derive(Debug)]
pub(in crate::upstream) struct Secured {
    client: Arc<TlsClient>,
    /// What its certificate must be for.
    name: Option<ServerName<'static>>,
}

impl Secured {
    /// For the endpoint at `address`.
    pub(in crate::upstream) fn new(client: &Arc<TlsClient>, address: &str) -> Secured {
        let host = match &client.identity.tls.hostname {
            Some(hostname) => hostname,
            None => host_of(address),
        };
        Secured { client: Arc::clone(client), name: ServerName::try_from(host).ok().map(|name| name.to_owned()) }
    }

    /// Whether it is under the settings of `client`.
    pub(in crate::upstream) fn is_of(&self, client: &Arc<TlsClient>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// Shakes hands over `stream`. Where the service speaks HTTP/2, that is agreed on when this is done.
    pub(in crate::upstream) async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = self.name.clone().ok_or(TlsError::Tls(TlsProblem::NO_NAME, None))?;
        let config = Arc::clone(self.client.config().await?);
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let is_agreed = !self.client.identity.protocol.carries_grpc() || stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        match is_agreed {
            true => Ok(stream),
            false => Err(TlsError::Tls(TlsProblem::NO_HTTP2, None)),
        }
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Takes any certificate (`insecureSkipVerify`). That the endpoint has its key is verified all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_of_addresses() {
        for (address, host) in [("a.internal:443", "a.internal"), ("10.0.0.1:8443", "10.0.0.1"), ("[fe80::1]:443", "fe80::1")] {
            assert_eq!(host_of(address), host);
        }
    }
}
