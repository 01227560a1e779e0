//! Requests to speak something else from here on: `Upgrade` of HTTP/1.1 (RFC 9110 7.8) and extended CONNECT of HTTP/2 (RFC 8441).
//!
//! Both become one thing, which is matched and filtered as the GET that it is over HTTP/1.1, and sent to the backend as an `Upgrade`. The
//! connection changes only once the backend itself said 101 to the protocol that was asked for (CVE-2026-2833).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, request};
use sha1::{Digest, Sha1};

use super::fault::Fault;
use super::present::Present;

const WEBSOCKET: &str = "websocket";
const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const VERSION_13: HeaderValue = HeaderValue::from_static("13");
/// Appended to the key by RFC 6455 4.2.2.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client asks to speak.
#[derive(Debug)]
pub(super) struct Upgrade {
    protocol: HeaderValue,
    /// What the backend has to answer to the key of a WebSocket.
    accept: Option<String>,
    /// Whether the client asked by CONNECT.
    is_connect: bool,
}

impl Upgrade {
    /// What this request asks for, if anything. CONNECT with a protocol is turned into the GET that means the same.
    pub(super) fn of(
        head: &mut request::Parts,
        present: Present,
        random: impl FnOnce() -> u128,
    ) -> Result<Option<Upgrade>, Fault> {
        match head.extensions.get::<Protocol>() {
            Some(protocol) if head.method == Method::CONNECT => {
                let protocol =
                    HeaderValue::from_str(protocol.as_str()).map_err(|_| Fault::bad_request(":protocol is not valid"))?;
                Upgrade::by_connect(head, protocol, random()).map(Some)
            }
            _ if head.version == Version::HTTP_11 && present.has(Present::UPGRADE) => Upgrade::by_field(head),
            _ => Ok(None),
        }
    }

    fn by_connect(head: &mut request::Parts, protocol: HeaderValue, random: u128) -> Result<Upgrade, Fault> {
        if !is_websocket(&protocol) {
            return Err(Fault::not_implemented("extended CONNECT to a protocol other than websocket"));
        }
        if head.headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version != VERSION_13) {
            return Err(Fault::websocket_version());
        }
        if head.headers.contains_key(CONTENT_LENGTH) {
            // What follows belongs to the tunnel (RFC 9110 9.3.6).
            return Err(Fault::bad_request("CONNECT has no body, and no Content-Length"));
        }
        head.method = Method::GET;
        let key = BASE64_STANDARD.encode(random.to_be_bytes());
        let accept = Some(accept_of(key.as_bytes()));
        head.headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
        head.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).expect("base64 is a valid value"));
        Ok(Upgrade { protocol, accept, is_connect: true })
    }

    fn by_field(head: &request::Parts) -> Result<Option<Upgrade>, Fault> {
        let headers = &head.headers;
        let mut asked = headers.get_all(UPGRADE).iter();
        let Some(protocol) = asked.next().filter(|_| lists_upgrade(headers)) else { return Ok(None) };
        let has_body = headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        if asked.next().is_some() || !is_one_protocol(protocol) || is_http2(protocol) || has_body {
            // Nobody has to take an offer up (RFC 9110 7.8).
            return Ok(None);
        }
        let accept = match is_websocket(protocol) {
            true => Some(accept_of(websocket_key(head)?)),
            false => None,
        };
        Ok(Some(Upgrade { protocol: protocol.clone(), accept, is_connect: false }))
    }

    /// Asks the backend. Called after the fields of the client's connection were removed.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADE_TOKEN);
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// Whether a backend's answer takes it up: 101, the same protocol, and over a WebSocket the right answer to the key.
    pub(super) fn is_taken_up<B>(&self, answer: &Response<B>) -> bool {
        let headers = answer.headers();
        let is_same = headers.get(UPGRADE).is_some_and(|told| told.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()));
        let is_accepted = match &self.accept {
            None => true,
            Some(accept) => headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|told| told.as_bytes() == accept.as_bytes()),
        };
        answer.status() == StatusCode::SWITCHING_PROTOCOLS && is_same && is_accepted
    }

    /// Whether this answer of a backend, passed on as it is, would tell the client that it was taken up though it was not: to CONNECT any 2xx
    /// does (RFC 8441 5), and a backend means by it what it means to the GET that it got.
    pub(super) fn is_mistaken_for(&self, status: StatusCode) -> bool {
        self.is_connect && status.is_success()
    }

    /// Turns the backend's 101 into the client's answer. Called after the fields of the backend's connection were removed.
    pub(super) fn tell(&self, head: &mut Response<()>) {
        if self.is_connect {
            *head.status_mut() = StatusCode::OK;
            head.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            self.ask(head.headers_mut());
        }
    }
}

fn lists_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// A list would leave the choice to the backend, and us to compare.
fn is_one_protocol(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| !text.is_empty() && !text.contains([',', ' ', '\t']))
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

/// HTTP/2 is agreed on with the gateway, never with a backend through it.
fn is_http2(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
        || protocol.as_bytes().starts_with(b"HTTP/")
}

/// The key of a handshake that is right otherwise too (RFC 6455 4.2.1).
fn websocket_key(head: &request::Parts) -> Result<&[u8], Fault> {
    if head.method != Method::GET {
        return Err(Fault::bad_request("a WebSocket begins with GET"));
    }
    if head.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION_13) {
        return Err(Fault::websocket_version());
    }
    let mut keys = head.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    match (key, keys.next()) {
        (Some(key), None) => Ok(key.as_bytes()),
        _ => Err(Fault::bad_request("Sec-WebSocket-Key is not one key of 16 bytes")),
    }
}

fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    BASE64_STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

    fn head(method: &str, fields: &str) -> request::Parts {
        let mut request = Request::builder().method(method);
        for line in fields.lines() {
            let (name, value) = line.trim().split_once(": ").unwrap();
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `None`: refused; `Some("")`: no upgrade.
    fn asked(method: &str, fields: &str) -> Option<String> {
        let mut head = head(method, fields);
        let present = Present::of(&head.headers);
        let asked = Upgrade::of(&mut head, present, || 0).ok()?;
        Some(asked.map_or(String::new(), |upgrade| upgrade.protocol.to_str().unwrap().to_owned()))
    }

    #[test]
    fn only_a_clear_offer_is_passed_on() {
        let websocket = format!("Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n{KEY}");
        let table = [
            ("GET", websocket.clone(), Some("websocket")),
            ("GET", websocket.replace("Upgrade\n", "keep-alive, uPGRADE\n"), Some("websocket")),
            ("POST", websocket.clone(), None),
            ("GET", websocket.replace("13", "8"), None),
            ("GET", websocket.replace("==", ""), None),
            ("GET", format!("{websocket}\n{KEY}"), None),
            ("GET", "Connection: upgrade\nUpgrade: websocket".into(), None),
            ("GET", websocket.replace("Connection: Upgrade\n", ""), Some("")),
            ("GET", format!("{websocket}\nContent-Length: 5"), Some("")),
            ("GET", format!("{websocket}\nContent-Length: 0"), Some("websocket")),
            ("GET", format!("{websocket}\nTransfer-Encoding: chunked"), Some("")),
            ("GET", "Connection: upgrade\nUpgrade: h2c".into(), Some("")),
            ("GET", "Connection: upgrade\nUpgrade: HTTP/2.0".into(), Some("")),
            ("GET", "Connection: upgrade\nUpgrade: websocket, h2c".into(), Some("")),
            ("GET", "Connection: upgrade\nUpgrade: a\nUpgrade: b".into(), Some("")),
            ("POST", "Connection: upgrade\nUpgrade: custom/1".into(), Some("custom/1")),
            ("GET", "Accept: a".into(), Some("")),
        ];
        for (method, fields, expected) in table {
            assert_eq!(asked(method, &fields).as_deref(), expected, "{method} {fields}");
        }
    }

    #[test]
    fn only_the_right_answer_opens_the_tunnel() {
        let fields = format!("Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n{KEY}");
        let upgrade = Upgrade::of(&mut head("GET", &fields), Present::UPGRADE, || 0).unwrap().unwrap();
        let right = "Upgrade: WebSocket\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let table = [
            (101, right.to_owned(), true),
            (200, right.to_owned(), false),
            (101, right.replace("s3p", "S3P"), false),
            (101, "Upgrade: websocket".into(), false),
            (101, right.replace("WebSocket\n", "other\n"), false),
        ];
        for (status, fields, expected) in table {
            let mut answer = Response::builder().status(status).body(()).unwrap();
            *answer.headers_mut() = head("GET", &fields).headers;
            assert_eq!(upgrade.is_taken_up(&answer), expected, "{status} {fields}");
        }
    }
}
