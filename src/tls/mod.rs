//! TLS of the nodes themselves: between peers, on the admin API, and for the command line that asks it.
//!
//! What listeners and backends speak is not here: their certificates are resources, and change with the table. A node's own identity must
//! stand before there is a table, so it is files that the configuration names.
//!
//! **Who is a peer.** Between peers both sides show a certificate of the cluster's CA ([`PeerTls`]). Being signed is not enough, for the same
//! CA may sign certificates of people who call the admin API: a peer's certificate names its node, as the URI `raftgate://CLUSTER/node/N`
//! among its subject alternative names. Who connects also holds the other side to the host that it dialled, and to the node that it means.
//!
//! **Who calls the admin API** ([`AdminTls`]) may show a certificate of `client_ca`; it is asked for and not demanded, for probes of
//! health have none and callers may have a token instead.
//!
//! **Renewal.** Files are looked at again and again ([`PeerTls::renew`]); what is good takes effect for new connections, and what is not
//! leaves things as they were. Connections that stand go on.
//!
//! `files` reads what the configuration names, `names` reads certificates, `authority` makes them (for `raftgate certs`, and for tests).
//! One provider of cryptography, ring, is named everywhere: nothing depends on a default of the process. Left out: revocation lists (short
//! validity and a new CA do that here) and resumption between peers (connections last).

mod admin;
mod authority;
mod client;
mod failure;
mod files;
mod names;
mod peer;
mod renewal;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use rustls::crypto::{self, CryptoProvider};

pub use admin::{AdminFiles, AdminTls};
pub use authority::{Authority, AuthorityError, Issued, Subject};
pub use client::{ClientFiles, client_config};
pub use failure::{HandshakeError, advice};
pub use files::FileError;
pub use names::{CallerName, Validity};
pub use peer::{PeerFiles, PeerTls};

/// What signs, verifies and encrypts.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}
