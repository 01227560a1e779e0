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

/// The label of the first section of PEM (RFC 7468 2) that is no certificate, whether it can be read or not: what stands beside certificates is
/// kept and shown as they are, in clear.
pub fn other_section(pem: &str) -> Option<&str> {
    let labels = pem.split("-----BEGIN ").skip(1).map(|section| section.split_once("-----").map_or("", |(label, _)| label));
    labels.into_iter().find(|label| *label != "CERTIFICATE")
}
