//! One worker's handles to the counters that have labels, so that a request finds its own without locking the family.
//!
//! It is found by the names themselves. Short ones stand in place, in the rule that a request has just used and in the handle.

use std::cell::RefCell;
use std::collections::HashMap;

use http::{Method, StatusCode};

use crate::model::Name;
use crate::observe::{CountedRoutes, Counter, CounterVec, Metrics, OTHER_ROUTES};

/// Handles of a kind that one worker keeps. Beyond, it starts anew: there are more in use than it can hold anyway.
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
        Identity { kind, route: route.cloned(), service: service.cloned(), method, status }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    kind: &'static str,
    route: Option<Name>,
    service: Option<Name>,
    method: &'static str,
    status: StatusCode,
}

/// The handles of one worker.
#[derive(Debug)]
pub(super) struct Counters {
    requests: CounterVec,
    counted_routes: CountedRoutes,
    /// Of the routes that are counted by name.
    named: RefCell<Handles>,
    /// Of all others together: no route is part of what these are found by.
    others: RefCell<Handles>,
}

type Handles = HashMap<Identity, Counter, foldhash::fast::RandomState>;

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Counters {
        let (requests, counted_routes) = (metrics.requests.clone(), metrics.counted_routes.clone());
        Counters { requests, counted_routes, named: RefCell::default(), others: RefCell::default() }
    }

    /// Counts one answered request.
    pub(super) fn count(&self, labels: Labels<'_>) {
        if let Some(handle) = self.named.borrow().get(&labels.identity()) {
            return handle.inc();
        }
        let route = labels.route.map_or("", |name| self.counted_routes.label(name.as_str()));
        match route == OTHER_ROUTES {
            true => self.count_in(&mut self.others.borrow_mut(), Labels { route: None, ..labels }, route),
            false => self.count_in(&mut self.named.borrow_mut(), labels, route),
        }
    }

    /// Counts under these labels but for the route's, which is `route`.
    fn count_in(&self, handles: &mut Handles, labels: Labels<'_>, route: &str) {
        let identity = labels.identity();
        if let Some(handle) = handles.get(&identity) {
            return handle.inc();
        }
        let Labels { kind, service, method, status, .. } = labels;
        let service = service.map_or("", Name::as_str);
        let counter = self.requests.with_label_values(&[kind, route, service, method, status.as_str()]);
        counter.inc();
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        handles.insert(identity, counter);
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
    use crate::observe::COUNTED_ROUTES_MAX;

    fn name(number: usize) -> Name {
        Name::new(&format!("r-{number}")).unwrap()
    }

    #[test]
    fn equal_labels_are_one_counter_wherever_their_names_stand() {
        let metrics = Metrics::new();
        let counters = Counters::new(&metrics);
        let count = |route: Option<&Name>, status| {
            counters.count(Labels { kind: "Route", route, service: None, method: "GET", status });
        };
        let (one, same) = (name(1), name(1));
        for name in [&one, &same, &one] {
            count(Some(name), StatusCode::OK);
        }
        count(Some(&one), StatusCode::NOT_FOUND);
        count(None, StatusCode::NOT_FOUND);
        assert_eq!(counters.named.borrow().len(), 3);
        // One name after the other in one place, short and long: none is taken for the one before it.
        for number in 0..200 {
            let long = Name::new(&format!("{}-{}", "long".repeat(10), number % 100)).unwrap();
            let place = if number % 2 == 0 { name(number % 100 + 2) } else { long };
            count(Some(&place), StatusCode::OK);
        }
        let value = |route: &str, status| metrics.requests.with_label_values(&["Route", route, "", "GET", status]).get();
        assert_eq!([value("r-1", "200"), value("r-1", "404"), value("", "404")], [3, 1, 1]);
        let long = |number| format!("{}-{number}", "long".repeat(10));
        assert!((0..100).step_by(2).all(|number| value(&format!("r-{}", number + 2), "200") == 2));
        assert!((1..100).step_by(2).all(|number| value(&long(number), "200") == 2));
    }

    #[test]
    fn routes_beyond_the_first_are_counted_together() {
        let metrics = Metrics::new();
        let workers = [Counters::new(&metrics), Counters::new(&metrics)];
        for number in 0..COUNTED_ROUTES_MAX + 50 {
            let (kind, status) = ("Route", StatusCode::OK);
            let route = name(number);
            workers[number % 2].count(Labels { kind, route: Some(&route), service: None, method: "GET", status });
        }
        let again = name(7);
        let labels = Labels { kind: "Route", route: Some(&again), service: None, method: "GET", status: StatusCode::OK };
        workers.iter().for_each(|worker| worker.count(labels));
        let text = metrics.render();
        assert_eq!(text.lines().filter(|line| line.starts_with("raftgate_requests_total{")).count(), COUNTED_ROUTES_MAX + 1);
        let value = |route: &str| metrics.requests.with_label_values(&["Route", route, "", "GET", "200"]).get();
        assert_eq!([value("*"), value("r-7"), value("r-8")], [50, 3, 1]);
    }
}
