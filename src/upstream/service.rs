//! The services that one worker has sent requests to.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::balance::RoundRobin;
use super::pool::{Endpoint, IdleBudget};
use super::tls::TlsClients;
use crate::model::Name;
use crate::table::{Certificate, Service, Snapshot};

/// All services of one worker.
#[derive(Debug)]
pub struct Upstreams {
    services: RefCell<HashMap<Name, Runtime, foldhash::fast::RandomState>>,
    budget: Rc<IdleBudget>,
    clients: Arc<TlsClients>,
}

/// One service: what it was compiled from, and its endpoints in the order of its spec.
#[derive(Debug)]
struct Runtime {
    service: Arc<Service>,
    certificate: Option<Arc<Certificate>>,
    endpoints: Vec<Rc<Endpoint>>,
    robin: RoundRobin,
}

impl Upstreams {
    /// No services yet; they come with the first request to each. Over TLS they go by `clients`, which all workers share.
    pub fn new(clients: Arc<TlsClients>) -> Upstreams {
        Upstreams { services: RefCell::default(), budget: Rc::default(), clients }
    }

    /// The endpoint whose turn it is; another than `avoid` where there is one. `None` where the service has none with a weight. Its
    /// connections show `certificate`, which is that of the snapshot that `service` is of.
    pub fn endpoint(
        &self,
        service: &Arc<Service>,
        certificate: Option<&Arc<Certificate>>,
        avoid: Option<&Rc<Endpoint>>,
    ) -> Option<Rc<Endpoint>> {
        let mut services = self.services.borrow_mut();
        let runtime = match services.get_mut(&service.id.name) {
            Some(runtime) => {
                runtime.follow(service, certificate, self);
                runtime
            }
            None => services.entry(service.id.name.clone()).or_insert(Runtime::new(service, certificate, &[], self)),
        };
        let first = runtime.next()?;
        match avoid {
            Some(avoid) if Rc::ptr_eq(&first, avoid) => {
                (1..runtime.endpoints.len()).filter_map(|_| runtime.next()).find(|next| !Rc::ptr_eq(next, avoid)).or(Some(first))
            }
            _ => Some(first),
        }
    }

    /// Forgets services that `snapshot` lacks and closes connections that were idle for too long. Called every second or so.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        let mut services = self.services.borrow_mut();
        services.retain(|name, runtime| {
            let is_present = snapshot.service(name).is_some_and(|present| present.id == runtime.service.id);
            if !is_present {
                runtime.endpoints.iter().for_each(|endpoint| endpoint.retire());
            }
            is_present
        });
        services.values().flat_map(|runtime| &runtime.endpoints).for_each(|endpoint| endpoint.sweep(now));
        self.budget.sweep(now);
    }
}

impl Runtime {
    fn new(service: &Arc<Service>, certificate: Option<&Arc<Certificate>>, known: &[Rc<Endpoint>], all: &Upstreams) -> Runtime {
        let protocol = service.spec.protocol;
        let client = service.spec.tls.as_ref().map(|tls| all.clients.client(service, tls, certificate));
        let speaks_same = |endpoint: &Endpoint| endpoint.protocol() == protocol && endpoint.is_secured_by(client.as_ref());
        let find = |address: &str| known.iter().find(|known| known.address() == address && speaks_same(known)).cloned();
        let make = |address: &str| Endpoint::new(address, protocol, client.as_ref(), &all.budget);
        let specs = &service.spec.endpoints;
        let endpoints = specs.iter().map(|e| find(&e.address).unwrap_or_else(|| make(&e.address))).collect();
        let robin = RoundRobin::new(specs.iter().map(|endpoint| endpoint.weight).collect(), fastrand::u64(..));
        Runtime { service: Arc::clone(service), certificate: certificate.cloned(), endpoints, robin }
    }

    /// Takes over another version of the service, or of its certificate. What belongs to an endpoint stays with its address; a service that was made anew
    /// starts with nothing.
    fn follow(&mut self, service: &Arc<Service>, certificate: Option<&Arc<Certificate>>, all: &Upstreams) {
        let shows_same = self.certificate.as_ref().map(Arc::as_ptr) == certificate.map(Arc::as_ptr);
        if Arc::ptr_eq(&self.service, service) && shows_same {
            return;
        }
        let known = if self.service.id == service.id { self.endpoints.as_slice() } else { &[] };
        let next = Runtime::new(service, certificate, known, all);
        let kept: HashSet<*const Endpoint> = next.endpoints.iter().map(Rc::as_ptr).collect();
        let old = std::mem::replace(self, next).endpoints;
        old.iter().filter(|endpoint| !kept.contains(&Rc::as_ptr(endpoint))).for_each(|endpoint| endpoint.retire());
    }

    fn next(&mut self) -> Option<Rc<Endpoint>> {
        self.robin.pick().map(|index| Rc::clone(&self.endpoints[index]))
    }
}
