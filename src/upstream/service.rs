//! The services that one worker has sent requests to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::balance::RoundRobin;
use super::pool::{Endpoint, IdleBudget};
use crate::model::Name;
use crate::table::{Service, Snapshot};

/// All services of one worker.
#[derive(Debug, Default)]
pub struct Upstreams {
    services: RefCell<HashMap<Name, Runtime, foldhash::fast::RandomState>>,
    budget: Rc<IdleBudget>,
}

/// One service: what it was compiled from, and its endpoints in the order of its spec.
#[derive(Debug)]
struct Runtime {
    service: Arc<Service>,
    endpoints: Vec<Rc<Endpoint>>,
    robin: RoundRobin,
}

impl Upstreams {
    /// No services yet; they come with the first request to each.
    pub fn new() -> Upstreams {
        Upstreams::default()
    }

    /// The endpoint whose turn it is; another than `avoid` where there is one. `None` where the service has none with a weight.
    pub fn endpoint(&self, service: &Arc<Service>, avoid: Option<&Rc<Endpoint>>) -> Option<Rc<Endpoint>> {
        let mut services = self.services.borrow_mut();
        let runtime = match services.get_mut(&service.id.name) {
            Some(runtime) => {
                runtime.follow(service, &self.budget);
                runtime
            }
            None => services.entry(service.id.name.clone()).or_insert(Runtime::new(service, &[], &self.budget)),
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
        services.retain(|name, runtime| snapshot.service(name).is_some_and(|present| present.id == runtime.service.id));
        services.values().flat_map(|runtime| &runtime.endpoints).for_each(|endpoint| endpoint.sweep(now));
        self.budget.sweep(now);
    }
}

impl Runtime {
    fn new(service: &Arc<Service>, known: &[Rc<Endpoint>], budget: &Rc<IdleBudget>) -> Runtime {
        let protocol = service.spec.protocol;
        let is_same = |endpoint: &Endpoint, address: &str| endpoint.address() == address && endpoint.protocol() == protocol;
        let find = |address: &str| known.iter().find(|endpoint| is_same(endpoint, address)).cloned();
        let specs = &service.spec.endpoints;
        let endpoints =
            specs.iter().map(|e| find(&e.address).unwrap_or_else(|| Endpoint::new(&e.address, protocol, budget))).collect();
        let robin = RoundRobin::new(specs.iter().map(|endpoint| endpoint.weight).collect(), fastrand::u64(..));
        Runtime { service: Arc::clone(service), endpoints, robin }
    }

    /// Takes over another version of the service. What belongs to an endpoint stays with its address; a service that was made anew
    /// starts with nothing.
    fn follow(&mut self, service: &Arc<Service>, budget: &Rc<IdleBudget>) {
        if Arc::ptr_eq(&self.service, service) {
            return;
        }
        let known = if self.service.id == service.id { self.endpoints.as_slice() } else { &[] };
        *self = Runtime::new(service, known, budget);
    }

    fn next(&mut self) -> Option<Rc<Endpoint>> {
        self.robin.pick().map(|index| Rc::clone(&self.endpoints[index]))
    }
}
