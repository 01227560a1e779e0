//! What is known of one exchange, for metrics and the access log. Its drop accounts for it, however the exchange ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri};

use super::connection::ClientConnection;
use super::counters::{Labels, method_label};
use crate::model::Revision;
use crate::observe::AccessEntry;
use crate::table::{CompiledRule, Service};

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
    log: Option<Box<LogFields>>,
}

/// What only the access log asks for.
#[derive(Debug, Default)]
struct LogFields {
    request_id: String,
    trace_id: Option<String>,
    host: String,
    path: String,
    endpoint: String,
}

impl Tally {
    /// A request arrived.
    pub(super) fn begin(connection: &Rc<ClientConnection>, method: &Method, uri: &Uri) -> Tally {
        connection.begin_exchange();
        connection.worker().metrics.requests_active.inc();
        let log = connection.worker().access_log.is_some();
        Tally {
            started: Instant::now(),
            method: method_label(method),
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            rule: None,
            service: None,
            revision: None,
            bytes: 0,
            attempts: 0,
            upstream_seconds: None,
            error: None,
            log: log.then(|| Box::new(LogFields { path: uri.path().to_owned(), ..LogFields::default() })),
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
    pub(super) fn note_rule(&mut self, revision: Revision, rule: Option<&Arc<CompiledRule>>) {
        self.revision = Some(revision);
        self.rule = rule.cloned();
    }

    /// The identifiers, as they go on.
    pub(super) fn note_identifiers(&mut self, headers: &HeaderMap) {
        let Some(log) = &mut self.log else { return };
        let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
        log.request_id = text("x-request-id").unwrap_or_default().to_owned();
        // W3C trace context: version "-" trace id "-" parent id "-" flags.
        log.trace_id = text("traceparent").and_then(|value| value.split('-').nth(1)).map(str::to_owned);
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
    }

    fn entry(&mut self, log: LogFields, duration: f64) -> AccessEntry {
        let name_of = |service: &Arc<Service>| service.id.name.as_str().to_owned();
        AccessEntry {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: log.request_id,
            trace_id: log.trace_id,
            client: self.connection.peer().to_string(),
            method: self.method.to_owned(),
            host: log.host,
            path: log.path,
            route: self.rule.as_ref().map(|rule| rule.route.as_str().to_owned()).unwrap_or_default(),
            rule: self.rule.as_ref().map(|rule| rule.rule.name.clone().unwrap_or_else(|| rule.rule_index.to_string())),
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

impl Drop for Tally {
    fn drop(&mut self) {
        let connection = Rc::clone(&self.connection);
        let worker = connection.worker();
        let duration = self.started.elapsed().as_secs_f64();
        worker.metrics.requests_active.dec();
        worker.metrics.request_duration.observe(duration);
        worker.counters.count(Labels {
            route: self.rule.as_ref().map_or("", |rule| rule.route.as_str()),
            service: self.service.as_ref().map_or("", |service| service.id.name.as_str()),
            method: self.method,
            status: self.status,
        });
        if let (Some(log), Some(fields)) = (&worker.access_log, self.log.take()) {
            log.record(self.entry(*fields, duration));
        }
        connection.end_exchange();
    }
}
