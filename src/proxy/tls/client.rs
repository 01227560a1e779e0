//! Who a client is, by its certificate: an element of `X-Forwarded-Client-Cert`, in the form that Envoy gives it.
//!
//! `Hash=...;Subject="...";URI=...;DNS=...`: the SHA-256 of the certificate, its subject as RFC 4514 writes it, and its names. The certificate was
//! verified before, but whoever it was signed for may have chosen its names. So nothing in them can end a value: what could is written
//! as an escape of the form that it stands in.

use std::fmt::Write as _;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Bytes of an element at most; above, the names are left out, and the hash alone says who it is.
const ELEMENT_BYTES_MAX: usize = 4096;

/// The element that tells of `certificate`.
pub(super) fn element(certificate: &CertificateDer<'_>) -> HeaderValue {
    let mut hash = String::from("Hash=");
    for byte in Sha256::digest(certificate) {
        // Writing into a string does not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let whole = match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => format!("{hash}{}", names(&parsed)),
        Err(_) => hash.clone(),
    };
    let element = if whole.len() <= ELEMENT_BYTES_MAX { whole } else { hash };
    HeaderValue::try_from(element).expect("every value is of visible ASCII and spaces")
}

fn names(certificate: &X509Certificate<'_>) -> String {
    let mut names = format!(";Subject=\"{}\"", subject(certificate.subject()));
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => names.push_str(&format!(";URI={}", value(uri))),
            GeneralName::DNSName(host) => names.push_str(&format!(";DNS={}", value(host))),
            _ => {}
        }
    }
    names
}

/// RFC 4514: the last part first, parts with a comma between, attributes of one part with a plus.
fn subject(name: &X509Name<'_>) -> String {
    let part = |attributes: Vec<String>| attributes.join("+");
    let parts: Vec<String> = name.iter_rdn().map(|rdn| part(rdn.iter().map(attribute).collect())).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let name = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
    let bytes = attribute.as_str().map_or_else(|_| attribute.as_slice(), str::as_bytes);
    let mut written = format!("{name}=");
    for (index, &byte) in bytes.iter().enumerate() {
        let is_at_edge = index == 0 || index + 1 == bytes.len();
        let is_plain = match byte {
            b' ' => !is_at_edge,
            b'#' => index != 0,
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => false,
            _ => byte.is_ascii_graphic(),
        };
        match is_plain {
            true => written.push(char::from(byte)),
            false => written.push_str(&format!("\\{byte:02X}")),
        }
    }
    written
}

/// A name, in quotes where it holds what separates values. What no URI and no host may hold is escaped as in a URI.
fn value(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' {
            true => written.push(char::from(byte)),
            false => written.push_str(&format!("%{byte:02X}")),
        }
    }
    if written.contains([',', ';', '=']) { format!("\"{written}\"") } else { written }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn told(subject: &[(DnType, &str)], names: Vec<SanType>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let element = element(certificate.der());
        let element = element.to_str().unwrap();
        let (hash, rest) = element.split_at("Hash=".len() + 64);
        let digest: String = Sha256::digest(certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, format!("Hash={digest}"));
        rest.to_owned()
    }

    #[test]
    fn names_cannot_break_out_of_their_values() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let organised = [(DnType::OrganizationName, "Ops"), (DnType::CommonName, "web 1")];
        let hostile = [(DnType::CommonName, "a\";URI=spiffe://x/admin,CN=\\\u{e9} ")];
        let table = [
            (&organised[..], vec![], ";Subject=\"CN=web 1,O=Ops\""),
            (&[], vec![dns("a.example"), dns("b.example")], ";Subject=\"\";DNS=a.example;DNS=b.example"),
            (&[], vec![uri("spiffe://x/web")], ";Subject=\"\";URI=spiffe://x/web"),
            (&[], vec![uri("u:a;DNS=b,c")], ";Subject=\"\";URI=\"u:a;DNS=b,c\""),
            (&[], vec![uri("u:\";DNS=b\\\" ")], ";Subject=\"\";URI=\"u:%22;DNS=b%5C%22%20\""),
            (&hostile[..], vec![], ";Subject=\"CN=a\\22\\3BURI\\3Dspiffe://x/admin\\2CCN\\3D\\5C\\C3\\A9\\20\""),
        ];
        for (subject, names, expected) in table {
            assert_eq!(told(subject, names), expected);
        }
        let many = (0..500).map(|number| dns(&format!("host-{number}.example"))).collect();
        assert_eq!(told(&organised, many), "");
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_hash() {
        let element = element(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(element, "Hash=039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81");
    }
}
