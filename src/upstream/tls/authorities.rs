//! The CAs of the machine.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls_native_certs::CertificateResult;

/// The CAs of the machine, read once, when the first service asks for them. Those that are installed later are seen by the next process.
#[derive(Clone)]
pub(super) struct SystemAuthorities {
    load: fn() -> CertificateResult,
    loaded: Arc<OnceLock<Arc<RootCertStore>>>,
}

impl SystemAuthorities {
    /// Read by `load`.
    pub(super) fn new(load: fn() -> CertificateResult) -> SystemAuthorities {
        SystemAuthorities { load, loaded: Arc::default() }
    }

    /// All that can be used; `None` where there are none. The disk is not read on a worker's own thread.
    pub(super) async fn get(&self) -> Option<Arc<RootCertStore>> {
        let loaded = match self.loaded.get() {
            Some(loaded) => Arc::clone(loaded),
            None => {
                let (load, loaded) = (self.load, Arc::clone(&self.loaded));
                // What was read stays, also where nobody waits for it any more.
                tokio::task::spawn_blocking(move || Arc::clone(loaded.get_or_init(|| Arc::new(read(load))))).await.ok()?
            }
        };
        (!loaded.is_empty()).then_some(loaded)
    }
}

impl fmt::Debug for SystemAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemAuthorities").field("count", &self.loaded.get().map(|loaded| loaded.len())).finish_non_exhaustive()
    }
}

fn read(load: fn() -> CertificateResult) -> RootCertStore {
    let found = load();
    for error in &found.errors {
        tracing::warn!(error = error as &dyn std::error::Error, "CA certificates of this machine not read");
    }
    let mut authorities = RootCertStore::empty();
    let (count, ignored) = authorities.add_parsable_certificates(found.certs);
    match count {
        0 => tracing::warn!("this machine has no CA certificates: install them, or give each service tls.caCertificates"),
        _ => tracing::info!(count, ignored, "CA certificates of this machine read"),
    }
    authorities
}
