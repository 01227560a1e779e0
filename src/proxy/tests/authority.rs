//! Who signs the tests' certificates, and the documents that these come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::time::ASN1Time;

use crate::model::{Kind, Name};
use crate::secrets::{Keyring, Place};

/// A certificate and its key.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

/// Who signs certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// One with a name that no other has.
    pub(super) fn another() -> Authority {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Authority::new(&format!("CA {}", COUNT.fetch_add(1, Ordering::SeqCst)))
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(super) fn issue(&self, params: &CertificateParams) -> Issued {
        self.issue_for(KeyPair::generate().unwrap(), params)
    }

    pub(super) fn issue_for(&self, key: KeyPair, params: &CertificateParams) -> Issued {
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// One for servers and clients under `name`.
    pub(super) fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.issue(&params)
    }

    /// A client's, with a URI, good for so many seconds from now on.
    pub(super) fn client(&self, name: &str, uri: &str, seconds: i64) -> Issued {
        let mut params = named(name);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let end = ASN1Time::now().timestamp() + seconds;
        params.not_before = ASN1Time::from_timestamp(end - 86_400).unwrap().to_datetime();
        params.not_after = ASN1Time::from_timestamp(end).unwrap().to_datetime();
        self.issue(&params)
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// What the gateways of these tests seal and open with.
pub(super) fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::of_bytes(&[1]))
}

/// A certificate's document as it is stored.
pub(super) fn document(name: &str, issued: &Issued, is_default: bool) -> Value {
    document_with(name, issued, &issued.key.serialize_pem(), is_default)
}

/// The same, with the key as it stands in `key`.
pub(super) fn document_with(name: &str, issued: &Issued, key: &str, is_default: bool) -> Value {
    let name = Name::new(name).unwrap();
    let place = Place { kind: Kind::Certificate, name: &name, field: "privateKey" };
    let sealed = keyring().seal(place, key, None).unwrap();
    json!({"certificate": issued.pem, "privateKey": sealed.document(), "default": is_default})
}
