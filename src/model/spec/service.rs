//! `Service`: a backend and its endpoints, as served.

use std::sync::Arc;
use std::time::Duration;

use super::tls::ServiceTls;
use crate::model::Name;

/// A service as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// May be empty: then its share is answered with 503.
    pub endpoints: Vec<Endpoint>,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// Of [`Protocol::Https`] and [`Protocol::H2`], and of no other.
    pub tls: Option<Arc<ServiceTls>>,
    /// Of one connection; default 1 s.
    pub connect_timeout: Duration,
}

/// One address of a service; addresses are unique within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`, `ip:port` or `[ip6]:port`.
    pub address: String,
    /// 0 to 1,000,000, default 1; 0 gets nothing.
    pub weight: u32,
}

/// What endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1 in clear text.
    #[default]
    Http1,
    /// HTTP/2 in clear text, by prior knowledge (RFC 9113 3.3).
    H2c,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 over TLS, agreed on by ALPN (RFC 9113 3.2).
    H2,
}

impl ServiceSpec {
    /// The `Certificate` resource that is shown to its endpoints.
    pub fn client_certificate(&self) -> Option<&Name> {
        self.tls.as_ref()?.client_certificate.as_ref()
    }
}

impl Protocol {
    /// Whether gRPC can be spoken over it, which needs HTTP/2.
    pub fn carries_grpc(self) -> bool {
        match self {
            Protocol::Http1 | Protocol::Https => false,
            Protocol::H2c | Protocol::H2 => true,
        }
    }

    /// Whether it goes over TLS.
    pub fn is_over_tls(self) -> bool {
        match self {
            Protocol::Http1 | Protocol::H2c => false,
            Protocol::Https | Protocol::H2 => true,
        }
    }

    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::H2c => "h2c",
            Protocol::Https => "https",
            Protocol::H2 => "h2",
        }
    }
}
