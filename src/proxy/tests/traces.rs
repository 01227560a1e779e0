//! Spans, as a collector gets them, and what backends are told of the trace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::gateway::{Backend, Gateway, OK, field, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::observe::{Metrics, RequestSinks, TraceOptions, Traces};
use crate::proxy::ListenerOptions;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector got.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start(runtime: &Runtime) -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let all = self.0.lock().unwrap();
        let scopes = all.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The only span, once it is there.
    fn span(&self) -> Span {
        wait_for("the span", || !self.spans().is_empty());
        let spans = self.spans();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.into_iter().next().unwrap()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn traces(runtime: &Runtime, collector: SocketAddr, sampled_per_million: u32, metrics: &Metrics) -> (Traces, JoinHandle<()>) {
    let _guard = runtime.enter();
    let options = TraceOptions {
        endpoint: format!("http://{collector}"),
        sampled_per_million,
        service_name: "edge".to_owned(),
        node_id: 3,
    };
    Traces::start(options, metrics).unwrap()
}

/// A gateway that makes traces, with a template, a redirect and a route to nobody.
fn gateway(backend: &Backend, traces: Traces) -> Gateway {
    let matches = |kind: &str, value: &str| json!([{"path": {"type": kind, "value": value}}]);
    let rules = json!({"rules": [
        {"name": "user", "matches": matches("PathTemplate", "/users/{id}"), "backendRefs": [{"name": "s"}]},
        {"matches": matches("PathPrefix", "/gone"), "backendRefs": [{"name": "nobody"}]},
    ]});
    let nobody = json!({"endpoints": []});
    let documents = [(Service, "s", service(&[backend.address])), (Service, "nobody", nobody), (Route, "r", rules)];
    Gateway::telling(ListenerOptions::default(), &documents, RequestSinks { access_log: None, traces: Some(traces) })
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    all.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_span_tells_a_request_with_what_its_template_took() {
    let runtime = runtime();
    let (collector, address) = Collector::start(&runtime);
    let metrics = Metrics::new();
    let backend = Backend::answering(OK);
    let gateway = gateway(&backend, traces(&runtime, address, 0, &metrics).0);
    let before = SystemTime::now();
    let answer = gateway.ask(&format!(
        "GET /users/42?secret=1 HTTP/1.1\r\nHost: A.example\r\nX-Request-Id: id1\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\nTracestate: a=b\r\n\r\n"
    ));
    assert_eq!(status(&answer), 200);
    let span = collector.span();
    let own = hex(&span.span_id);
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    let seen = &backend.seen()[0].bytes;
    assert_eq!(field(seen, "traceparent"), Some(&*format!("00-{TRACE}-{own}-01")), "the backend's parent is this span");
    assert_eq!(field(seen, "tracestate"), Some("a=b"));
    assert_eq!((&*span.name, span.kind()), ("GET /users/{id}", SpanKind::Server));
    let nanos = |time: SystemTime| u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    assert!(nanos(before) <= span.start_time_unix_nano && span.start_time_unix_nano < span.end_time_unix_nano, "{span:?}");
    assert!(span.end_time_unix_nano <= nanos(SystemTime::now()));
    let mut found = attributes(&span.attributes);
    assert!(found.remove("raftgate.upstream_duration").is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 0.0));
    let endpoint = backend.address.to_string();
    let expected = [
        ("client.address", "127.0.0.1"),
        ("http.request.method", "GET"),
        ("http.response.body.size", "2"),
        ("http.response.status_code", "200"),
        ("http.route", "/users/{id}"),
        ("network.protocol.version", "1.1"),
        ("raftgate.attempts", "1"),
        ("raftgate.capture.id", "42"),
        ("raftgate.endpoint", &endpoint),
        ("raftgate.kind", "Route"),
        ("raftgate.request_id", "id1"),
        ("raftgate.revision", "1"),
        ("raftgate.route", "r"),
        ("raftgate.rule", "user"),
        ("raftgate.service", "s"),
        ("server.address", "a.example"),
        ("url.path", "/users/42"),
        ("url.scheme", "http"),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let resource = collector.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    let resource = attributes(&resource.attributes);
    let of = |name: &str| resource.get(name).map(String::as_str);
    assert_eq!((of("service.name"), of("service.instance.id")), (Some("edge"), Some("3")));
    wait_for("the count", || metrics.spans.with_label_values(&["exported"]).get() == 1);
}

#[test]
fn an_error_of_the_gateways_is_one_of_the_span() {
    let runtime = runtime();
    let (collector, address) = Collector::start(&runtime);
    let backend = Backend::answering(OK);
    let gateway = gateway(&backend, traces(&runtime, address, 1_000_000, &Metrics::new()).0);
    let answer = gateway.get("/gone/1");
    let span = collector.span();
    assert_eq!(span.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    let found = attributes(&span.attributes);
    assert_eq!(found["http.response.status_code"], status(&answer).to_string());
    assert!(field(&answer, "proxy-status").is_some_and(|told| told.contains(&found["error.type"])), "{answer} {found:?}");
    assert!(span.parent_span_id.is_empty(), "{span:?}");
    // A client's own mistake is none.
    assert_eq!(status(&gateway.get("/nowhere")), 404);
    wait_for("the other span", || collector.spans().len() == 2);
    let other = &collector.spans()[1];
    assert_eq!((&*other.name, other.status.as_ref().map(|status| status.code())), ("GET", Some(StatusCode::Unset)));
    assert!(!attributes(&other.attributes).contains_key("error.type"), "{other:?}");
}

#[test]
fn who_began_a_trace_decides_whether_it_is_sampled() {
    let runtime = runtime();
    let (collector, address) = Collector::start(&runtime);
    let backend = Backend::answering(OK);
    let none = gateway(&backend, traces(&runtime, address, 0, &Metrics::new()).0);
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    none.ask(&format!("GET /users/1 HTTP/1.1\r\nHost: a\r\nTraceparent: {unsampled}\r\nTracestate: a=b\r\n\r\n"));
    none.ask("GET /users/2 HTTP/1.1\r\nHost: a\r\nTraceparent: 00-ab-cd-01\r\nTracestate: a=b\r\n\r\n");
    let all = gateway(&backend, traces(&runtime, address, 1_000_000, &Metrics::new()).0);
    all.ask(&format!("GET /users/3 HTTP/1.1\r\nHost: a\r\nTraceparent: {unsampled}\r\n\r\n"));
    all.ask("GET /users/4 HTTP/1.1\r\nHost: a\r\n\r\n");
    let seen: Vec<_> = backend.seen().into_iter().map(|seen| seen.bytes).collect();
    assert_eq!((field(&seen[0], "traceparent"), field(&seen[0], "tracestate")), (Some(&*unsampled), Some("a=b")));
    let made = field(&seen[1], "traceparent").unwrap();
    assert!(made.len() == 55 && made.ends_with("-00"), "{made}");
    assert_eq!(field(&seen[1], "tracestate"), None, "it belonged to a traceparent that was none");
    assert_eq!(field(&seen[2], "traceparent"), Some(&*unsampled));
    let span = collector.span();
    assert_eq!(field(&seen[3], "traceparent"), Some(&*format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))));
    assert_eq!(attributes(&span.attributes)["url.path"], "/users/4");
}

#[test]
fn a_part_of_the_traces_is_sampled_by_their_ids() {
    let runtime = runtime();
    let (traces, _task) = traces(&runtime, "127.0.0.1:1".parse().unwrap(), 250_000, &Metrics::new());
    let random = fastrand::Rng::with_seed(7).u128(..);
    let samples = |number: u128| traces.samples(random.wrapping_mul(2 * number + 1).into());
    let sampled = (0..10_000).filter(|&number| samples(number)).count();
    assert!((2_200..2_800).contains(&sampled), "{sampled}");
    let at = |lower: u64| traces.samples(u128::from(lower).into());
    assert_eq!([at(0), at(u64::MAX / 4 - 1_000_000), at(u64::MAX / 4 + 1_000_000), at(u64::MAX)], [true, true, false, false]);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_request() {
    let runtime = runtime();
    // Takes connections and never says a word.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = Metrics::new();
    let (traces, task) = traces(&runtime, deaf.local_addr().unwrap(), 1_000_000, &metrics);
    let backend = Backend::answering(OK);
    let gateway = gateway(&backend, traces);
    let mut client = gateway.connect();
    wait_for("an export that fails", || {
        client.send("GET /users/1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&client.answer()), 200);
        metrics.spans.with_label_values(&["failed"]).get() > 0
    });
    drop((client, gateway));
    task.abort();
}

#[test]
fn the_last_spans_are_sent_before_the_task_ends() {
    let runtime = runtime();
    let (collector, address) = Collector::start(&runtime);
    let backend = Backend::answering(OK);
    let (traces, task) = traces(&runtime, address, 1_000_000, &Metrics::new());
    let gateway = gateway(&backend, traces);
    let requests = 1_500;
    let mut client = gateway.connect();
    for _ in 0..requests {
        client.send("GET /users/1 HTTP/1.1\r\nHost: a\r\n\r\n");
        client.answer();
    }
    drop(client);
    drop(gateway);
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), task).await }).unwrap().unwrap();
    assert_eq!(collector.spans().len(), requests);
}
