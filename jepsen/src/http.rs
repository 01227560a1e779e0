//! The clients of HTTP, made in one place.
//!
//! The suite asks for no TLS, yet its clients have it in them: cargo joins the features of what it builds in one call, and the gateway's
//! reqwest has TLS without a provider of its own, which panics where the process has chosen none. So the suite asks for the same feature,
//! is the same program however it is built, and chooses the provider before the first client is made.

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

/// A builder of clients that go straight to where they are told to, with this time for a connection and this for an answer.
pub(crate) fn builder(connect: Duration, answer: Duration) -> ClientBuilder {
    // An error says that it was chosen before: by the client before this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No certificate is ever looked at: the machine's need not be there, and are not read once a client.
    Client::builder().no_proxy().tls_certs_only([]).connect_timeout(connect).timeout(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_be_made_however_the_suite_is_built() {
        for _ in 0..2 {
            builder(Duration::from_secs(1), Duration::from_secs(1)).build().unwrap();
        }
    }
}
