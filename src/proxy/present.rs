//! Which of the fields that the gateway looks for stand in a head: one pass over its names, instead of a look-up for each of some twenty that
//! are most often absent.

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName};

use crate::model::sender::is_claim;

/// A set of fields. It tells what stood in a head when it was looked at, not what was removed or set since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present(u16);

impl Present {
    /// What concerns one connection only (RFC 9110 7.6.1), and what belongs to the gateway.
    pub(super) const HOP_BY_HOP: Present = Present(1);
    /// What a sender says of itself or of those before it: `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, `Via`.
    pub(super) const CLAIMS: Present = Present(1 << 1);
    pub(super) const CONNECTION: Present = Present(1 << 2);
    pub(super) const COOKIE: Present = Present(1 << 3);
    pub(super) const EXPECT: Present = Present(1 << 4);
    pub(super) const REQUEST_ID: Present = Present(1 << 5);
    pub(super) const TE: Present = Present(1 << 6);
    pub(super) const TRAILER: Present = Present(1 << 7);
    pub(super) const TRANSFER_ENCODING: Present = Present(1 << 8);
    pub(super) const UPGRADE: Present = Present(1 << 9);
    pub(super) const VIA: Present = Present(1 << 10);

    /// Those that stand in `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Present {
        headers.keys().fold(Present(0), |seen, name| seen.and(Present::by(name)))
    }

    /// Whether `field`, or one of what it stands for, is there.
    pub(super) fn has(self, field: Present) -> bool {
        self.0 & field.0 != 0
    }

    /// What one name stands for.
    pub(super) fn by(name: &HeaderName) -> Present {
        match *name {
            CONNECTION => Present::CONNECTION.and(Present::HOP_BY_HOP),
            TE => Present::TE.and(Present::HOP_BY_HOP),
            TRANSFER_ENCODING => Present::TRANSFER_ENCODING.and(Present::HOP_BY_HOP),
            UPGRADE => Present::UPGRADE.and(Present::HOP_BY_HOP),
            PROXY_AUTHENTICATE | PROXY_AUTHORIZATION => Present::HOP_BY_HOP,
            COOKIE => Present::COOKIE,
            EXPECT => Present::EXPECT,
            FORWARDED => Present::CLAIMS,
            TRAILER => Present::TRAILER,
            VIA => Present::VIA.and(Present::CLAIMS),
            _ => Present::by_text(name.as_str()),
        }
    }

    /// The same of names that the library does not know. They are in lower case.
    fn by_text(name: &str) -> Present {
        match name.as_bytes() {
            b"x-request-id" => Present::REQUEST_ID,
            b"keep-alive" | b"proxy-connection" | b"http2-settings" => Present::HOP_BY_HOP,
            [b'x', ..] if is_claim(name) => Present::CLAIMS,
            [b'r', rest @ ..] if rest.starts_with(b"aftgate-") => Present::HOP_BY_HOP,
            _ => Present(0),
        }
    }

    const fn and(self, other: Present) -> Present {
        Present(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_are_known_in_any_spelling_and_others_are_nothing() {
        let table: [(&str, &[Present]); 25] = [
            ("Connection", &[Present::CONNECTION, Present::HOP_BY_HOP]),
            ("TE", &[Present::TE, Present::HOP_BY_HOP]),
            ("Transfer-Encoding", &[Present::TRANSFER_ENCODING, Present::HOP_BY_HOP]),
            ("Upgrade", &[Present::UPGRADE, Present::HOP_BY_HOP]),
            ("Proxy-Authenticate", &[Present::HOP_BY_HOP]),
            ("Proxy-Authorization", &[Present::HOP_BY_HOP]),
            ("Keep-Alive", &[Present::HOP_BY_HOP]),
            ("Proxy-Connection", &[Present::HOP_BY_HOP]),
            ("HTTP2-Settings", &[Present::HOP_BY_HOP]),
            ("Raftgate-Revision", &[Present::HOP_BY_HOP]),
            ("Cookie", &[Present::COOKIE]),
            ("Expect", &[Present::EXPECT]),
            ("X-Request-ID", &[Present::REQUEST_ID]),
            ("Trailer", &[Present::TRAILER]),
            ("Via", &[Present::VIA, Present::CLAIMS]),
            ("Forwarded", &[Present::CLAIMS]),
            ("X-Real-IP", &[Present::CLAIMS]),
            ("X-Forwarded-For", &[Present::CLAIMS]),
            ("X-Forwarded-Anything", &[Present::CLAIMS]),
            ("X-Forwarded-Client-Cert", &[]),
            ("X-Forwarded", &[]),
            ("X-Raftgate", &[]),
            ("Raftgate", &[]),
            ("Host", &[]),
            ("X", &[]),
        ];
        let all = (0..11).map(|bit| Present(1 << bit));
        for (name, expected) in table {
            let mut headers = HeaderMap::new();
            headers.append("accept", HeaderValue::from_static("a"));
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("b"));
            let present = Present::of(&headers);
            for field in all.clone() {
                assert_eq!(present.has(field), expected.contains(&field), "{name} {field:?}");
            }
        }
    }
}
