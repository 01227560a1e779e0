//! Health and metrics.
//!
//! `/readyz` speaks of the proxy: it stays ready without a quorum, for the last table is served; what is wrong with the control plane, and a
//! listener that has no certificate, is a warning there. `/readyz/control` speaks of the control plane alone. `/livez` only says that the process answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::Shared;
use super::explain::Listener;
use super::render::json_at;
use crate::raft::ClusterStatus;
use crate::table::Snapshot;

/// Whether this node's proxy takes requests. `server` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No committed table is served yet.
    #[default]
    Starting,
    /// A committed table is served.
    Serving,
    /// The node is stopping: requests under way are finished, new ones should go elsewhere.
    Draining,
}

/// Committed entries that wait to be applied, above which a node counts as lagging.
const LAG_ENTRIES_MAX: u64 = 1000;

/// `GET /livez`
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let reasons = match *shared.admin.phase.borrow() {
        Phase::Serving => Vec::new(),
        Phase::Starting => vec!["starting: no committed table is served yet".to_owned()],
        Phase::Draining => vec!["draining: this node is stopping".to_owned()],
    };
    let mut warnings = control_reasons(&shared.admin.cluster.status(), shared.admin.live.divergence());
    warnings.extend(without_certificate(&shared.admin.listeners(), &shared.admin.live.load()));
    report(&shared, &reasons, &warnings)
}

/// `GET /readyz/control`
pub(crate) async fn readyz_control(State(shared): State<Arc<Shared>>) -> Response {
    let mut reasons = control_reasons(&shared.admin.cluster.status(), shared.admin.live.divergence());
    match *shared.admin.phase.borrow() {
        Phase::Serving => {}
        // What is committed is known once a leader has said so; a node that has just begun may look as if it had all.
        Phase::Starting => reasons.push("lagging: no committed table is served yet".to_owned()),
        Phase::Draining => reasons.push("draining: this node is stopping".to_owned()),
    }
    report(&shared, &reasons, &[])
}

fn report(shared: &Shared, reasons: &[String], warnings: &[String]) -> Response {
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let revision = shared.admin.live.published().borrow().revision;
    let body = json!({"ready": ready, "reasons": reasons, "warnings": warnings, "revision": revision});
    json_at(status, revision, &body)
}

/// Listeners that speak TLS and that no client can reach, for the table holds no certificate that they could show. Which of a wildcard's hosts
/// clients ask for is not known: any certificate may be meant for them.
fn without_certificate(listeners: &[Listener], table: &Snapshot) -> impl Iterator<Item = String> {
    let is_bare = |listener: &&Listener| match listener.hostname.as_deref().filter(|hostname| !hostname.starts_with('*')) {
        _ if !listener.tls => false,
        Some(host) => table.certificate_for(Some(host)).is_none(),
        None => table.counts().certificates == 0,
    };
    listeners.iter().filter(is_bare).map(|listener| {
        let host = listener.hostname.as_deref().map(|hostname| format!(" for {hostname}")).unwrap_or_default();
        format!("listener {:?} speaks TLS, and the table holds no certificate{host}: every handshake is refused", listener.name)
    })
}

/// What is wrong with the control plane as this node sees it.
fn control_reasons(status: &ClusterStatus, table: Option<Arc<str>>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(reason) = &status.storage_failed {
        reasons.push(format!("storage failed: {reason}"));
    }
    if let Some(reason) = &status.bootstrap_failed {
        reasons.push(format!("no cluster: {reason}"));
    } else if status.cluster_id.is_none() {
        reasons.push("no cluster: this node does not belong to one yet".to_owned());
    }
    if status.leader.is_none() {
        reasons.push("no leader".to_owned());
    }
    if !status.quorum {
        reasons.push("no quorum".to_owned());
    }
    if let Some(reason) = &status.removed {
        reasons.push(format!("removed: {reason}"));
    }
    if let Some(reason) = &status.diverged {
        reasons.push(format!("diverged: {reason}"));
    }
    if let Some(what) = table {
        reasons.push(format!("diverged: the live table was not what it was made of, and was built anew: {what}"));
    }
    let lag = status.committed_index.saturating_sub(status.applied_index);
    if lag > LAG_ENTRIES_MAX {
        let own = status.members.iter().find(|member| member.id == status.node_id);
        let address = own.map_or_else(String::new, |own| format!("; the other members reach this node at {}", own.peer_address));
        reasons.push(format!("lagging: {lag} committed entries are not applied{address}"));
    }
    reasons
}

/// `GET /metrics`: the Prometheus text format.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = shared.admin.metrics.render().into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;

    use super::*;
    use crate::model::path::EscapedSlashes;
    use crate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, State as Resources, Timestamp, Transaction};
    use crate::secrets::{Keyring, Place};

    /// A table with a certificate for this host.
    fn table_for(host: &str) -> Snapshot {
        let (keyring, name) = (Arc::new(Keyring::of_bytes(&[1])), Name::new("c").unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
        let place = Place { kind: Kind::Certificate, name: &name, field: "privateKey" };
        let sealed = keyring.seal(place, &key.serialize_pem(), None).unwrap();
        let spec = Bytes::from(json!({"certificate": certificate.pem(), "privateKey": sealed.document()}).to_string());
        let put = Operation::Put { key: ResourceKey::new(Kind::Certificate, name), spec };
        let body = CommandBody::Transaction(Transaction { operations: vec![put], ..Transaction::default() });
        let mut state = Resources::default();
        state.apply(&Command { proposed_at: Timestamp(1), actor: "test".into(), body });
        Snapshot::with_keyring(keyring).rebuilt(&state)
    }

    #[test]
    fn a_listener_without_a_certificate_is_told() {
        let listener = |name: &str, hostname: Option<&str>, tls| Listener {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 443)),
            hostname: hostname.map(str::to_owned),
            tls,
            trusted_proxies: Vec::new(),
            escaped_slashes: EscapedSlashes::Refuse,
        };
        let listeners = [
            listener("plain", None, false),
            listener("all", None, true),
            listener("wild", Some("*.example.com"), true),
            listener("exact", Some("a.example.com"), true),
        ];
        let named = |table: &Snapshot| {
            let warnings: Vec<String> = without_certificate(&listeners, table).collect();
            let named = |listener: &&Listener| warnings.iter().any(|warning| warning.contains(&format!("{:?}", listener.name)));
            listeners.iter().filter(named).map(|listener| listener.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(named(&Snapshot::empty()), ["all", "wild", "exact"]);
        assert_eq!(named(&table_for("b.example.com")), ["exact"]);
        assert_eq!(named(&table_for("*.example.com")), [""; 0]);
    }

    #[test]
    fn every_fault_of_the_control_plane_is_a_reason() {
        let good = ClusterStatus {
            cluster_id: Some(Arc::from("c1")),
            leader: Some(1),
            quorum: true,
            committed_index: LAG_ENTRIES_MAX,
            ..ClusterStatus::default()
        };
        assert!(control_reasons(&good, None).is_empty());
        let bad = ClusterStatus {
            storage_failed: Some("disk".to_owned()),
            removed: Some("node 1".to_owned()),
            diverged: Some("node 2".to_owned()),
            committed_index: LAG_ENTRIES_MAX + 1,
            ..ClusterStatus::default()
        };
        let reasons = control_reasons(&bad, Some(Arc::from("routes/x"))).join("; ");
        for part in [
            "storage failed: disk",
            "no cluster",
            "no leader",
            "no quorum",
            "removed: node 1",
            "diverged: node 2",
            "built anew: routes/x",
            "lagging: 1001",
        ] {
            assert!(reasons.contains(part), "{part} in {reasons}");
        }
    }
}
