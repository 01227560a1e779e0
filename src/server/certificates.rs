//! The node's own certificates: read before anything else, and looked at again while it runs.
//!
//! A file that changed is read within [`LOOK_INTERVAL`]; whoever knows that it has changed can ask for a look at once by
//! [`Certificates::renew`]. Files that cannot be used are an error at the start, and later a warning: the node goes on with what it has.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::{ServerError, system};
use crate::config::{AdminTlsConfig, NodeConfig, PeerTlsConfig};
use crate::model::NodeId;
use crate::observe::{Gauge, Metrics};
use crate::tls::{AdminFiles, AdminTls, FileError, PeerFiles, PeerTls, Validity};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Between two warnings of a certificate that ends soon.
const CONCERN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

const PEER: &str = "cluster.tls";
const ADMIN: &str = "admin.tls";

/// What of a node's TLS stands in files.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    pub(super) peer: Option<Arc<PeerTls>>,
    pub(super) admin: Option<Arc<AdminTls>>,
    metrics: Metrics,
}

impl Certificates {
    /// Reads what the configuration names.
    pub(super) async fn load(config: &NodeConfig, metrics: &Metrics) -> Result<Certificates, ServerError> {
        let (peer, admin) = (config.cluster.tls.clone(), config.admin.tls.clone());
        let cluster = config.cluster.name.clone();
        let read = task::spawn_blocking(move || {
            let peer = peer.map(|files| read_peer(files, &cluster)).transpose();
            let peer = peer.map_err(|source| ServerError::Certificates { section: PEER, source })?;
            let admin = admin.map(read_admin).transpose();
            let admin = admin.map_err(|source| ServerError::Certificates { section: ADMIN, source })?;
            Ok::<_, ServerError>((peer, admin))
        });
        let (peer, admin) = read.await.map_err(|panic| system("reading certificates")(std::io::Error::other(panic)))??;
        let certificates = Certificates { peer, admin, metrics: metrics.clone() };
        certificates.tell();
        Ok(certificates)
    }

    /// This node's id: what the configuration says, or else the certificate. Both must agree.
    pub(super) fn node_id(&self, configured: Option<NodeId>) -> Result<Option<NodeId>, ServerError> {
        match (configured, self.peer.as_ref().map(|peer| peer.node_id())) {
            (Some(configured), Some(certified)) if configured != certified => {
                Err(ServerError::OtherNode { configured, certified })
            }
            (configured, certified) => Ok(configured.or(certified)),
        }
    }

    /// Takes changed files into use for new connections. Reads the disk.
    pub(super) fn renew(&self) {
        let peer = self.peer.as_ref().map(|peer| (PEER, peer.renew()));
        let admin = self.admin.as_ref().map(|admin| (ADMIN, admin.renew()));
        let mut renewed = false;
        for (section, result) in peer.into_iter().chain(admin) {
            match result {
                Ok(true) => {
                    info!(section, "changed certificates are used for new connections");
                    renewed = true;
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(section, key = error.key, %error, "changed certificates cannot be used: those from before stay")
                }
            }
        }
        if renewed {
            self.tell();
        }
    }

    /// Looks at the files again and again.
    pub(super) async fn watch(self) {
        if self.peer.is_none() && self.admin.is_none() {
            return;
        }
        let mut told = Instant::now();
        loop {
            sleep(LOOK_INTERVAL).await;
            let looking = self.clone();
            if let Err(error) = task::spawn_blocking(move || looking.renew()).await {
                error!(%error, "looking at the certificates");
            }
            if told.elapsed() >= CONCERN_INTERVAL {
                self.tell();
                told = Instant::now();
            }
        }
    }

    /// Says until when the certificates hold.
    fn tell(&self) {
        let peer = self.peer.as_ref().map(|peer| (PEER, peer.validity(), &self.metrics.peer_certificate_expiry));
        let admin = self.admin.as_ref().map(|admin| (ADMIN, admin.validity(), &self.metrics.admin_certificate_expiry));
        peer.into_iter().chain(admin).for_each(|(section, validity, gauge)| tell_of(section, validity, gauge));
    }
}

fn tell_of(section: &'static str, validity: Validity, gauge: &Gauge) {
    gauge.set(validity.ends_at);
    match validity.concern(SystemTime::now()) {
        Some(concern) => warn!("configuration key `{section}.cert`: the certificate {concern}"),
        None => info!(section, until = %validity, "certificate"),
    }
}

fn read_peer(PeerTlsConfig { ca, cert, key }: PeerTlsConfig, cluster: &str) -> Result<Arc<PeerTls>, FileError> {
    warn_of_readers(PEER, &key);
    PeerTls::load(PeerFiles { ca, cert, key }, cluster).map(Arc::new)
}

fn read_admin(AdminTlsConfig { cert, key, client_ca }: AdminTlsConfig) -> Result<Arc<AdminTls>, FileError> {
    warn_of_readers(ADMIN, &key);
    AdminTls::load(AdminFiles { cert, key, client_ca }).map(Arc::new)
}

/// A key that everybody on the machine can read is none. One that cannot be looked at is an error of its reader.
fn warn_of_readers(section: &'static str, key: &Path) {
    let mode = key.metadata().map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        warn!("configuration key `{section}.key`: everybody on this machine can read {}: chmod 600", key.display());
    }
}
