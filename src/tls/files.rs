//! Certificates and keys out of the files that the configuration names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use zeroize::Zeroizing;

/// The largest file that is read: a bundle of some hundred CAs.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A file that cannot be used.
#[derive(Debug, Error)]
#[error("file {}: {problem}", .path.display())]
pub struct FileError {
    /// The key of the configuration, or the option, that names the file: `ca`, `cert`, `key` or `client_ca`.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is not there, or not for this user.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Nobody has as many certificates.
    #[error("is over {FILE_BYTES_MAX} bytes long: this is no certificate or key")]
    TooLong,
    /// A section of PEM that breaks off or is not base64.
    #[error("is not PEM: {0}")]
    Pem(String),
    /// PEM of something else, or no PEM at all.
    #[error("has no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// Likewise.
    #[error("has no private key in PEM without a passphrase (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// Certificate and key do not belong together.
    #[error("is not the key of the certificate in {}: both must be of one renewal", .0.display())]
    OtherKey(PathBuf),
    /// What is in it is of no use here.
    #[error("{0}")]
    Unsuitable(String),
}

/// Reads all that must fit into memory, and tells whose key failed.
pub(super) struct Reader {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

impl Reader {
    pub(super) fn new(key: &'static str, path: &Path) -> Reader {
        Reader { key, path: path.to_owned() }
    }

    pub(super) fn error(&self, problem: Problem) -> FileError {
        FileError { key: self.key, path: self.path.clone(), problem }
    }

    fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let mut bytes = Zeroizing::new(Vec::new());
        let file = File::open(&self.path).map_err(|error| self.error(Problem::Read(error)))?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| self.error(Problem::Read(error)))?;
        if bytes.len() as u64 > FILE_BYTES_MAX { Err(self.error(Problem::TooLong)) } else { Ok(bytes) }
    }

    /// Every certificate of the file, in its order; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let bytes = self.bytes()?;
        let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
        match read {
            Ok(certificates) if certificates.is_empty() => Err(self.error(Problem::NoCertificate)),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.error(Problem::Pem(error.to_string()))),
        }
    }

    /// The CAs of the file.
    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, FileError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.error(Problem::Unsuitable(format!("a CA in it is not usable: {error}"))))?;
        }
        Ok(Arc::new(roots))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, FileError> {
        PrivateKeyDer::from_pem_slice(&self.bytes()?).map_err(|error| match error {
            pem::Error::NoItemsFound => self.error(Problem::NoKey),
            error => self.error(Problem::Pem(error.to_string())),
        })
    }
}

/// A certificate, with its chain, and its key.
pub(super) fn identity(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, FileError> {
    let (cert, key) = (Reader::new("cert", cert), Reader::new("key", key));
    let (chain, private) = (cert.certificates()?, key.private_key()?);
    let identity = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => key.error(Problem::OtherKey(cert.path.clone())),
        rustls::Error::InvalidCertificate(_) => {
            cert.error(Problem::Unsuitable(format!("its first certificate is not usable: {error}")))
        }
        error => key.error(Problem::Unsuitable(format!("its private key is not usable: {error}"))),
    })?;
    Ok(Arc::new(identity))
}
