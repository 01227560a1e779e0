//! One worker's handles to the counters that have labels, so that a request finds its own without locking the family.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;

use http::{Method, StatusCode};

use crate::observe::{Counter, CounterVec, Metrics};

/// Handles that one worker keeps. Beyond, it starts anew: there are more in use than it can hold anyway.
const HANDLES_MAX: usize = 65_536;

/// What a request is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Labels<'a> {
    pub(super) kind: &'static str,
    pub(super) route: &'a str,
    pub(super) service: &'a str,
    pub(super) method: &'static str,
    pub(super) status: StatusCode,
}

/// The handles of one worker.
#[derive(Debug)]
pub(super) struct Counters {
    requests: CounterVec,
    hasher: foldhash::fast::RandomState,
    handles: RefCell<HashMap<u64, Handle, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Handle {
    kind: &'static str,
    route: Box<str>,
    service: Box<str>,
    method: &'static str,
    status: StatusCode,
    counter: Counter,
}

impl Handle {
    fn labels(&self) -> Labels<'_> {
        Labels { kind: self.kind, route: &self.route, service: &self.service, method: self.method, status: self.status }
    }
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Counters {
        Counters { requests: metrics.requests.clone(), hasher: Default::default(), handles: RefCell::default() }
    }

    /// Counts one answered request.
    pub(super) fn count(&self, labels: Labels<'_>) {
        let mut handles = self.handles.borrow_mut();
        let key = self.hasher.hash_one(labels);
        if let Some(handle) = handles.get(&key)
            && handle.labels() == labels
        {
            return handle.counter.inc();
        }
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        let Labels { kind, route, service, method, status } = labels;
        let counter = self.requests.with_label_values(&[kind, route, service, method, status.as_str()]);
        counter.inc();
        handles.insert(key, Handle { kind, route: route.into(), service: service.into(), method, status, counter });
    }
}

/// The method as a label: those of the Gateway API, and one word for all others.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
