//! How hostnames of listeners select: Gateway API's listener isolation.

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

#[cfg(test)]
mod tests {
    use super::{fit, taking};

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
