//! What is true of who sent a request: the fields that tell it, as rules match on them and backends get them.
//!
//! A sender that is no trusted proxy is not believed what it says of itself or of those before it. The proxy sets these fields before it looks
//! for a rule, and whoever explains a request sets them by the same functions.

use std::net::IpAddr;

use http::header::{HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who sent a request, for [`set_forwarded`].
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// Its address.
    pub address: &'a HeaderValue,
    /// Whether what it says of others is believed.
    pub is_trusted: bool,
    /// Whether it came over TLS.
    pub is_secured: bool,
    /// Whether a field of the request is one that [`is_claim`].
    pub makes_claims: bool,
    /// What the request was received by.
    pub version: Version,
}

/// Whether `peer` belongs to one of `networks`, each an address and the length of its prefix.
pub fn belongs_to(networks: &[(IpAddr, u8)], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    networks.iter().any(|&(network, prefix)| match (network.to_canonical(), peer) {
        (IpAddr::V4(network), IpAddr::V4(peer)) => has_prefix(network.to_bits().into(), peer.to_bits().into(), 32, prefix),
        (IpAddr::V6(network), IpAddr::V6(peer)) => has_prefix(network.to_bits(), peer.to_bits(), 128, prefix),
        _ => false,
    })
}

fn has_prefix(network: u128, peer: u128, bits: u32, prefix: u8) -> bool {
    let rest = bits.saturating_sub(u32::from(prefix));
    network.checked_shr(rest).unwrap_or(0) == peer.checked_shr(rest).unwrap_or(0)
}

/// Whether a field, named in lower case, is what a sender says of itself or of those before it. `X-Forwarded-Client-Cert` is the handshake's to
/// tell ([`set_client_certificate`]). A name with underscores counts as the one with hyphens: behind CGI and its like both are one variable
/// (RFC 3875 4.1.18).
pub fn is_claim(name: &str) -> bool {
    if name.contains('_') {
        // Nobody but a client writes it so.
        return name.starts_with('x') && is_plain_claim(&name.replace('_', "-"));
    }
    is_plain_claim(name) && name != X_FORWARDED_CLIENT_CERT
}

/// Whether a field, named in lower case, is a claim, or tells of a client's certificate, by either way to write it.
pub fn is_told_of_senders(name: &str) -> bool {
    is_claim(name) || name == X_FORWARDED_CLIENT_CERT
}

fn is_plain_claim(name: &str) -> bool {
    matches!(name, "via" | "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// The scheme of what comes over TLS, or in clear text.
pub fn scheme(is_secured: bool) -> &'static str {
    if is_secured { "https" } else { "http" }
}

/// Sets `X-Forwarded-Client-Cert` to what the handshake told of the client. What a client says there itself never counts; what a trusted
/// proxy says of its own client does, and comes first.
pub fn set_client_certificate(headers: &mut HeaderMap, client: Option<&HeaderValue>, is_trusted: bool) {
    if !is_trusted {
        headers.remove(X_FORWARDED_CLIENT_CERT);
    }
    if let Some(client) = client {
        append_to_list(headers, X_FORWARDED_CLIENT_CERT, client);
    }
}

/// Sets `Host`, `X-Forwarded-*` and `Via`: to what is true, and to what a trusted proxy says. `authority` is the host and port that are meant.
/// The client's certificate is told already.
pub fn set_forwarded(headers: &mut HeaderMap, authority: &HeaderValue, is_host: bool, sender: Sender<'_>) {
    if !sender.is_trusted && sender.makes_claims {
        let names: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
    let scheme = HeaderValue::from_static(scheme(sender.is_secured));
    if sender.is_trusted && sender.makes_claims {
        append_to_list(headers, X_FORWARDED_FOR, sender.address);
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| authority.clone());
        extend_via(headers, sender.version);
    } else {
        headers.insert(X_FORWARDED_FOR, sender.address.clone());
        headers.insert(X_FORWARDED_PROTO, scheme);
        headers.insert(X_FORWARDED_HOST, authority.clone());
        headers.insert(VIA, via(sender.version));
    }
    if !is_host {
        headers.insert(HOST, authority.clone());
    }
}

/// Adds the gateway to `Via`, for a message that was received by `version` (RFC 9110 7.6.3).
pub fn extend_via(headers: &mut HeaderMap, version: Version) {
    append_to_list(headers, VIA, &via(version));
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 raftgate",
        Version::HTTP_10 => "1.0 raftgate",
        _ => "1.1 raftgate",
    })
}

/// Makes one line of a list that may stand in several, with `value` at its end: not every reader looks further than one line.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut lines: Vec<&[u8]> =
        headers.get_all(&name).iter().map(HeaderValue::as_bytes).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        headers.insert(name, value.clone());
        return;
    }
    lines.push(value.as_bytes());
    let list = HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("valid values joined by a comma are a valid value");
    headers.insert(name, list);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fields as they stand on lines.
    pub(crate) fn map(text: &str) -> HeaderMap {
        let lines = text.lines().map(|line| line.trim().split_once(": ").unwrap());
        lines.map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    /// The same back, in order.
    pub(crate) fn text(headers: &HeaderMap) -> String {
        let lines = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn networks_are_told_by_prefix() {
        let networks = [("10.0.0.0", 8), ("2001:db8::", 32), ("192.0.2.7", 32)];
        let networks = networks.map(|(address, bits)| (address.parse().unwrap(), bits));
        for (peer, expected) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
        ] {
            assert_eq!(belongs_to(&networks, peer.parse().unwrap()), expected, "{peer}");
        }
        assert!(belongs_to(&[("0.0.0.0".parse().unwrap(), 0)], "203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn believes_only_trusted_senders() {
        let claims = "Forwarded: for=9.9.9.9\nX-Forwarded-For: 8.8.8.8\nX-Forwarded-For: 9.9.9.9\nX-Forwarded-Proto: https\nX-Forwarded-Port: 1\nVia: 1.0 a\nX-Real-IP: 9.9.9.9";
        let authority = HeaderValue::from_static("a.example:81");
        let address = HeaderValue::from_static("192.0.2.1");
        let sender =
            Sender { address: &address, is_trusted: false, is_secured: false, makes_claims: true, version: Version::HTTP_2 };
        let mut headers = map(claims);
        set_forwarded(&mut headers, &authority, false, sender);
        let expected = "host: a.example:81\nvia: 2 raftgate\nx-forwarded-for: 192.0.2.1\nx-forwarded-host: a.example:81\nx-forwarded-proto: http";
        assert_eq!(text(&headers), expected);

        let mut headers = map(claims);
        set_forwarded(&mut headers, &authority, false, Sender { is_trusted: true, ..sender });
        let text = text(&headers);
        assert!(text.contains("x-forwarded-for: 8.8.8.8, 9.9.9.9, 192.0.2.1"), "{text}");
        assert!(text.contains("x-forwarded-proto: https") && text.contains("forwarded: for=9.9.9.9"), "{text}");
        assert!(text.contains("via: 1.0 a, 2 raftgate"), "{text}");
    }

    #[test]
    fn claims_are_known_in_every_spelling_that_a_backend_may_take_for_one() {
        let claims =
            ["via", "forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-anything", "x_forwarded_for", "x-forwarded_for"];
        let certificates = ["x_forwarded_client_cert", "x-forwarded-client_cert", "x_real_ip"];
        assert_eq!(claims.iter().chain(&certificates).find(|name| !is_claim(name)), None);
        let others = ["x-forwarded-client-cert", "x-forwarded", "x_request_id", "a_b", "viable", "host"];
        assert_eq!(others.iter().find(|name| is_claim(name)), None);
    }

    #[test]
    fn a_certificate_is_told_by_who_verified_it() {
        let (ours, sent) = ("Hash=1", "Hash=2;Subject=\"CN=admin\"");
        let claims = format!("X-Forwarded-Client-Cert: {sent}");
        let kept = format!("x-forwarded-client-cert: {sent}");
        let both = format!("{kept}, {ours}");
        let table = [
            ("", Some(ours), false, "x-forwarded-client-cert: Hash=1"),
            (&claims, Some(ours), false, "x-forwarded-client-cert: Hash=1"),
            (&claims, None, false, ""),
            (&claims, None, true, &kept),
            (&claims, Some(ours), true, &both),
        ];
        for (before, client, is_trusted, after) in table {
            let mut headers = map(before);
            set_client_certificate(&mut headers, client.map(HeaderValue::from_static).as_ref(), is_trusted);
            assert_eq!(text(&headers), after, "{before} {client:?} {is_trusted}");
        }
    }
}
