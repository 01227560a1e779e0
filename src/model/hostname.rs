//! Hosts of requests, and how hostnames of listeners select: Gateway API's listener isolation, and which routes they leave out.

/// The host of what is `host` or `host:port`, with a registered name, an IPv4 address or an IPv6 address in brackets (RFC 3986 3.2.2), never
/// with user information.
pub fn host_of(text: &str) -> Option<&str> {
    let (host, port) = split_port(text);
    let port_is_valid =
        port.is_none_or(|port| port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    (host_is_valid && port_is_valid).then_some(host)
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    // Not `rsplit_once`, which is made for texts that are longer than these.
    let colon = text.bytes().rposition(|byte| byte == b':').filter(|colon| !text.as_bytes()[*colon..].contains(&b']'));
    match colon {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    }
}

/// A host without the dot of a fully qualified name.
pub fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// How well the hostname `pattern` of a listener fits `host` (lower case, without a port): the greater, the more specific. `None`: not at
/// all. A listener without a hostname fits every host, and worse than any that has one.
fn fit(pattern: Option<&str>, host: &str) -> Option<(bool, usize)> {
    let Some(pattern) = pattern else { return Some((false, 0)) };
    match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((true, pattern.len())),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((false, pattern.len())),
    }
}

/// The listener that takes `host`, by the hostname of each: the one that fits best. `None`: none fits.
pub fn taking<'l, L>(listeners: impl Iterator<Item = &'l L>, hostname: impl Fn(&L) -> Option<&str>, host: &str) -> Option<&'l L> {
    let fitting = listeners.filter_map(|listener| Some((fit(hostname(listener), host)?, listener)));
    fitting.max_by_key(|(fit, _)| *fit).map(|(_, listener)| listener)
}

/// Whether some host matches both hostnames, each of which may be a wildcard (lower case).
pub fn intersect(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
        (None, _) => fit(Some(other), one).is_some(),
        (Some(_), None) => fit(Some(one), other).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::{fit, intersect, taking};

    #[test]
    fn hostnames_intersect_by_their_wildcards() {
        for (one, other, expected) in [
            ("a.com", "a.com", true),
            ("a.com", "b.com", false),
            ("*.a.com", "x.a.com", true),
            ("*.a.com", "x.y.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.a.com", "xa.com", false),
            ("*.a.com", "*.a.com", true),
            ("*.a.com", "*.x.a.com", true),
            ("*.a.com", "*.xa.com", false),
            ("*.com", "*.a.com", true),
        ] {
            assert_eq!((intersect(one, other), intersect(other, one)), (expected, expected), "{one} and {other}");
        }
    }

    #[test]
    fn exact_before_the_longer_wildcard_before_none() {
        let patterns = [None, Some("*.example.com"), Some("*.a.example.com"), Some("b.a.example.com")];
        let best = |host: &str| {
            let found = taking(patterns.iter(), |pattern| *pattern, host)?;
            patterns.iter().position(|pattern| pattern == found)
        };
        for (host, expected) in [
            ("b.a.example.com", 3),
            ("c.a.example.com", 2),
            ("x.y.a.example.com", 2),
            ("a.example.com", 1),
            ("example.com", 0),
            ("xexample.com", 0),
            ("10.0.0.1", 0),
        ] {
            assert_eq!(best(host), Some(expected), "{host}");
        }
        assert_eq!(fit(Some("*.example.com"), ".example.com"), None);
        assert_eq!(fit(Some("a.com"), "b.com"), None);
    }
}
