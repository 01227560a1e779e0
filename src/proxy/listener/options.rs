//! What one listener is set to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::path::EscapedSlashes;
use crate::model::sender::belongs_to;
use crate::proxy::tls::Tls;
use crate::table::Live;

/// What one listener is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Its name, which routes bind to.
    pub name: String,
    /// The hosts that it takes, as in Gateway API's `Listener`; `None`: all.
    pub hostname: Option<String>,
    /// How TLS is spoken; `None`: clear text is.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether answers carry `Raftgate-Revision`.
    pub debug_headers: bool,
    /// Whether `Raftgate-Min-Revision` is heeded.
    pub min_revision: bool,
    /// Networks (address and prefix length in bits) whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// How long a drain lets exchanges go on.
    pub drain_timeout: Duration,
    /// What becomes of `%2f` and `%5c` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// Bytes of a request's head at most; at least 8 KiB are allowed.
    pub header_bytes_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_read_timeout: Duration,
    /// Bytes of a request's body at most.
    pub body_bytes_max: Option<u64>,
    /// Bytes a second that a client has to send of a request's body and to take of an answer, while it alone is waited for.
    pub body_rate_min: Option<u64>,
    /// How far behind that a client may be.
    pub body_rate_window: Duration,
    /// Connections open at once at most; each worker takes its part. More wait in the backlog.
    pub connections_max: usize,
    /// Connections from one IPv4 address or one /64 of IPv6 at most, over all workers. More are closed.
    pub connections_per_address_max: Option<usize>,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long an exchange may stand still, without a byte either way.
    pub stream_idle_timeout: Duration,
}

impl Default for ListenerOptions {
    fn default() -> ListenerOptions {
        ListenerOptions {
            name: "default".into(),
            hostname: None,
            tls: None,
            http2: true,
            proxy_protocol: false,
            debug_headers: false,
            min_revision: false,
            trusted_proxies: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            escaped_slashes: EscapedSlashes::Refuse,
            header_bytes_max: 64 * 1024,
            header_read_timeout: Duration::from_secs(10),
            body_bytes_max: None,
            body_rate_min: None,
            body_rate_window: Duration::from_secs(10),
            connections_max: 16_384,
            connections_per_address_max: None,
            idle_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(300),
        }
    }
}

impl ListenerOptions {
    /// The same, with the certificates of the live table to show.
    pub(in crate::proxy) fn with_certificates_of(&self, live: &Arc<Live>) -> ListenerOptions {
        let tls = self.tls.clone().map(|tls| tls.with_certificates_of(live));
        ListenerOptions { tls, ..self.clone() }
    }

    /// Whether `peer` is one of the trusted proxies.
    pub(in crate::proxy) fn trusts(&self, peer: IpAddr) -> bool {
        belongs_to(&self.trusted_proxies, peer)
    }
}
