//! `Certificate`: a chain and its private key, as documents hold them. What is in the chain is read where it is served.

use super::secret::Secret;

/// What every label of a private key holds.
const PRIVATE_KEY: &str = "PRIVATE KEY";

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

/// What of PEM (RFC 7468) is no certificate, whether it can be read or not: the label of the first other section, or the words of a key. What
/// stands beside certificates is kept and shown as they are, in clear.
pub fn other_section(pem: &str) -> Option<&str> {
    let mut labels = pem.split("-----BEGIN ").skip(1).filter_map(|section| section.split(['-', '\r', '\n']).next());
    let is_key = || pem.to_ascii_uppercase().contains(PRIVATE_KEY);
    labels.find(|label| *label != "CERTIFICATE").or_else(|| is_key().then_some(PRIVATE_KEY))
}
