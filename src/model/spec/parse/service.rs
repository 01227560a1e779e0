//! Services and their endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cursor::{Cursor, Object, Pointer};
use super::host;
use super::report::Report;
use super::route::{WEIGHT_MAX, duration};
use super::tls;
use crate::model::spec::duration::format_duration;
use crate::model::spec::service::{Endpoint, Protocol, ServiceSpec};
use crate::model::spec::tls::ServiceTls;

const ENDPOINTS_MAX: usize = 10_000;

/// Bytes of an address at most: a host name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(600);

const PROTOCOLS: [Protocol; 4] = [Protocol::Http1, Protocol::H2c, Protocol::Https, Protocol::H2];

const BALANCERS_NOT_YET: [&str; 4] = ["LeastRequest", "Random", "ConsistentHash", "PeakEwma"];

/// The whole spec.
pub(super) fn service(cursor: &Cursor<'_>, report: &mut Report) -> Option<ServiceSpec> {
    let served = ["endpoints", "protocol", "tls", "loadBalancing", "connectTimeout"];
    let object = cursor.object(&served, &["discovery", "healthCheck", "limits"], report)?;
    let endpoints = endpoints(&object, report);
    let protocol = object.get("protocol").map_or(Some(Protocol::default()), |field| {
        field.choice(&PROTOCOLS.map(|protocol| (protocol.as_str(), protocol)), &[], report)
    });
    let tls = protocol.and_then(|protocol| tls_of(&object, protocol, &endpoints, report));
    if let Some(balancing) = object.get("loadBalancing").and_then(|field| field.object(&["policy"], &["hashOn"], report))
        && let Some(policy) = balancing.get("policy")
    {
        policy.choice(&[("RoundRobin", ())], &BALANCERS_NOT_YET, report);
    }
    let connect_timeout =
        object.get("connectTimeout").map_or(Some(CONNECT_TIMEOUT_DEFAULT), |field| connect_timeout(&field, report));
    Some(ServiceSpec { endpoints, protocol: protocol?, tls: tls?, connect_timeout: connect_timeout? })
}

/// `Some(None)`: the protocol has none. `None`: it cannot be read.
fn tls_of(
    service: &Object<'_>,
    protocol: Protocol,
    endpoints: &[Endpoint],
    report: &mut Report,
) -> Option<Option<Arc<ServiceTls>>> {
    let Some(field) = service.get("tls") else {
        return Some(protocol.is_over_tls().then(Arc::default));
    };
    let tls = tls::tls(&field, report);
    if !protocol.is_over_tls() {
        let spoken = protocol.as_str();
        field.fail(report, format!("is for `protocol` https or h2; this service speaks {spoken}, which is clear text"));
        return None;
    }
    let tls = tls?;
    tls::check_names(&field, &tls, endpoints, report);
    Some(Some(Arc::new(tls)))
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
