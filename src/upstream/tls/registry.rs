//! The TLS settings that are in use, shared by all workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::crypto::CryptoProvider;
use rustls_native_certs::{CertificateResult, load_native_certs};

use super::SystemAuthorities;
use super::client::{Identity, TlsClient};
use crate::model::spec::ServiceTls;
use crate::table::{Certificate, Service, ServiceId};

/// Services that are looked at, before those whose clients are gone are looked for.
const SERVICES_MIN: usize = 16;

/// One [`TlsClient`] for each service, set of settings and certificate that some worker uses; those that nobody uses any more are gone.
///
/// It is asked when a worker meets a service or a change of it, never on the way of a request to a service that is known.
#[derive(Debug)]
pub struct TlsClients {
    provider: Arc<CryptoProvider>,
    system: SystemAuthorities,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_service: HashMap<ServiceId, Vec<Weak<TlsClient>>>,
    /// How many services there were when those without clients were let go.
    swept_at: usize,
}

impl TlsClients {
    /// None yet.
    pub fn new() -> TlsClients {
        TlsClients::with_system(load_native_certs)
    }

    /// With the CAs that `load` gives in place of the machine's.
    pub(super) fn with_system(load: fn() -> CertificateResult) -> TlsClients {
        let (provider, system) = (Arc::new(rustls::crypto::ring::default_provider()), SystemAuthorities::new(load));
        TlsClients { provider, system, known: Mutex::default() }
    }

    /// The client of `service` under `tls`, which is its own, that shows `certificate`.
    pub(in crate::upstream) fn client(
        &self,
        service: &Service,
        tls: &Arc<ServiceTls>,
        certificate: Option<&Arc<Certificate>>,
    ) -> Arc<TlsClient> {
        let identity = Identity {
            service: service.id.clone(),
            protocol: service.spec.protocol,
            tls: Arc::clone(tls),
            certificate: certificate.cloned(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = known.by_service.entry(service.id.clone()).or_default();
        clients.retain(|client| client.strong_count() > 0);
        let found = clients.iter().filter_map(Weak::upgrade).find(|client| client.identity == identity);
        if let Some(found) = found {
            return found;
        }
        let client = Arc::new(TlsClient::new(identity, Arc::clone(&self.provider), self.system.clone()));
        clients.push(Arc::downgrade(&client));
        known.sweep();
        client
    }
}

#[cfg(test)]
impl TlsClients {
    /// Services that are known.
    pub(super) fn service_count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).by_service.len()
    }
}

impl Default for TlsClients {
    fn default() -> TlsClients {
        TlsClients::new()
    }
}

impl Known {
    /// Lets go of services without clients, once there are twice as many as there were.
    fn sweep(&mut self) {
        if self.by_service.len() >= SERVICES_MIN.max(2 * self.swept_at) {
            self.by_service.retain(|_, clients| clients.iter().any(|client| client.strong_count() > 0));
            self.swept_at = self.by_service.len();
        }
    }
}
