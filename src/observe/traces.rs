//! OpenTelemetry traces: a span for each sampled request, sent to a collector by OTLP over gRPC. Off by default.
//!
//! A worker hands what it knows of a request over through a bounded channel and never waits; what the channel cannot take is dropped and
//! counted. One task makes spans of it, gathers them for a moment and sends them; a collector that is away costs the spans of the meantime
//! and nothing else. Names of attributes are those of OpenTelemetry's semantic conventions for HTTP, and `raftgate.*` for what only a
//! gateway knows.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::access_log::AccessEntry;
use super::metrics::{CounterVec, Metrics};
use super::refrain::Refrain;

/// Requests that wait for the task at most.
const WAITING_MAX: usize = 4096;
/// Spans of one message at most.
const BATCH_MAX: usize = 512;
/// How long the task gathers after the first span of a message that is not full.
const GATHER: Duration = Duration::from_millis(200);
/// How long the collector may take to accept a message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
const MILLION: u64 = 1_000_000;

/// How spans are made, and where they go.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The collector: `http://HOST:PORT`.
    pub endpoint: String,
    /// Of a million requests that bring no decision with them, how many are sampled.
    pub sampled_per_million: u32,
    /// `service.name` of all spans.
    pub service_name: String,
    /// The node, as `service.instance.id`.
    pub node_id: u64,
}

/// Why there are no traces.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct TracesError(#[from] ExporterBuildError);

/// Where a request stands in its trace (W3C Trace Context), and whether it gets a span.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// The whole trace.
    pub trace_id: TraceId,
    /// This request's own span.
    pub span_id: SpanId,
    /// The caller's span, where it has one.
    pub parent: Option<SpanId>,
    /// Whether a span is made.
    pub is_sampled: bool,
}

/// What a span tells beside what an access log tells.
#[derive(Debug)]
pub struct Span {
    /// Its place.
    pub trace: Trace,
    /// When the request's answer had ended.
    pub ended: SystemTime,
    /// `url.scheme`.
    pub scheme: &'static str,
    /// `network.protocol.version`.
    pub version: &'static str,
    /// The path as the rule has it: a value of the configuration, so there are not many.
    pub pattern: Option<String>,
    /// The request.
    pub entry: AccessEntry,
}

/// Takes spans from any thread. Clones share one task; it ends, with everything sent, once the last clone is gone.
#[derive(Debug, Clone)]
pub struct Traces {
    spans: mpsc::Sender<Span>,
    /// Trace ids whose lower 63 bits are below are sampled, as OpenTelemetry's `TraceIdRatioBased` has it: who samples as many, samples
    /// the same.
    sampled_below: u64,
    dropped: CounterVec,
}

impl Traces {
    /// Begins. The handle ends after the last clone. Needs a runtime of tokio.
    ///
    /// Errors: the endpoint cannot be one. A collector that is away is none.
    pub fn start(options: TraceOptions, metrics: &Metrics) -> Result<(Traces, JoinHandle<()>), TracesError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(options.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let (spans, waiting) = mpsc::channel(WAITING_MAX);
        let resource = Resource::builder_empty()
            .with_service_name(options.service_name)
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", options.node_id.to_string()),
            ])
            .build();
        let sender = Sender { exporter, metrics: metrics.clone(), failing: Refrain::default() };
        let task = tokio::spawn(sender.run(resource, waiting));
        let sampled_below = (1 << 63) / MILLION * u64::from(options.sampled_per_million);
        Ok((Traces { spans, sampled_below, dropped: metrics.spans.clone() }, task))
    }

    /// Whether a trace that begins here is sampled.
    pub fn samples(&self, trace_id: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace_id.to_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.sampled_below
    }

    /// Hands a span over, or counts it as dropped.
    pub fn record(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.with_label_values(&["overflow"]).inc();
        }
    }
}

struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    metrics: Metrics,
    failing: Refrain<()>,
}

impl Sender {
    async fn run(mut self, resource: Resource, mut waiting: mpsc::Receiver<Span>) {
        self.exporter.set_resource(&resource);
        let mut spans = Vec::with_capacity(BATCH_MAX);
        while waiting.recv_many(&mut spans, BATCH_MAX).await > 0 {
            let gathered = tokio::time::timeout(GATHER, async {
                while spans.len() < BATCH_MAX {
                    let room = BATCH_MAX - spans.len();
                    if waiting.recv_many(&mut spans, room).await == 0 {
                        return;
                    }
                }
            });
            let _ = gathered.await;
            let count = spans.len() as u64;
            let sent = self.exporter.export(spans.drain(..).map(data).collect()).await;
            self.note(count, sent);
        }
    }

    fn note(&self, count: u64, sent: OTelSdkResult) {
        match sent {
            Ok(()) => {
                self.metrics.spans.with_label_values(&["exported"]).inc_by(count);
                if self.failing.end(&()) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.metrics.spans.with_label_values(&["failed"]).inc_by(count);
                if let Some(messages) = self.failing.note((), Instant::now()) {
                    tracing::warn!(%error, messages, "spans not exported");
                }
            }
        }
    }
}

fn data(span: Span) -> SpanData {
    let Span { trace, ended, entry, .. } = &span;
    let status = failure(entry).map_or(Status::Unset, Status::error);
    let method = method(entry);
    SpanData {
        span_context: SpanContext::new(trace.trace_id, trace.span_id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: trace.parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: trace.parent.is_some(),
        span_kind: SpanKind::Server,
        name: span.pattern.as_ref().map_or_else(|| method.into(), |pattern| format!("{method} {pattern}").into()),
        start_time: ended.checked_sub(Duration::from_secs_f64(entry.duration)).unwrap_or(*ended),
        end_time: *ended,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("raftgate").with_version(env!("CARGO_PKG_VERSION")).build(),
        attributes: attributes(span),
    }
}

/// What failed, as the conventions have it for a server: a client's own mistake is no failure of the span, an answer that breaks off is.
fn failure(entry: &AccessEntry) -> Option<String> {
    match entry.status {
        400..500 => None,
        500.. => Some(entry.error.clone().unwrap_or_else(|| entry.status.to_string())),
        _ => entry.error.clone(),
    }
}

/// As the conventions write a method that is not known.
fn method(entry: &AccessEntry) -> &'static str {
    if entry.method == "other" { "_OTHER" } else { entry.method }
}

fn attributes(span: Span) -> Vec<KeyValue> {
    let Span { scheme, version, pattern, entry, .. } = span;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let failed = failure(&entry);
    let mut all = vec![
        KeyValue::new("http.request.method", method(&entry)),
        KeyValue::new("http.response.status_code", i64::from(entry.status)),
        KeyValue::new("http.response.body.size", number(entry.bytes)),
        KeyValue::new("network.protocol.version", version),
        KeyValue::new("raftgate.attempts", i64::from(entry.attempts)),
        KeyValue::new("raftgate.request_id", entry.request_id),
        KeyValue::new("raftgate.revision", number(entry.revision)),
        KeyValue::new("client.address", entry.client),
        KeyValue::new("url.path", entry.path),
        KeyValue::new("url.scheme", scheme),
    ];
    let known = [
        ("error.type", failed),
        ("http.route", pattern),
        ("raftgate.endpoint", Some(entry.endpoint)),
        ("raftgate.kind", Some(entry.kind.to_owned())),
        ("raftgate.route", Some(entry.route)),
        ("raftgate.rule", entry.rule),
        ("raftgate.service", Some(entry.service)),
        ("server.address", Some(entry.host)),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, value.filter(|value| !value.is_empty())?)));
    all.extend(known);
    all.extend(entry.upstream_duration.map(|seconds| KeyValue::new("raftgate.upstream_duration", seconds)));
    all.extend(entry.captures.into_iter().map(|(name, value)| KeyValue::new(format!("raftgate.capture.{name}"), value)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_stands_still_costs_spans_and_never_time() {
        // Takes connections and never says a word.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = TraceOptions {
            endpoint: format!("http://{}", deaf.local_addr().unwrap()),
            sampled_per_million: 1_000_000,
            service_name: "edge".into(),
            node_id: 1,
        };
        let metrics = Metrics::new();
        let (traces, task) = Traces::start(options, &metrics).unwrap();
        let trace = Trace { trace_id: 7.into(), span_id: 7.into(), parent: None, is_sampled: true };
        for _ in 0..WAITING_MAX + 100 {
            let entry = AccessEntry::default();
            traces.record(Span { trace, ended: SystemTime::now(), scheme: "http", version: "1.1", pattern: None, entry });
        }
        assert_eq!(metrics.spans.with_label_values(&["overflow"]).get(), 100);
        task.abort();
    }
}
