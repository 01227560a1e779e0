//! Host names and addresses.

use std::net::{Ipv4Addr, SocketAddr};

use super::report::shown;

/// Bytes of a host name at most (RFC 1123 2.1).
const HOSTNAME_BYTES_MAX: usize = 253;

/// Bytes of a label at most (RFC 1035 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A host name (RFC 1123, no IP address) in lower case, as Gateway API's `PreciseHostname`. Errors: a sentence that names the fault.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    well_formed(text)?;
    in_lower_case(text)
}

/// A host name whose first label may be `*`, as Gateway API's `Hostname`. Errors: a sentence that names the fault.
pub fn hostname_or_wildcard(text: &str) -> Result<String, String> {
    well_formed(text.strip_prefix("*.").unwrap_or(text))?;
    in_lower_case(text)
}

fn in_lower_case(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase() {
        lower if lower == text => Ok(lower),
        lower => Err(format!("a host name is written in lower case: {lower:?}")),
    }
}

fn well_formed(text: &str) -> Result<(), String> {
    if text.parse::<Ipv4Addr>().is_ok() || text.contains([':', '[']) {
        return Err("must be a host name without a port, not an IP address".to_owned());
    }
    if text.contains('*') {
        return Err("a wildcard is not allowed here, or only as the whole first label, as in \"*.example.com\"".to_owned());
    }
    if text.is_empty() || text.len() > HOSTNAME_BYTES_MAX {
        return Err(format!("a host name has 1 to {HOSTNAME_BYTES_MAX} characters"));
    }
    if !text.split('.').all(is_label) {
        return Err(format!(
            "a host name is labels of 1 to {LABEL_BYTES_MAX} letters, digits and inner `-`, separated by dots (RFC 1123)"
        ));
    }
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("the last label of a host name must not be a number".to_owned());
    }
    Ok(())
}

/// `host:port`, `ip:port` or `[ip6]:port`, turned into one spelling each. Errors: a sentence that names the fault.
pub(super) fn address(text: &str) -> Result<String, String> {
    let shape = || "an address is host:port, ip:port or [ip6]:port".to_owned();
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("{}, without the scheme {}", shape(), shown(&format!("{scheme}://"))));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or("the port must be a number from 1 to 65535")?;
    if let Some(inner) = host.strip_prefix('[') {
        let ip = inner.strip_suffix(']').and_then(|ip| ip.parse::<std::net::Ipv6Addr>().ok()).ok_or_else(shape)?;
        return Ok(SocketAddr::from((ip, port)).to_string());
    }
    if host.contains(':') {
        return Err("an IPv6 address stands in brackets, as in \"[::1]:80\"".to_owned());
    }
    match host.parse::<Ipv4Addr>() {
        Ok(ip) => Ok(SocketAddr::from((ip, port)).to_string()),
        Err(_) => well_formed(host).map(|()| format!("{}:{port}", host.to_ascii_lowercase())),
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
