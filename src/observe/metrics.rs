//! Every metric family, in one list.
//!
//! Names start with `raftgate_`, base units stand last (`_seconds`, `_bytes`), counters end in `_total`. Label values are bounded by
//! the configuration or are closed sets, never what a client sends.

use std::sync::Arc;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use super::counted_routes::CountedRoutes;

/// Only ever grows.
pub type Counter = IntCounter;
/// A [`Counter`] for each set of label values.
pub type CounterVec = IntCounterVec;
/// Goes up and down.
pub type Gauge = IntGauge;
/// A [`Gauge`] for each set of label values.
pub type GaugeVec = IntGaugeVec;
/// Counts observations by size.
pub type Histogram = prometheus::Histogram;

/// From 100 microseconds to 10 seconds.
const SECONDS_BUCKETS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A declared family: its constructor needs its name once.
macro_rules! families {
    ($( $(#[doc = $doc:literal])+ $field:ident : $type:ident = $name:literal $([$($label:literal),+])? ; )+) => {
        /// Handles to every family of this node. Cloning shares them.
        #[derive(Debug, Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            /// Those that `requests` has labels for.
            pub counted_routes: CountedRoutes,
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Metrics {
            /// All families, at zero, in a registry of their own.
            pub fn new() -> Metrics {
                let registry = Arc::new(Registry::new());
                $( let $field = make::$type(&registry, $name, concat!($($doc),+).trim(), &[$($($label),+)?]); )+
                Metrics { registry, counted_routes: CountedRoutes::default(), $($field),+ }
            }
        }
    };
}

families! {
    /// Requests that were answered. `code` is the status; `kind` is the route's, `Route` or `GRPCRoute`; `kind`, `route` and `service` are empty
    /// where none was found; `route` is `*` for all routes but the first 10,000 that were asked for.
    requests: CounterVec = "raftgate_requests_total" ["kind", "route", "service", "method", "code"];
    /// From a request's head to the end of its answer.
    request_duration: Histogram = "raftgate_request_duration_seconds";
    /// From sending a request to a backend to the head of its answer.
    upstream_duration: Histogram = "raftgate_upstream_duration_seconds";
    /// Requests that no route answers.
    route_misses: Counter = "raftgate_route_misses_total";
    /// Errors that the gateway answered itself, by the Proxy-Status error type (RFC 9209).
    proxy_errors: CounterVec = "raftgate_proxy_errors_total" ["error"];
    /// What came from clients and was refused before it was a request, by what is wrong with it: line_end, request_line, version,
    /// target_size, head_size, field, host, length, length_and_coding, coding, chunk, trailers; plain_http: in clear text where TLS is spoken;
    /// library: refused without a problem document.
    requests_refused: CounterVec = "raftgate_requests_refused_total" ["reason"];
    /// Open connections from clients.
    downstream_connections: Gauge = "raftgate_downstream_connections";
    /// Connections from clients that were closed before their first request: over the bound of one address, without the header of the PROXY
    /// protocol that the listener demands.
    connections_refused: CounterVec = "raftgate_connections_refused_total" ["reason"];
    /// How often a new connection waited, and those behind it with the same worker, because its listener had `connections_max`.
    connections_held_back: Counter = "raftgate_connections_held_back_total";
    /// Connections of clients, and streams of theirs, that were ended for a limit: header_read_timeout, stream_idle_timeout (what stood still after its
    /// answer had begun, or was told before and went on standing still); over HTTP/2 by the error that GOAWAY named: enhance_your_calm (too many resets, CONTINUATIONs and their like),
    /// compression_error, flow_control_error, frame_size_error, protocol_error, stream_closed, internal_error, other.
    connections_ended: CounterVec = "raftgate_connections_ended_total" ["reason"];
    /// Streams of clients over HTTP/2 that the gateway reset, by the reason that it gave (RFC 9113 7): refused_stream (over 128 at a time),
    /// protocol_error (a malformed message), internal_error (an answer broke off), cancel, no_error, stream_closed, flow_control_error,
    /// frame_size_error, enhance_your_calm, compression_error, other.
    streams_reset: CounterVec = "raftgate_streams_reset_total" ["reason"];
    /// Handshakes of TLS with clients that were done: full, resumed.
    tls_handshakes: CounterVec = "raftgate_tls_handshakes_total" ["kind"];
    /// Handshakes of TLS with clients that failed: timeout, closed (the client went away), not_tls, plain_http, malformed, misbehaved, incompatible
    /// (no version, suite or protocol in common), no_certificate (for the name that was asked for), client_certificate (missing or not good),
    /// alert (the client refused), other.
    tls_handshake_failures: CounterVec = "raftgate_tls_handshake_failures_total" ["reason"];
    /// Connections of HTTP/1.1 that let go of their buffers because they were idle.
    connections_rested: Counter = "raftgate_connections_rested_total";
    /// Clients that were under `body_rate_min`, and were given up.
    slow_clients: Counter = "raftgate_slow_clients_total";
    /// Requests under way.
    requests_active: Gauge = "raftgate_requests_active";
    /// Access log entries that the writer could not take.
    access_log_dropped: Counter = "raftgate_access_log_dropped_total";
    /// Spans of traces by what became of them: exported, failed (the collector did not take them), overflow (dropped before they were sent).
    spans: CounterVec = "raftgate_spans_total" ["result"];
    /// Connections to backends that were opened.
    upstream_connects: CounterVec = "raftgate_upstream_connects_total" ["service", "result"];
    /// Interim answers of backends, which are not passed on: 102, 103, other. 100 is, and is not counted.
    upstream_informational: CounterVec = "raftgate_upstream_informational_total" ["status"];
    /// Copies of requests by what became of them: sent, failed, late, lagged, busy, no_service, no_endpoint, no_grpc, no_certificate.
    mirrors: CounterVec = "raftgate_mirrors_total" ["service", "result"];
    /// Configurations that were read again at SIGHUP, by what became of them: applied, refused.
    config_reloads: CounterVec = "raftgate_config_reloads_total" ["result"];
    /// The revision that is served.
    table_revision: Gauge = "raftgate_table_revision";
    /// Routes in the table.
    table_routes: Gauge = "raftgate_table_routes";
    /// Services in the table.
    table_services: Gauge = "raftgate_table_services";
    /// When each certificate that is served expires, in seconds of the Unix epoch.
    certificate_expiry: GaugeVec = "raftgate_certificate_expiry_seconds" ["certificate"];
    /// Resources that did not compile.
    table_not_compiled: Gauge = "raftgate_table_not_compiled";
    /// From a changed State to its table being served.
    table_publish_duration: Histogram = "raftgate_table_publish_duration_seconds";
    /// The present term.
    raft_term: Gauge = "raftgate_raft_term";
    /// 1 while this node leads.
    raft_is_leader: Gauge = "raftgate_raft_is_leader";
    /// 1 while this node knows of a leader that a quorum follows.
    raft_has_quorum: Gauge = "raftgate_raft_has_quorum";
    /// Terms that began, by whether this process was kept from running for over half of the shortest election timeout just before.
    raft_elections: CounterVec = "raftgate_raft_elections_total" ["starved"];
    /// How late a thread wakes up that only sleeps: what the machine keeps from this process.
    scheduling_gap: Histogram = "raftgate_scheduling_gap_seconds";
    /// Proposals by what became of them: applied, refused, not_applied, unknown.
    raft_proposals: CounterVec = "raftgate_raft_proposals_total" ["result"];
    /// From a proposal to its outcome.
    raft_commit_duration: Histogram = "raftgate_raft_commit_duration_seconds";
    /// Log entries that stand on this node and are not applied.
    raft_apply_lag_entries: Gauge = "raftgate_raft_apply_lag_entries";
    /// The last applied log index.
    raft_applied_index: Gauge = "raftgate_raft_applied_index";
    /// Messages of peers that were refused, by reason.
    raft_peer_refusals: CounterVec = "raftgate_raft_peer_refusals_total" ["reason"];
    /// Connections between nodes, and to the admin API, that came to nothing in their handshake. `place` is peer_in, peer_out or admin;
    /// `reason` is certificate, alert (the other side refused), clear_text, tls (of a node in clear text), protocol, deadline, crowded,
    /// broken.
    node_tls_failures: CounterVec = "raftgate_node_tls_failures_total" ["place", "reason"];
    /// Unix time at which this node's certificate for its peers ends; 0 without TLS.
    peer_certificate_expiry: Gauge = "raftgate_peer_certificate_expiry_timestamp_seconds";
    /// Unix time at which the admin API's certificate ends; 0 without TLS.
    admin_certificate_expiry: Gauge = "raftgate_admin_certificate_expiry_timestamp_seconds";
    /// Snapshots that were built.
    raft_snapshots_built: Counter = "raftgate_raft_snapshots_built_total";
    /// Snapshots of a leader that were installed.
    raft_snapshots_installed: Counter = "raftgate_raft_snapshots_installed_total";
    /// Size of the newest snapshot.
    raft_snapshot_bytes: Gauge = "raftgate_raft_snapshot_size_bytes";
    /// From beginning a snapshot to its file being durable.
    raft_snapshot_duration: Histogram = "raftgate_raft_snapshot_duration_seconds";
    /// From handing a batch to the disk to its being durable.
    log_sync_duration: Histogram = "raftgate_log_sync_duration_seconds";
    /// Bytes of the log since the last snapshot.
    log_bytes: Gauge = "raftgate_log_since_snapshot_bytes";
    /// Bytes that the log's store takes on disk.
    log_disk_bytes: Gauge = "raftgate_log_disk_bytes";
    /// 1 after a storage error: the Raft side of this process has stopped for good.
    storage_failed: Gauge = "raftgate_storage_failed";
    /// 1 while a member of the cluster is known to differ from this node at an equal revision or log id.
    raft_diverged: Gauge = "raftgate_raft_diverged";
    /// 1 once this node was found outside of the majority: it answers no linearizable reads and does not lead.
    raft_stands_aside: Gauge = "raftgate_raft_stands_aside";
    /// 1 once the live table was found to differ from what it was made of. It was built anew then.
    table_diverged: Gauge = "raftgate_table_diverged";
    /// Divergences: from a peer at an equal revision or log id, or of the live table (`table`) from what it was made of.
    divergences: CounterVec = "raftgate_divergences_total" ["kind"];
}

impl Metrics {
    /// The Prometheus text exposition of every family.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for a family without a name, and every name stands above.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics not encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// One constructor a type. They panic on a name that is invalid or stands twice, which the test below rules out.
#[expect(non_snake_case, reason = "named for the types that they make")]
mod make {
    use super::*;

    const VALID: &str = "the list of families has valid and distinct names";

    fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
        registry.register(Box::new(collector.clone())).expect(VALID);
        collector
    }

    pub(super) fn Counter(registry: &Registry, name: &str, help: &str, _: &[&str]) -> Counter {
        register(registry, IntCounter::new(name, help).expect(VALID))
    }

    pub(super) fn CounterVec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        register(registry, IntCounterVec::new(Opts::new(name, help), labels).expect(VALID))
    }

    pub(super) fn Gauge(registry: &Registry, name: &str, help: &str, _: &[&str]) -> Gauge {
        register(registry, IntGauge::new(name, help).expect(VALID))
    }

    pub(super) fn GaugeVec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        register(registry, IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID))
    }

    pub(super) fn Histogram(registry: &Registry, name: &str, help: &str, _: &[&str]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(SECONDS_BUCKETS.to_vec());
        register(registry, HistogramVec::new(options, &[]).expect(VALID)).with_label_values::<&str>(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_valid_and_distinct() {
        let metrics = Metrics::new();
        metrics.proxy_errors.with_label_values(&["connection_refused"]).inc();
        let text = metrics.render();
        assert!(text.contains("raftgate_table_revision 0"), "{text}");
        assert!(text.contains("raftgate_proxy_errors_total{error=\"connection_refused\"} 1"), "{text}");
    }
}
