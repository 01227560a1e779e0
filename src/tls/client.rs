//! TLS of whoever calls the admin API from the command line.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::files::{FileError, Problem, Reader, identity};
use super::provider;

/// What a caller brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CAs of the nodes' admin API.
    pub ca: Option<PathBuf>,
    /// Whether the system's CAs count where `ca` names none; to read them takes a while.
    pub system: bool,
    /// The caller's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The settings for a caller. Those of the system's CAs that cannot be read are left out: a server of theirs is refused then.
///
/// # Errors
///
/// A file that cannot be used, by its key.
pub fn client_config(files: &ClientFiles) -> Result<ClientConfig, FileError> {
    let provider = provider();
    let roots = match &files.ca {
        Some(path) => Reader::new("ca", path).roots()?,
        None if !files.system => Arc::new(RootCertStore::empty()),
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    // The one provider serves both versions.
    let config = config.expect("ring serves the default versions of TLS").with_root_certificates(roots);
    match &files.identity {
        None => Ok(config.with_no_client_auth()),
        Some((cert, key)) => {
            let identity = identity(cert, key, &provider)?;
            if identity.cert.is_empty() {
                return Err(Reader::new("cert", cert).error(Problem::NoCertificate));
            }
            Ok(config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
        }
    }
}
