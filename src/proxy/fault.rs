//! Every answer that the gateway makes of its own: what failed, and how that is said.
//!
//! Each carries `Proxy-Status` (RFC 9209) with an error type of its registry, and a problem document (RFC 9457).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::framing::Flaw;
use crate::model::{MethodRefusal, Name, Revision};
use crate::upstream::{SendFailure, TlsProblem};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH");
/// Characters of a detail that go into a field.
const DETAIL_CHARS_MAX: usize = 300;

/// Why a request is not answered by a backend.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    error: &'static str,
    detail: Cow<'static, str>,
    /// Whether what follows on the connection cannot be relied on.
    ends_connection: bool,
    /// Whether a gRPC client is told in HTTP's form too: gRPC had no part in it.
    is_http_only: bool,
    /// What helps the client to ask again.
    field: Option<(HeaderName, HeaderValue)>,
}

impl Fault {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { status, error, detail: detail.into(), ends_connection: false, is_http_only: false, field: None }
    }

    fn of_client(status: StatusCode, detail: &'static str) -> Fault {
        Fault { ends_connection: true, is_http_only: true, ..Fault::new(status, "http_request_error", detail) }
    }

    /// What came is not a request that can be passed on without doubt.
    pub(super) fn bad_request(detail: &'static str) -> Fault {
        Fault::of_client(StatusCode::BAD_REQUEST, detail)
    }

    /// The framing of what came is not sound. A head that is only too large is understood.
    pub(super) fn refused(flaw: &Flaw) -> Fault {
        let is_http_only = flaw.status != StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Fault { is_http_only, ..Fault::of_client(flaw.status, flaw.detail) }
    }

    /// Known to the standard, not to this gateway.
    pub(super) fn not_implemented(detail: &'static str) -> Fault {
        Fault::of_client(StatusCode::NOT_IMPLEMENTED, detail)
    }

    /// A WebSocket of a version that is not known; the client is told which is (RFC 6455 4.2.2).
    pub(super) fn websocket_version() -> Fault {
        let known = (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        Fault { field: Some(known), ..Fault::bad_request("Sec-WebSocket-Version is not 13") }
    }

    /// An expectation that nobody meets.
    pub(super) fn expectation_failed() -> Fault {
        Fault::of_client(StatusCode::EXPECTATION_FAILED, "only 100-continue can be expected")
    }

    /// A method that is not passed on.
    pub(super) fn method(refusal: MethodRefusal) -> Fault {
        Fault::of_client(refusal.status(), refusal.detail())
    }

    /// The body is over the rule's `maxRequestBody` or the listener's `body_bytes_max`.
    pub(super) fn body_too_large() -> Fault {
        let fault = Fault::of_client(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is over the limit");
        Fault { is_http_only: false, ..fault }
    }

    /// The body broke off.
    pub(super) fn body_broken() -> Fault {
        Fault::bad_request("the request's body broke off or is malformed")
    }

    /// No rule matches.
    pub(super) fn no_route() -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "destination_not_found", "no route matches the request")
    }

    /// No listener of the address takes the host.
    pub(super) fn no_listener() -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "destination_not_found", "no listener of this address takes the host")
    }

    /// The host is another listener's than the one that this connection of TLS was made to (RFC 9110 15.5.20). A client that shares a connection
    /// between hosts asks again over one of its own.
    pub(super) fn misdirected() -> Fault {
        let detail = "the connection was made to another listener than the one that takes this host";
        Fault { is_http_only: true, ..Fault::new(StatusCode::MISDIRECTED_REQUEST, "http_request_error", detail) }
    }

    /// The table was not there in time.
    pub(super) fn revision_not_live(least: Revision) -> Fault {
        let detail = format!("revision {least} is not live on this node");
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "proxy_internal_response", detail)
    }

    /// The rule cannot be served as it is written.
    pub(super) fn configuration(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "proxy_configuration_error", detail)
    }

    /// The rule names a service that does not exist.
    pub(super) fn missing_service(name: &Name) -> Fault {
        Fault::configuration(format!("service {name} does not exist"))
    }

    /// The service shows a certificate that this node does not serve.
    pub(super) fn missing_certificate(service: &Name, certificate: &Name) -> Fault {
        Fault::configuration(format!("service {service}: its client certificate {certificate} does not exist or cannot be used"))
    }

    /// The service speaks no protocol that gRPC goes over.
    pub(super) fn no_grpc(name: &Name) -> Fault {
        let detail = format!("service {name} speaks HTTP/1.1, which carries no gRPC");
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable", detail)
    }

    /// The service has nowhere to go.
    pub(super) fn no_endpoint(name: &Name) -> Fault {
        let detail = format!("service {name} has no endpoint");
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable", detail)
    }

    /// No head of an answer in time.
    pub(super) fn no_answer_in_time(name: &Name) -> Fault {
        Fault::new(StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", format!("service {name} did not answer in time"))
    }

    /// The rule's time ran out while the client's own body was still to come. The rule promises a timeout's answer (Gateway API, HTTPRoute
    /// timeouts).
    pub(super) fn request_incomplete() -> Fault {
        let detail = "the request did not complete within timeouts.request";
        Fault::new(StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", detail)
    }

    /// The client's own body stood still for too long, or came too slowly (RFC 9110 15.5.9).
    pub(super) fn request_timeout() -> Fault {
        let fault = Fault::of_client(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time");
        Fault { is_http_only: false, ..fault }
    }

    /// The service speaks no protocol that upgrades go over.
    pub(super) fn no_upgrade(name: &Name) -> Fault {
        let detail = format!("service {name} speaks HTTP/2, where connections are not upgraded");
        Fault::new(StatusCode::BAD_GATEWAY, "http_upgrade_failed", detail)
    }

    /// A backend switched protocols without being asked.
    pub(super) fn unexpected_upgrade(name: &Name) -> Fault {
        Fault::new(StatusCode::BAD_GATEWAY, "http_protocol_error", format!("service {name} answered 101 unasked"))
    }

    /// A backend switched to something else than it was asked to.
    pub(super) fn wrong_upgrade(name: &Name) -> Fault {
        let detail = format!("service {name} answered 101 to something else than was asked");
        Fault::new(StatusCode::BAD_GATEWAY, "http_upgrade_failed", detail)
    }

    /// A backend took CONNECT for a request like others, and answered it.
    pub(super) fn not_upgraded(name: &Name, status: StatusCode) -> Fault {
        let detail = format!("service {name} answered {} and did not switch protocols", status.as_u16());
        Fault::new(StatusCode::BAD_GATEWAY, "http_upgrade_failed", detail)
    }

    /// A try failed. The cause, with addresses, goes to the log and not to the client.
    pub(super) fn upstream(name: &Name, failure: &SendFailure) -> Fault {
        let (status, error, what) = match failure {
            SendFailure::Resolve { .. } => (StatusCode::BAD_GATEWAY, "dns_error", "the endpoint's name does not resolve"),
            SendFailure::Refused { .. } => (StatusCode::BAD_GATEWAY, "connection_refused", "the connection was refused"),
            SendFailure::Connect { .. } => (StatusCode::BAD_GATEWAY, "destination_unavailable", "no connection"),
            SendFailure::ConnectTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout", "no connection in time"),
            SendFailure::Tls { problem, .. } => return Fault::no_tls(name, *problem),
            SendFailure::Terminated { .. } => (StatusCode::BAD_GATEWAY, "connection_terminated", "closed before an answer"),
            SendFailure::Protocol { source, .. } if source.is_head_size() => {
                let what = "the answer's head is over 80 KiB or 100 fields";
                (StatusCode::BAD_GATEWAY, "http_response_header_section_size", what)
            }
            SendFailure::Protocol { source, .. } if source.is_head_truncated() => {
                (StatusCode::BAD_GATEWAY, "http_response_incomplete", "closed within an answer's head")
            }
            SendFailure::Protocol { .. } => (StatusCode::BAD_GATEWAY, "http_protocol_error", "the answer is not HTTP"),
        };
        Fault::new(status, error, format!("service {name}: {what}"))
    }

    /// A try failed for want of TLS.
    fn no_tls(name: &Name, problem: TlsProblem) -> Fault {
        let (status, error) = match problem {
            TlsProblem::Certificate(_) => (StatusCode::BAD_GATEWAY, "tls_certificate_error"),
            TlsProblem::Alert(_) => (StatusCode::BAD_GATEWAY, "tls_alert_received"),
            TlsProblem::Protocol(_) => (StatusCode::BAD_GATEWAY, "tls_protocol_error"),
            TlsProblem::NoAuthorities => (StatusCode::INTERNAL_SERVER_ERROR, "proxy_configuration_error"),
        };
        Fault::new(status, error, format!("service {name}: {problem}"))
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The type of RFC 9209, 2.3.
    pub(super) fn error(&self) -> &'static str {
        self.error
    }

    pub(super) fn is_http_only(&self) -> bool {
        self.is_http_only
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The fields of every answer: what went wrong, and whether the connection ends.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        let detail: String = self.detail.chars().filter(|c| (' '..='~').contains(c)).take(DETAIL_CHARS_MAX).collect();
        let quoted = detail.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::try_from(format!("raftgate; error={}; details=\"{quoted}\"", self.error)) {
            headers.insert(PROXY_STATUS, value);
        }
        if self.ends_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.field.clone());
        headers
    }

    /// Fields and body of the answer.
    pub(super) fn answer(&self) -> (HeaderMap, Bytes) {
        let mut headers = self.fields();
        headers.insert(CONTENT_TYPE, PROBLEM);
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, METHODS)),
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        (headers, Bytes::from(problem.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_cannot_break_out_of_the_field() {
        let fault = Fault::configuration("a \"b\" \\ \r\n\u{e9} c");
        let (headers, body) = fault.answer();
        let expected = "raftgate; error=proxy_configuration_error; details=\"a \\\"b\\\" \\\\  c\"";
        assert_eq!(headers[PROXY_STATUS], expected);
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], "a \"b\" \\ \r\n\u{e9} c");
        assert_eq!(problem["status"], 500);
    }
}
