//! Services and their endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cursor::{Cursor, Object, Pointer};
use super::host;
use super::report::Report;
use super::route::{WEIGHT_MAX, duration};
use crate::model::spec::duration::format_duration;
use crate::model::spec::service::{Endpoint, Protocol, ServiceSpec};

const ENDPOINTS_MAX: usize = 10_000;

/// Bytes of an address at most: a host name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(600);

const BALANCERS_NOT_YET: [&str; 4] = ["LeastRequest", "Random", "ConsistentHash", "PeakEwma"];

/// The whole spec.
pub(super) fn service(cursor: &Cursor<'_>, report: &mut Report) -> Option<ServiceSpec> {
    let served = ["endpoints", "protocol", "loadBalancing", "connectTimeout"];
    let object = cursor.object(&served, &["discovery", "healthCheck", "limits"], report)?;
    let endpoints = endpoints(&object, report);
    let protocols = [("http1", Protocol::Http1), ("h2c", Protocol::H2c)];
    let protocol =
        object.get("protocol").map_or(Some(Protocol::default()), |field| field.choice(&protocols, &["https", "h2"], report));
    if let Some(balancing) = object.get("loadBalancing").and_then(|field| field.object(&["policy"], &["hashOn"], report))
        && let Some(policy) = balancing.get("policy")
    {
        policy.choice(&[("RoundRobin", ())], &BALANCERS_NOT_YET, report);
    }
    let connect_timeout =
        object.get("connectTimeout").map_or(Some(CONNECT_TIMEOUT_DEFAULT), |field| connect_timeout(&field, report));
    Some(ServiceSpec { endpoints, protocol: protocol?, connect_timeout: connect_timeout? })
}

fn endpoints(service: &Object<'_>, report: &mut Report) -> Vec<Endpoint> {
    let mut seen: BTreeMap<String, Pointer> = BTreeMap::new();
    let mut endpoints = Vec::new();
    for cursor in service.list("endpoints", ENDPOINTS_MAX, report) {
        let Some(object) = cursor.object(&["address", "weight"], &["zone"], report) else { continue };
        let weight = object.get("weight").map_or(Some(1), |field| field.integer(0..=WEIGHT_MAX, report));
        let Some(field) = object.require("address", report) else { continue };
        let Some(address) = field.read(1..=ADDRESS_BYTES_MAX, host::address, report) else { continue };
        if let Some(other) = seen.get(&address) {
            field.fail(report, format!("addresses are unique within a service; {other} has this one"));
            continue;
        }
        seen.insert(address.clone(), field.path());
        endpoints.extend(weight.map(|weight| Endpoint { address, weight }));
    }
    endpoints
}

/// Never disabled: without it a connect would wait for as long as the kernel likes.
fn connect_timeout(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let limit = duration(cursor, report)?;
    if limit.is_zero() || limit > CONNECT_TIMEOUT_MAX {
        cursor.fail(report, format!("must be from 1ms to {}", format_duration(CONNECT_TIMEOUT_MAX)));
        return None;
    }
    Some(limit)
}
