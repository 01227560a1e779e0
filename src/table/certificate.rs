//! One certificate: from PEM to what a handshake uses.

use std::sync::Arc;

use bytes::Bytes;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroize as _;

use crate::model::spec::other_section;
use crate::model::{Name, Revision};

/// Certificates of one chain at most.
const CHAIN_MAX: usize = 10;
/// What is told of the label of a section that does not belong there.
const LABEL_CHARS_MAX: usize = 40;

/// A certificate as it is served.
#[derive(Debug)]
pub struct Certificate {
    /// The resource's name.
    pub name: Name,
    /// The revision that made the resource.
    pub created_revision: Revision,
    /// The revision that gave it this content.
    pub revision: Revision,
    /// The hosts that it is for, as its leaf names them: in lower case, exact or `*.` and a suffix. May be empty.
    pub hosts: Vec<String>,
    /// Whether it serves clients that name no host, or one that no certificate has.
    pub is_default: bool,
    /// When its leaf begins to be valid, in seconds of the Unix epoch.
    pub not_before: i64,
    /// When its leaf ends to be valid, in seconds of the Unix epoch.
    pub not_after: i64,
    /// Chain and key, for handshakes on either side.
    pub key: Arc<CertifiedKey>,
    /// The document that it was made of.
    pub(super) spec: Bytes,
}

/// Two are equal that were made of one document of one resource: keys cannot be compared.
impl PartialEq for Certificate {
    fn eq(&self, other: &Certificate) -> bool {
        let made_of = |it: &Certificate| (it.created_revision, it.revision);
        made_of(self) == made_of(other) && self.name == other.name && self.spec == other.spec
    }
}

/// Why a chain or its key is no good.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Not PEM.
    #[error("it is not PEM: expected blocks of BEGIN CERTIFICATE and END CERTIFICATE")]
    ChainSyntax,
    /// PEM of other things.
    #[error("it holds no certificate in PEM (BEGIN CERTIFICATE)")]
    ChainEmpty,
    /// Something beside certificates, which would be kept and shown in clear.
    #[error(
        "it holds a section `{0}`: only certificates stand here, and anybody who may read sees them; a key belongs in `privateKey`"
    )]
    ChainForeign(String),
    /// Too many.
    #[error("it holds more than {CHAIN_MAX} certificates")]
    ChainTooLong,
    /// One of the chain is not X.509.
    #[error("certificate {number} of the chain is not X.509")]
    NotX509 {
        /// From 1.
        number: usize,
    },
    /// No private key in it.
    #[error("it holds no private key in PEM: PKCS#8 (BEGIN PRIVATE KEY), PKCS#1 (RSA) or SEC1 (EC), not encrypted")]
    KeySyntax,
    /// Of a type that is not served.
    #[error("the key cannot be used: expected RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519")]
    KeyType,
    /// Another certificate's.
    #[error("it is not the key of the certificate")]
    KeyMismatch,
    /// The key of a later certificate of the chain.
    #[error("the key is that of certificate {number} of the chain: the leaf must come first")]
    LeafNotFirst {
        /// From 1.
        number: usize,
    },
}

impl CertificateError {
    /// The field of the spec that is at fault.
    pub fn field(&self) -> &'static str {
        match self {
            CertificateError::ChainSyntax
            | CertificateError::ChainEmpty
            | CertificateError::ChainForeign(_)
            | CertificateError::ChainTooLong
            | CertificateError::NotX509 { .. }
            | CertificateError::LeafNotFirst { .. } => "certificate",
            CertificateError::KeySyntax | CertificateError::KeyType | CertificateError::KeyMismatch => "privateKey",
        }
    }
}

/// A chain that was read, and what its leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// As in [`Certificate::hosts`].
    pub hosts: Vec<String>,
    /// As in [`Certificate::not_before`].
    pub not_before: i64,
    /// As in [`Certificate::not_after`].
    pub not_after: i64,
}

impl Chain {
    /// Reads a chain in PEM, the leaf first.
    ///
    /// # Errors
    ///
    /// It is not PEM, or what it holds is no certificate.
    pub fn read(pem: &str) -> Result<Chain, CertificateError> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).take(CHAIN_MAX + 1);
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|_| CertificateError::ChainSyntax)?;
        if certificates.len() > CHAIN_MAX {
            return Err(CertificateError::ChainTooLong);
        }
        let numbered = certificates.iter().zip(1..);
        let parsed = numbered.map(|(der, number)| parse(der).ok_or(CertificateError::NotX509 { number }));
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        let leaf = parsed.first().ok_or(CertificateError::ChainEmpty)?;
        let (not_before, not_after) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let hosts = hosts(leaf);
        Ok(Chain { hosts, not_before, not_after, certificates })
    }

    /// The same of a chain that is to be stored: it may hold nothing else.
    ///
    /// # Errors
    ///
    /// The same, or there is something beside certificates.
    pub fn admit(pem: &str) -> Result<Chain, CertificateError> {
        match other_section(pem) {
            Some(label) => Err(CertificateError::ChainForeign(label.chars().take(LABEL_CHARS_MAX).collect())),
            None => Chain::read(pem),
        }
    }

    /// Chain and private key together.
    ///
    /// # Errors
    ///
    /// There is no key in `pem`, it is of a type that is not served, or it is another certificate's.
    pub fn with_key(&self, pem: &[u8]) -> Result<CertifiedKey, CertificateError> {
        let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| CertificateError::KeySyntax)?;
        let key = any_supported_type(&der).map_err(|_| CertificateError::KeyType);
        der.zeroize();
        let certified = CertifiedKey::new(self.certificates.clone(), key?);
        if certified.keys_match().is_ok() {
            return Ok(certified);
        }
        let is_key_of = |certificate: &CertificateDer<'static>| {
            CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
        };
        Err(match self.certificates.iter().position(is_key_of) {
            Some(index) => CertificateError::LeafNotFirst { number: index + 1 },
            None => CertificateError::KeyMismatch,
        })
    }
}

fn parse<'a>(der: &'a CertificateDer<'static>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// The hosts in the leaf's subjectAltName (RFC 6125 6.4; the common name counts for nobody any more), each once.
fn hosts(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    let hosts = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let mut hosts: Vec<String> = hosts.filter(|host| is_host(host)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Whether a client can mean it: a name, or one with a whole label of `*` in front.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
}
