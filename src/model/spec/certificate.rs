//! `Certificate`: a chain and its private key, as documents hold them. What is in the chain is read where it is served.

use super::secret::Secret;

/// A certificate as its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSpec {
    /// The chain in PEM, the leaf first. At most 64 KiB.
    pub certificate: String,
    /// The leaf's private key: PEM of PKCS#8, PKCS#1 or SEC1, at most 16 KiB.
    pub private_key: Secret,
    /// Whether it serves clients that name no host, or one that no certificate has. Default false.
    pub is_default: bool,
}
