//! One worker's handles to the counters that have labels, so that a request finds its own without locking the family.
//!
//! A handle is found by where its names stand in memory and not by their letters: with many routes, each look at a name is a miss of the
//! cache. A handle keeps its names, so that nothing else can come to stand there; equal names in two places have two handles to one counter.

use std::cell::RefCell;
use std::collections::HashMap;

use http::{Method, StatusCode};

use crate::model::Name;
use crate::observe::{Counter, CounterVec, Metrics};

/// Handles that one worker keeps. Beyond, it starts anew: there are more in use than it can hold anyway.
const HANDLES_MAX: usize = 65_536;

/// What a request is counted under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a> {
    pub(super) kind: &'static str,
    pub(super) route: Option<&'a Name>,
    pub(super) service: Option<&'a Name>,
    pub(super) method: &'static str,
    pub(super) status: StatusCode,
}

impl Labels<'_> {
    /// What tells them apart.
    fn identity(&self) -> Identity {
        let Labels { kind, route, service, method, status } = *self;
        Identity { kind: place(kind), route: place_of(route), service: place_of(service), method: place(method), status }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    kind: usize,
    route: usize,
    service: usize,
    method: usize,
    status: StatusCode,
}

fn place(text: &str) -> usize {
    text.as_ptr().addr()
}

fn place_of(name: Option<&Name>) -> usize {
    name.map_or(0, |name| place(name.as_str()))
}

/// The handles of one worker.
#[derive(Debug)]
pub(super) struct Counters {
    requests: CounterVec,
    handles: RefCell<HashMap<Identity, Handle, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Handle {
    counter: Counter,
    /// Held for their places.
    _names: [Option<Name>; 2],
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Counters {
        Counters { requests: metrics.requests.clone(), handles: RefCell::default() }
    }

    /// Counts one answered request.
    pub(super) fn count(&self, labels: Labels<'_>) {
        let mut handles = self.handles.borrow_mut();
        let identity = labels.identity();
        if let Some(handle) = handles.get(&identity) {
            return handle.counter.inc();
        }
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        let Labels { kind, route, service, method, status } = labels;
        let [route_label, service_label] = [route, service].map(|name| name.map_or("", Name::as_str));
        let counter = self.requests.with_label_values(&[kind, route_label, service_label, method, status.as_str()]);
        counter.inc();
        handles.insert(identity, Handle { counter, _names: [route.cloned(), service.cloned()] });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_labels_are_one_counter_wherever_their_names_stand() {
        let metrics = Metrics::new();
        let counters = Counters::new(&metrics);
        let count = |route: Option<&Name>, status| {
            counters.count(Labels { kind: "Route", route, service: None, method: "GET", status });
        };
        let name = |number: usize| Name::new(&format!("r-{number}")).unwrap();
        let (one, same) = (name(1), name(1));
        for name in [&one, &same, &one] {
            count(Some(name), StatusCode::OK);
        }
        count(Some(&one), StatusCode::NOT_FOUND);
        count(None, StatusCode::NOT_FOUND);
        assert_eq!(counters.handles.borrow().len(), 4);
        // Names that are gone leave their places to nobody, and more than there is room for lose no count.
        for number in 0..HANDLES_MAX + 10 {
            count(Some(&name(number % 1000 + 2)), StatusCode::OK);
        }
        assert!(counters.handles.borrow().len() <= HANDLES_MAX);
        let value = |route: &str, status| metrics.requests.with_label_values(&["Route", route, "", "GET", status]).get();
        assert_eq!([value("r-1", "200"), value("r-1", "404"), value("", "404"), value("r-2", "200")], [3, 1, 1, 66]);
        assert_eq!((2..1002).map(|number| value(&format!("r-{number}"), "200")).sum::<u64>(), HANDLES_MAX as u64 + 10);
    }
}
