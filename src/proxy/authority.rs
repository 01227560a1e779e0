//! Which host a request means. One function, for routing and for forwarding alike.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};

use super::fault::Fault;

/// A request's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// As it goes on in `Host`: as sent, port included.
    pub(super) field: HeaderValue,
}

impl Authority {
    /// The host in lower case, without port and without the dot of a fully qualified name.
    pub(super) fn host(&self) -> Cow<'_, str> {
        let text = self.field.to_str().unwrap_or_default();
        let (host, _) = split_port(text);
        let host = host.strip_suffix('.').unwrap_or(host);
        match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        }
    }
}

/// The authority of a request (RFC 9112 3.2): exactly one valid `Host`, and over it the authority of an absolute-form target.
pub(super) fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Fault> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next().ok_or(Fault::bad_request("Host is missing"))?;
    if fields.next().is_some() {
        return Err(Fault::bad_request("Host stands more than once"));
    }
    if !field.to_str().is_ok_and(is_valid) {
        return Err(Fault::bad_request("Host is not a host and port"));
    }
    match uri.authority() {
        None => Ok(Authority { field: field.clone() }),
        Some(authority) => match HeaderValue::from_str(authority.as_str()) {
            Ok(field) if is_valid(authority.as_str()) => Ok(Authority { field }),
            _ => Err(Fault::bad_request("the target's authority is not a host and port")),
        },
    }
}

/// `host`, `host:port`, with a registered name, an IPv4 address or an IPv6 address in brackets (RFC 3986 3.2.2), never with user
/// information.
fn is_valid(text: &str) -> bool {
    let (host, port) = split_port(text);
    let port_is_valid =
        port.is_none_or(|port| port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    host_is_valid && port_is_valid
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(target: &str, hosts: &[&str]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let authority = authority(&target.parse().unwrap(), &headers).ok()?;
        Some((authority.field.to_str().unwrap().to_owned(), authority.host().into_owned()))
    }

    #[test]
    fn one_authority_is_meant_or_none() {
        let table: &[(&str, &[&str], Option<(&str, &str)>)] = &[
            ("/", &["a.example"], Some(("a.example", "a.example"))),
            ("/", &["A.Example:80"], Some(("A.Example:80", "a.example"))),
            ("/", &["a.example."], Some(("a.example.", "a.example"))),
            ("/", &["[::1]:80"], Some(("[::1]:80", "[::1]"))),
            ("/", &["[::1]"], Some(("[::1]", "[::1]"))),
            ("/", &["127.0.0.1:1"], Some(("127.0.0.1:1", "127.0.0.1"))),
            ("/", &[], None),
            ("/", &[""], None),
            ("/", &["a", "a"], None),
            ("/", &["a, b"], None),
            ("/", &["a@b"], None),
            ("/", &["a@b/c"], None),
            ("/", &["a/b"], None),
            ("/", &["a:x"], None),
            ("/", &["a:99999"], None),
            ("/", &["a:+1"], None),
            ("/", &["[::1"], None),
            ("/", &["::1"], None),
            ("/", &["a b"], None),
            ("http://x.example/p", &["y.example"], Some(("x.example", "x.example"))),
            ("http://x.example:81/p", &["y.example"], Some(("x.example:81", "x.example"))),
            ("http://u@x.example/p", &["x.example"], None),
            ("http://x.example/p", &[], None),
        ];
        for (target, hosts, expected) in table {
            let expected = expected.map(|(field, host)| (field.to_owned(), host.to_owned()));
            assert_eq!(found(target, hosts), expected, "{target} {hosts:?}");
        }
    }
}
