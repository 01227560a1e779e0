//! `tls` of a service.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};

use super::cursor::{Cursor, Object};
use super::host;
use super::report::Report;
use crate::model::Name;
use crate::model::spec::service::Endpoint;
use crate::model::spec::tls::{Authorities, ServiceTls, TlsVersion};

/// Bytes of a bundle: what a public list of CAs comes to, and no more.
const BUNDLE_BYTES_MAX: usize = 512 * 1024;
/// CAs of a bundle.
const BUNDLE_AUTHORITIES_MAX: usize = 512;

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

/// The whole object.
pub(super) fn tls(cursor: &Cursor<'_>, report: &mut Report) -> Option<ServiceTls> {
    let served = ["hostname", "caCertificates", "clientCertificate", "minVersion", "insecureSkipVerify"];
    let object = cursor.object(&served, &["subjectAltNames", "cipherSuites"], report)?;
    let hostname = optional(&object, "hostname", |field| field.read(1..=usize::MAX, host::hostname, report));
    let client_certificate = optional(&object, "clientCertificate", |field| field.read(0..=usize::MAX, Name::new, report));
    let version_min = object.get("minVersion").map_or(Some(TlsVersion::default()), |field| field.choice(&VERSIONS, &[], report));
    let authorities = authorities(&object, report);
    Some(ServiceTls {
        hostname: hostname?,
        authorities: authorities?,
        client_certificate: client_certificate?,
        version_min: version_min?,
    })
}

/// Warns of endpoints that hardly any certificate is for.
pub(super) fn check_names(cursor: &Cursor<'_>, tls: &ServiceTls, endpoints: &[Endpoint], report: &mut Report) {
    let is_ip = |endpoint: &Endpoint| endpoint.address.parse::<std::net::SocketAddr>().is_ok();
    if tls.hostname.is_none() && tls.authorities != Authorities::Unverified && endpoints.iter().any(is_ip) {
        let message =
            "there is no `hostname`: the certificate of an endpoint that is given by IP address must carry that address";
        report.warn(cursor.path(), message);
    }
}

/// `Some(None)`: the field is not there. `None`: it cannot be read.
fn optional<'a, T>(object: &Object<'a>, name: &'static str, read: impl FnOnce(&Cursor<'a>) -> Option<T>) -> Option<Option<T>> {
    match object.get(name) {
        None => Some(None),
        Some(field) => read(&field).map(Some),
    }
}

fn authorities(tls: &Object<'_>, report: &mut Report) -> Option<Authorities> {
    let bundle = tls.get("caCertificates");
    let switch = tls.get("insecureSkipVerify");
    let is_skipped = switch.as_ref().map_or(Some(false), |field| field.boolean(report))?;
    match (bundle, switch.filter(|_| is_skipped)) {
        (None, None) => Some(Authorities::System),
        (Some(field), None) => {
            field.read(1..=BUNDLE_BYTES_MAX, bundle_of, report).map(|anchors| Authorities::Bundle(anchors.roots.into()))
        }
        (Some(field), Some(_)) => {
            field.fail(report, "has no effect with `insecureSkipVerify`: remove one");
            None
        }
        (None, Some(field)) => {
            let message = "certificates of endpoints are not verified: whoever is on the way can read and change what passes";
            report.warn(field.path(), message);
            Some(Authorities::Unverified)
        }
    }
}

/// The CAs of PEM. Other sections are no part of a bundle, least of all keys. Errors: a sentence that names the fault.
fn bundle_of(pem: &str) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        let (kind, der) = section.map_err(|error| format!("is not PEM: {error}"))?;
        let number = authorities.len() + 1;
        if kind != SectionKind::Certificate {
            return Err("is for certificates of CAs alone; keys and other sections must be removed".to_owned());
        }
        if number > BUNDLE_AUTHORITIES_MAX {
            return Err(format!("at most {BUNDLE_AUTHORITIES_MAX} certificates"));
        }
        authorities.add(CertificateDer::from(der)).map_err(|error| format!("certificate {number} cannot be read: {error}"))?;
    }
    match authorities.is_empty() {
        true => Err("holds no certificate; expected PEM with `-----BEGIN CERTIFICATE-----`".to_owned()),
        false => Ok(authorities),
    }
}
