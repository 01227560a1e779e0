//! Which fields pass, and which the gateway sets.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, MAX_FORWARDS, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, request};

use super::fault::Fault;
use super::present::Present;

/// Identifies a request across services.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The revision that answered, where a listener shows it.
pub(super) const RAFTGATE_REVISION: HeaderName = HeaderName::from_static("raftgate-revision");
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Bytes of a client's request id that are passed on.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// Removes what concerns one connection only (RFC 9110 7.6.1) and what belongs to the gateway, in either direction.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, present: Present) {
    if present.has(Present::CONNECTION) {
        remove_listed(headers);
    }
    if present.has(Present::HOP_BY_HOP) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| Present::by(name).has(Present::HOP_BY_HOP)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Removes what `Connection` lists, but for what nobody may take away by listing it: a client could otherwise hide its address or
/// its credentials from the backend, or break the framing.
fn remove_listed(headers: &mut HeaderMap) {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok());
    let listed: Vec<HeaderName> = names.filter(|name| !is_protected(name)).collect();
    for name in listed {
        headers.remove(name);
    }
}

fn is_protected(name: &HeaderName) -> bool {
    let fixed = [
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "authorization",
        "cookie",
        "set-cookie",
        "forwarded",
        "via",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "tracestate",
        "origin",
        "date",
        "cache-control",
        "location",
        "proxy-status",
        "strict-transport-security",
        "content-security-policy",
        "x-frame-options",
        "x-content-type-options",
        "www-authenticate",
    ];
    name.as_str().starts_with("x-forwarded-") || fixed.contains(&name.as_str())
}

/// Refuses framing that hyper lets pass: any coding but one `chunked` (RFC 9112 6.1, 6.3).
pub(super) fn check_framing(headers: &HeaderMap, present: Present) -> Result<(), Fault> {
    if !present.has(Present::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || headers.contains_key(CONTENT_LENGTH) {
        return Err(Fault::bad_request("the framing of the body is ambiguous"));
    }
    match coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        true => Ok(()),
        false => Err(Fault::not_implemented("Transfer-Encoding other than chunked")),
    }
}

/// Refuses expectations but `100-continue` (RFC 9110 10.1.1).
pub(super) fn check_expectation(headers: &HeaderMap, present: Present) -> Result<(), Fault> {
    match !present.has(Present::EXPECT)
        || headers.get_all(EXPECT).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        true => Ok(()),
        false => Err(Fault::expectation_failed()),
    }
}

/// Counts `Max-Forwards` down, which binds OPTIONS and TRACE (RFC 9110 7.6.2). False where it is used up: the gateway answers itself.
pub(super) fn count_down(method: &Method, headers: &mut HeaderMap) -> bool {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return true;
    }
    let left = headers.get(MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match left {
        None => true,
        Some(0) => false,
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
    }
}

/// Whether trailers may follow the answer (RFC 9110 6.5.1); over HTTP/1.1 the same test as hyper's, which leaves them out otherwise.
pub(super) fn takes_trailers(head: &request::Parts, present: Present) -> bool {
    match head.version {
        Version::HTTP_2 => true,
        Version::HTTP_11 => present.has(Present::TE) && head.headers.get(TE).is_some_and(|te| te == "trailers"),
        _ => false,
    }
}

/// Makes one line of a cookie that HTTP/2 may bring in pieces (RFC 9113 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap, present: Present) {
    if !present.has(Present::COOKIE) {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1 {
        let whole =
            HeaderValue::from_bytes(&pieces.join(&b"; "[..])).expect("valid values joined by a semicolon are a valid value");
        headers.insert(COOKIE, whole);
    }
}

/// What a request is called across services.
#[derive(Debug, Clone)]
pub(super) enum RequestId {
    /// As the client sent it.
    Sent(HeaderValue),
    /// Made here. A number until somebody asks: most often nobody does.
    Made(u128),
}

impl RequestId {
    /// The client's, where it is usable, or one made of `random`.
    pub(super) fn of(headers: &HeaderMap, present: Present, random: impl FnOnce() -> u128) -> RequestId {
        if !present.has(Present::REQUEST_ID) {
            return RequestId::Made(random());
        }
        let is_usable = |value: &&HeaderValue| !value.is_empty() && value.len() <= REQUEST_ID_BYTES_MAX && value.to_str().is_ok();
        match headers.get(X_REQUEST_ID).filter(is_usable) {
            Some(value) => RequestId::Sent(value.clone()),
            None => RequestId::Made(random()),
        }
    }

    /// As it stands in `X-Request-Id`.
    pub(super) fn value(&self) -> HeaderValue {
        let number = match self {
            RequestId::Sent(value) => return value.clone(),
            RequestId::Made(number) => *number,
        };
        let mut digits = [0_u8; 32];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        HeaderValue::from_bytes(&digits).expect("hexadecimal digits are a valid value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sender::tests::{map, text};

    #[test]
    fn removes_what_concerns_one_connection() {
        let table = [
            ("Connection: close\nAccept: a", "accept: a"),
            ("Connection: x-a, X-B\nConnection: keep-alive\nX-A: 1\nX-B: 2\nX-C: 3\nKeep-Alive: timeout=5", "x-c: 3"),
            (
                "Connection: authorization, cookie, x-forwarded-for, host, content-length\nAuthorization: b\nCookie: c",
                "authorization: b\ncookie: c",
            ),
            (
                "TE: trailers\nTransfer-Encoding: chunked\nUpgrade: h2c\nHTTP2-Settings: x\nProxy-Connection: y\nTrailer: t",
                "trailer: t",
            ),
            ("Proxy-Authorization: p\nRaftgate-Revision: 1\nRaftgate-Anything: 2\nX-Raftgate: 3", "x-raftgate: 3"),
            ("Connection: ,, (bad) ,x-a\nX-A: 1", ""),
        ];
        for (before, after) in table {
            let mut headers = map(before);
            let present = Present::of(&headers);
            remove_hop_by_hop(&mut headers, present);
            assert_eq!(text(&headers), after, "{before}");
        }
    }

    #[test]
    fn refuses_framing_and_expectations_that_it_does_not_know() {
        let table = [
            ("Transfer-Encoding: chunked", 0),
            ("Transfer-Encoding: Chunked", 0),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: identity", 501),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\nContent-Length: 3", 400),
            ("Content-Length: 3", 0),
            ("Expect: 100-Continue", 0),
            ("Expect: y", 417),
            ("Expect: 100-continue\nExpect: y", 417),
        ];
        for (fields, expected) in table {
            let headers = map(fields);
            let present = Present::of(&headers);
            let checked = check_framing(&headers, present).and_then(|()| check_expectation(&headers, present));
            assert_eq!(checked.err().map_or(0, |fault| fault.status().as_u16()), expected, "{fields}");
        }
    }

    #[test]
    fn makes_a_request_id_where_there_is_no_usable_one() {
        let long = format!("X-Request-Id: {}", "x".repeat(REQUEST_ID_BYTES_MAX + 1));
        let made = "0000000000000000000000000000002a";
        for (before, after) in [("X-Request-Id: mine", "mine"), ("A: b", made), (&long, made), ("X-Request-Id: \u{e9}", made)] {
            let headers = map(before);
            assert_eq!(RequestId::of(&headers, Present::of(&headers), || 42).value(), after, "{before}");
        }
    }
}
