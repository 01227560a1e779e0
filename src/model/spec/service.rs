//! `Service`: a backend and its endpoints, as served.

use std::time::Duration;

/// A service as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// May be empty: then its share is answered with 503.
    pub endpoints: Vec<Endpoint>,
    /// What its endpoints speak.
    pub protocol: Protocol,
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
}

impl Protocol {
    /// Whether gRPC can be spoken over it, which needs HTTP/2.
    pub fn carries_grpc(self) -> bool {
        match self {
            Protocol::Http1 => false,
            Protocol::H2c => true,
        }
    }
}
