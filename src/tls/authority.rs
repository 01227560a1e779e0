//! A CA for one cluster, and the certificates that it signs: of nodes, and of those who call the admin API.
//!
//! ECDSA on P-256, which everything that speaks TLS can verify. A certificate begins an hour before it is made, for clocks differ.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::names::{Validity, node_uri};
use crate::model::NodeId;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The longest that a certificate holds: a century, after which dates have other forms.
const DAYS_MAX: u32 = 36_500;

/// Why no certificate was made.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A name cannot stand in a certificate.
    #[error("\"{0}\" is no host name and no IP address")]
    Host(String),
    /// Likewise.
    #[error("\"{0}\" is no name: 1 to 64 visible characters of ASCII without `/`")]
    Name(String),
    /// Likewise.
    #[error("\"{0}\" is no name of a cluster: letters, digits, `-`, `.` and `_`")]
    Cluster(String),
    /// A CA's certificate and key that cannot be used.
    #[error("the CA cannot be used: {0}")]
    Unusable(#[source] rcgen::Error),
    /// A CA whose certificate and key do not belong together.
    #[error("the CA's key is not that of its certificate")]
    OtherKey,
    /// The library gives none.
    #[error("no certificate was made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key, in PKCS#8.
    pub key: Zeroizing<String>,
    /// How long it holds.
    pub validity: Validity,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A node, as peers and callers of the admin API reach it.
    Node {
        /// The cluster's name.
        cluster: &'a str,
        /// The node's id.
        id: NodeId,
        /// Host names and IP addresses, as they stand in addresses.
        hosts: &'a [String],
    },
    /// Somebody who calls the admin API; history knows him by this name.
    Caller(&'a str),
}

/// A CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA that holds for `days`.
    ///
    /// # Errors
    ///
    /// The library makes no key or certificate.
    pub fn create(days: u32) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = lasting(days);
        // Two CAs of one cluster, an old and a new one, must be told apart.
        let number = uuid::Uuid::new_v4().simple().to_string();
        params.distinguished_name = common_name(&format!("raftgate CA {}", &number[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        issued(&certificate, &key)
    }

    /// The CA of a certificate and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// They are not PEM, of no use, or do not belong together.
    pub fn load(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(AuthorityError::Unusable)?;
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(certificate.as_bytes());
        let der: rustls::pki_types::CertificateDer<'static> =
            der.map_err(|_| AuthorityError::Unusable(rcgen::Error::CouldNotParseCertificate))?;
        if !is_key_of(&der, &key) {
            return Err(AuthorityError::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(AuthorityError::Unusable)?;
        Ok(Authority { issuer })
    }

    /// Makes a certificate that holds for `days`.
    ///
    /// # Errors
    ///
    /// A name that cannot stand in a certificate.
    pub fn issue(&self, subject: Subject<'_>, days: u32) -> Result<Issued, AuthorityError> {
        let mut params = lasting(days);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match subject {
            Subject::Node { cluster, id, hosts } => {
                if cluster.is_empty() || !cluster.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                    return Err(AuthorityError::Cluster(cluster.to_owned()));
                }
                params.distinguished_name = common_name(&format!("node-{id}"));
                params.subject_alt_names = hosts.iter().map(|host| alternative(host)).collect::<Result<_, _>>()?;
                params.subject_alt_names.push(SanType::URI(node_uri(cluster, id).try_into()?));
                // It answers peers and callers, and calls peers.
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            }
            Subject::Caller(name) => {
                let is_good = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
                if !is_good {
                    return Err(AuthorityError::Name(name.to_owned()));
                }
                params.distinguished_name = common_name(name);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        issued(&certificate, &key)
    }
}

fn issued(certificate: &Certificate, key: &KeyPair) -> Result<Issued, AuthorityError> {
    let validity = Validity::of(certificate.der()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()), validity })
}

fn lasting(days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + DAY * days.min(DAYS_MAX)).into();
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn alternative(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-'))
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let name = is_name.then(|| host.try_into().ok()).flatten();
    name.map(SanType::DnsName).ok_or_else(|| AuthorityError::Host(host.to_owned()))
}

fn is_key_of(certificate: &rustls::pki_types::CertificateDer<'_>, key: &KeyPair) -> bool {
    use x509_parser::prelude::FromDer as _;
    let parsed = x509_parser::certificate::X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *key.public_key_raw())
}
