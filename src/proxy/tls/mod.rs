//! TLS on listeners: what is checked at the start, and the handshake of each connection.
//!
//! ```text
//! socket -> [PROXY header] -> ClientHello -> name (SNI) -> listener of the address, certificate of the live table
//!                                                               |
//!            connection of HTTP/1.1 or HTTP/2 (ALPN)  <-  handshake by that listener's settings
//! ```
//!
//! [`Tls`] is what a listener's configuration says, loaded and checked before any address is bound. `handshake` runs on the worker's thread, as
//! everything of a connection does. It asks the live table for a certificate each time, so that a change of one is there for the next
//! client, with the table and at once; connections that stand keep what they have. `client` says who a client is, by its certificate, in the
//! words of a header field.
//!
//! What HTTP needs to know of it afterwards is little: [`Secured`]. A request is taken only by the listener that the name selected
//! (`exchange`, *admit*): HTTP/2 clients use a connection for every host that its certificate names (RFC 9113 9.1.1), and a host may be
//! another listener's, with other routes and another demand on clients.
//!
//! Absent on purpose: early data (0-RTT), which can be replayed; stapled OCSP answers, for which nobody asks any more.

mod client;
mod handshake;
mod settings;

use http::HeaderValue;

use super::connection::Protocol;

pub(super) use handshake::serve;
pub use settings::{Tls, TlsError};

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct Secured {
    /// By ALPN; without it HTTP/1.1.
    pub(super) protocol: Protocol,
    /// The name of the listener that the client's SNI selected; `None`: none of the address takes that name.
    pub(super) listener: Option<String>,
    /// Whose certificate was verified, as it stands in `X-Forwarded-Client-Cert`.
    pub(super) client: Option<HeaderValue>,
}
