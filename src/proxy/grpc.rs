//! The gateway's own errors in the form that gRPC clients read: status 200, and the outcome in the fields ("Trailers-Only").
//!
//! gRPC over HTTP/2, "Responses"; the codes are those that routing.md and Gateway API ask for, and else what gRPC's "HTTP to gRPC Status Code
//! Mapping" gives.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::fault::Fault;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How a call went.
pub(super) const TRAILERS: HeaderValue = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");

/// What a message escapes: all but printable ASCII, and `%`.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// Fields and body of the answer to a gRPC request that failed.
pub(super) fn answer(fault: &Fault) -> (HeaderMap, Bytes) {
    let code = code_of(fault.status());
    let mut headers = fault.fields();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    let message = utf8_percent_encode(fault.detail(), ESCAPED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    (headers, Bytes::new())
}

/// What ends an answer that has begun and did not come to its end in time. It may stand in the middle of a message: no client takes that for
/// whole.
pub(super) fn late() -> HeaderMap {
    let message = HeaderValue::from_static("the answer was not through in time");
    HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(Code::DeadlineExceeded as u16)), (GRPC_MESSAGE, message)])
}

/// Until when the client waits (gRPC over HTTP/2, "Requests": `Timeout`). What is no timeout of gRPC's says nothing.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_value = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| is_value)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing;
    use super::*;
    use crate::model::Name;

    #[test]
    fn faults_have_the_codes_of_grpc() {
        let name = Name::new("s").unwrap();
        let table = [
            (Fault::no_route(), Some(12)),
            (Fault::missing_service(&name), Some(14)),
            (Fault::no_endpoint(&name), Some(14)),
            (Fault::no_grpc(&name), Some(14)),
            (Fault::unexpected_upgrade(&name), Some(14)),
            (Fault::no_answer_in_time(&name), Some(4)),
            (Fault::request_timeout(), Some(4)),
            (Fault::body_too_large(), Some(8)),
            (Fault::refused(&framing::HEAD_LONG), Some(8)),
            (Fault::refused(&framing::PSEUDO_FIELDS), None),
            (Fault::bad_request("x"), None),
            (Fault::expectation_failed(), None),
        ];
        for (fault, code) in table {
            let (headers, _) = answer(&fault);
            let found: u16 = headers[GRPC_STATUS].to_str().unwrap().parse().unwrap();
            assert_eq!((!fault.is_http_only()).then_some(found), code, "{fault:?}");
        }
    }

    #[test]
    fn timeouts_are_those_of_grpc() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999M", Some(Duration::from_secs(5_999_999_940))),
            ("2S", Some(Duration::from_secs(2))),
            ("150m", Some(Duration::from_millis(150))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("123456789S", None),
            ("S", None),
            ("+1S", None),
            ("1s", None),
            ("", None),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]);
            assert_eq!(timeout(&headers), expected, "{text}");
        }
    }

    #[test]
    fn a_message_is_escaped_and_has_no_body() {
        let (headers, body) = answer(&Fault::configuration("100% \u{e9}\r\nx"));
        assert_eq!(headers[GRPC_MESSAGE], "100%25 %C3%A9%0D%0Ax");
        assert_eq!((headers[CONTENT_TYPE].to_str().unwrap(), body.len()), ("application/grpc", 0));
        assert!(headers["proxy-status"].to_str().unwrap().contains("proxy_configuration_error"));
    }
}
