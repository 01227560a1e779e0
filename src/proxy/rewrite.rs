//! Paths that change on the way, and where redirects point.

use std::borrow::Cow;

use crate::model::spec::{PathModifier, RedirectScheme, RequestRedirect};
use crate::table::Captures;

/// `path` as `modifier` makes it. `prefix` is the value of the `PathPrefix` match that held.
pub(super) fn modified_path<'a>(modifier: &'a PathModifier, path: &str, prefix: &str, captures: Captures<'_>) -> Cow<'a, str> {
    match modifier {
        PathModifier::ReplaceFullPath(replacement) => fill(replacement, captures),
        // The whole server has no path, and so no prefix of one.
        PathModifier::ReplacePrefixMatch(_) if path == "*" => Cow::Borrowed("*"),
        PathModifier::ReplacePrefixMatch(replacement) => Cow::Owned(replace_prefix(path, prefix, replacement)),
    }
}

/// The table of routing.md: neither a slash twice nor none between replacement and rest.
fn replace_prefix(path: &str, prefix: &str, replacement: &str) -> String {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
    match (replacement, rest) {
        ("", "") => "/".to_owned(),
        _ => [replacement, rest].concat(),
    }
}

/// Puts captured values in place of `{name}`; a name without a value stays as it is.
fn fill<'a>(replacement: &'a str, captures: Captures<'_>) -> Cow<'a, str> {
    if captures.is_empty() || !replacement.contains('{') {
        return Cow::Borrowed(replacement);
    }
    let mut filled = String::with_capacity(replacement.len() + 32);
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}').and_then(|(name, after)| Some((captures.get(name.trim_start_matches('*'))?, after))) {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Cow::Owned(filled)
}

/// Where a request that is redirected came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here {
    /// Whether over TLS.
    pub(super) is_https: bool,
    /// The listener's port.
    pub(super) port: u16,
}

/// The `Location` of a redirect.
pub(super) fn location(redirect: &RequestRedirect, here: Here, host: &str, path: &str, query: Option<&str>) -> String {
    let is_https = redirect.scheme.map_or(here.is_https, |scheme| scheme == RedirectScheme::Https);
    let (scheme, well_known) = if is_https { ("https", 443) } else { ("http", 80) };
    // Gateway API: an explicit port, else the well-known one of an explicit scheme, else the listener's.
    let port = redirect.port.unwrap_or(if redirect.scheme.is_some() { well_known } else { here.port });
    let host = redirect.hostname.as_deref().unwrap_or(host);
    let mut location = format!("{scheme}://{host}");
    if port != well_known {
        location.push_str(&format!(":{port}"));
    }
    // A URL of the whole server (`OPTIONS *`) has no path (RFC 9112 3.2.4).
    location.push_str(if path == "*" { "/" } else { path });
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    location
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn replaces_a_prefix_as_the_standard_tables_it() {
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a/b", "/", "/x", "/x/a/b"),
            ("/", "/", "/x", "/x/"),
            ("*", "/", "/x", "*"),
        ];
        for (path, prefix, replacement, expected) in table {
            let modifier = PathModifier::ReplacePrefixMatch(replacement.to_owned());
            assert_eq!(modified_path(&modifier, path, prefix, Captures::default()), expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn a_replacement_without_captures_is_literal() {
        let modifier = PathModifier::ReplaceFullPath("/v2/{id}".into());
        assert_eq!(modified_path(&modifier, "/x", "/", Captures::default()), "/v2/{id}");
    }

    #[test]
    fn redirects_follow_the_port_rules() {
        use RedirectScheme::{Http, Https};
        let table = [
            (None, None, 8081, "http://a.example:8081/p?q=1"),
            (None, None, 80, "http://a.example/p?q=1"),
            (Some(Http), None, 8081, "http://a.example/p?q=1"),
            (Some(Https), None, 8081, "https://a.example/p?q=1"),
            (Some(Https), Some(443), 8081, "https://a.example/p?q=1"),
            (Some(Https), Some(8443), 8081, "https://a.example:8443/p?q=1"),
            (Some(Http), Some(443), 8081, "http://a.example:443/p?q=1"),
            (None, Some(80), 8081, "http://a.example/p?q=1"),
        ];
        for (scheme, port, listener_port, expected) in table {
            let redirect = RequestRedirect { scheme, hostname: None, path: None, port, status_code: StatusCode::FOUND };
            let here = Here { is_https: false, port: listener_port };
            assert_eq!(location(&redirect, here, "a.example", "/p", Some("q=1")), expected);
        }
        let hostname = Some("b.example".to_owned());
        let redirect = RequestRedirect { scheme: None, hostname, path: None, port: None, status_code: StatusCode::FOUND };
        for (is_https, port, expected) in [
            (false, 80, "http://b.example/"),
            (false, 443, "http://b.example:443/"),
            (true, 443, "https://b.example/"),
            (true, 80, "https://b.example:80/"),
        ] {
            assert_eq!(location(&redirect, Here { is_https, port }, "a.example", "/", None), expected);
        }
    }
}
