//! Copies of requests (Gateway API `HTTPRequestMirrorFilter`), and all services that a route names.

use super::route::{Filter, RouteSpec};
use crate::model::Name;

/// Sends a copy of some requests to a service and drops its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMirror {
    /// The `Service`; it need not exist yet.
    pub service: Name,
    /// Which part of the requests; default all.
    pub share: Share,
}

/// A part of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// At most the denominator.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl Share {
    /// Whether `point`, taken as a fraction of 2^64, lies in the share.
    pub fn holds(self, point: u64) -> bool {
        (u128::from(point) * u128::from(self.denominator)) >> 64 < u128::from(self.numerator)
    }
}

/// A place where a route names a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The JSON pointer of the place.
    pub pointer: String,
    /// The service.
    pub service: &'a Name,
    /// Whether it gets copies alone.
    pub is_mirror: bool,
}

impl RouteSpec {
    /// Every service that the route names, in the order of the document's rules.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.rules.iter().enumerate().flat_map(|(rule_index, rule)| {
            let backends = rule.backend_refs.iter().enumerate().map(move |(index, backend)| Reference {
                pointer: format!("/rules/{rule_index}/backendRefs/{index}"),
                service: &backend.name,
                is_mirror: false,
            });
            let mirrors = rule.filters.iter().enumerate().filter_map(move |(index, filter)| match filter {
                Filter::RequestMirror(mirror) => Some(Reference {
                    pointer: format!("/rules/{rule_index}/filters/{index}/requestMirror/backendRef"),
                    service: &mirror.service,
                    is_mirror: true,
                }),
                _ => None,
            });
            backends.chain(mirrors)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_its_part_of_all_points() {
        let held = |numerator, denominator| {
            let share = Share { numerator, denominator };
            (0..1000).filter(|n| share.holds(u64::MAX / 2000 * (2 * n + 1))).count()
        };
        assert_eq!([held(0, 100), held(100, 100), held(1, 1), held(1, 1000)], [0, 1000, 1000, 1]);
        assert!((249..=251).contains(&held(25, 100)), "{}", held(25, 100));
        assert!(Share { numerator: 1, denominator: 1 }.holds(u64::MAX));
        assert!(!Share { numerator: u32::MAX - 1, denominator: u32::MAX }.holds(u64::MAX));
    }
}
