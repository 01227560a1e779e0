//! `tls` of a `Service`: how the gateway knows an endpoint, and what it shows of itself (Gateway API `BackendTLSPolicy`).

use std::sync::Arc;

use rustls::pki_types::TrustAnchor;

use crate::model::Name;

/// TLS to the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceTls {
    /// The name that certificates must be for, and that is sent as SNI. `None`: the host of each endpoint's address; one that is an IP
    /// address must stand in the certificate as such, and no SNI is sent.
    pub hostname: Option<String>,
    /// Who may vouch for certificates.
    pub authorities: Authorities,
    /// The `Certificate` resource that is shown to endpoints which ask for one.
    pub client_certificate: Option<Name>,
    /// The lowest version that is agreed on.
    pub version_min: TlsVersion,
}

/// Who may vouch for the certificate of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorities {
    /// The CAs of the machine that the node runs on.
    #[default]
    System,
    /// These CAs and no others.
    Bundle(Arc<[TrustAnchor<'static>]>),
    /// Nobody: any certificate will do.
    Unverified,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}
