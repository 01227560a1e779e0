//! Which host a request means. One function, for routing and for forwarding alike.

use http::header::HOST;
use http::{HeaderValue, Version, request};

use super::fault::Fault;
use crate::model::hostname::{host_of, without_dot};

/// A request's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// As it goes on in `Host`: as sent, port included.
    pub(super) field: HeaderValue,
    /// How many bytes of it are the host.
    host_bytes: usize,
    /// The host in lower case, where it was not sent so.
    lower: Option<Box<str>>,
    /// Whether the request's `Host` says just this.
    pub(super) is_host: bool,
}

impl Authority {
    /// `host` is the host that `field` begins with.
    fn new(field: HeaderValue, host: &str, is_host: bool) -> Authority {
        let host = without_dot(host);
        let lower = host.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| host.to_ascii_lowercase().into());
        Authority { host_bytes: host.len(), lower, is_host, field }
    }

    /// The host in lower case, without port and without the dot of a fully qualified name.
    pub(super) fn host(&self) -> &str {
        match &self.lower {
            Some(lower) => lower,
            None => self.field.to_str().unwrap_or_default().get(..self.host_bytes).unwrap_or_default(),
        }
    }
}

/// The authority of a request. Over HTTP/1.1 (RFC 9112 3.2): exactly one valid `Host`, and over it the authority of an absolute-form
/// target. Over HTTP/2 (RFC 9113 8.3.1): `:authority`, or else `Host`, and the same where both are there.
pub(super) fn authority(head: &request::Parts) -> Result<Authority, Fault> {
    let is_http2 = head.version == Version::HTTP_2;
    let mut fields = head.headers.get_all(HOST).iter();
    let host = fields.next();
    if fields.next().is_some() {
        return Err(Fault::bad_request("Host stands more than once"));
    }
    let host_text = host.map(|host| host.to_str().ok().and_then(host_of));
    if host_text == Some(None) {
        return Err(Fault::bad_request("Host is not a host and port"));
    }
    match (head.uri.authority(), host) {
        (None, None) => Err(Fault::bad_request(if is_http2 { ":authority is missing" } else { "Host is missing" })),
        (Some(_), None) if !is_http2 => Err(Fault::bad_request("Host is missing")),
        (None, Some(host)) => Ok(Authority::new(host.clone(), host_text.flatten().unwrap_or_default(), true)),
        (Some(authority), Some(host)) if is_http2 && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(Fault::bad_request("Host is not what :authority says"))
        }
        (Some(authority), _) => match (HeaderValue::from_str(authority.as_str()), host_of(authority.as_str())) {
            (Ok(field), Some(host)) => Ok(Authority::new(field, host, false)),
            _ => Err(Fault::bad_request("the target's authority is not a host and port")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: Version, target: &str, hosts: &[&str]) -> Option<(String, String)> {
        let mut request = http::Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let authority = authority(&request.body(()).unwrap().into_parts().0).ok()?;
        Some((authority.field.to_str().unwrap().to_owned(), authority.host().to_owned()))
    }

    #[test]
    fn one_authority_is_meant_or_none() {
        type Case<'a> = (&'a str, &'a [&'a str], Option<(&'a str, &'a str)>);
        let table: &[Case<'_>] = &[
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
            assert_eq!(found(Version::HTTP_11, target, hosts), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn over_http2_the_authority_is_said_once_or_twice_the_same() {
        let table: &[(&str, &[&str], Option<&str>)] = &[
            ("http://a.example/p", &[], Some("a.example")),
            ("http://a.example:81/p", &["A.example:81"], Some("a.example:81")),
            ("/p", &["a.example"], Some("a.example")),
            ("http://a.example/p", &["b.example"], None),
            ("http://a.example/p", &["a.example", "a.example"], None),
            ("http://u@a.example/p", &[], None),
            ("/p", &[], None),
        ];
        for (target, hosts, expected) in table {
            let found = found(Version::HTTP_2, target, hosts).map(|(field, _)| field);
            assert_eq!(found.as_deref(), *expected, "{target} {hosts:?}");
        }
    }
}
