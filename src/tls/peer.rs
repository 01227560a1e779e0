//! TLS between peers: both sides show who they are.
//!
//! Only TLS 1.3, for both ends are this program. In it the side that connects is done before the other has looked at its certificate; so
//! [`PeerTls::connect`] goes on until the peer's first bytes are there (HTTP/2 begins with the settings of both). A refusal shows as a failed
//! connection then, after which nothing was sent, and not as a call whose outcome nobody knows.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::failure::HandshakeError;
use super::files::{FileError, Problem, Reader, identity};
use super::names::{Validity, node_of};
use super::provider;
use super::renewal::Renewing;
use crate::model::NodeId;

/// What peers agree on inside.
const ALPN: &[u8] = b"h2";

/// Where a node's identity among its peers stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFiles {
    /// The CAs of the cluster's nodes.
    pub ca: PathBuf,
    /// This node's certificate, its chain after it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What the files say at present.
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    node_id: NodeId,
    validity: Validity,
}

/// A node's identity among its peers.
pub struct PeerTls {
    renewing: Renewing<Current>,
    cluster: Arc<str>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("cluster", &self.cluster).field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

impl PeerTls {
    /// Reads the files; `cluster` is the name of the cluster, which certificates name too.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, by its key.
    pub fn load(files: PeerFiles, cluster: &str) -> Result<PeerTls, FileError> {
        let cluster: Arc<str> = Arc::from(cluster);
        let first = Current::read(&files, &cluster)?.node_id;
        let paths = vec![files.ca.clone(), files.cert.clone(), files.key.clone()];
        let name = Arc::clone(&cluster);
        let build = move || {
            let current = Current::read(&files, &name)?;
            if current.node_id != first {
                let problem = format!("its certificate is for node {}, and this is node {first}", current.node_id);
                return Err(Reader::new("cert", &files.cert).error(Problem::Unsuitable(problem)));
            }
            Ok(current)
        };
        Ok(PeerTls { renewing: Renewing::load(paths, build)?, cluster })
    }

    /// The node that the certificate is for. A renewal does not change it.
    pub fn node_id(&self) -> NodeId {
        self.renewing.current().node_id
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

    /// The handshake with a peer that has connected. Gives the node that its certificate is for.
    ///
    /// # Errors
    ///
    /// Whoever connected is no node of this cluster, or was not done within `limit`.
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<(server::TlsStream<TcpStream>, NodeId), HandshakeError> {
        let handshake = TlsAcceptor::from(Arc::clone(&self.renewing.current().server)).accept(stream);
        let stream = timeout(limit, handshake).await.map_err(|_| HandshakeError::Deadline(limit))?.map_err(HandshakeError::of)?;
        let node = self.node_of(stream.get_ref().1.peer_certificates())?;
        Ok((stream, node))
    }

    /// The handshake with the peer at `host`, up to its first bytes. `node` is who it must be, where that is known.
    ///
    /// # Errors
    ///
    /// It is no node of this cluster, is not at `host`, is another one, refuses this one, or was not done within `limit`.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        node: Option<NodeId>,
        limit: Duration,
    ) -> Result<client::TlsStream<TcpStream>, HandshakeError> {
        // An address of IPv6 stands in brackets where a port follows.
        let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(name.to_owned());
        let name = name
            .map_err(|_| HandshakeError::Certificate(format!("cannot be held to \"{host}\", which is no name and no address")))?;
        let connector = TlsConnector::from(Arc::clone(&self.renewing.current().client));
        let handshake = async {
            let mut stream = connector.connect(name, stream).await?;
            if stream.fill_buf().await?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(stream)
        };
        let stream = timeout(limit, handshake).await.map_err(|_| HandshakeError::Deadline(limit))?.map_err(HandshakeError::of)?;
        let found = self.node_of(stream.get_ref().1.peer_certificates())?;
        match node {
            Some(node) if node != found => {
                Err(HandshakeError::Certificate(format!("is for node {found}, and node {node} was expected")))
            }
            _ => Ok(stream),
        }
    }

    fn node_of(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<NodeId, HandshakeError> {
        let leaf = chain.and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| HandshakeError::Certificate("is missing: it shows none".to_owned()))?;
        node_of(leaf, &self.cluster).map_err(HandshakeError::Certificate)
    }
}

impl Current {
    fn read(files: &PeerFiles, cluster: &str) -> Result<Current, FileError> {
        let provider = provider();
        let (ca, cert) = (Reader::new("ca", &files.ca), Reader::new("cert", &files.cert));
        let roots = ca.roots()?;
        let identity = identity(&files.cert, &files.key, &provider)?;
        let leaf = identity.cert.first().ok_or_else(|| cert.error(Problem::NoCertificate))?;
        let unsuitable = |problem| cert.error(Problem::Unsuitable(format!("its certificate {problem}")));
        let node_id = node_of(leaf, cluster).map_err(unsuitable)?;
        let validity = Validity::of(leaf).map_err(unsuitable)?;
        let resolver = Arc::new(SingleCertAndKey::from(identity));
        let failed = |error: rustls::Error| cert.error(Problem::Unsuitable(error.to_string()));

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| ca.error(Problem::Unsuitable(error.to_string())))?;
        let server =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]).map_err(failed)?;
        let mut server = server.with_client_cert_verifier(verifier).with_cert_resolver(resolver.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(failed)?;
        let mut client = client.with_root_certificates(roots).with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Current { server: Arc::new(server), client: Arc::new(client), node_id, validity })
    }
}
