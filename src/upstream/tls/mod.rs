//! TLS to endpoints.
//!
//! A [`TlsClient`] stands for one service with one set of TLS settings and one revision of its client certificate. It is made once and
//! shared by all workers ([`TlsClients`]), with the sessions that can be resumed: an endpoint under other settings gets a client of its
//! own, so that neither a connection nor a session of before is used under them. Its configuration is made with the first connection,
//! for that is when the machine's CAs are read ([`SystemAuthorities`]).
//!
//! Early data is never sent: it can be replayed (RFC 8446 8). Absent: revocation lists, names beside `hostname` (`subjectAltNames`).

mod authorities;
mod client;
mod problem;
mod registry;
#[cfg(test)]
mod tests;

use authorities::SystemAuthorities;
pub(super) use client::{Secured, TlsClient, TlsError};
pub use problem::TlsProblem;
pub use registry::TlsClients;
