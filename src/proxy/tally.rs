//! What is known of one exchange, for metrics, the access log and traces. Its drop accounts for it, however the exchange ended.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

use super::connection::ClientConnection;
use super::counters::{Labels, method_label};
use super::headers::RequestId;
use super::present::Present;
use super::trace::{self, TraceParent};
use crate::model::{Kind, Revision, sender};
use crate::observe::{AccessEntry, Span, Trace};
use crate::table::{CompiledRule, Matched, Service};
use crate::upstream::ClientBody;

/// Bytes of one captured value in the access log and in traces; beyond, it is cut and ends in `…`. The whole stands in the path.
const CAPTURE_BYTES_MAX: usize = 256;

/// One exchange.
#[derive(Debug)]
pub(super) struct Tally {
    connection: Rc<ClientConnection>,
    started: Instant,
    method: &'static str,
    /// Nginx's number for a client that went away before there was an answer.
    status: StatusCode,
    rule: Option<Arc<CompiledRule>>,
    service: Option<Arc<Service>>,
    /// The table that was asked; before one is, none.
    revision: Option<Revision>,
    bytes: u64,
    attempts: u32,
    upstream_seconds: Option<f64>,
    error: Option<&'static str>,
    request_id: RequestId,
    trace: Option<Trace>,
    log: Option<Box<LogFields>>,
}

/// What only the access log and traces ask for.
#[derive(Debug, Default)]
struct LogFields {
    trace_id: Option<String>,
    host: String,
    path: String,
    version: Version,
    pattern: Option<String>,
    captures: BTreeMap<String, String>,
    endpoint: String,
}

impl Tally {
    /// A request arrived.
    pub(super) fn begin(connection: &Rc<ClientConnection>, request: &Request<ClientBody>, present: Present) -> Tally {
        connection.begin_exchange();
        connection.worker().metrics.requests_active.inc();
        let worker = connection.worker();
        let (logs, traces) = (worker.sinks.access_log.is_some(), worker.sinks.traces.as_ref());
        let parent = if logs || traces.is_some() { TraceParent::of(request.headers()) } else { None };
        let trace = traces.map(|traces| trace::begin(traces, parent, worker));
        let log = (logs || trace.is_some_and(|trace| trace.is_sampled)).then(|| {
            let trace_id = trace.map(|trace| trace.trace_id).or(parent.map(|parent| parent.trace_id));
            Box::new(LogFields {
                trace_id: trace_id.map(|id| id.to_string()),
                path: request.uri().path().to_owned(),
                version: request.version(),
                ..LogFields::default()
            })
        });
        Tally {
            started: Instant::now(),
            method: method_label(request.method()),
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            rule: None,
            service: None,
            revision: None,
            bytes: 0,
            attempts: 0,
            upstream_seconds: None,
            error: None,
            request_id: RequestId::of(request.headers(), present, || connection.worker().random_id()),
            trace,
            log,
            connection: Rc::clone(connection),
        }
    }

    /// When the head was there.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The host that is meant.
    pub(super) fn note_host(&mut self, host: &str) {
        if let Some(log) = &mut self.log {
            log.host = host.to_owned();
        }
    }

    /// The table that is asked, and the rule that answers.
    pub(super) fn note_rule(&mut self, revision: Revision, matched: Option<&Matched>) {
        self.revision = Some(revision);
        self.rule = matched.map(|matched| Arc::clone(&matched.rule));
        if let (Some(log), Some(matched)) = (&mut self.log, matched) {
            log.captures = logged_captures(matched);
            let is_sampled = self.trace.is_some_and(|trace| trace.is_sampled);
            log.pattern = is_sampled.then(|| matched.route_match().path.value.to_string());
        }
    }

    /// Tells the backend which trace the request belongs to, where traces are made.
    pub(super) fn pass_trace_on(&self, headers: &mut HeaderMap) {
        if let Some(trace) = self.trace {
            trace::pass_on(trace, headers);
        }
    }

    /// What the request is called, by the client or else by the gateway.
    pub(super) fn request_id(&self) -> HeaderValue {
        self.request_id.value()
    }

    /// The service that the request goes to.
    pub(super) fn note_service(&mut self, service: &Arc<Service>) {
        self.service = Some(Arc::clone(service));
    }

    /// A try at an endpoint.
    pub(super) fn note_try(&mut self, address: &str) {
        self.attempts += 1;
        if let Some(log) = &mut self.log {
            log.endpoint = address.to_owned();
        }
    }

    /// The head of a backend's answer came, this long after it was asked for.
    pub(super) fn note_upstream(&mut self, asked: Instant) {
        let seconds = asked.elapsed().as_secs_f64();
        self.connection.worker().metrics.upstream_duration.observe(seconds);
        self.upstream_seconds = Some(seconds);
    }

    /// What is answered.
    pub(super) fn note_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// The gateway's own error, by its RFC 9209 type.
    pub(super) fn note_error(&mut self, error: &'static str) {
        self.error = Some(error);
        self.connection.worker().metrics.proxy_errors.with_label_values(&[error]).inc();
    }

    /// The table that was asked or, where the answer came before that, the live one.
    pub(super) fn revision(&mut self) -> Revision {
        *self.revision.get_or_insert_with(|| self.connection.worker().live.load().revision)
    }

    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.connection.note_answered(bytes);
    }

    /// The client has all there is of the answer, and the backend is waited for.
    pub(super) fn note_awaiting(&self) {
        self.connection.note_answer_awaited();
    }

    /// The kind of the route that answers, if one does.
    fn kind(&self) -> &'static str {
        self.rule.as_ref().map_or("", |rule| rule.kind().as_str())
    }

    /// One request to the access log and, where it is sampled, to its trace.
    fn tell(&mut self, mut fields: LogFields, duration: f64) {
        let (pattern, version) = (fields.pattern.take(), fields.version);
        let entry = self.entry(fields, duration);
        let sinks = &self.connection.worker().sinks;
        if let (Some(traces), Some(trace)) = (&sinks.traces, self.trace.filter(|trace| trace.is_sampled)) {
            let (scheme, ended) = (sender::scheme(self.connection.secured().is_some()), SystemTime::now());
            let version = match version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            };
            traces.record(Span { trace, ended, scheme, version, pattern, entry: entry.clone() });
        }
        if let Some(log) = &sinks.access_log {
            log.record(entry);
        }
    }

    fn entry(&mut self, log: LogFields, duration: f64) -> AccessEntry {
        let name_of = |service: &Arc<Service>| service.id.name.as_str().to_owned();
        AccessEntry {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: String::from_utf8_lossy(self.request_id().as_bytes()).into_owned(),
            trace_id: log.trace_id,
            client: self.connection.peer().to_string(),
            method: self.method,
            host: log.host,
            path: log.path,
            kind: self.kind(),
            route: self.rule.as_ref().map(|rule| rule.route.as_str().to_owned()).unwrap_or_default(),
            rule: self
                .rule
                .as_ref()
                .map(|rule| rule.rule.name.as_deref().map_or_else(|| rule.rule_index.to_string(), str::to_owned)),
            captures: log.captures,
            revision: self.revision().0,
            service: self.service.as_ref().map(name_of).unwrap_or_default(),
            endpoint: log.endpoint,
            status: self.status.as_u16(),
            bytes: self.bytes,
            duration,
            upstream_duration: self.upstream_seconds,
            attempts: self.attempts,
            error: self.error.map(str::to_owned),
        }
    }
}

/// What the parameters of a route's template took. The templates of a `GRPCRoute` are not the operator's words.
fn logged_captures(matched: &Matched) -> BTreeMap<String, String> {
    let captures = matched.captures().iter().filter(|_| matched.rule.kind() == Kind::Route);
    captures.map(|(name, value)| (name.to_owned(), cut(value))).collect()
}

fn cut(value: &str) -> String {
    match value.len() <= CAPTURE_BYTES_MAX {
        true => value.to_owned(),
        false => format!("{}…", &value[..value.floor_char_boundary(CAPTURE_BYTES_MAX)]),
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let connection = Rc::clone(&self.connection);
        let worker = connection.worker();
        let duration = self.started.elapsed().as_secs_f64();
        worker.metrics.requests_active.dec();
        worker.metrics.request_duration.observe(duration);
        worker.counters.count(Labels {
            kind: self.kind(),
            route: self.rule.as_ref().map(|rule| &rule.route),
            service: self.service.as_ref().map(|service| &service.id.name),
            method: self.method,
            status: self.status,
        });
        if let Some(fields) = self.log.take() {
            self.tell(*fields, duration);
        }
        connection.end_exchange();
    }
}
