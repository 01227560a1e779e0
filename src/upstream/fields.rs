//! What fields may say and where, as both sides of the gateway hold messages to it.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT,
    HOST, MAX_FORWARDS, PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName};

use crate::model::sender::is_told_of_senders;

/// What the media types of gRPC begin with.
const GRPC_TYPE: &[u8] = b"application/grpc";
/// What gRPC's own trailers begin with.
const GRPC_NAME: &str = "grpc-";
/// What the names of gRPC's fields end with that hold bytes in Base64.
const BINARY_NAME: &str = "-bin";

/// Whether fields of HTTP/2 are malformed where h2 does not look: a value begins or ends with white space (RFC 9113 8.2.1), or a name holds `"`,
/// which http takes although it is no part of a token (RFC 9110 5.6.2).
pub fn is_malformed(fields: &HeaderMap) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_loose = |value: &[u8]| is_space(value.first()) || is_space(value.last());
    fields.iter().any(|(name, value)| is_loose(value.as_bytes()) || name.as_str().contains('"'))
}

/// Keeps fields that gRPC reads by their form out of the tables of HPACK, on the connections of HTTP/2 that many share. gRPC's C core notes in
/// its table that such a value was malformed, and refuses every later field of the name that refers to the entry: one client would break the
/// calls of all others whose requests go over the same connection, and one backend those of a client's other backends.
pub fn keep_out_of_tables(fields: &mut HeaderMap) {
    let is_read = |name: &str| name.starts_with(GRPC_NAME) || name.ends_with(BINARY_NAME);
    let read = fields.iter_mut().filter(|(name, _)| is_read(name.as_str()));
    // A literal that is never indexed (RFC 7541 6.2.3).
    read.for_each(|(_, value)| value.set_sensitive(true));
}

/// Removes what concerns a connection of HTTP/1.1, and has no place in a head of HTTP/2 (RFC 9113 8.2.2), though a filter may have set it. Of
/// `TE`, `trailers` is left, which a request may say.
pub fn remove_of_connections(fields: &mut HeaderMap) {
    const NAMES: [HeaderName; 5] = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in &NAMES {
        fields.remove(name);
    }
    if fields.get(TE).is_some_and(|value| value != "trailers") {
        fields.remove(TE);
    }
}

/// Which trailers follow a head.
#[derive(Debug, Clone)]
pub enum Trailers {
    /// Whatever the sender that comes after takes; it goes by the head itself.
    OfHead,
    /// All that may be trailers: gRPC says how a call went in some that nobody announces.
    OfGrpc,
    /// Those that the head announces.
    Announced(Vec<HeaderName>),
}

impl Trailers {
    /// Of an answer, by its head.
    pub fn of(headers: &HeaderMap) -> Trailers {
        // Not gRPC-Web, whose trailers are part of the body.
        let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(GRPC_TYPE));
        let is_grpc = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')));
        if is_grpc { Trailers::OfGrpc } else { Trailers::Announced(announced(headers)) }
    }

    /// Of a request, by its head as the backend gets it: those that it announces, but for what the gateway itself answers for: what stands in
    /// the head already, and what `is_ours`.
    pub fn of_request(headers: &HeaderMap, is_ours: impl Fn(&HeaderName) -> bool) -> Trailers {
        let mut names = announced(headers);
        names.retain(|name| !headers.contains_key(name) && !is_ours(name));
        Trailers::Announced(names)
    }

    /// Removes what does not pass.
    pub fn retain(&self, trailers: &mut HeaderMap) {
        let passes = |name: &HeaderName| match self {
            Trailers::OfHead => true,
            Trailers::OfGrpc => may_be_trailer(name),
            Trailers::Announced(names) => names.contains(name) || (name.as_str().starts_with(GRPC_NAME) && may_be_trailer(name)),
        };
        let doomed: Vec<HeaderName> = trailers.keys().filter(|name| !passes(name)).cloned().collect();
        for name in doomed {
            trailers.remove(name);
        }
    }
}

/// The trailers that the head announces and that may be sent (RFC 9110 6.5.1).
pub(super) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok());
    names.filter(may_be_trailer).collect()
}

/// Whether a field does without being known before the body: none does that frames a message, routes it, says who sends it, or how its
/// content is to be read (RFC 9110 6.5.1), none that concerns a connection (RFC 9110 7.6.1), and none that is the gateway's to say.
fn may_be_trailer(name: &HeaderName) -> bool {
    let text = name.as_str();
    let is_of_connection = matches!(text, "keep-alive" | "proxy-connection" | "http2-settings");
    let is_ours = is_told_of_senders(text)
        || text.starts_with("raftgate-")
        || matches!(text, "x-request-id" | "traceparent" | "tracestate");
    let is_of_head = matches!(
        *name,
        AUTHORIZATION
            | CACHE_CONTROL
            | CONNECTION
            | CONTENT_ENCODING
            | CONTENT_LENGTH
            | CONTENT_RANGE
            | CONTENT_TYPE
            | COOKIE
            | EXPECT
            | HOST
            | MAX_FORWARDS
            | PRAGMA
            | PROXY_AUTHENTICATE
            | PROXY_AUTHORIZATION
            | RANGE
            | SET_COOKIE
            | TE
            | TRAILER
            | TRANSFER_ENCODING
            | UPGRADE
            | WWW_AUTHENTICATE
    );
    !(is_of_connection || is_ours || is_of_head)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.collect()
    }

    #[test]
    fn values_are_loose_at_their_ends_alone() {
        for (value, expected) in [("", false), ("a", false), ("a b\tc", false), (" a", true), ("a\t", true), (" ", true)] {
            assert_eq!(is_malformed(&map(&[("x", "y"), ("z", value)])), expected, "{value:?}");
            assert!(is_malformed(&map(&[("x", "y"), ("z\"", value)])), "{value:?}");
        }
    }

    #[test]
    fn what_the_gateway_says_is_no_trailer() {
        let ours = "x-forwarded-client-cert, x_forwarded_client_cert, X-Forwarded-For, x_forwarded_for, X-Real-IP, Forwarded, Via, Raftgate-Revision, \
                    Keep-Alive, Proxy-Connection, X-Request-Id, Traceparent, tracestate, Connection, Upgrade, Host, X-Set, X-Stands";
        let head = map(&[("x-stands", "1")]);
        let announced = |names: &'static str| {
            let mut head = head.clone();
            head.insert(TRAILER, HeaderValue::from_static(names));
            match Trailers::of_request(&head, |name| name == "x-set") {
                Trailers::Announced(names) => names,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(announced(ours), [""; 0]);
        assert_eq!(announced("X-T, viable, x-forwarded, proxy-status"), ["x-t", "viable", "x-forwarded", "proxy-status"]);
    }

    #[test]
    fn what_is_announced_or_of_grpc_passes() {
        type Head = &'static [(&'static str, &'static str)];
        let all = map(&[("x-t", "1"), ("x-un", "2"), ("content-length", "3"), ("set-cookie", "c"), ("grpc-status", "0")]);
        let table: [(Head, &[&str]); 4] = [
            (&[], &["grpc-status"]),
            (&[("trailer", "X-T, Content-Length")], &["grpc-status", "x-t"]),
            (&[("content-type", "application/grpc+proto")], &["grpc-status", "x-t", "x-un"]),
            (&[("content-type", "application/json"), ("trailer", "x-un,(bad)")], &["grpc-status", "x-un"]),
        ];
        for (head, expected) in table {
            let mut trailers = all.clone();
            Trailers::of(&map(head)).retain(&mut trailers);
            let mut names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "{head:?}");
        }
    }

    #[test]
    fn what_concerns_a_connection_is_removed() {
        let names = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "x"];
        let fields = |te: &'static str| {
            let mut fields = map(&names.map(|name| (name, if name == "te" { te } else { "1" })));
            remove_of_connections(&mut fields);
            let mut left: Vec<String> = fields.keys().map(ToString::to_string).collect();
            left.sort_unstable();
            left
        };
        assert_eq!(fields("trailers"), ["te", "x"]);
        assert_eq!(fields("trailers, deflate"), ["x"]);
    }

    #[test]
    fn what_grpc_reads_by_its_form_stays_out_of_tables() {
        let names = ["grpc-timeout", "x-trace-bin", "grpc", "x-bin-x", "content-type"];
        let mut fields: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        fields.append("grpc-timeout", HeaderValue::from_static("1x"));
        keep_out_of_tables(&mut fields);
        let sensitive = |name: &&str| fields.get_all(*name).iter().all(HeaderValue::is_sensitive);
        assert_eq!(names.iter().filter(|name| sensitive(name)).collect::<Vec<_>>(), [&"grpc-timeout", &"x-trace-bin"]);
    }
}
